// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package tenantvpc

import (
	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// buildInterfaces makes the interfaces that attachments ask for on the networks that are there. They are kept until their subnet
// goes: with no label on any DPU they do nothing.
func (p *planner) buildInterfaces(networks map[string]bool) {
	for _, w := range vpc.WantedInterfaces(p.tenant, p.attachments) {
		if !networks[p.place.NetworkName(p.tenant, w.Subnet)] {
			continue
		}
		desired := vpc.DesiredInterface(p.place, p.tenant, w.Subnet, w.PF)
		current := p.interfaceNamed(desired.Name)
		switch {
		case current == nil:
			p.do(create, desired)
			p.plug(desired.Name)
		case !p.mine(current):
			p.problem(infrav1.NameTakenReason, "DPUServiceInterface %s on the fabric belongs to somebody else and is not touched: let the operator remove it", current.Name)
		case !current.DeletionTimestamp.IsZero():
			p.plug(current.Name) // It is made again when it is gone.
		case !vpc.SameInterface(current, desired):
			p.restoreInterface(current, desired)
		}
	}
}

func (p *planner) plug(name string) { p.decision.plugging = append(p.decision.plugging, name) }

// restoreInterface sets an interface back that somebody edited. Which DPUs it takes and which function it plugs can be edited, and
// set back: only DPUs that carry this VPC's labels follow. Anything else is replaced, as long as no port is on its network.
func (p *planner) restoreInterface(current, desired *svcv1alpha1.DPUServiceInterface) {
	network := networkOf(&desired.Spec.Template.Spec.Template.Spec)
	switch {
	case restorable(current, desired):
		if p.decision.step == nil {
			p.decision.step = &step{verb: restore, object: current, desired: desired}
		}
		p.plug(current.Name)
	case p.portsUnknown == nil && len(p.portsOn(network)) == 0 && len(p.portsOn(networkOf(&current.Spec.Template.Spec.Template.Spec))) == 0:
		p.do(remove, current)
		p.plug(current.Name)
	default:
		p.problem(infrav1.DriftedReason, "DPUServiceInterface %s was edited by somebody else in a way that cannot be set back while ports are on it: let the operator set it back, or delete it, which unplugs them until it is made again", current.Name)
	}
}

// restorable says whether an interface differs in nothing but its node selector and the number of its physical function.
func restorable(current, desired *svcv1alpha1.DPUServiceInterface) bool {
	restored := current.DeepCopy()
	restored.Spec.Template.Spec.NodeSelector = desired.Spec.Template.Spec.NodeSelector
	if pf := restored.Spec.Template.Spec.Template.Spec.PF; pf != nil {
		pf.ID = desired.Spec.Template.Spec.Template.Spec.PF.ID
	}
	return vpc.SameInterface(restored, desired)
}
