// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// slowReasons are those only people, or somebody else's work, can do anything about.
var slowReasons = []string{
	infrav1.NamespaceNotAllowedReason, infrav1.TokenMismatchReason, infrav1.ClaimNotConfirmedReason, infrav1.MachineNotConsentingReason,
	infrav1.ServerNotMappedReason, infrav1.AmbiguousDPUReason, infrav1.BindingChangedReason, infrav1.UnaccountedPortReason,
	infrav1.DetachUnprovenReason,
}

func paceOf(s said) pace {
	if s.status == metav1.ConditionFalse && slices.Contains(slowReasons, s.reason) {
		return paceRefused
	}
	return paceTransition
}

// decideAttach plans the way on; who has come to its end is kept there by decideRunning.
func decideAttach(o *observation, d decision) decision {
	if !o.authorizedBefore() && !o.claim.asked && !o.claim.followed && (o.admission.Answer == vpc.Yes || o.holds()) {
		d.needsClaim = true
	}
	if o.wasAttached() {
		return decideRunning(o, d)
	}
	// What is half way on goes no further without an answer, and says where it stands.
	waiting := o.holds() && d.authorized.status == metav1.ConditionUnknown
	if !waiting && d.authorized.status != metav1.ConditionTrue {
		d.resolved = sayUnknown(infrav1.NotStartedReason, "not authorised")
		d.attached = sayFalse(infrav1.NotStartedReason, "not authorised")
		d.pace = paceOf(d.authorized)
		return d
	}
	if finding := o.checkServer(false); finding.Answer != vpc.Yes {
		return o.unattached(d, finding, true)
	}
	d.resolved = sayTrue(infrav1.ResolvedReason)
	if o.postureRefuses() {
		d.attached, d.pace = sayFalse(infrav1.NotStartedReason, d.posture.message), o.posturePace()
		return d
	}
	for i := range o.cards {
		if len(o.cards[i].ports) == 0 {
			continue
		}
		plan := vpc.PlanAttach(o.cards[i].want, o.cards[i].evidence, o.now)
		if plan.Step == vpc.StepDone {
			continue
		}
		return o.advance(d, &o.cards[i], plan)
	}
	d, barrier := o.passBarrier(d, infrav1.AttachmentStateAttached)
	if barrier.Step != vpc.BarrierPassed {
		return o.unattached(d, barrier.Finding, false).awaitOVN(o)
	}
	if d = o.declareAttached(d, false); d.proven != "" {
		d.attached.message = barrier.Spared
	}
	return d
}

// checkServer says whether the server's cards are those expected, and those without a port of ours on no VPC.
func (o *observation) checkServer(running bool) vpc.Finding {
	if o.resolved.Answer != vpc.Yes {
		return o.resolved
	}
	if !running && o.rival != "" && !o.holds() {
		return refused(infrav1.ServerHeldByOtherReason, "another attachment holds the server, or has not been proven detached from it")
	}
	for i := range o.cards {
		if len(o.cards[i].ports) > 0 {
			continue
		}
		if free := vpc.CheckFree(o.cards[i].evidence, vpc.Holder{}); free.Answer != vpc.Yes {
			return free
		}
	}
	return yes
}

// advance makes the next step on a card that is not yet proven attached, if everything it hangs on is confirmed in this pass.
func (o *observation) advance(d decision, c *card, plan vpc.Plan) decision {
	if plan.Step == vpc.StepWait {
		d = o.unattached(d, plan.Finding, !o.holdsCard(c) || plan.Finding.Reason == infrav1.ForeignVPCReason)
		if plan.OVN {
			d = d.awaitOVN(o)
		}
		return d
	}
	if !o.claim.asked && o.admission.Answer == vpc.Yes && o.network.Answer == vpc.Yes {
		d.needsClaim = true
	}
	d.attached = sayFalse(plan.Finding.Reason, plan.Finding.Message)
	switch {
	case o.admission.Answer == vpc.Yes && o.network.Answer != vpc.Yes:
		d.attached = sayFinding(o.network) // MAAS is asked once there is something to be written.
		return d
	case !o.confirmed() || o.admission.Answer != vpc.Yes:
		d.pace = paceOf(d.authorized)
		return d
	}
	if plan.Step == vpc.StepJoin {
		nics := unexplained(o.claim.machine, o.fabric.Object.Spec.ProvisioningNetwork, o.cards)
		if len(nics) > 0 && !o.devices.asked {
			d.needsDevices = true
			return d
		}
		if finding := checkUnaccounted(nics, o.devices, o.cards); finding.Answer != vpc.Yes {
			return o.unattached(d, finding, true)
		}
		d.memory = d.memory.with(c.device, cardMemory{Ports: portNames(c), Before: c.evidence.Stretch(o.now)})
	}
	d.write = &write{card: c, step: plan.Step, change: plan.Change}
	return d
}

func portNames(c *card) []string {
	names := make([]string, 0, len(c.ports))
	for _, port := range c.ports {
		names = append(names, port.Name)
	}
	return names
}

func (o *observation) holdsCard(c *card) bool {
	holder, found, err := c.evidence.Holder()
	return err == nil && found && holder.SameClaim(o.holder()) && holder.Holds()
}

// unattached says why the ports are not proven attached now. OnServer says that the finding speaks of the server rather than
// of the steps of the way on.
func (o *observation) unattached(d decision, finding vpc.Finding, onServer bool) decision {
	if finding.Reason == "" {
		finding.Reason = infrav1.AttachingPortReason
	}
	if finding.Reason == infrav1.EvidenceMissingReason {
		finding.Reason = infrav1.AttachingPortReason
	}
	finding = o.explained(finding)
	d.attached = sayFinding(finding)
	if onServer {
		d.resolved = sayFinding(finding)
		d.attached = sayFalse(infrav1.NotStartedReason, finding.Message)
	} else if d.resolved.status == "" {
		d.resolved = sayTrue(infrav1.ResolvedReason)
	}
	d.pace = paceOf(d.resolved)
	return d
}

// declareAttached verifies once more after the writes. A proof that is only renewed does not hang on MAAS: no answer changes
// nothing.
func (o *observation) declareAttached(d decision, running bool) decision {
	if !o.claim.asked && !(running && o.claim.followed) {
		d.needsClaim = true
		d.attached = sayFalse(infrav1.AttachingPortReason, "confirming the claim once more")
		return d
	}
	if !o.confirmed() && !running {
		d.attached, d.pace = sayFinding(o.claim.finding), paceOf(d.authorized)
		return d
	}
	d.proven, d.pace = infrav1.AttachmentStateAttached, paceSteady
	d.attached = sayTrue(infrav1.AttachedReason)
	return d
}
