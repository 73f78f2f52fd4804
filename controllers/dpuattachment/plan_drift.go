// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

const (
	// repairsPerPeriod is how often what somebody takes away is put back: whoever goes on meant it.
	repairsPerPeriod = 3
	repairPeriod     = time.Hour
)

// decideRunning is for a running tenant: it renews the proof, or says what is not as it was proven. Nothing is written but to
// put back what was taken away of ours.
func decideRunning(o *observation, d decision) decision {
	d.running, d.progress.again = true, o.progress.again
	if finding := o.checkServer(true); finding.Answer != vpc.Yes {
		exposed := finding.Answer == vpc.No && finding.Reason == infrav1.ForeignVPCReason
		return o.lostEvidence(d, vpc.Drift{Finding: finding, Seen: finding.Answer == vpc.No, Exposed: exposed})
	}
	d.resolved = sayTrue(infrav1.ResolvedReason)
	var drifts []vpc.Drift
	for i := range o.cards {
		c := &o.cards[i]
		if len(c.ports) == 0 {
			continue
		}
		found := vpc.FindDrift(c.want, c.evidence, o.now)
		if sum := vpc.Worst(found); sum.Ours && o.network.Answer == vpc.Yes {
			if plan := vpc.PlanRepair(c.want, c.evidence, o.now); plan.Step == vpc.StepRepair {
				return o.repair(d, c, plan, sum)
			}
		}
		drifts = append(drifts, found...)
		if notice := vpc.Notice(c.want, c.evidence); notice != "" {
			d.resolved = said{status: metav1.ConditionTrue, reason: infrav1.MaintenancePendingReason, message: notice}
		}
	}
	if o.network.Answer != vpc.Yes {
		drifts = append(drifts, o.objectsDrift())
	}
	if len(drifts) > 0 {
		return o.lostEvidence(d, vpc.Worst(drifts))
	}
	return o.decideGrade(d)
}

// objectsDrift is for the TenantVPC's own objects, which its own controller makes again. As long as the ports say nothing else,
// it is not known what becomes of them.
func (o *observation) objectsDrift() vpc.Drift {
	return vpc.Drift{
		Kind: vpc.DriftObjects, Seen: o.network.Answer == vpc.No,
		Finding: vpc.Finding{Answer: vpc.Unknown, Reason: infrav1.EvidenceMissingReason, Message: o.network.Message},
	}
}

// repair puts back what was taken away of ours, if everything it hangs on is confirmed in this pass.
func (o *observation) repair(d decision, c *card, plan vpc.Plan, drift vpc.Drift) decision {
	d = o.lostEvidence(d, drift)
	// A namespace that was taken off the fabric's list keeps what it has.
	admitted := o.admission.Answer == vpc.Yes || o.admission.Reason == infrav1.NamespaceNotAllowedReason
	refuses := ""
	switch {
	case !admitted:
		refuses = "it is not put back because the attachment is not authorised: " + o.admission.Message
	case o.postureRefuses():
		refuses = "it is not put back because the posture of the DPU is not proven"
	case !o.memory.Cards[c.device].mayRepair(o.now):
		refuses = fmt.Sprintf("it is not put back any more, because it was taken away %d times within %s", repairsPerPeriod, repairPeriod)
	case !o.claim.asked:
		d.needsClaim = true
		return d
	case !o.confirmed():
		refuses = "it is put back once MAAS confirms the claim"
	}
	if refuses != "" {
		d.attached.message += "; " + refuses
		return d
	}
	d.attached.message += "; it is being put back"
	d.memory = d.memory.with(c.device, o.memory.Cards[c.device].repaired(o.now, c))
	d.write = &write{card: c, step: plan.Step, change: plan.Change}
	return d
}

// mayRepair reports whether a repair more is within reason.
func (m cardMemory) mayRepair(now time.Time) bool {
	return m.RepairedAt == nil || m.Repairs < repairsPerPeriod || now.Sub(m.RepairedAt.Time) >= repairPeriod
}

// repaired remembers a repair before it is made. The period begins with its first one.
func (m cardMemory) repaired(now time.Time, c *card) cardMemory {
	if m.RepairedAt == nil || now.Sub(m.RepairedAt.Time) >= repairPeriod {
		at := metav1.NewTime(now.Truncate(time.Second))
		m.RepairedAt, m.Repairs = &at, 0
	}
	m.Repairs++
	return m.of(c)
}

// lostEvidence is for a running tenant whose proof cannot be renewed. What cannot be read takes nothing back before its time;
// what is seen to have changed makes the last proof worthless; what contradicts it takes it back.
func (o *observation) lostEvidence(d decision, drift vpc.Drift) decision {
	if d.resolved.status == "" {
		d.resolved = sayTrue(infrav1.ResolvedReason)
	}
	if o.resolved.Answer != vpc.Yes {
		d.resolved = sayFinding(o.resolved)
	}
	d.pace = paceTransition
	if message := o.explained(drift.Finding).Message; drift.Finding.Answer != vpc.No {
		drift.Finding.Message = message
		d.keep, d.doubt = true, drift.Seen
		d.attached = sayUnknown(infrav1.EvidenceMissingReason, drift.Finding.Message)
		return d
	}
	d.attached, d.progress.again = sayFalse(infrav1.EvidenceMissingReason, drift.Finding.Message), o.barrierAsked()
	d.powerOff = o.fabric.Object.Spec.OnIsolationLost == infrav1.IsolationLostPowerOff && (drift.Exposed || o.proofIsOld())
	return d
}

// proofIsOld reports whether the last proof is older than the fabric allows.
func (o *observation) proofIsOld() bool {
	proven := o.attachment.Status.ProvenAt
	return proven != nil && o.now.Sub(proven.Time) >= o.proofMaxAge()
}
