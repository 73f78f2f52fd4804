// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

// ScenarioFifty takes machines that are created at once through their whole life, beside the straight line.
const ScenarioFifty = "fifty"

// Fifty says how large the scenario is.
type Fifty struct {
	Machines, Servers int
	Timing            maassim.Timing
	// Spread is the time over which the installations end.
	Spread time.Duration
	// Patience bounds each of: all deployments accepted, all machines provisioned, all gone.
	Patience time.Duration
}

// DefaultFifty is 50 machines at the latencies of one region worker.
func DefaultFifty() Fifty {
	timing := maassim.MeasuredTiming()
	timing.Deploy = -1 // The scenario ends installations.
	return Fifty{Machines: 50, Servers: 100, Timing: timing, Spread: 20 * time.Second, Patience: 4 * time.Minute}
}

// Budgets of the design, section 8.
const (
	budgetRatio       = 1.3
	budgetReadyMedian = 5
	budgetReadyP95    = 10
	budgetCalls       = 12
)

type fiftyRun struct {
	Fifty
	o      Options
	report *Report
	world  *world
	site   *site
	fleet  *fleet
	// before are the requests to the API server before there were machines.
	before map[string]float64
}

func runFifty(ctx context.Context, o Options, report *Report) (err error) {
	straight, err := newSite("floor", o.Fifty.Servers, o.Fifty.Timing)
	if err != nil {
		return err
	}
	o.step("the straight line: %d machines", o.Fifty.Machines)
	line, err := floor(ctx, straight, o.Fifty.Machines)
	if err != nil {
		return fmt.Errorf("the straight line: %w", err)
	}
	s, err := newSite("maas", o.Fifty.Servers, o.Fifty.Timing)
	if err != nil {
		return err
	}
	w, err := newWorld(ctx, o, ScenarioFifty, s)
	defer func() { err = errors.Join(err, w.down(ctx)) }()
	if err != nil {
		return err
	}
	r := &fiftyRun{Fifty: o.Fifty, o: o, report: report, world: w, site: s}
	if err := r.up(ctx, line, straight); err != nil {
		return err
	}
	if err := r.ready(ctx); err != nil {
		return err
	}
	return r.down(ctx)
}

// up measures created → deploy accepted.
func (r *fiftyRun) up(ctx context.Context, line []time.Duration, straight *site) error {
	r.o.step("%d machines created at once", r.Machines)
	r.world.profile("fifty-up", 30*time.Second)
	before, err := r.world.usage()
	if err != nil {
		return err
	}
	if r.before, err = r.world.requests(ctx); err != nil {
		return err
	}
	if r.fleet, err = r.world.createMachines(ctx, r.site, "", r.Machines); err != nil {
		return err
	}
	if err := r.fleet.awaitDeploys(ctx, r.Patience); err != nil {
		return err
	}
	end := time.Now()
	after, err := r.world.usage()
	if err != nil {
		return err
	}
	took := r.fleet.accepted(time.Time{})
	add := func(what string, value time.Duration) {
		r.report.add(ScenarioFifty, what, value.Seconds(), "s")
	}
	add("created → deploy accepted, median", median(took))
	add("created → deploy accepted, p95", p95(took))
	add("the straight line of this run, median", median(line))
	add("the straight line of this run, p95", p95(line))
	r.report.add(ScenarioFifty, "ratio to the straight line, median", median(took).Seconds()/median(line).Seconds(), "").within(budgetRatio)
	r.report.add(ScenarioFifty, "ratio to the straight line, p95", p95(took).Seconds()/p95(line).Seconds(), "")
	r.report.addUsage(ScenarioFifty, "on the way up", before, after)
	r.reportStages()
	least := reportBusy(r.report, "MAAS' own time, straight line: ", straight, straight.calls.all())
	spent := reportBusy(r.report, "MAAS' own time, to the last deploy: ", r.site, r.site.calls.between(r.fleet.start, end))
	if least > 0 {
		r.report.add(ScenarioFifty, "MAAS' own time, ratio", spent.Seconds()/least.Seconds(), "")
	}
	return nil
}

// ready measures Deployed → provisioned with installations that end one by one.
func (r *fiftyRun) ready(ctx context.Context) error {
	r.o.step("installations end within %s", r.Spread)
	before, err := r.world.usage()
	if err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	for _, name := range r.fleet.names {
		group.Go(func() error {
			if err := pause(groupCtx, rand.N(r.Spread)); err != nil {
				return err
			}
			return r.site.endDeployment(groupCtx, r.world.machines.get(name).systemID)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := r.fleet.await(ctx, "all machines are provisioned", r.Patience, isProvisioned); err != nil {
		return err
	}
	after, err := r.world.usage()
	if err != nil {
		return err
	}
	deployed := r.site.effected("deployed")
	var took []time.Duration
	for _, name := range r.fleet.names {
		seen := r.world.machines.get(name)
		took = append(took, seen.provisioned.Sub(deployed[seen.token]))
	}
	r.report.add(ScenarioFifty, "Deployed → machine ready, median", median(took).Seconds(), "s").within(budgetReadyMedian)
	r.report.add(ScenarioFifty, "Deployed → machine ready, p95", p95(took).Seconds(), "s").within(budgetReadyP95)
	r.report.addUsage(ScenarioFifty, "while installations end", before, after)
	return nil
}

// down deletes the machines and then counts the calls of their lives.
func (r *fiftyRun) down(ctx context.Context) error {
	r.o.step("all machines are deleted")
	start := time.Now()
	if err := r.fleet.remove(ctx); err != nil {
		return err
	}
	if err := r.fleet.await(ctx, "all machines are gone", r.Patience, isGone); err != nil {
		return err
	}
	took := make([]time.Duration, 0, r.Machines)
	for _, name := range r.fleet.names {
		took = append(took, r.world.machines.get(name).gone.Sub(start))
	}
	r.report.add(ScenarioFifty, "deleted → gone, median", median(took).Seconds(), "s")
	r.report.add(ScenarioFifty, "deleted → gone, p95", p95(took).Seconds(), "s")
	for _, machine := range r.site.region.Machines() {
		if machine.Status != maassim.StatusReady || machine.Owner != "" {
			return fmt.Errorf("server %s is %s and belongs to %q after all machines are gone", machine.SystemID, machine.StatusName, machine.Owner)
		}
	}
	calls := r.site.calls.between(r.fleet.start, time.Now())
	if len(calls) == 0 {
		return errors.New("no call to MAAS was recorded")
	}
	r.reportCalls(calls)
	if err := r.reportRequests(ctx); err != nil {
		return err
	}
	return r.world.addPeak(r.report, ScenarioFifty, "of all that")
}

// reportCalls counts the calls of a life by operation.
func (r *fiftyRun) reportCalls(calls []call) {
	sums := tallied(calls)
	direct := 0
	for _, operation := range slices.Sorted(maps.Keys(sums)) {
		sum := sums[operation]
		if sum.shared {
			r.report.add(ScenarioFifty, "MAAS calls, shared by all: "+operation, float64(sum.count), "in all")
			continue
		}
		direct += sum.count
		r.report.add(ScenarioFifty, "MAAS calls a machine life: "+operation, float64(sum.count)/float64(r.Machines), "")
	}
	r.report.add(ScenarioFifty, "MAAS calls a machine life, together", float64(direct)/float64(r.Machines), "").within(budgetCalls)
}

// reportRequests counts what a life costs the management cluster's API server.
func (r *fiftyRun) reportRequests(ctx context.Context) error {
	after, err := r.world.requests(ctx)
	if err != nil {
		return err
	}
	for _, method := range slices.Sorted(maps.Keys(after)) {
		r.report.add(ScenarioFifty, "API server requests a machine life: "+method, (after[method]-r.before[method])/float64(r.Machines), "")
	}
	return nil
}

// awaitDeploys waits until MAAS has accepted a deployment for each machine.
func (f *fleet) awaitDeploys(ctx context.Context, patience time.Duration) error {
	return f.world.until(ctx, "all deployments are accepted", patience, func(context.Context) (bool, string, error) {
		deploys := f.site.effected("deploy")
		n, why := f.world.machines.count(f.names, func(s sighting) bool { _, ok := deploys[s.token]; return ok && s.systemID != "" })
		return n == len(f.names), why, nil
	})
}

// accepted returns how long after its creation each machine's deployment was accepted. One that was not counts as if it had
// been at the time given; the zero time leaves it out.
func (f *fleet) accepted(otherwise time.Time) []time.Duration {
	deploys := f.site.effected("deploy")
	var took []time.Duration
	for _, name := range f.names {
		at, ok := deploys[f.world.machines.get(name).token]
		if !ok {
			at = otherwise
		}
		if !at.IsZero() {
			took = append(took, at.Sub(f.created[name]))
		}
	}
	return took
}

func (f *fleet) await(ctx context.Context, what string, patience time.Duration, is func(sighting) bool) error {
	return f.world.until(ctx, what, patience, func(context.Context) (bool, string, error) {
		n, why := f.world.machines.count(f.names, is)
		return n == len(f.names), why, nil
	})
}
