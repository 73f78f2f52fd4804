// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

// ScenarioHung lets one MAAS hang and measures machines of another.
const ScenarioHung = "hung"

// Hung says how large the scenario is.
type Hung struct {
	// Machines are those measured; Others are created before them in the region that hangs. More of them than the manager
	// reconciles at once are the hard case.
	Machines, Others int
	Timing           maassim.Timing
	// Patience bounds the run without fault; Slack times that run's p95 bounds the other.
	Patience time.Duration
	Slack    int
}

// DefaultHung is 20 machines beside 60 that hang.
func DefaultHung() Hung {
	timing := maassim.MeasuredTiming()
	timing.Deploy, timing.Workers = -1, 4 // As many as a production region has at least.
	return Hung{Machines: 20, Others: 60, Timing: timing, Patience: 3 * time.Minute, Slack: 3}
}

const budgetHung = 1.5

func runHung(ctx context.Context, o Options, report *Report) error {
	free, err := o.Hung.run(ctx, o, report, false, o.Hung.Patience)
	if err != nil {
		return fmt.Errorf("without a fault: %w", err)
	}
	patience := time.Duration(o.Hung.Slack) * max(free.p95, o.PollInterval)
	hung, err := o.Hung.run(ctx, o, report, true, patience)
	if err != nil {
		return fmt.Errorf("with a fault: %w", err)
	}
	line := report.add(ScenarioHung, "ratio to the run without fault, p95", hung.p95.Seconds()/free.p95.Seconds(), "")
	line.AtLeast = hung.late > 0
	line.within(budgetHung)
	return nil
}

// hungResult is what one run showed of the measured machines.
type hungResult struct {
	p95 time.Duration
	// late is how many had no deployment when patience ended.
	late int
}

func (h Hung) run(ctx context.Context, o Options, report *Report, fault bool, patience time.Duration) (result hungResult, err error) {
	name := "without fault"
	if fault {
		name = "other region hangs"
	}
	well, err := newSite("well", 2*h.Machines, h.Timing)
	if err != nil {
		return result, err
	}
	ill, err := newSite("ill", 2*h.Others, h.Timing)
	if err != nil {
		return result, err
	}
	w, err := newWorld(ctx, o, fmt.Sprintf("%s-%t", ScenarioHung, fault), well, ill)
	defer func() { err = errors.Join(err, w.down(ctx)) }()
	if err != nil {
		return result, err
	}
	if fault {
		ill.region.Inject(maassim.Fault{Kind: maassim.FaultHang})
	}
	o.step("%s: %d machines in one region, then %d in the other", name, h.Others, h.Machines)
	before, err := w.usage()
	if err != nil {
		return result, err
	}
	if _, err := w.createMachines(ctx, ill, "", h.Others); err != nil {
		return result, err
	}
	if fault {
		if err := w.until(ctx, "calls hang", patience, func(context.Context) (bool, string, error) {
			return ill.calls.openCalls() > 0, "no call is open", nil
		}); err != nil {
			return result, err
		}
	}
	fleet, err := w.createMachines(ctx, well, "", h.Machines)
	if err != nil {
		return result, err
	}
	err = fleet.awaitDeploys(ctx, patience)
	if err != nil && (!fault || ctx.Err() != nil || w.ctx.Err() != nil || !w.manager.Running()) {
		return result, err
	}
	after, err := w.usage()
	if err != nil {
		return result, err
	}
	took := fleet.accepted(time.Now())
	result.late = h.Machines - len(fleet.accepted(time.Time{}))
	result.p95 = p95(took)
	report.add(ScenarioHung, name+": created → deploy accepted, median", median(took).Seconds(), "s")
	report.add(ScenarioHung, name+": created → deploy accepted, p95", result.p95.Seconds(), "s").AtLeast = result.late > 0
	if fault {
		report.add(ScenarioHung, name+": machines without deployment at the end", float64(result.late), "")
		report.add(ScenarioHung, name+": calls of that region that were open at the end", float64(ill.calls.openCalls()), "")
	}
	report.addUsage(ScenarioHung, name, before, after)
	return result, w.addPeak(report, ScenarioHung)
}
