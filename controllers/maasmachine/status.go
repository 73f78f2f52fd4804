// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// ownedConditions are written by nobody else.
var ownedConditions = []string{
	infrav1.ReadyCondition, infrav1.ServerClaimedCondition, infrav1.DPUAttachedCondition, infrav1.IsolatedCondition,
	infrav1.DeployedCondition, infrav1.ReleasedCondition,
}

// report writes the status: what the observation says by itself, what the step says besides, and the summary.
func (p *pass) report(o Observation, step Step) {
	if o.Server.Held == maas.Yes && o.Server.Machine.SystemID == o.SystemID && o.SystemID != "" {
		p.describe(&p.machine.Status)
	}
	for _, said := range []Saying{sayClaimed(o), sayAttached(o), sayIsolated(o), sayDeployed(o), sayReleased(o)} {
		if said.Reason != "" {
			p.say(said)
		}
	}
	for _, said := range step.Say {
		p.say(said)
	}
	p.complete()
	p.say(summarize(p.machine, o))
	if p.identity != nil && !p.o.Order.open(p.o.Now) {
		p.machine.Status.OpenOrder = nil // Until when it can come is the identity's to say.
	}
}

func (p *pass) say(said Saying) {
	conditions.Set(p.machine, metav1.Condition{Type: said.Type, Status: said.Status, Reason: said.Reason, Message: said.Message})
}

// complete leaves no condition out.
func (p *pass) complete() {
	for _, condition := range ownedConditions {
		if !conditions.Has(p.machine, condition) {
			p.say(saysUnknown(condition, infrav1.NotStartedReason, "nothing is known yet"))
		}
	}
}

// describe repeats what MAAS says of the server.
func (p *pass) describe(s *infrav1.MaasMachineStatus) {
	s.Hostname = p.o.Server.Machine.Hostname
	s.FailureDomain = p.o.Server.Machine.Zone
}

func says(condition string, status metav1.ConditionStatus, reason, message string) Saying {
	return Saying{Type: condition, Status: status, Reason: reason, Message: message}
}

// sayClaimed says nothing while no server is known: then the step knows why.
func sayClaimed(o Observation) Saying {
	if o.SystemID == "" {
		return Saying{}
	}
	switch o.Server.Held {
	case maas.Yes:
		return says(infrav1.ServerClaimedCondition, metav1.ConditionTrue, infrav1.ClaimedReason, fmt.Sprintf("MAAS holds server %s under the claim", o.SystemID))
	case maas.No:
		if o.givenBack() {
			return saysNo(infrav1.ServerClaimedCondition, infrav1.ReleasedReason, fmt.Sprintf("server %s went back to MAAS", o.SystemID))
		}
		return saysNo(infrav1.ServerClaimedCondition, infrav1.ServerLostReason, fmt.Sprintf("server %s is not held under the claim: %s", o.SystemID, o.Server.Why))
	}
	return Saying{}
}

func sayAttached(o Observation) Saying {
	a := o.Attachment
	say := func(status metav1.ConditionStatus, reason, message string) Saying {
		return says(infrav1.DPUAttachedCondition, status, reason, message)
	}
	switch {
	case !o.Ports:
		return say(metav1.ConditionTrue, infrav1.AttachmentNotRequestedReason, "the machine has no ports")
	case a.Exists == maas.Unknown && a.Problem != nil:
		return say(metav1.ConditionUnknown, a.Problem.Reason, a.Problem.Message)
	case a.Exists == maas.Unknown:
		return Saying{}
	case a.Exists == maas.No:
		return say(metav1.ConditionFalse, infrav1.NotStartedReason, "no attachment is asked for")
	case a.Asked == infrav1.AttachmentStateDetached && a.Proven == infrav1.AttachmentStateDetached:
		return say(metav1.ConditionFalse, infrav1.DetachedReason, "the ports are proven detached")
	case a.Asked == infrav1.AttachmentStateDetached:
		return say(metav1.ConditionFalse, infrav1.DetachingReason, "the ports are being detached")
	case a.Broken != nil:
		return say(metav1.ConditionFalse, infrav1.IsolationBrokenReason, a.Broken.Message)
	case a.ready():
		return say(metav1.ConditionTrue, infrav1.AttachmentProvenReason, "the ports are proven attached")
	case a.Proven == infrav1.AttachmentStateAttached:
		return say(metav1.ConditionUnknown, infrav1.ProofStaleReason, a.stale())
	}
	message := "waiting for the fabric to prove the ports attached"
	if a.Waiting != "" {
		message += ": " + a.Waiting
	}
	return say(metav1.ConditionFalse, infrav1.AttachingReason, message)
}

// stale says why a proof of attachment counts no more.
func (a AttachmentView) stale() string {
	if a.Doubt != "" {
		return "the proof of attachment cannot be renewed: " + a.Doubt
	}
	return "the last proof of attachment is older than the fabric allows"
}

func sayIsolated(o Observation) Saying {
	a := o.Attachment
	say := func(status metav1.ConditionStatus, reason, message string) Saying {
		return says(infrav1.IsolatedCondition, status, reason, message)
	}
	switch {
	case !o.Ports:
		return say(metav1.ConditionFalse, infrav1.AttachmentNotRequestedReason, "the machine has no ports, which its identity allows: nothing isolates it")
	case a.Broken != nil:
		return say(metav1.ConditionFalse, infrav1.IsolationBrokenReason, a.Broken.Message)
	case a.ready() && o.portIsolationRefused():
		return say(metav1.ConditionFalse, infrav1.PortIsolationNotAssertedReason, "nobody vouches for the fabric's provisioning network, which the identity does not accept")
	case a.ready() && a.PortIsolation != infrav1.PortIsolationAsserted:
		return say(metav1.ConditionTrue, infrav1.PortIsolationNotAssertedReason, "the ports are proven attached; nobody vouches for the provisioning network, which the identity accepts")
	case a.ready():
		return say(metav1.ConditionTrue, infrav1.IsolatedReason, "the ports are proven attached to the tenant's VPC only")
	case a.Exists == maas.Yes && a.Proven == infrav1.AttachmentStateAttached && a.Asked == infrav1.AttachmentStateAttached:
		return say(metav1.ConditionUnknown, infrav1.ProofStaleReason, a.stale())
	}
	return say(metav1.ConditionUnknown, infrav1.NotStartedReason, "there is no proof of attachment")
}

func sayDeployed(o Observation) Saying {
	if o.SystemID != "" && o.Server.Held == maas.Unknown {
		return Saying{}
	}
	say := func(status metav1.ConditionStatus, reason, message string) Saying {
		return says(infrav1.DeployedCondition, status, reason, message)
	}
	switch {
	case o.Server.Held == maas.Yes && o.Server.Machine.Status == maas.StatusDeployed && o.SystemID != "":
		return say(metav1.ConditionTrue, infrav1.DeployedReason, fmt.Sprintf("MAAS deployed server %s", o.SystemID))
	case o.DeployFailures > 0 && !o.Deleting:
		return say(metav1.ConditionFalse, infrav1.DeployRetryingReason, fmt.Sprintf("deployment failed on %d servers: another one is tried", o.DeployFailures))
	}
	return say(metav1.ConditionFalse, infrav1.NotStartedReason, "nothing is deployed")
}

func sayReleased(o Observation) Saying {
	if o.Deleting {
		return Saying{}
	}
	return saysNo(infrav1.ReleasedCondition, infrav1.NotReleasedReason, "the machine is wanted")
}

// summarize makes Ready, which Cluster API mirrors, from the first promise that is not kept; its reason says which. Until a machine
// is provisioned, Ready is Unknown while something goes on or is waited for, so that nobody replaces the machine for that, and False
// once waiting cannot help.
func summarize(machine *infrav1.MaasMachine, o Observation) Saying {
	if o.Deleting {
		released := conditions.Get(machine, infrav1.ReleasedCondition)
		if released == nil || released.Reason == infrav1.NotReleasedReason || released.Reason == infrav1.NotStartedReason {
			return saysNo(infrav1.ReadyCondition, infrav1.DeletingReason, "the machine is being deleted")
		}
		return saysNo(infrav1.ReadyCondition, released.Reason, released.Message)
	}
	if !o.Provisioned && o.Avoided != "" {
		if back := conditions.Get(machine, infrav1.ReleasedCondition); back != nil && back.Reason != infrav1.NotReleasedReason && back.Reason != infrav1.NotStartedReason {
			return saysUnknown(infrav1.ReadyCondition, back.Reason, back.Message)
		}
	}
	promises := []string{infrav1.ServerClaimedCondition, infrav1.DPUAttachedCondition, infrav1.DeployedCondition, infrav1.IsolatedCondition}
	if !o.Ports {
		promises = []string{infrav1.ServerClaimedCondition, infrav1.DeployedCondition}
	}
	for _, promise := range promises {
		if c := conditions.Get(machine, promise); c != nil && c.Status != metav1.ConditionTrue {
			status := c.Status
			if !o.Provisioned && !(promise == infrav1.ServerClaimedCondition && hopeless[c.Reason]) {
				status = metav1.ConditionUnknown
			}
			return says(infrav1.ReadyCondition, status, c.Reason, c.Message)
		}
	}
	if !o.Provisioned {
		return saysUnknown(infrav1.ReadyCondition, infrav1.DeployingReason, "the machine is about to be provisioned")
	}
	return says(infrav1.ReadyCondition, metav1.ConditionTrue, infrav1.ReadyReason, "")
}

// hopeless are the reasons for which no server is claimed and none will be.
var hopeless = map[string]bool{
	infrav1.DeployFailedReason: true, infrav1.AttachmentRefusedReason: true, infrav1.TokenMismatchReason: true,
}
