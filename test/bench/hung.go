// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

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

// hungRun is one of the two runs, with a world of its own.
type hungRun struct {
	Hung
	o     Options
	name  string
	fault bool
	// enough ends the wait for deployments; what was measured until then counts.
	enough <-chan struct{}

	report      Report
	median, p95 time.Duration
	// late is how many had no deployment at the end.
	late int
}

// runHung runs both worlds at the same time, so that what else the computer does slows both.
func runHung(ctx context.Context, o Options, report *Report) error {
	enough := make(chan struct{})
	free := &hungRun{Hung: o.Hung, o: o, name: "without fault"}
	hung := &hungRun{Hung: o.Hung, o: o, name: "other region hangs", fault: true, enough: enough}
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := free.run(groupCtx); err != nil {
			return fmt.Errorf("without a fault: %w", err)
		}
		defer close(enough)
		// As long as the other started no later than this one ended, it has all the time it is given.
		return pause(groupCtx, time.Duration(o.Hung.Slack)*max(free.p95, o.PollInterval))
	})
	group.Go(func() error {
		if err := hung.run(groupCtx); err != nil {
			return fmt.Errorf("with a fault: %w", err)
		}
		return nil
	})
	err := group.Wait()
	report.Lines = slices.Concat(report.Lines, free.report.Lines, hung.report.Lines)
	if err != nil {
		return err
	}
	report.add(ScenarioHung, "later than in the run without fault, median", (hung.median - free.median).Seconds(), "s")
	line := report.add(ScenarioHung, "ratio to the run without fault, p95", hung.p95.Seconds()/free.p95.Seconds(), "")
	line.AtLeast = hung.late > 0
	line.within(budgetHung)
	return nil
}

func (r *hungRun) run(ctx context.Context) (err error) {
	well, err := newSite("well", 2*r.Machines, r.Timing)
	if err != nil {
		return err
	}
	ill, err := newSite("ill", 2*r.Others, r.Timing)
	if err != nil {
		return err
	}
	w, err := newWorld(ctx, r.o, fmt.Sprintf("%s-%t", ScenarioHung, r.fault), well, ill)
	defer func() { err = errors.Join(err, w.down(ctx)) }()
	if err != nil {
		return err
	}
	if r.fault {
		ill.region.Inject(maassim.Fault{Kind: maassim.FaultHang})
	}
	r.o.step("%s: %d machines in one region, then %d in the other", r.name, r.Others, r.Machines)
	before, err := w.usage()
	if err != nil {
		return err
	}
	if _, err := w.createMachines(ctx, ill, "", r.Others); err != nil {
		return err
	}
	if err := w.until(ctx, "the other region is asked", r.Patience, func(context.Context) (bool, string, error) {
		return ill.calls.asked("list by token") > 0, "no token was looked for", nil
	}); err != nil {
		return err
	}
	fleet, err := w.createMachines(ctx, well, "", r.Machines)
	if err != nil {
		return err
	}
	if err := r.await(ctx, fleet); err != nil {
		return err
	}
	after, err := w.usage()
	if err != nil {
		return err
	}
	r.measure(fleet, ill)
	r.report.addUsage(ScenarioHung, r.name, before, after)
	return w.addPeak(&r.report, ScenarioHung, r.name)
}

// await waits for the deployments, but not for longer than enough.
func (r *hungRun) await(ctx context.Context, f *fleet) error {
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	group := &errgroup.Group{}
	group.Go(func() error {
		select {
		case <-waiting.Done():
		case <-r.enough:
		}
		stop()
		return nil
	})
	err := f.awaitDeploys(waiting, r.Patience)
	ended := waiting.Err() != nil && ctx.Err() == nil
	stop()
	_ = group.Wait() // It returns nothing.
	if err != nil && ended {
		return nil
	}
	return err
}

func (r *hungRun) measure(f *fleet, ill *site) {
	took := f.accepted(time.Now())
	r.late = r.Machines - len(f.accepted(time.Time{}))
	r.median, r.p95 = median(took), p95(took)
	r.report.add(ScenarioHung, r.name+": created → deploy accepted, median", r.median.Seconds(), "s")
	r.report.add(ScenarioHung, r.name+": created → deploy accepted, p95", r.p95.Seconds(), "s").AtLeast = r.late > 0
	if r.fault {
		r.report.add(ScenarioHung, r.name+": machines without deployment at the end", float64(r.late), "")
		r.report.add(ScenarioHung, r.name+": calls of that region that were open at the end", float64(ill.calls.openCalls()), "")
	}
}
