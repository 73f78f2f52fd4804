// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// DriftKind is one way in which a DPU under a running tenant can differ from what was proven.
type DriftKind string

// The kinds of drift. The book's table of faults has a row for each.
const (
	// DriftUnreadable: the DPU cluster, or what else is on the fabric, cannot be read.
	DriftUnreadable DriftKind = "Unreadable"
	// DriftDPU: the DPU is gone, or being installed anew.
	DriftDPU DriftKind = "DPU"
	// DriftRelabelled: a label of ours has another value, or one more was put there.
	DriftRelabelled DriftKind = "Relabelled"
	// DriftUnlabelled: a label of ours was taken away.
	DriftUnlabelled DriftKind = "Unlabelled"
	// DriftNodeRelabelled: the Node has other labels than those asked for it; DPF does not put back what is changed there.
	DriftNodeRelabelled DriftKind = "NodeRelabelled"
	// DriftRecordGone: the record of who holds the DPU was taken away.
	DriftRecordGone DriftKind = "RecordGone"
	// DriftRecordOther: the record says that somebody else holds the DPU, or cannot be read.
	DriftRecordOther DriftKind = "RecordOther"
	// DriftOtherMark: the Node is marked with another VPC.
	DriftOtherMark DriftKind = "OtherMark"
	// DriftOtherPort: a port is on a network nobody asked for.
	DriftOtherPort DriftKind = "OtherPort"
	// DriftNodeGone: there is no Node.
	DriftNodeGone DriftKind = "NodeGone"
	// DriftNodeSilent: the Node does not speak.
	DriftNodeSilent DriftKind = "NodeSilent"
	// DriftUnmarked: DPF took its mark off the Node.
	DriftUnmarked DriftKind = "Unmarked"
	// DriftPort: a port is not plugged any more, or not as it was, or carries other MAC addresses.
	DriftPort DriftKind = "Port"
	// DriftOtherVPC: another VPC selects the Node too.
	DriftOtherVPC DriftKind = "OtherVPC"
	// DriftOtherInterface: an interface of somebody else selects the Node.
	DriftOtherInterface DriftKind = "OtherInterface"
	// DriftOVNUnreadable: OVN's southbound database cannot be read.
	DriftOVNUnreadable DriftKind = "OVNUnreadable"
	// DriftOtherBinding: the DPU's chassis claims a port nobody asked for, or another chassis one that was.
	DriftOtherBinding DriftKind = "OtherBinding"
	// DriftUnbound: the DPU's chassis does not claim a port any more, has not programmed it, or it has another MAC address.
	DriftUnbound DriftKind = "Unbound"
	// DriftUnhealthy: the Node lives and reports a problem of what carries the ports.
	DriftUnhealthy DriftKind = "Unhealthy"
	// DriftSettling: the DPU has only just booted; what its agents report may be from before.
	DriftSettling DriftKind = "Settling"
	// DriftObjects: the TenantVPC's own objects on the fabric are not as they were made. The caller finds it with CheckObjects.
	DriftObjects DriftKind = "Objects"
)

// SettleTime is how long a DPU that was booted after its ports were asked for has to have been Ready before what its agents report
// counts: conditions outlive a boot, and on DPF agents repeat what failed every 5 s and sweep stale ports every 30 s.
const SettleTime = 30 * time.Second

// Drift is one thing that is not as it was proven.
type Drift struct {
	Kind DriftKind
	// Finding is No if it contradicts the proof, Unknown if it takes the certainty away.
	Finding Finding
	// Seen says that something was seen that is not as it was, rather than nothing seen at all: the last proof is worth nothing
	// from now on, although it has not come to its age.
	Seen bool
	// Exposed says that others may reach the tenant, or the tenant others. Without it the tenant is cut off at most.
	Exposed bool
	// Ours says that what was taken away is ours, so that it may be put back.
	Ours bool
}

// driftRow is one row of the table: how a kind of drift is found, and what it means.
type driftRow struct {
	kind DriftKind
	// answer is what Attached says of it: No or Unknown.
	answer              Answer
	seen, exposed, ours bool
	// find says in its message what changed; Yes if nothing did.
	find func(Want, Evidence, time.Time) Finding
	// ends says that without it nothing below it can be asked.
	ends bool
}

// driftTable is read from top to bottom: what changed comes before what follows from it.
var driftTable = []driftRow{
	{kind: DriftRelabelled, answer: No, seen: true, exposed: true, find: findRelabelled},
	{kind: DriftUnlabelled, answer: No, seen: true, ours: true, find: findUnlabelled},
	{kind: DriftRecordOther, answer: Unknown, seen: true, find: findRecordOther},
	{kind: DriftRecordGone, answer: Unknown, seen: true, ours: true, find: findRecordGone},
	{kind: DriftDPU, answer: No, seen: true, find: func(w Want, e Evidence, _ time.Time) Finding { return checkStands(w, e) }},
	{kind: DriftUnreadable, answer: Unknown, find: findUnreadable, ends: true},
	{kind: DriftNodeGone, answer: No, seen: true, find: findNodeGone, ends: true},
	{kind: DriftNodeRelabelled, answer: No, seen: true, find: findNodeRelabelled},
	{kind: DriftOtherMark, answer: No, seen: true, exposed: true, find: findOtherMark},
	{kind: DriftOtherPort, answer: No, seen: true, exposed: true, find: proveOnlyOurs},
	{kind: DriftOtherBinding, answer: No, seen: true, exposed: true, find: func(w Want, e Evidence, _ time.Time) Finding { return proveOnlyBound(w, e) }},
	{kind: DriftNodeSilent, answer: Unknown, find: func(_ Want, e Evidence, now time.Time) Finding { return e.Alive(now) }, ends: true},
	{kind: DriftUnmarked, answer: No, seen: true, find: findUnmarked},
	{kind: DriftPort, answer: No, seen: true, find: provePorts},
	{kind: DriftUnbound, answer: No, seen: true, find: func(w Want, e Evidence, _ time.Time) Finding { return proveBindings(w, e) }},
	{kind: DriftOVNUnreadable, answer: Unknown, find: func(w Want, e Evidence, _ time.Time) Finding { return proveOVNRead(w, e) }},
	{kind: DriftOtherVPC, answer: Unknown, seen: true, find: func(w Want, e Evidence, _ time.Time) Finding { return checkOtherVPC(w, e) }},
	{kind: DriftOtherInterface, answer: Unknown, seen: true, find: func(w Want, e Evidence, _ time.Time) Finding { return checkOtherInterface(w, e) }},
	{kind: DriftUnreadable, answer: Unknown, find: func(w Want, e Evidence, _ time.Time) Finding { return checkAroundRead(w, e) }},
	{kind: DriftUnhealthy, answer: Unknown, find: func(_ Want, e Evidence, _ time.Time) Finding { return checkNodeHealth(e) }},
	{kind: DriftSettling, answer: Unknown, find: findSettling},
}

// FindDrift says what of a DPU under a running tenant is not as it was proven; nothing if the proof can be renewed.
func FindDrift(want Want, e Evidence, now time.Time) []Drift {
	var drifts []Drift
	for _, row := range driftTable {
		finding := row.find(want, e, now)
		if finding.Answer == Yes {
			continue
		}
		finding.Answer = row.answer
		drifts = append(drifts, Drift{Kind: row.kind, Finding: finding, Seen: row.seen, Exposed: row.exposed, Ours: row.ours})
		if row.ends {
			break
		}
	}
	return drifts
}

// Worst sums up drifts: No counts before Unknown, and all that was seen is said.
func Worst(drifts []Drift) Drift {
	if len(drifts) == 0 {
		return Drift{Finding: Finding{Answer: Yes}}
	}
	sum := drifts[0]
	var messages []string
	for _, d := range drifts {
		if d.Finding.Answer == No && sum.Finding.Answer != No {
			sum.Kind, sum.Finding = d.Kind, d.Finding
		}
		sum.Seen, sum.Exposed = sum.Seen || d.Seen, sum.Exposed || d.Exposed
		if !slices.Contains(messages, d.Finding.Message) {
			messages = append(messages, d.Finding.Message)
		}
	}
	sum.Ours = slices.ContainsFunc(drifts, func(d Drift) bool { return d.Ours }) &&
		!slices.ContainsFunc(drifts, func(d Drift) bool { return !d.Ours && !followsFromOurs(d.Kind) })
	sum.Finding.Message = strings.Join(messages, "; ")
	return sum
}

// followsFromOurs reports whether a kind of drift is what DPF does once labels of ours are gone.
func followsFromOurs(kind DriftKind) bool {
	return kind == DriftNodeRelabelled || kind == DriftUnmarked || kind == DriftPort || kind == DriftUnbound
}

// Notice says what an operator should know about a DPU whose proof holds, or "".
func Notice(want Want, e Evidence) string {
	if finding := checkMaintenance(want, e); finding.Answer != Yes {
		return finding.Message
	}
	if e.DPU != nil {
		return checkHeldOff(e).Message
	}
	return ""
}

// PlanRepair plans to put back what was taken away of ours, in one write. It waits unless the DPU lives, nobody else reaches for
// it, and what is still there is ours: then nothing else could have been meant.
func PlanRepair(want Want, e Evidence, now time.Time) Plan {
	if e.DPU == nil {
		return wait(checkStands(want, e))
	}
	if alive := e.Alive(now); alive.Answer != Yes {
		return wait(alive)
	}
	for _, check := range []func(Want, Evidence) Finding{
		checkStands, CheckAround, proveOVNRead, proveOnlyBound,
		func(w Want, e Evidence) Finding { return findOtherMark(w, e, now) },
		func(w Want, e Evidence) Finding { return proveOnlyOurs(w, e, now) },
		func(w Want, e Evidence) Finding { return findRelabelled(w, e, now) },
		func(w Want, e Evidence) Finding { return findRecordOther(w, e, now) },
	} {
		if finding := check(want, e); finding.Answer != Yes {
			return wait(finding)
		}
	}
	if _, found, err := e.Holder(); err == nil && !found {
		return planRecord(want, e, now)
	}
	holder, _, err := e.Holder()
	missing := missingLabels(want, e)
	if err != nil || holder.Detaching() || len(missing) == 0 {
		return waitFor(reasonEvidenceMissing, "there is nothing to put back on "+e.name())
	}
	holder.Plugged = true
	return Plan{
		Step: StepRepair, Change: Change{Set: missing, Holder: holder},
		Finding: Finding{No, reasonEvidenceMissing, "putting back labels of " + e.name()},
	}
}

// planRecord puts the record back beside labels that are all still there, on ports that are proven to be ours.
func planRecord(want Want, e Evidence, now time.Time) Plan {
	if len(missingLabels(want, e)) > 0 {
		return waitFor(reasonEvidenceMissing, "labels and record of "+e.name()+" are both gone: it is not known what became of its ports")
	}
	if proof := ProveAttached(want, e, now); proof.Answer != Yes {
		return wait(proof)
	}
	next := want.Claim.Claim()
	next.Plugged = true
	return Plan{
		Step: StepRepair, Change: Change{Holder: next},
		Finding: Finding{No, reasonEvidenceMissing, "putting back the record of " + e.name()},
	}
}

// wantedLabels are all labels that a running tenant's DPU carries of ours.
func (w Want) wantedLabels() map[string]string {
	wanted := w.portLabels()
	maps.Copy(wanted, w.VPCLabels)
	return wanted
}

func missingLabels(want Want, e Evidence) map[string]string {
	carrier := e.Carrier()
	missing := map[string]string{}
	for key, value := range want.wantedLabels() {
		if _, there := carrier.Labels[key]; !there {
			missing[key] = value
		}
	}
	return missing
}

func findRelabelled(want Want, e Evidence, _ time.Time) Finding {
	wanted := want.wantedLabels()
	for _, carrier := range e.Carriers {
		for _, key := range slices.Sorted(maps.Keys(carrier.Labels)) {
			value, known := wanted[key]
			switch {
			case known && carrier.Labels[key] != value:
				return missing("label %s of %s was changed by somebody else", key, e.name())
			case !known && IsOurKey(key):
				return missing("label %s of %s was put there by somebody else", key, e.name())
			}
		}
	}
	return Finding{Answer: Yes}
}

func findUnlabelled(want Want, e Evidence, _ time.Time) Finding {
	if gone := missingLabels(want, e); len(gone) > 0 && e.DPU != nil {
		return missing("label %s of %s was taken away", strings.Join(slices.Sorted(maps.Keys(gone)), " and "), e.name())
	}
	return Finding{Answer: Yes}
}

func findNodeRelabelled(want Want, e Evidence, _ time.Time) Finding {
	for key, value := range want.wantedLabels() {
		if found, there := e.Node.Labels[key]; !there {
			return missing("Node %s does not carry the label %s any more", e.Node.Name, key)
		} else if found != value {
			return missing("label %s of Node %s was changed", key, e.Node.Name)
		}
	}
	return Finding{Answer: Yes}
}

func findRecordOther(want Want, e Evidence, _ time.Time) Finding {
	for _, carrier := range e.Carriers {
		holder, found, err := HolderOf(carrier.Annotations)
		switch {
		case err != nil:
			return missing("the record of who holds %s was made unreadable", e.name())
		case found && holder.Holds() && !holder.SameClaim(want.Claim):
			return missing("the record of %s says that somebody else holds it", e.name())
		}
	}
	return Finding{Answer: Yes}
}

func findRecordGone(want Want, e Evidence, _ time.Time) Finding {
	for _, carrier := range e.Carriers {
		if holder, found, err := HolderOf(carrier.Annotations); err != nil || found && holder.Holds() {
			return Finding{Answer: Yes} // somebody's: findRecordOther says whose
		}
	}
	if e.DPU == nil {
		return Finding{Answer: Yes}
	}
	return missing("the record of who holds %s was taken away", e.name())
}

func findUnreadable(_ Want, e Evidence, now time.Time) Finding {
	if e.ClusterError != nil {
		return e.Alive(now)
	}
	return Finding{Answer: Yes}
}

func findNodeGone(_ Want, e Evidence, _ time.Time) Finding {
	switch {
	case e.Node != nil:
		return Finding{Answer: Yes}
	case e.DPU == nil:
		return missing("there is no Node for %s", e.name())
	}
	return missing("there is no Node %s in the DPU cluster", e.DPU.Name)
}

func findOtherMark(want Want, e Evidence, _ time.Time) Finding {
	if mark := e.Mark(); mark != "" && mark != Mark(want.Namespace, want.VPCName) {
		return Finding{No, reasonForeignVPC, "Node " + e.Node.Name + " is marked with another VPC"}
	}
	return Finding{Answer: Yes}
}

func findUnmarked(_ Want, e Evidence, _ time.Time) Finding {
	if e.Mark() == "" {
		return missing("Node %s is not marked with the VPC any more", e.Node.Name)
	}
	return Finding{Answer: Yes}
}

func findSettling(want Want, e Evidence, now time.Time) Finding {
	ready := nodeCondition(e.Node, corev1.NodeReady)
	booted := want.Before.BootID != "" && want.Before.BootID != e.Node.Status.NodeInfo.BootID
	if booted && (ready == nil || now.Sub(ready.LastTransitionTime.Time) < SettleTime) {
		return Finding{Unknown, infrav1.DPUNotReadyReason, fmt.Sprintf("%s was booted less than %s ago: what its agents report may be from before", e.name(), SettleTime)}
	}
	return Finding{Answer: Yes}
}
