// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

// ScenarioPolls counts what MAAS is asked while nothing happens but waiting.
const ScenarioPolls = "polls"

// Polls says how large the scenario is.
type Polls struct {
	Servers int
	// InTransition are the numbers of machines that wait, in rising order.
	InTransition []int
	// Settle passes before each window.
	Settle, Window time.Duration
	Timing         maassim.Timing
	// Patience bounds how long the machines of one step take until they wait.
	Patience time.Duration
}

// DefaultPolls is 0, 50 and 500 among 1,000 servers, with a MAAS that is no bottleneck.
func DefaultPolls() Polls {
	return Polls{
		Servers: 1000, InTransition: []int{0, 50, 500}, Settle: shippedPollInterval, Window: time.Minute,
		Timing: maassim.Timing{Deploy: -1}, Patience: 3 * time.Minute,
	}
}

// fleetShare is how much of a fleet may be read a minute by whoever wants to see it all every ten minutes.
const fleetShare = 0.1

func runPolls(ctx context.Context, o Options, report *Report) (err error) {
	p := o.Polls
	s, err := newSite("maas", p.Servers, p.Timing)
	if err != nil {
		return err
	}
	o.step("%d servers are registered", p.Servers)
	// The way there is no part of what is measured.
	s.allocates = 16
	o.ManagerArgs = append(slices.Clone(o.ManagerArgs), "--kube-api-qps=1000", "--kube-api-burst=2000")
	w, err := newWorld(ctx, o, ScenarioPolls, s)
	defer func() { err = errors.Join(err, w.down(ctx)) }()
	if err != nil {
		return err
	}
	have := 0
	for _, n := range p.InTransition {
		started := time.Now()
		f, err := w.createMachines(ctx, s, fmt.Sprintf("%d-", n), n-have)
		if err != nil {
			return err
		}
		if err := f.awaitDeploys(ctx, p.Patience); err != nil {
			return err
		}
		have = n
		o.step("%d machines in transition after %s, measured for %s", n, time.Since(started).Round(time.Second), p.Window)
		if err := pause(ctx, p.Settle); err != nil {
			return err
		}
		w.profile(fmt.Sprintf("polls-%d", n), p.Window)
		if err := w.measurePolls(ctx, p, n, report); err != nil {
			return err
		}
	}
	return w.addPeak(report, ScenarioPolls, "of all that")
}

func (w *world) measurePolls(ctx context.Context, p Polls, n int, report *Report) error {
	before, err := w.usage()
	if err != nil {
		return err
	}
	from := time.Now()
	if err := pause(ctx, p.Window); err != nil {
		return err
	}
	after, err := w.usage()
	if err != nil {
		return err
	}
	calls := w.sites[0].calls.between(from, time.Now())
	sums := tallied(calls)
	minutes := p.Window.Minutes()
	machines, bytes := 0, 0
	for _, operation := range slices.Sorted(maps.Keys(sums)) {
		sum := sums[operation]
		report.add(ScenarioPolls, fmt.Sprintf("%d in transition: %s", n, operation), float64(sum.count)/minutes, "a minute")
		machines += sum.machines
		bytes += sum.bytes
	}
	// A poll reads what is in transition and nothing else; the fleet may be looked at once in ten minutes.
	// One poll more than the interval's share may fall into the window.
	polls := float64(p.Window/w.options.PollInterval+1) / minutes
	allowed := float64(n)*polls + fleetShare*float64(p.Servers)
	report.add(ScenarioPolls, fmt.Sprintf("%d in transition: requests, together", n), float64(len(calls))/minutes, "a minute")
	report.add(ScenarioPolls, fmt.Sprintf("%d in transition: machines read", n), float64(machines)/minutes, "a minute").within(allowed)
	report.add(ScenarioPolls, fmt.Sprintf("%d in transition: read", n), float64(bytes)/1024/minutes, "KiB a minute")
	report.addUsage(ScenarioPolls, fmt.Sprintf("%d in transition", n), before, after)
	return nil
}
