// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// listMachines is what the simulator calls every list of machines.
const listMachines = "list_machines"

// stage is a part of a machine's way up, by the calls at its ends.
type stage struct {
	what string
	took []time.Duration
}

// milestones are the calls of one machine that succeeded.
type milestones struct {
	created                    time.Time
	allocate, annotate, deploy call
}

// reportStages says where the time between creation and deploy goes.
func (r *fiftyRun) reportStages() {
	stages := []stage{
		{what: "created → allocate sent"}, {what: "allocate sent → answered"},
		{what: "→ annotate sent"}, {what: "annotate sent → answered"},
		{what: "→ deploy sent"}, {what: "deploy sent → answered"},
	}
	for _, m := range r.fleet.milestones() {
		for i, d := range []time.Duration{
			m.allocate.arrived.Sub(m.created), m.allocate.done.Sub(m.allocate.arrived),
			m.annotate.arrived.Sub(m.allocate.done), m.annotate.done.Sub(m.annotate.arrived),
			m.deploy.arrived.Sub(m.annotate.done), m.deploy.done.Sub(m.deploy.arrived),
		} {
			stages[i].took = append(stages[i].took, d)
		}
	}
	first := percentile(stages[0].took, 0)
	r.report.add(ScenarioFifty, "created → first allocate sent", first.Seconds(), "s")
	for _, s := range stages {
		r.report.add(ScenarioFifty, "stage, median: "+s.what, median(s.took).Seconds(), "s")
	}
}

func (f *fleet) milestones() []milestones {
	byToken, byServer := map[string]*milestones{}, map[string]*milestones{}
	for _, name := range f.names {
		seen := f.world.machines.get(name)
		m := &milestones{created: f.created[name]}
		byToken[seen.token], byServer[seen.systemID] = m, m
	}
	for _, c := range f.site.calls.all() {
		if c.code != http.StatusOK {
			continue
		}
		switch m := byServer[c.systemID]; {
		case c.operation == "allocate" && byToken[c.token] != nil:
			byToken[c.token].allocate = c
		case m == nil:
		case c.operation == "set_workload_annotations" && m.annotate.arrived.IsZero():
			m.annotate = c
		case c.operation == "deploy":
			m.deploy = c
		}
	}
	var complete []milestones
	for _, m := range byToken {
		if !m.allocate.done.IsZero() && !m.annotate.done.IsZero() && !m.deploy.done.IsZero() {
			complete = append(complete, *m)
		}
	}
	return complete
}

// reportBusy sums what the region spent on the calls, without their waiting for each other. With one worker that is the
// least time they can take together.
func reportBusy(report *Report, prefix string, s *site, calls []call) time.Duration {
	if s.timing.Workers == 0 {
		return 0 // Calls wait for nothing but their own latency.
	}
	sums := tallied(calls)
	var together time.Duration
	for _, operation := range slices.Sorted(maps.Keys(sums)) {
		spent := s.spent(operation, sums[operation])
		together += spent
		report.add(ScenarioFifty, prefix+operation, spent.Seconds(), "s")
	}
	report.add(ScenarioFifty, prefix+"together", together.Seconds(), "s")
	return together
}

// spent is what the simulator takes for calls that do not wait, where the site's timing says so: its defaults are not counted.
func (s *site) spent(operation string, sum tally) time.Duration {
	name := operation
	switch {
	case operation == "read machine":
		name = "read_machine"
	case strings.HasPrefix(operation, "list "):
		name = listMachines
	}
	each, ok := s.timing.Operations[name]
	if !ok {
		each = s.timing.Call
	}
	switch name {
	case "allocate":
		each += s.timing.Allocate
	case listMachines:
		return time.Duration(sum.count)*each + time.Duration(sum.machines)*s.timing.PerMachineList
	}
	return time.Duration(sum.count) * each
}
