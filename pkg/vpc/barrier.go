// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

const (
	// barrierRaises is how often the value is raised: the first time covers that the port was made or removed, the second what
	// the other chassis learn from that only afterwards.
	barrierRaises = 2
	// barrierMaxAge is for how long a barrier that was passed counts while the proof waits for something else.
	barrierMaxAge = 30 * time.Second
)

// BarrierPurpose is what a barrier is passed for. One for another purpose does not count.
type BarrierPurpose struct {
	State      infrav1.AttachmentState
	TokenHash  string
	Generation int64
}

// BarrierParty is whose controllers have to pass.
type BarrierParty struct {
	// Own are the chassis of the server, which are waited for in any case.
	Own []string
	// Peers are the other chassis with a port in the VPC.
	Peers []string
	// Silent are peers that are not waited for, and why.
	Silent map[string]string
}

// Barrier is how far the barrier of one attachment is. The zero value has not begun.
type Barrier struct {
	Purpose BarrierPurpose
	// Raises is how often the value was raised, Value what it was raised to last, and Raised when.
	Raises int
	Value  int64
	Raised time.Time
	// Then is what the chassis said to have programmed when it was raised last. Nobody counts back.
	Then map[string]int64
	// Passed is when the last was found passed.
	Passed time.Time
}

// BarrierStep is what is to be done about a barrier.
type BarrierStep string

// The steps of a barrier.
const (
	BarrierRaise  BarrierStep = "Raise"
	BarrierWait   BarrierStep = "Wait"
	BarrierPassed BarrierStep = "Passed"
)

// BarrierPlan is the next step of a barrier.
type BarrierPlan struct {
	Step BarrierStep
	// Next is what to remember of it.
	Next Barrier
	// Finding says what is waited for.
	Finding Finding
	// Spared names the chassis that were not waited for, and why; empty if there are none.
	Spared string

	party BarrierParty
	ovn   OVN
}

// Peers are the chassis other than own that claim a port of the VPC, as far as OVN says which switch is whose: a port of which it
// does not may be one.
func (w Want) Peers(o OVN, own []string) []string {
	var peers []string
	for _, binding := range o.Bindings {
		inside := binding.Switch == "" || strings.HasPrefix(binding.Switch, w.switchPrefix())
		if inside && binding.Chassis != "" && !slices.Contains(own, binding.Chassis) {
			peers = append(peers, binding.Chassis)
		}
	}
	slices.Sort(peers)
	return slices.Compact(peers)
}

// PlanBarrier plans the next step. The reading must be one by which the ports are proven bound, or unbound: a barrier says that
// what it showed has been programmed. It begins again where the purpose is another, or a chassis counts back or left.
func PlanBarrier(b Barrier, purpose BarrierPurpose, party BarrierParty, o OVN, now time.Time) BarrierPlan {
	if b.Purpose != purpose || b.lapsed(now) || b.broken(party, o) {
		b = Barrier{Purpose: purpose}
	}
	plan := BarrierPlan{Step: BarrierWait, Next: b, party: party, ovn: o}
	if o.Err != nil {
		plan.Finding, plan.Next = proveOVNRead(Want{}, Evidence{OVN: &o}), Barrier{}
		return plan
	}
	if b.Raises == 0 {
		return plan.raise()
	}
	behind := plan.waitedFor()
	plan.Spared = plan.spared()
	switch {
	case len(behind) > 0:
		plan.Finding = waitingForBarrier("waiting since %s for chassis %s to program what OVN's northbound database said (barrier %d of %d)%s",
			b.Raised.UTC().Format(time.RFC3339), strings.Join(behind, ", "), b.Raises, barrierRaises, suffix(plan.Spared))
	case b.Raises < barrierRaises:
		return plan.raise()
	default:
		if plan.Next.Passed.IsZero() {
			plan.Next.Passed = now
		}
		plan.Step, plan.Finding = BarrierPassed, Finding{Answer: Yes}
	}
	return plan
}

// Raised is what to remember once the value was raised. A value that some chassis has passed already is no barrier: the database
// counts anew.
func (p BarrierPlan) Raised(value int64, now time.Time) (Barrier, error) {
	then := map[string]int64{}
	for _, chassis := range p.ovn.Chassis {
		if chassis.Config >= value {
			return Barrier{}, fmt.Errorf("OVN's northbound database counts anew: it was raised to %d, and chassis %s has passed %d", value, chassis.Name, chassis.Config)
		}
		if slices.Contains(p.party.Own, chassis.Name) || slices.Contains(p.party.Peers, chassis.Name) {
			then[chassis.Name] = chassis.Config
		}
	}
	next := p.Next
	next.Raises, next.Value, next.Raised, next.Then, next.Passed = next.Raises+1, value, now, then, time.Time{}
	return next, nil
}

func (p BarrierPlan) raise() BarrierPlan {
	p.Step = BarrierRaise
	p.Finding = waitingForBarrier("raising barrier %d of %d", p.Next.Raises+1, barrierRaises)
	return p
}

func waitingForBarrier(format string, args ...any) Finding {
	return Finding{No, infrav1.WaitingForBarrierReason, fmt.Sprintf(format, args...)}
}

func suffix(spared string) string {
	if spared == "" {
		return ""
	}
	return "; " + spared
}

// lapsed reports that the barrier was passed too long ago.
func (b Barrier) lapsed(now time.Time) bool {
	return !b.Passed.IsZero() && now.Sub(b.Passed) >= barrierMaxAge
}

// broken reports that a chassis says less than it did when the value was raised, or that one of the server's own is gone.
func (b Barrier) broken(party BarrierParty, o OVN) bool {
	for name, then := range b.Then {
		config, there := o.config(name)
		if there && config < then || !there && slices.Contains(party.Own, name) {
			return o.Err == nil
		}
	}
	return false
}

// peers are those now and those when the value was raised: one that let go of its port since is concerned as well.
func (p BarrierPlan) peers() []string {
	peers := append(slices.Collect(maps.Keys(p.Next.Then)), p.party.Peers...)
	peers = slices.DeleteFunc(peers, func(name string) bool { return slices.Contains(p.party.Own, name) })
	slices.Sort(peers)
	return slices.Compact(peers)
}

// waitedFor are the chassis that have not passed.
func (p BarrierPlan) waitedFor() []string {
	var behind []string
	for _, name := range p.party.Own {
		if config, there := p.ovn.config(name); !there || config < p.Next.Value {
			behind = append(behind, name)
		}
	}
	for _, name := range p.peers() {
		if config, there := p.ovn.config(name); p.party.Silent[name] == "" && there && config < p.Next.Value {
			behind = append(behind, name)
		}
	}
	return behind
}

// spared says which peers have not passed and are not waited for.
func (p BarrierPlan) spared() string {
	var spared []string
	for _, name := range p.peers() {
		config, there := p.ovn.config(name)
		switch why := p.party.Silent[name]; {
		case !there:
			spared = append(spared, name+" (no chassis any more)")
		case config < p.Next.Value && why != "":
			spared = append(spared, name+" ("+why+")")
		}
	}
	if len(spared) == 0 {
		return ""
	}
	return "not waited for: chassis " + strings.Join(spared, ", ")
}

// config is what a chassis says to have programmed; there is false if it is not registered.
func (o OVN) config(chassis string) (config int64, there bool) {
	for i := range o.Chassis {
		if o.Chassis[i].Name == chassis {
			return o.Chassis[i].Config, true
		}
	}
	return 0, false
}
