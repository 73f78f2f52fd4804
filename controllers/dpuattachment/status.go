// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"cmp"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// ownedConditions are written by this controller alone.
var ownedConditions = []string{
	infrav1.AuthorizedCondition, infrav1.DPUResolvedCondition, infrav1.PostureVerifiedCondition,
	infrav1.AttachedCondition, infrav1.ReadyCondition,
}

func conditionOf(attachment *infrav1.DPUAttachment, kind string) *metav1.Condition {
	return conditions.Get(attachment, kind)
}

// report writes what was decided into the status.
func report(o *observation, d decision) {
	attachment := o.attachment
	status := &attachment.Status
	set := func(kind string, s said) {
		if s.reason == "" {
			s.reason = infrav1.NotStartedReason
		}
		if s.status == "" {
			s.status = metav1.ConditionUnknown
		}
		// What changed was so when the pass found out, which is before it wrote to the DPU.
		conditions.Set(attachment, metav1.Condition{
			Type: kind, Status: s.status, Reason: s.reason, Message: s.message, LastTransitionTime: metav1.NewTime(o.now),
		})
	}
	set(infrav1.AuthorizedCondition, d.authorized)
	set(infrav1.DPUResolvedCondition, d.resolved)
	set(infrav1.PostureVerifiedCondition, d.posture)
	set(infrav1.AttachedCondition, d.attached)
	set(infrav1.ReadyCondition, summarise(o, d))

	if o.fabric != nil {
		status.FabricName = o.fabric.Object.Name
		status.PortIsolation = o.fabric.Object.Spec.ProvisioningNetwork.PortIsolation
	}
	status.RequestedAction = ""
	if d.powerOff {
		status.RequestedAction = infrav1.RequestedActionPowerOff
	}
	if d.keep {
		// What was proven last stays to be read; from now on it proves nothing.
		if until := metav1.NewTime(o.now.Truncate(time.Second)); d.doubt && until.Before(status.ValidUntil) {
			status.ValidUntil = &until
		}
		return
	}
	reportProof(o, d)
}

// reportProof writes what is proven now. A proof is for one token and one generation.
func reportProof(o *observation, d decision) {
	status := &o.attachment.Status
	unchanged := d.proven == status.State && o.sameClaim()
	history := unchanged && d.proven == infrav1.AttachmentStateDetached
	status.State = d.proven
	status.TokenHash = maas.TokenHash(o.attachment.Spec.Server.Token)
	status.ObservedGeneration = o.attachment.Generation
	now := metav1.NewTime(o.now.Truncate(1e9))
	switch {
	case history:
	case d.proven == infrav1.AttachmentStateAttached:
		until := metav1.NewTime(now.Add(o.proofMaxAge()))
		status.ProvenAt, status.ValidUntil = &now, &until
	case d.proven == infrav1.AttachmentStateDetached:
		status.ProvenAt, status.ValidUntil = &now, nil
	default:
		// What was proven last of a running tenant stays to be read; it is proven no more.
		if !d.running {
			status.ProvenAt, status.ValidUntil = nil, nil
		}
	}
	if !history {
		reportPorts(o, d, now)
	}
}

func reportPorts(o *observation, d decision, now metav1.Time) {
	status := &o.attachment.Status
	ports := make([]infrav1.AttachmentPortStatus, 0, len(o.attachment.Spec.Ports))
	for _, port := range o.attachment.Spec.Ports {
		next := infrav1.AttachmentPortStatus{Name: port.Name}
		previous := infrav1.AttachmentPortStatus{}
		if i := slices.IndexFunc(status.Ports, func(p infrav1.AttachmentPortStatus) bool { return p.Name == port.Name }); i >= 0 {
			previous = status.Ports[i]
		}
		o.describePort(port.Name, &next, previous)
		next.State = d.proven
		switch d.proven {
		case infrav1.AttachmentStateAttached:
			next.Address = cmp.Or(o.addressOf(port.Name), next.Address)
		case infrav1.AttachmentStateDetached:
			next.Address = ""
		}
		if d.proven != "" {
			next.Evidence = cmp.Or(d.grade, infrav1.EvidenceServiceInterface)
			next.Observed = &now
			next.Since = &now
			if previous.State == d.proven && previous.Since != nil {
				next.Since = previous.Since
			}
		}
		ports = append(ports, next)
	}
	status.Ports = ports
}

// addressOf is the tenant address of a port, where OVN gives it. What it gave before stays known while it does not: the northbound
// database, which has some, may be away.
func (o *observation) addressOf(name string) string {
	for i := range o.cards {
		c := &o.cards[i]
		if n := slices.IndexFunc(c.ports, func(p infrav1.MachinePort) bool { return p.Name == name }); n >= 0 {
			return vpc.PortAddress(c.want, c.evidence, c.want.Ports[n].PF)
		}
	}
	return ""
}

// describePort says which DPU and network a port is on, as last known.
func (o *observation) describePort(name string, next *infrav1.AttachmentPortStatus, previous infrav1.AttachmentPortStatus) {
	next.DPUDevice, next.DPU, next.NetworkName, next.MAC, next.Address = previous.DPUDevice, previous.DPU, previous.NetworkName, previous.MAC, previous.Address
	for i := range o.cards {
		c := &o.cards[i]
		n := slices.IndexFunc(c.ports, func(p infrav1.MachinePort) bool { return p.Name == name })
		if n < 0 {
			continue
		}
		next.DPUDevice, next.NetworkName = c.device, c.want.Ports[n].Network
		if c.member.DPU != nil {
			next.DPU = c.member.DPU.Name
		}
		if c.want.Ports[n].MAC != "" {
			next.MAC = c.want.Ports[n].MAC
		}
	}
}

// summarise says what Ready says: the first condition that stands in the way of what is asked.
func summarise(o *observation, d decision) said {
	if d.attached.reason == infrav1.OverriddenReason {
		return d.attached
	}
	if o.askedToDetach() {
		if d.proven == infrav1.AttachmentStateDetached {
			return sayTrue(infrav1.DetachedReason)
		}
		return d.attached
	}
	switch {
	case d.authorized.status != metav1.ConditionTrue && d.proven != infrav1.AttachmentStateAttached:
		return d.authorized
	case d.attached.status == metav1.ConditionTrue:
		return said{status: metav1.ConditionTrue, reason: infrav1.ReadyReason, message: d.resolved.message}
	case d.resolved.status != metav1.ConditionTrue && d.resolved.reason != "":
		return d.resolved
	default:
		return d.attached
	}
}
