// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// pace is how soon the next pass follows.
type pace int

const (
	// paceTransition is for what DPF or MAAS is busy with.
	paceTransition pace = iota
	// paceRefused is for what only people can change.
	paceRefused
	// paceSteady renews a proof in time.
	paceSteady
	// paceDone has no next pass.
	paceDone
	// paceOVN is for what OVN's controllers are busy with.
	paceOVN
)

// write is one change of one card's labels.
type write struct {
	card   *card
	step   vpc.Step
	change vpc.Change
}

// decision is what one pass does and says.
type decision struct {
	// needsClaim says that the decision hangs on what MAAS says of the claim, which was not asked in this pass.
	needsClaim bool
	// needsDevices likewise of the server's PCI devices.
	needsDevices bool
	// memory is to be stored before anything is written.
	memory memory
	write  *write
	// raise is the next barrier to be raised, instead of a write.
	raise *vpc.BarrierPlan
	// progress is what to remember, in this process, of what OVN has proven so far.
	progress progress

	authorized, resolved, posture, attached said
	// proven is what is proven now. With keep set nothing is known, and what was proven before stands until it is too old.
	proven infrav1.AttachmentState
	keep   bool
	// grade is what it is proven with; empty means from ServiceInterfaces.
	grade infrav1.EvidenceGrade
	// doubt, with keep, says that something was seen to change, so that the last proof counts no more.
	doubt bool
	// running says that a running tenant was judged: its last proof stays to be read when it is taken back.
	running bool
	// powerOff asks the machine wing to power the server off.
	powerOff bool
	// finalize drops the finalizer.
	finalize bool
	pace     pace
}

// said is what a condition says.
type said struct {
	status  metav1.ConditionStatus
	reason  string
	message string
}

func sayTrue(reason string) said { return said{status: metav1.ConditionTrue, reason: reason} }

func sayFalse(reason, message string) said {
	return said{status: metav1.ConditionFalse, reason: reason, message: message}
}

func sayUnknown(reason, message string) said {
	return said{status: metav1.ConditionUnknown, reason: reason, message: message}
}

// sayFinding says what a finding that is not Yes says.
func sayFinding(finding vpc.Finding) said {
	if finding.Answer == vpc.Unknown {
		return sayUnknown(finding.Reason, finding.Message)
	}
	return sayFalse(finding.Reason, finding.Message)
}

// decide plans a pass. It is a pure function of the observation.
func decide(o *observation) decision {
	d := decision{memory: o.memory, posture: o.sayPosture()}
	d.authorized = o.sayAuthorized()
	switch {
	case o.provenDetached() && o.askedToDetach():
		return decideDone(o, d)
	case o.memoryErr != nil:
		d.resolved = sayUnknown(infrav1.NotStartedReason, o.memoryErr.Error())
		d.attached, d.keep, d.pace = d.resolved, true, paceRefused
		return o.orForced(d)
	case o.fabricFound.Answer != vpc.Yes:
		return o.orForced(decideWithoutFabric(o, d))
	case o.mustDetach():
		return o.orForced(decideDetach(o, d))
	case o.provenDetached() && !o.confirmed():
		return decideAfterLoss(o, d)
	default:
		d.memory.DetachingSince = nil
		return decideAttach(o, d)
	}
}

// decideDone repeats what is history: the ports were proven detached under this claim.
func decideDone(o *observation, d decision) decision {
	d.proven, d.pace = infrav1.AttachmentStateDetached, paceDone
	d.authorized = o.before(infrav1.AuthorizedCondition)
	d.resolved = o.before(infrav1.DPUResolvedCondition)
	d.attached = sayFalse(infrav1.DetachedReason, "")
	if before := o.before(infrav1.AttachedCondition); before.reason == infrav1.DetachedReason {
		d.attached.message = before.message
	}
	d.finalize = !o.attachment.DeletionTimestamp.IsZero()
	return d
}

// decideAfterLoss is for an attachment that was detached because its claim was lost: it stays so until MAAS confirms it again.
func decideAfterLoss(o *observation, d decision) decision {
	if !o.claim.asked {
		d.needsClaim = true
	}
	d.proven, d.pace = infrav1.AttachmentStateDetached, paceRefused
	d.resolved = o.before(infrav1.DPUResolvedCondition)
	d.attached = sayFalse(infrav1.DetachedReason, "detached, because MAAS does not hold the server under this claim")
	return d
}

// decideWithoutFabric is for a source that no fabric serves, or a fabric that cannot be asked. Only what never met a fabric is
// known to be detached.
func decideWithoutFabric(o *observation, d decision) decision {
	d.pace = paceRefused
	d.authorized = sayFinding(o.fabricFound)
	d.resolved = sayUnknown(infrav1.NotStartedReason, "the fabric cannot be asked")
	d.attached = sayUnknown(o.fabricFound.Reason, o.fabricFound.Message)
	if o.fabricFound.Answer == vpc.No && !o.memory.touched() && o.attachment.Status.FabricName == "" {
		d.attached = sayFalse(o.fabricFound.Reason, o.fabricFound.Message)
		if o.askedToDetach() {
			d.proven = infrav1.AttachmentStateDetached
			d.attached = sayFalse(infrav1.DetachedReason, "nothing was ever attached")
			d.finalize = !o.attachment.DeletionTimestamp.IsZero()
		}
		return d
	}
	d.keep = true
	if o.askedToDetach() {
		d = d.since(o)
	}
	return d
}

// orForced lets an attachment go whose detachment an operator no longer waits for. Nothing is proven by that: the record on the
// DPU stays, and keeps the server from being handed out.
func (o *observation) orForced(d decision) decision {
	if !o.forced() || d.proven == infrav1.AttachmentStateDetached {
		return d
	}
	d.proven, d.keep = "", false
	d.attached = sayFalse(infrav1.OverriddenReason, "not proven detached: "+d.attached.message)
	d.finalize = !o.attachment.DeletionTimestamp.IsZero()
	return d
}

// sayAuthorized says whether the attachment is authorised, as far as it was asked in this pass.
func (o *observation) sayAuthorized() said {
	switch {
	case o.fabricFound.Answer != vpc.Yes:
		return o.before(infrav1.AuthorizedCondition)
	case o.admission.Answer != vpc.Yes:
		return sayFinding(o.admission)
	case !o.claim.asked && o.claim.standing.Reason != "":
		return sayFinding(o.claim.standing)
	case !o.claim.asked && o.claim.standing.Answer != vpc.Yes:
		return o.before(infrav1.AuthorizedCondition)
	case !o.claim.asked:
	case o.claim.finding.Answer != vpc.Yes:
		return sayFinding(o.claim.finding)
	}
	return sayTrue(infrav1.AuthorizedReason)
}

// before repeats what a condition said last.
func (o *observation) before(kind string) said {
	if condition := conditionOf(o.attachment, kind); condition != nil {
		return said{status: condition.Status, reason: condition.Reason, message: condition.Message}
	}
	return sayUnknown(infrav1.NotStartedReason, "")
}

// authorizedBefore reports whether the claim was confirmed in an earlier pass, for this token.
func (o *observation) authorizedBefore() bool {
	condition := conditionOf(o.attachment, infrav1.AuthorizedCondition)
	return condition != nil && condition.Status == metav1.ConditionTrue && o.sameClaim()
}
