// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"fmt"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// decideDetach plans the way off: every card that was ever written to, or that carries this attachment's record.
func decideDetach(o *observation, d decision) decision {
	if d.resolved = sayFinding(o.resolved); o.resolved.Answer == vpc.Yes {
		d.resolved = sayTrue(infrav1.ResolvedReason)
	}
	if o.resolved.Answer == vpc.Unknown {
		d.attached, d.keep = sayUnknown(o.resolved.Reason, o.resolved.Message), true
		return d.since(o)
	}
	for _, device := range slices.Sorted(maps.Keys(o.memory.Cards)) {
		if !slices.ContainsFunc(o.cards, func(c card) bool { return c.device == device }) {
			finding := vpc.Finding{Answer: vpc.Unknown, Reason: infrav1.DetachUnprovenReason, Message: fmt.Sprintf("DPUDevice %s is gone: nothing proves that its ports were unplugged", device)}
			return o.undetached(d, finding)
		}
	}
	written := false
	for i := range o.cards {
		plan, concerned := o.planDetach(&o.cards[i])
		written = written || concerned
		if !concerned || plan.Step == vpc.StepDone {
			continue
		}
		return o.retreat(d, &o.cards[i], plan)
	}
	spared := ""
	if written {
		passed, barrier := o.passBarrier(d, infrav1.AttachmentStateDetached)
		if d = passed; barrier.Step != vpc.BarrierPassed {
			return o.undetached(d, barrier.Finding).awaitOVN(o)
		}
		spared = barrier.Spared
	}
	d.proven, d.pace = infrav1.AttachmentStateDetached, paceDone
	d.attached = sayFalse(infrav1.DetachedReason, spared)
	d.finalize = !o.attachment.DeletionTimestamp.IsZero()
	if !o.askedToDetach() {
		d.pace = paceRefused
	}
	return d
}

// planDetach plans the way off for one card; concerned is false if nothing was ever written to it.
func (o *observation) planDetach(c *card) (plan vpc.Plan, concerned bool) {
	options := vpc.DetachOptions{Urgent: o.lost(), Repeat: o.mayRepeat()}
	plan, written := vpc.PlanDetach(c.want, c.evidence, o.now, options)
	if written {
		return plan, true
	}
	remembered, touched := o.memory.Cards[c.device]
	if !touched {
		return vpc.Plan{}, false
	}
	return vpc.PlanRejoin(c.want, remembered.Before, c.evidence, o.now, options), true
}

// mayRepeat says whether plugging once more, to be able to prove the unplugging, is permitted: as permitted as any attachment.
func (o *observation) mayRepeat() vpc.Answer {
	switch {
	case o.tenant == nil, o.ungranted:
		return vpc.No
	case !o.claim.asked:
		return vpc.Unknown
	default:
		return o.claim.finding.Answer
	}
}

// retreat makes the next step off.
func (o *observation) retreat(d decision, c *card, plan vpc.Plan) decision {
	finding := plan.Finding
	if o.unpowered && plan.Step == vpc.StepWait && finding.Reason == infrav1.DetachingPortReason {
		finding = dark(finding) // It went dark after the write.
	}
	d = o.undetached(d, finding)
	if plan.Finding.Reason == infrav1.DetachUnprovenReason && !o.claim.asked {
		d.needsClaim = true
	}
	if plan.OVN {
		d = d.awaitOVN(o)
	}
	if plan.Step == vpc.StepUnplug && o.ovn != nil {
		d.memory = d.memory.with(c.device, o.memory.Cards[c.device].naming(c))
	}
	if plan.Step != vpc.StepWait {
		d.write = &write{card: c, step: plan.Step, change: plan.Change}
		d.pace = paceTransition
	}
	return d
}

// undetached says why the ports are not proven detached yet, and after the fabric's timeout that the proof does not come.
func (o *observation) undetached(d decision, finding vpc.Finding) decision {
	if finding.Reason == "" {
		finding.Reason = infrav1.DetachingPortReason
	}
	d = d.since(o)
	finding = o.explained(finding)
	d.attached = sayFinding(finding)
	// While a port is on its way off, nothing is proven of it.
	d.proven = ""
	if since := d.memory.DetachingSince; since != nil && o.now.Sub(since.Time) >= o.detachTimeout() {
		d.attached = sayFalse(infrav1.DetachUnprovenReason, finding.Message)
	}
	d.pace = paceOf(d.attached)
	return d
}

// since remembers when detachment was asked for first.
func (d decision) since(o *observation) decision {
	if d.memory.DetachingSince == nil && (d.memory.touched() || o.holds()) {
		now := metav1.NewTime(o.now.Truncate(1e9))
		d.memory.DetachingSince = &now
	}
	if since := d.memory.DetachingSince; since != nil && d.keep && o.now.Sub(since.Time) >= o.detachTimeout() {
		d.attached.reason = infrav1.DetachUnprovenReason
	}
	return d
}
