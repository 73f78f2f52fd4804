// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"fmt"
	"maps"
	"time"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// Step is the next thing to do about one DPU.
type Step string

// The steps. Join and Plug are the two writes of the way on, Unplug and Leave those of the way off.
const (
	// StepWait waits for DPF, or for something that nobody can hurry.
	StepWait Step = "Wait"
	// StepDone says that what was asked is proven.
	StepDone Step = "Done"
	// StepJoin writes the VPC label and the holder record.
	StepJoin Step = "Join"
	// StepPlug writes the port labels.
	StepPlug Step = "Plug"
	// StepUnplug removes the port labels and records the Node's stretch.
	StepUnplug Step = "Unplug"
	// StepLeave removes the VPC label and leaves the record that the ports were proven unplugged.
	StepLeave Step = "Leave"
	// StepRepair puts back labels or the record that somebody took away from a running tenant.
	StepRepair Step = "Repair"
)

// Change is a change of the labels a DPU's carrier asks for its Node, with the holder record to be written in the same stroke.
type Change struct {
	// Set are labels to add; Remove are labels to take away, with the values they must still have.
	Set, Remove map[string]string
	// Holder is the record to write.
	Holder Holder
}

// Plan is the next step for one DPU, and why.
type Plan struct {
	Step   Step
	Change Change
	// Finding says what is missing while the step is not Done.
	Finding Finding
	// OVN says that it is OVN's word that is missing, of which no watch tells.
	OVN bool
}

func wait(finding Finding) Plan { return Plan{Step: StepWait, Finding: finding} }

func waitForOVN(finding Finding) Plan { return Plan{Step: StepWait, Finding: finding, OVN: true} }

func waitFor(reason, message string) Plan { return wait(Finding{No, reason, message}) }

// mine returns the claim's record; found is false if there is none. A record that holds the DPU is on the carrier in use; one
// that only remembers may be left on another.
func mine(want Want, e Evidence) (holder Holder, found bool) {
	for _, carrier := range append([]Carrier{e.Carrier()}, e.Carriers...) {
		if holder, found, err := HolderOf(carrier.Annotations); err == nil && found && holder.SameClaim(want.Claim) {
			return holder, true
		}
	}
	return Holder{}, false
}

// PlanAttach plans the way on. Nothing is written for a DPU that is not at rest and free, and no port is plugged before DPF
// has marked the Node with that VPC alone.
func PlanAttach(want Want, e Evidence, now time.Time) Plan {
	holder, found := mine(want, e)
	if !found || !holder.Holds() {
		if finding := Preflight(e, want.Claim, now); finding.Answer != Yes {
			return wait(finding)
		}
		if finding := CheckAround(want, e); finding.Answer != Yes {
			return wait(finding)
		}
		if finding := checkJoinable(want, e); finding.Answer != Yes {
			return wait(finding)
		}
		return Plan{
			Step: StepJoin, Change: Change{Set: maps.Clone(want.VPCLabels), Holder: want.Claim.joining(want.VPCLabels)},
			Finding: Finding{No, infrav1.AttachingVPCReason, "taking " + e.name() + " into the VPC"},
		}
	}
	return planPlug(want, holder, e, now)
}

// planPlug plans the second half of the way on, for a DPU the claim holds.
func planPlug(want Want, holder Holder, e Evidence, now time.Time) Plan {
	carrier := e.Carrier()
	for key, value := range want.VPCLabels {
		if carrier.Labels[key] != value {
			return wait(missing("label %s of %s was taken away or changed", key, e.name()))
		}
	}
	plugged, foreign := 0, ""
	wanted := want.portLabels()
	for key, value := range carrier.Labels {
		if _, port := PortOf(key); port {
			if wanted[key] != value {
				foreign = key
			}
			plugged++
		}
	}
	switch {
	case foreign != "":
		return wait(missing("label %s of %s was put there or changed by somebody else", foreign, e.name()))
	case plugged == len(wanted):
		proof := ProveAttached(want, e, now)
		if proof.Answer == Yes {
			proof = findSettling(want, e, now)
		}
		if proof.Answer == Yes {
			proof = CheckAround(want, e)
		}
		if proof.Answer != Yes {
			return wait(proof)
		}
		if proof = ProveBound(want, e); proof.Answer != Yes {
			return waitForOVN(proof)
		}
		return Plan{Step: StepDone, Finding: proof}
	case plugged > 0 || holder.Plugged:
		return wait(missing("a port label of %s was taken away", e.name()))
	}
	return planAfterJoin(want, holder, e, now)
}

// planAfterJoin waits for the mark, then plugs.
func planAfterJoin(want Want, holder Holder, e Evidence, now time.Time) Plan {
	if finding := checkStands(want, e); finding.Answer != Yes {
		return wait(finding)
	}
	if alive := e.Alive(now); alive.Answer != Yes {
		return wait(alive)
	}
	switch mark := e.Mark(); {
	case mark == "":
		return waitFor(infrav1.AttachingVPCReason, "waiting for DPF to mark Node "+e.Node.Name+" with the VPC")
	case mark != Mark(want.Namespace, want.VPCName):
		return waitFor(reasonForeignVPC, "Node "+e.Node.Name+" is marked with another VPC")
	case len(e.tenantInterfaces()) > 0:
		return waitFor(reasonForeignVPC, "a port of "+e.name()+" is on a virtual network already")
	}
	if around := CheckAround(want, e); around.Answer != Yes {
		return wait(around)
	}
	next := holder.Claim()
	next.Plugged, next.Repeat = true, holder.Repeat
	return Plan{
		Step: StepPlug, Change: Change{Set: want.portLabels(), Holder: next},
		Finding: Finding{No, infrav1.AttachingPortReason, "plugging the ports of " + e.name()},
	}
}

// DetachOptions say how the way off may be gone.
type DetachOptions struct {
	// Urgent unplugs even if the Node is not alive, so that the detachment cannot be proven in this round: the server may be
	// somebody else's already.
	Urgent bool
	// Repeat says whether an unproven detachment may be repeated by plugging once more, because the claim is confirmed. While
	// that is Unknown, nothing is plugged and nothing that was plugged for a repetition is unplugged.
	Repeat Answer
}

// PlanDetach plans the way off for a DPU. Written is false if there is no record of this claim on it: then there is no plan, and
// the caller decides from what it remembers.
func PlanDetach(want Want, e Evidence, now time.Time, options DetachOptions) (plan Plan, written bool) {
	holder, found := mine(want, e)
	if !found {
		return Plan{}, false
	}
	if !holder.Holds() {
		left := ProveLeft(e, now)
		if left.Answer == Yes {
			return planUnbound(want, e), true
		}
		left.Reason = orReason(left.Reason, infrav1.DetachingVPCReason)
		return wait(left), true
	}
	switch ports := portsOn(e.Carrier()); {
	case len(ports) > 0 && holder.Repeat && holder.Unplugged == nil && options.Repeat != No:
		return planRepeat(want, holder, e, now, options), true
	case len(ports) > 0:
		return planUnplug(holder, ports, holder.Repeat, e, now, options), true
	case holder.Unplugged != nil:
		return planLeave(want, holder, e, now, options), true
	case holder.Plugged, holder.Repeat:
		// The labels or the record of them were taken away unseen: nothing is known of what became of the ports.
		return repeat(want, holder, e, now, options, "what became of the ports of "+e.name()+" is not known"), true
	default:
		return leave(want, holder, e), true
	}
}

// planUnbound waits for OVN to let go of what has left otherwise.
func planUnbound(want Want, e Evidence) Plan {
	if unbound := ProveUnbound(want, e); unbound.Answer != Yes {
		return waitForOVN(unbound)
	}
	return Plan{Step: StepDone, Finding: Finding{Answer: Yes}}
}

// PlanRejoin plans the way off for a DPU that was written to and has no record of it any more: unless its Node lived in one
// stretch from before the first write until now, so that whatever happened was seen through by its agents, everything is
// repeated.
func PlanRejoin(want Want, before Continuity, e Evidence, now time.Time, options DetachOptions) Plan {
	left := ProveLeft(e, now)
	if left.Answer == Yes && before.Equal(e.Stretch(now)) {
		return planUnbound(want, e)
	}
	unproven := func(why string) Plan {
		return waitFor(infrav1.DetachUnprovenReason, "the record on "+e.name()+" is gone, so that detachment cannot be proven: "+why)
	}
	if options.Repeat != Yes {
		return unproven("it is repeated once the claim is confirmed")
	}
	if finding := Preflight(e, want.Claim, now); finding.Answer != Yes {
		return unproven(finding.Message)
	}
	if finding := checkJoinable(want, e); finding.Answer != Yes {
		return unproven(finding.Message)
	}
	next := want.Claim.joining(want.VPCLabels)
	next.Repeat = true
	return Plan{
		Step: StepJoin, Change: Change{Set: maps.Clone(want.VPCLabels), Holder: next},
		Finding: Finding{No, infrav1.DetachingVPCReason, "attaching and detaching " + e.name() + " once more"},
	}
}

// planUnplug removes the port labels, as soon as the Node's stretch can be recorded with it.
func planUnplug(holder Holder, ports map[string]string, unproven bool, e Evidence, now time.Time, options DetachOptions) Plan {
	alive := e.Alive(now)
	if alive.Answer != Yes && !options.Urgent {
		return wait(alive)
	}
	next := holder.Claim()
	stretch := e.Stretch(now)
	next.Plugged, next.Repeat, next.Unplugged = true, unproven, &stretch
	return Plan{
		Step: StepUnplug, Change: Change{Remove: ports, Holder: next},
		Finding: Finding{No, infrav1.DetachingPortReason, "unplugging the ports of " + e.name()},
	}
}

// planLeave waits until the ports are proven unplugged, then takes the DPU out of the VPC.
func planLeave(want Want, holder Holder, e Evidence, now time.Time, options DetachOptions) Plan {
	proof, broken := ProveUnplugged(*holder.Unplugged, e, now)
	switch {
	case broken, proof.Answer == Yes && holder.Repeat:
		return repeat(want, holder, e, now, options, proof.Message)
	case proof.Answer == Yes:
		return leave(want, holder, e)
	}
	proof.Reason = orReason(proof.Reason, infrav1.DetachingPortReason)
	return wait(proof)
}

func leave(want Want, holder Holder, e Evidence) Plan {
	next := holder.Claim()
	next.Detached, next.Joined = true, ""
	carrier, remove := e.Carrier(), map[string]string{}
	for key := range want.VPCLabels {
		if value, there := carrier.Labels[key]; there && IsOurKey(key) {
			remove[key] = value
		}
	}
	if value, there := carrier.Labels[VPCKey]; there {
		remove[VPCKey] = value
	}
	// A site's label that has another value than the one written is somebody else's by now.
	for key, value := range holder.JoinedLabels() {
		if carrier.Labels[key] == value {
			remove[key] = value
		}
	}
	return Plan{
		Step: StepLeave, Change: Change{Remove: remove, Holder: next},
		Finding: Finding{No, infrav1.DetachingVPCReason, "taking " + e.name() + " out of the VPC"},
	}
}

// repeat starts over after a detachment that cannot be proven: plug, prove, unplug, prove.
func repeat(want Want, holder Holder, e Evidence, now time.Time, options DetachOptions, why string) Plan {
	if options.Repeat != Yes {
		return waitFor(infrav1.DetachUnprovenReason, why+"; it is repeated once the claim is confirmed")
	}
	holder.Repeat, holder.Unplugged, holder.Plugged = true, nil, false
	plan := planPlug(want, holder, e, now)
	if plan.Step == StepPlug {
		plan.Finding = Finding{No, infrav1.DetachingPortReason, fmt.Sprintf("%s: plugging and unplugging once more", why)}
	}
	return plan
}

// planRepeat goes on with a repetition: once the ports are proven attached they are unplugged again.
func planRepeat(want Want, holder Holder, e Evidence, now time.Time, options DetachOptions) Plan {
	if options.Repeat != Yes {
		return waitFor(infrav1.DetachUnprovenReason, "the ports of "+e.name()+" are plugged once more; they are unplugged once the claim is confirmed or lost")
	}
	plan := planPlug(want, holder, e, now)
	if plan.Step == StepDone {
		return planUnplug(holder, portsOn(e.Carrier()), false, e, now, options)
	}
	return plan
}

// portsOn are the port labels of a carrier.
func portsOn(carrier Carrier) map[string]string {
	ports := map[string]string{}
	for key, value := range carrier.Labels {
		if _, port := PortOf(key); port {
			ports[key] = value
		}
	}
	return ports
}

func orReason(reason, otherwise string) string {
	if reason == "" {
		return otherwise
	}
	return reason
}
