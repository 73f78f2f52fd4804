// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/posture"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// handOverMaxAge is how old the readings of BMCs may be by which a server is handed over.
const handOverMaxAge = 5 * time.Minute

// observePosture asks for what the BMCs of all the server's DPUs answered, also of those without a port: a tenant who may change
// one of them is not kept by the others. It never waits; the attachment is woken when they have answered.
func (r *Reconciler) observePosture(o *observation) {
	if o.fabric.Posture == nil || !posture.Asks(o.fabric.Object.Spec.Posture) || o.askedToDetach() || o.admission.Answer != vpc.Yes && !o.wasAttached() {
		return
	}
	since, urgent := o.postureSince()
	for i := range o.cards {
		card := posture.CardOf(o.cards[i].member.Device)
		o.fabric.Posture.Await(card.Device, client.ObjectKeyFromObject(o.attachment))
		reading, known := o.fabric.Posture.Latest(card, since, urgent)
		if !urgent {
			// Of a running tenant the last that is known is told until there is something newer.
			known = len(reading.Results) > 0
		}
		o.bmcs = append(o.bmcs, posture.CardReading{Device: card.Device, Known: known, Reading: reading})
	}
}

// postureSince is since when readings count, and whether somebody waits for them. A server is handed over by what was read after
// its last tenant was detached: that is before it was released, and so before there was this attachment.
func (o *observation) postureSince() (since time.Time, urgent bool) {
	if o.wasAttached() {
		return o.now.Add(-posture.MaxAge), false
	}
	since = o.now.Add(-handOverMaxAge)
	if created := o.attachment.CreationTimestamp.Time; created.After(since) {
		since = created
	}
	if detached := o.attachment.Status.ProvenAt; o.provenDetached() && detached != nil && detached.After(since) {
		since = detached.Time
	}
	return since, true
}

// sayPosture says what follows from what the BMCs answered.
func (o *observation) sayPosture() said {
	switch {
	case o.fabric == nil, o.askedToDetach():
		return o.before(infrav1.PostureVerifiedCondition)
	case !posture.Asks(o.fabric.Object.Spec.Posture):
		return sayTrue(infrav1.PostureOffReason)
	}
	verdict := o.verdict()
	if before := o.before(infrav1.PostureVerifiedCondition); o.wasAttached() && (len(o.bmcs) == 0 || verdict.Reason == infrav1.PostureCheckingReason) {
		return before
	}
	switch {
	case len(o.bmcs) == 0:
		return sayUnknown(infrav1.NotStartedReason, "the server's DPUs are not known yet")
	case verdict.Answer == vpc.Yes:
		return sayTrue(verdict.Reason)
	case verdict.Answer == vpc.No:
		return sayFalse(verdict.Reason, verdict.Message)
	default:
		return sayUnknown(verdict.Reason, verdict.Message)
	}
}

func (o *observation) verdict() posture.Verdict {
	return posture.Decide(o.fabric.Object.Spec.Posture, o.bmcs)
}

// postureRefuses reports that the server is not to be handed over: an enforced check did not pass, or is not known to.
func (o *observation) postureRefuses() bool { return o.verdict().Refuses }

// posturePace is how soon to look again where posture refuses: BMCs answer within seconds, people do not.
func (o *observation) posturePace() pace {
	if o.verdict().Reason == infrav1.PostureCheckingReason {
		return paceTransition
	}
	return paceRefused
}

// announcePosture tells of checks that did not pass, once. It is to be called before the condition is written.
func (r *Reconciler) announcePosture(o *observation, d decision) {
	before := o.before(infrav1.PostureVerifiedCondition)
	if d.posture.reason == before.reason && d.posture.status == before.status {
		return
	}
	switch d.posture.reason {
	case infrav1.PostureWarningReason, infrav1.PostureFailedReason, infrav1.PostureUnknownReason:
		r.Recorder.Eventf(o.attachment, nil, corev1.EventTypeWarning, d.posture.reason, "CheckPosture", "%s", d.posture.message)
	}
}
