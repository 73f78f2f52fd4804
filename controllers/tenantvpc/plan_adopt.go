// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package tenantvpc

import (
	"slices"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// maxAdopted is how many networks of an adopted VPC a status can name.
const maxAdopted = 64

// adopt uses a VPC that somebody else made and granted. It makes interfaces in it for its own attachments, and touches nothing
// else there. What is not granted reads the same whether it exists or not; a grant that is withdrawn stops what is new only.
func (p *planner) adopt() {
	answer, message := vpc.DecideAdoption(p.owner, p.vpc, p.place.AdoptionKeyPrefixes)
	switch {
	case answer == vpc.AdoptionNotGranted:
		p.problem(infrav1.AdoptionNotGrantedReason, "%s", message)
	case answer != vpc.AdoptionGranted:
		p.problem(infrav1.AdoptionUnsuitableReason, "%s", message)
	case !p.vpc.DeletionTimestamp.IsZero():
		p.problem(infrav1.AdoptionUnsuitableReason, "the adopted DPUVPC is being deleted by its operator: nothing new is attached, and it goes when the machines in it are deleted")
	default:
		if err := vpc.CheckMark(p.place.Namespace, p.vpc.Name); err != nil {
			p.problem(infrav1.FabricNotReadyReason, "%v", err)
			break
		}
		networks := map[string]bool{}
		for _, network := range p.adoptedNetworks() {
			networks[network.Name] = network.DeletionTimestamp.IsZero()
		}
		p.buildInterfaces(networks)
	}
	p.removeStranded()
}

// removeStranded takes away interfaces of ours on networks that are going or gone: their operator's deletion waits for them.
func (p *planner) removeStranded() {
	var stranded []*svcv1alpha1.DPUServiceInterface
	for i := range p.interfaces {
		current := &p.interfaces[i]
		name := networkOf(&current.Spec.Template.Spec.Template.Spec)
		network := p.networkNamed(name)
		if !p.mine(current) || network != nil && network.DeletionTimestamp.IsZero() {
			continue
		}
		switch users := append(p.askedOn(name), p.portsOn(name)...); {
		case len(users) > 0:
			p.decision.inUse = true
			p.removing("subnet %s is being deleted by its operator, and stays because it is used by %s", name, enumerate(users))
		case p.portsUnknown != nil:
			p.removing("subnet %s is being deleted by its operator, and stays because its ports cannot be read: %v", name, p.portsUnknown)
		default:
			stranded = append(stranded, current)
		}
	}
	if len(stranded) > 0 {
		p.removeInterfaces(stranded)
	}
}

// adoptedNetworks are the networks of a granted VPC that a port can name.
func (o *observation) adoptedNetworks() []*vpcv1alpha1.DPUVirtualNetwork {
	adopt := o.tenant.Spec.Adopt
	if adopt == nil {
		return nil
	}
	if answer, _ := vpc.DecideAdoption(o.place.OwnerOf(o.tenant), o.vpc, o.place.AdoptionKeyPrefixes); answer != vpc.AdoptionGranted {
		return nil
	}
	const longest = 63 // of a label's value, which plugs the port
	var found []*vpcv1alpha1.DPUVirtualNetwork
	for i := range o.networks {
		network := &o.networks[i]
		_, owned := network.Annotations[vpc.OwnerAnnotation]
		if network.Spec.VPCName == adopt.Name && len(network.Name) <= longest && !owned {
			found = append(found, network)
		}
	}
	slices.SortFunc(found, func(a, b *vpcv1alpha1.DPUVirtualNetwork) int {
		return slices.Compare([]string{a.Name}, []string{b.Name})
	})
	return found[:min(len(found), maxAdopted)]
}
