// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

const (
	// ovnInterval and ovnSlowInterval are how soon OVN is asked again for what is missing, at first and later.
	ovnInterval     = 200 * time.Millisecond
	ovnSlowInterval = 2 * time.Second
	// ovnPatience is for how long it is asked so often.
	ovnPatience = time.Minute
)

// ovnPause is how long to wait before OVN is asked again, after it was waited for that long: no watch tells of its changes.
func ovnPause(waited, pollInterval time.Duration) time.Duration {
	if waited >= ovnPatience {
		return pollInterval
	}
	return min(max(waited/4, ovnInterval), ovnSlowInterval, pollInterval)
}

// gradeRead is the grade of what was read in this pass, without a barrier.
func (o *observation) gradeRead() infrav1.EvidenceGrade {
	if o.ovn != nil {
		return infrav1.EvidenceBound
	}
	return infrav1.EvidenceServiceInterface
}

// gradeBefore is what the attachment is proven with at present, for this claim and generation; empty if it is not proven attached.
func (o *observation) gradeBefore() infrav1.EvidenceGrade {
	status := &o.attachment.Status
	if status.State != infrav1.AttachmentStateAttached || !o.sameClaim() || status.ObservedGeneration != o.attachment.Generation || o.progress.again {
		return ""
	}
	grade := infrav1.EvidenceGrade("")
	for _, port := range status.Ports {
		if grade != "" && port.Evidence != grade {
			return ""
		}
		grade = port.Evidence
	}
	return grade
}

// awaitOVN is for a pass that lacks nothing but OVN's word.
func (d decision) awaitOVN(o *observation) decision {
	d.progress.since = o.progress.since
	if d.progress.since.IsZero() {
		d.progress.since = o.now
	}
	d.pace = paceOVN
	return d
}

// passBarrier says where the barrier stands, if the fabric asks for one: everything else is proven by what was read in this pass.
// What is not passed is waited for; the raise, which is all that is ever written to OVN, is the pass's one write.
func (o *observation) passBarrier(d decision, state infrav1.AttachmentState) (decision, vpc.BarrierPlan) {
	if !o.barrierAsked() || o.ovn == nil {
		d.grade = o.gradeRead()
		return d, vpc.BarrierPlan{Step: vpc.BarrierPassed}
	}
	purpose := vpc.BarrierPurpose{State: state, TokenHash: o.holder().TokenHash, Generation: o.attachment.Generation}
	plan := vpc.PlanBarrier(o.progress.barrier, purpose, o.party(), *o.ovn, o.now)
	d.progress.barrier = plan.Next
	switch plan.Step {
	case vpc.BarrierPassed:
		d.grade, d.progress.again = infrav1.EvidenceBarrier, false
		return d, plan
	case vpc.BarrierRaise:
		d.raise = &plan
	}
	d.grade = infrav1.EvidenceBound
	return d.awaitOVN(o), plan
}

// decideGrade renews the proof of a running tenant, everything of which was found as it was. It keeps its grade. One that has a weaker
// grade than the fabric asks for, because it was proven before the fabric did, is brought to it meanwhile; one that was taken back
// stays so until it has passed the barrier.
func (o *observation) decideGrade(d decision) decision {
	if !o.barrierAsked() || o.gradeBefore() == infrav1.EvidenceBarrier {
		if d.grade = o.gradeRead(); o.barrierAsked() {
			d.grade = infrav1.EvidenceBarrier
		}
		return o.renew(d, o.spokenBefore())
	}
	d, plan := o.passBarrier(d, infrav1.AttachmentStateAttached)
	switch {
	case plan.Step == vpc.BarrierPassed:
		return o.renew(d, plan.Spared)
	case o.gradeBefore() == "":
		d.attached = sayUnknown(infrav1.EvidenceMissingReason, plan.Finding.Message)
		return d
	}
	if d = o.renew(d, ""); d.proven != "" && o.now.Sub(d.progress.since) < ovnPatience {
		d.pace = paceOVN
	}
	return d
}

// renew declares what was found as it was.
func (o *observation) renew(d decision, message string) decision {
	d = o.declareAttached(d, true)
	if d.attached.status == metav1.ConditionTrue {
		d.attached.message = message
	}
	return d
}

// spokenBefore is what was said with the proof that is renewed.
func (o *observation) spokenBefore() string {
	if before := o.before(infrav1.AttachedCondition); before.status == metav1.ConditionTrue {
		return before.message
	}
	return ""
}
