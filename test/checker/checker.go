// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package checker holds the provider against its invariants. It reads MAAS, the data plane, the API servers and the simulators'
// journals, and never the provider's code: what it does not see there it does not believe.
package checker

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Finding is one observation that breaks an invariant.
type Finding struct {
	Invariant string
	Text      string
	// momentary: it is of the moment that was looked at, and not to be read again in any journal.
	momentary bool
}

// Verdict is what a check found.
type Verdict struct {
	// Observations counts, per invariant, the facts that were held against it. An invariant with none was not checked.
	Observations map[string]int
	Findings     []Finding
	// Sampled names the invariants about the past that could only be sampled, because MAAS kept no journal.
	Sampled []string
}

// Names of the invariants, as the design has them.
var invariants = []struct{ id, title string }{
	{"I1", "no leak"}, {"I2", "no double"}, {"I3", "isolated before boot"}, {"I4", "isolated after"},
	{"I5", "hands off"}, {"I6", "fail closed"}, {"I7", "honest status"}, {"I8", "tenancy"},
}

// Holds says that no observation broke an invariant.
func (v Verdict) Holds() bool { return len(v.Findings) == 0 }

// Unchecked returns the invariants nothing was observed for.
func (v Verdict) Unchecked() []string {
	var unchecked []string
	for _, invariant := range invariants {
		if v.Observations[invariant.id] == 0 {
			unchecked = append(unchecked, invariant.id)
		}
	}
	return unchecked
}

// String says it for people, one line an invariant, and last whether all hold.
func (v Verdict) String() string {
	var b strings.Builder
	for _, invariant := range invariants {
		broken := 0
		for _, f := range v.Findings {
			if f.Invariant == invariant.id {
				broken++
			}
		}
		state := "holds"
		switch {
		case broken > 0:
			state = fmt.Sprintf("BROKEN %d times", broken)
		case v.Observations[invariant.id] == 0:
			state = "not observed"
		case slices.Contains(v.Sampled, invariant.id):
			state = "holds (sampled)"
		}
		fmt.Fprintf(&b, "  %s %-21s %5d observations  %s\n", invariant.id, invariant.title, v.Observations[invariant.id], state)
	}
	for _, f := range v.Findings {
		fmt.Fprintf(&b, "  %s: %s\n", f.Invariant, f.Text)
	}
	switch {
	case !v.Holds():
		fmt.Fprintf(&b, "  %d observations break invariants", len(v.Findings))
	case len(v.Unchecked()) > 0:
		fmt.Fprintf(&b, "  the invariants observed hold; not observed: %s", strings.Join(v.Unchecked(), ", "))
	default:
		b.WriteString("  all invariants hold")
	}
	return b.String()
}

// Checker holds one installation against the invariants.
type Checker struct {
	MAAS      MAAS
	Fabric    Fabric // nil where there is none
	Recorder  *Recorder
	Inventory Inventory
	// Lag is how far the Recorder may be behind the API server. Zero means not at all.
	Lag time.Duration
}

// WatchLag is how far a Recorder may be behind the API server it watches on a busy machine.
const WatchLag = 2 * time.Second

// lookAgain is how long Check waits for what the Recorder has not been told yet.
const lookAgain = 20 * time.Millisecond

// Check looks at everything that was and is. It may be called at any time: no invariant allows an exception in between.
//
// Its sources are read one after the other, so that one may not tell yet of what another already does. A finding from journals
// counts if it is still there once all of them, and the Recorder, have told of that time. One of the moment counts at once.
func (c *Checker) Check() Verdict {
	verdict := c.look()
	settled := time.Now().Add(c.Lag)
	for lastLook := false; !lastLook && verdict.journaled(); {
		lastLook = !time.Now().Before(settled)
		if !lastLook {
			<-time.After(lookAgain)
		}
		before := verdict.Findings
		verdict = c.look()
		for _, f := range before {
			if f.momentary && !slices.Contains(verdict.Findings, f) {
				verdict.Findings = append(verdict.Findings, f)
			}
		}
	}
	return verdict
}

// journaled says whether any finding is from journals.
func (v Verdict) journaled() bool {
	return slices.ContainsFunc(v.Findings, func(f Finding) bool { return !f.momentary })
}

// look reads every source once.
func (c *Checker) look() Verdict {
	pass := &run{inventory: c.Inventory, verdict: Verdict{Observations: map[string]int{}}}
	// A token is stored before it is used and its object goes after its server is free: whoever had it before or after MAAS was
	// read had it then.
	before := c.Recorder.snapshot()
	pass.machines, pass.effects = c.MAAS.Machines(), c.MAAS.Effects()
	if c.Fabric != nil {
		pass.plugs, pass.changes, pass.fabric = c.Fabric.Plugs(), c.Fabric.LabelChanges(), c.Fabric
	}
	pass.snapshot = c.Recorder.snapshot()
	pass.claims = claims(before, pass.snapshot)
	for systemID := range before.held {
		pass.held[systemID] = true
	}
	if pass.effects == nil {
		pass.verdict.Sampled = []string{"I3", "I4", "I5", "I7"}
	}
	for _, check := range []func(*run){
		(*run).noLeak, (*run).noDouble, (*run).isolatedBeforeBoot, (*run).isolatedAfter,
		(*run).handsOff, (*run).failClosed, (*run).honestStatus, (*run).tenancy,
	} {
		check(pass)
	}
	return pass.verdict
}

// run is one pass over one set of facts.
type run struct {
	inventory Inventory
	machines  []Machine
	effects   []Effect
	plugs     []Plug
	changes   []LabelChange
	fabric    Fabric
	// claims are the living MaasMachines, by UID, that have a token.
	claims map[string]map[string]bool
	snapshot
	verdict Verdict
}

// observe counts one fact held against an invariant.
func (r *run) observe(invariant string) { r.verdict.Observations[invariant]++ }

func (r *run) breaks(invariant, format string, args ...any) {
	r.verdict.Findings = append(r.verdict.Findings, Finding{Invariant: invariant, Text: fmt.Sprintf(format, args...)})
}

// breaksNow is for what no journal tells afterwards.
func (r *run) breaksNow(invariant, format string, args ...any) {
	r.breaks(invariant, format, args...)
	r.verdict.Findings[len(r.verdict.Findings)-1].momentary = true
}

// pluggedAt returns the stretches of a server's ports at a moment, those of others' VPCs aside.
func (r *run) pluggedAt(server Server, t time.Time) []Plug {
	var plugged []Plug
	for _, p := range r.plugs {
		if slices.Contains(server.MACs, p.MAC) && p.at(t) {
			plugged = append(plugged, p)
		}
	}
	return plugged
}

func (r *run) ours(owner string) bool { return slices.Contains(r.inventory.Accounts, owner) }
