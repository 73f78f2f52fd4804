// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"fmt"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

func released(reason, message string) Saying {
	return saysNo(infrav1.ReleasedCondition, reason, message)
}

// down gives the server back and lets the object go.
func down(o Observation) Step {
	gone := Step{Action: ActionDropFinalizer, Pace: PaceNever}
	if !o.Claim.Present || !o.Claim.Fits {
		// No claim was ever asked for under this object; a copied token is inert.
		return gone
	}
	if !o.Intact {
		return do(ActionInitialize, PaceNow)
	}
	if o.SystemID == "" && o.AllocateUntil.IsZero() {
		// Every allocation was answered, with no.
		return gone
	}
	if o.Identity.Unusable != nil {
		return later(o.Identity.RetryAfter, wait(PaceScarce, released(o.Identity.Unusable.Reason, o.Identity.Unusable.Message)))
	}
	if o.SystemID == "" {
		switch {
		case o.Server.Held == maas.Yes:
			return Step{Action: ActionRecordServer, Pace: PaceNow, SystemID: o.Server.Machine.SystemID}
		case o.Server.Held == maas.Unknown:
			return unclear(o)
		case pending(o.AllocateUntil, o.Now):
			return wait(PacePoll, released(infrav1.LookingForClaimReason,
				"the answer to an allocation was lost: MAAS is searched for the server until it can no longer appear"))
		}
	}
	if len(o.Server.Surplus) > 0 {
		return releaseSurplus(o)
	}
	if reason := o.deployFailure(); reason != "" && o.Server.Held == maas.Yes && o.Avoided == "" {
		// The deletion is no reason to forget what the server did.
		return avoid(reason)
	}
	if o.Abandon {
		return abandon(o)
	}
	step, done := teardown(o)
	if !done {
		return step
	}
	gone.Reason = step.Reason
	return gone
}

// retreat gives back a server that is to be avoided, and then forgets it, so that another is tried.
func retreat(o Observation) Step {
	if o.Identity.Unusable != nil {
		return unusable(o)
	}
	step, done := teardown(o)
	if done {
		return Step{Action: ActionForget, Pace: PaceNow, Reason: step.Reason}
	}
	return step
}

// teardown detaches, proves, powers off and releases; done when nothing of the claim is left on the server, or when the server
// stays as it is, listed as held, for the reason of the step.
func teardown(o Observation) (step Step, done bool) {
	switch o.Server.Held {
	case maas.Unknown:
		return unclear(o), false
	case maas.No:
		return cleanUp(o)
	}
	if o.Server.Unannotated {
		// Once a release starts MAAS forgets the token: without annotations the server would no longer be known as ours.
		return do(ActionAnnotate, PaceNow), false
	}
	if step, detached := detach(o); !detached {
		return step, false
	}
	if o.failedHere() {
		switch {
		case !o.Suspicion.Recorded:
			return wait(PacePoll, released(infrav1.RecordingSuspicionReason,
				fmt.Sprintf("waiting for the identity to list the failed deployment on server %s", o.SystemID))), false
		case o.Suspicion.Machines >= suspectAfter:
			return keepSuspect(o)
		}
	}
	return release(o), false
}

// keepSuspect keeps a server on which deployments of several machines failed from the next one: powered off, allocated,
// annotated; done when the identity lists it as held. Nothing would end the wait for a proof: the ports are proven detached.
func keepSuspect(o Observation) (step Step, done bool) {
	m := o.Server.Machine
	say := released(infrav1.ServerSuspectReason, fmt.Sprintf(
		"deployments of %d machines failed on server %s: it stays allocated and powered off until an operator has looked at it and released it with erase", o.Suspicion.Machines, o.SystemID))
	switch {
	case m.Status.ReleaseUnderWay():
		return release(o), false // An operator was faster.
	case m.Locked:
		return locked(o), false
	case o.powerKnown() && m.PowerState != maas.PowerOff && o.switchable():
		return do(ActionPowerOff, PacePoll, say), false
	case o.powerKnown() && m.PowerState != maas.PowerOff:
		return wait(PacePoll, say), false
	case m.Annotations[maas.AnnotationHold] != infrav1.ServerSuspectReason:
		return Step{Action: ActionHold, Pace: PaceNow, Reason: infrav1.ServerSuspectReason, Say: []Saying{say}}, false
	case o.Attachment.Exists == maas.Yes && !o.Attachment.Deleting:
		return do(ActionDeleteAttachment, PacePoll, say), false
	case o.Attachment.Exists == maas.Yes, !o.Suspicion.Held:
		return wait(PacePoll, say), false
	}
	return Step{Reason: infrav1.ServerSuspectReason}, true
}

// detach asks for detachment and reports whether it is proven. An attachment that is gone was let go by the fabric wing, which
// does that only with proof.
func detach(o Observation) (Step, bool) {
	a := o.Attachment
	switch {
	case a.Exists == maas.No:
		return Step{}, true
	case a.Exists == maas.Unknown:
		said := fabricUnknown(a)
		return wait(PacePoll, released(said.Reason, said.Message), said), false
	case a.Asked != infrav1.AttachmentStateDetached:
		return do(ActionDetach, PacePoll, released(infrav1.DetachingReason, "asking the fabric to detach the ports")), false
	case a.Proven == infrav1.AttachmentStateDetached:
		return Step{}, true
	case a.Unproven && o.Server.Held == maas.Yes:
		return hold(o, infrav1.DetachUnprovenReason, "detachment of the ports could not be proven"), false
	case a.Unproven:
		return wait(PaceScarce, released(infrav1.DetachUnprovenReason, "detachment of the ports could not be proven: an operator has to look at the server's DPUs")), false
	}
	message := "waiting for the fabric to prove the ports detached"
	if a.Waiting != "" {
		message += ": " + a.Waiting
	}
	return wait(PacePoll, released(infrav1.DetachingReason, message)), false
}

// release powers off and releases a server that is held and proven detached.
func release(o Observation) Step {
	m := o.Server.Machine
	erasing := released(infrav1.ReleasingReason, fmt.Sprintf("MAAS releases server %s", o.SystemID))
	switch {
	case m.Status.ReleaseUnderWay() && !o.ReleaseRecorded:
		return do(ActionRecordRelease, PacePoll, erasing)
	case m.Status.ReleaseUnderWay() && (o.ReleaseDeadline.IsZero() || pending(o.ReleaseDeadline, o.Now)):
		return wait(PacePoll, erasing)
	case m.Status.ReleaseUnderWay():
		return wait(PacePoll, overdue(o))
	case m.Locked:
		return locked(o)
	case o.Order.open(o.Now):
		return wait(PacePoll, orderOpen())
	case m.Status == maas.StatusFailedDiskErasing && !o.ReleaseRetry:
		return hold(o, infrav1.EraseFailedReason, "MAAS failed to erase the disks")
	case m.Status == maas.StatusFailedReleasing && !o.ReleaseRetry:
		return wait(PacePoll, released(infrav1.ReleasingReason, fmt.Sprintf("MAAS failed to release server %s, which is tried again", o.SystemID)))
	case !m.Status.CanRelease():
		return wait(PaceScarce, released(infrav1.ServerStateUnexpectedReason,
			fmt.Sprintf("MAAS says that server %s is %s, from which it cannot be released; an operator has to end that", o.SystemID, m.Status)))
	}
	if !o.deployedUnderClaim() {
		return Step{Action: ActionRelease, Pace: PacePoll, Say: []Saying{erasing}}
	}
	if m.Status == maas.StatusAllocated && pending(o.DeployUntil, o.Now) {
		// MAAS deploys a Ready server too: a lost deployment that appears after the release would take it again.
		return wait(PacePoll, released(infrav1.DeployOutcomeUnknownReason,
			"the answer to a deployment was lost: the server is not released before it can no longer take effect"))
	}
	if step, off := powerOff(o); !off {
		return step
	}
	return Step{Action: ActionRelease, Pace: PacePoll, Erase: true, Say: []Saying{erasing}}
}

// overdue says that a release takes longer than the operator allowed for. Nothing else is done: an erasure that is cut off leaves
// the disks as they are.
func overdue(o Observation) Saying {
	return released(infrav1.ReleasingReason, fmt.Sprintf(
		"MAAS still releases server %s, longer than the identity's deadlines.releaseSeconds: an operator should look at the server's events in MAAS", o.SystemID))
}

func locked(o Observation) Step {
	return wait(PaceScarce, released(infrav1.ServerLockedReason, fmt.Sprintf("server %s is locked in MAAS: unlock it", o.SystemID)))
}

// orderOpen says that a server is not touched as long as an order that nobody answered can hit it, or whoever claims it next.
func orderOpen() Saying {
	return released(infrav1.ReleaseOutcomeUnknownReason,
		"the answer to a power-off or release was lost: the server is not released before that can no longer take effect")
}

// powerOff reports whether the server is seen off. Where MAAS cannot switch the power it cannot see it either, and the proof
// of detachment has to do.
func powerOff(o Observation) (Step, bool) {
	if !o.powerKnown() || o.Server.Machine.PowerState == maas.PowerOff {
		return Step{}, true
	}
	say := released(infrav1.PoweringOffReason, fmt.Sprintf("waiting for MAAS to see server %s off", o.SystemID))
	if !o.switchable() {
		return wait(PacePoll, say), false
	}
	return do(ActionPowerOff, PacePoll, say), false
}

// hold keeps a server that is not proven clean: powered off, allocated, annotated with why.
func hold(o Observation, reason, message string) Step {
	held := released(infrav1.HeldReason, fmt.Sprintf("server %s is held: %s; it is released with erase once that is proven", o.SystemID, message))
	m := o.Server.Machine
	if o.switchable() {
		return do(ActionPowerOff, PacePoll, held)
	}
	if m.Annotations[maas.AnnotationHold] != reason {
		return Step{Action: ActionHold, Pace: PacePoll, Reason: reason, Say: []Saying{held}}
	}
	return wait(PacePoll, held)
}

// abandon lets the object go on an operator's word; the server stays allocated, annotated and off.
func abandon(o Observation) Step {
	said := released(infrav1.AbandonedReason, fmt.Sprintf("an operator abandoned server %s, which stays allocated", o.SystemID))
	gone := Step{Action: ActionDropFinalizer, Pace: PaceNever, Reason: infrav1.AbandonedReason, Say: []Saying{said}}
	if o.Attachment.Exists == maas.Yes && o.Attachment.Asked != infrav1.AttachmentStateDetached {
		return do(ActionDetach, PaceNow, said)
	}
	switch o.Server.Held {
	case maas.Unknown:
		return unclear(o)
	case maas.No:
		return gone
	}
	m := o.Server.Machine
	switch {
	case m.Status.ReleaseUnderWay():
		return gone
	case o.Server.Unannotated:
		return do(ActionAnnotate, PaceNow, said)
	case o.Order.open(o.Now) && o.Order.Operation == infrav1.MachineOrderRelease:
		return wait(PacePoll, orderOpen())
	case o.switchable() && o.PowerOffUntil.IsZero() && !o.Order.open(o.Now):
		return do(ActionPowerOff, PacePoll, said)
	case m.Annotations[maas.AnnotationHold] == "":
		return Step{Action: ActionHold, Pace: PaceNow, Reason: infrav1.AbandonedReason, Say: []Saying{said}}
	case o.powerKnown() && m.PowerState != maas.PowerOff && pending(o.PowerOffUntil, o.Now):
		return wait(PacePoll, said) // A server that cannot be switched off is let go all the same.
	case o.Attachment.Exists == maas.Yes && !o.Attachment.Deleting && (o.Attachment.Forced || o.Attachment.Proven == infrav1.AttachmentStateDetached):
		// Nobody will delete it later. One that is still to be proven stays, for the fabric wing to go on with.
		return do(ActionDeleteAttachment, PaceNow, said)
	}
	return gone
}

// cleanUp follows a server that is no longer ours: its attachment is detached, proven and let go.
func cleanUp(o Observation) (Step, bool) {
	if step, detached := detach(o); !detached {
		return step, false
	}
	if o.Attachment.Exists == maas.No {
		return Step{}, true
	}
	say := released(infrav1.CleaningUpReason, "the server is released; waiting for its attachment to go")
	if o.Attachment.Deleting {
		return wait(PacePoll, say), false
	}
	return do(ActionDeleteAttachment, PacePoll, say), false
}
