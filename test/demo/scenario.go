// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/checker"
)

// Scenario is how much of the main job is run.
type Scenario struct {
	// RedWorkers are the sizes red's MachineDeployment goes through, BlueWorkers the size of blue's.
	RedWorkers  []int
	BlueWorkers int
	// RedLast is the size red scales down to before it goes.
	RedLast int
	// GoodServers is how many servers can be used.
	GoodServers int
}

// Full is the demo: red 0 → 3 → 5 → 1 beside blue's two servers.
var Full = Scenario{RedWorkers: []int{3, 5}, BlueWorkers: 1, RedLast: 1, GoodServers: 10}

// Short is the same flow for tests: red 0 → 1 → 0 beside blue.
var Short = Scenario{RedWorkers: []int{1}, BlueWorkers: 1, RedLast: 0, GoodServers: 5}

// Phase is one step of a run and how long it took.
type Phase struct {
	Name string
	Took time.Duration
}

// Run is one run of a scenario.
type Run struct {
	World    *World
	Scenario Scenario
	Out      io.Writer
	Phases   []Phase
	Verdict  checker.Verdict

	red, blue *Tenant
	watch     *checker.Watch
}

// checkInterval is how often the invariants are checked while a step goes on.
const checkInterval = 2 * time.Second

// Play runs the scenario. It returns an error at the first thing that did not hold; the last verdict is then in Verdict too.
func (r *Run) Play(ctx context.Context) error {
	r.watch = r.World.Checker.Watch(ctx, checkInterval)
	defer r.watch.Stop()
	type step struct {
		name string
		do   func(context.Context) error
	}
	steps := []step{
		{"red: TenantVPC", r.createVPC("red", &r.red)},
		{"red: control plane Available", r.createCluster(&r.red, 0)},
	}
	for _, workers := range r.Scenario.RedWorkers {
		steps = append(steps, step{fmt.Sprintf("red: workers → %d", workers), func(ctx context.Context) error { return r.red.Scale(ctx, workers) }})
	}
	steps = append(
		steps,
		step{"blue: TenantVPC with the same CIDR", r.createVPC("blue", &r.blue)},
		step{fmt.Sprintf("blue: control plane and %d worker", r.Scenario.BlueWorkers), r.createCluster(&r.blue, r.Scenario.BlueWorkers)},
		step{fmt.Sprintf("red: workers → %d", r.Scenario.RedLast), func(ctx context.Context) error { return r.red.Scale(ctx, r.Scenario.RedLast) }},
		step{"blue: cluster deleted", func(ctx context.Context) error { return r.blue.DeleteCluster(ctx) }},
		step{"red: cluster deleted", func(ctx context.Context) error { return r.red.DeleteCluster(ctx) }},
		step{"TenantVPCs deleted", r.deleteVPCs},
		step{"every server Ready and on no VPC", r.World.WaitBack},
	)
	for _, s := range steps {
		if err := r.step(ctx, s.name, s.do); err != nil {
			return err
		}
	}
	if unchecked := r.Verdict.Unchecked(); len(unchecked) > 0 {
		return fmt.Errorf("nothing was observed for %v: the run proves nothing about it", unchecked)
	}
	return nil
}

// step does one step, shows where everything stands, and holds all that happened against the invariants.
func (r *Run) step(ctx context.Context, name string, do func(context.Context) error) error {
	fmt.Fprintf(r.Out, "\n── %s\n", name)
	started := time.Now()
	err := do(ctx)
	took := time.Since(started)
	r.Phases = append(r.Phases, Phase{Name: name, Took: took})
	if screenErr := r.World.Screen(context.WithoutCancel(ctx), r.Out); screenErr != nil && err == nil {
		err = screenErr
	}
	r.Verdict = r.watch.Verdict()
	fmt.Fprintln(r.Out, r.Verdict)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(r.Out, "  done in %s\n", took.Round(100*time.Millisecond))
	if !r.Verdict.Holds() {
		return fmt.Errorf("%s: invariants are broken", name)
	}
	verified, err := r.World.checkPosture(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(r.Out, "  posture verified of %d attachments\n", verified)
	return r.badServersUntouched()
}

func (r *Run) createVPC(name string, tenant **Tenant) func(context.Context) error {
	return func(ctx context.Context) error {
		var err error
		if *tenant, err = r.World.NewTenant(ctx, name); err != nil {
			return err
		}
		return (*tenant).CreateVPC(ctx)
	}
}

func (r *Run) createCluster(tenant **Tenant, workers int) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := (*tenant).CreateCluster(ctx, workers); err != nil {
			return err
		}
		if err := (*tenant).WaitControlPlane(ctx); err != nil {
			return err
		}
		return (*tenant).WaitNodes(ctx, workers+1)
	}
}

func (r *Run) deleteVPCs(ctx context.Context) error {
	for _, tenant := range []*Tenant{r.blue, r.red} {
		if err := tenant.DeleteVPC(ctx); err != nil {
			return err
		}
	}
	return nil
}

// badServersUntouched holds that nothing bad was ever deployed.
func (r *Run) badServersUntouched() error {
	for _, e := range r.World.MAAS.Journal() {
		at := slices.IndexFunc(r.World.Servers, func(s Server) bool { return s.SystemID == e.SystemID })
		if at >= 0 && !r.World.Servers[at].Good() && e.Operation == "deploy" {
			return fmt.Errorf("server %s was deployed although %s", e.SystemID, r.World.Servers[at].Trouble)
		}
	}
	return nil
}
