// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package tenantvpc

import (
	"fmt"
	"slices"
	"strings"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// adopt answers for a TenantVPC that names an existing DPUVPC, which is never changed.
func (p *planner) adopt() {
	switch answer, message := vpc.DecideAdoption(p.owner, p.vpc, p.fabric.Spec.Backend.OVNVPC.AdoptionKeyPrefixes); answer {
	case vpc.AdoptionNotGranted:
		p.problem(infrav1.AdoptionNotGrantedReason, "%s", message)
	case vpc.AdoptionUnsuitable:
		p.problem(infrav1.AdoptionUnsuitableReason, "%s", message)
	case vpc.AdoptionGranted:
		// Ports join a VPC by its own selector's labels, which attachments do not set on DPUs for adopted ones.
		p.problem(infrav1.AdoptionUnsuitableReason, "the DPUVPC is granted, but this version attaches no ports to adopted VPCs: create a TenantVPC with subnets")
	}
}

// removeObsolete takes away networks of ours that the spec does not have, unless they are used.
func (p *planner) removeObsolete(kept map[string]bool) {
	for i := range p.networks {
		network := &p.networks[i]
		if !p.mine(network) || kept[network.Name] || p.unclear[network.Name] {
			continue
		}
		name := p.subnetOf(network.Name)
		if users := p.users(network.Name); len(users) > 0 {
			p.decision.inUse = true
			p.decision.removing = append(p.decision.removing, fmt.Sprintf("subnet %s stays because it is used by %s", name, enumerate(users)))
			continue
		}
		if p.portsUnknown != nil {
			p.decision.removing = append(p.decision.removing, fmt.Sprintf("subnet %s stays because its ports cannot be read: %v", name, p.portsUnknown))
			continue
		}
		p.decision.removing = append(p.decision.removing, fmt.Sprintf("subnet %s is being removed", name))
		if left := p.interfacesOn(network.Name, true); len(left) > 0 {
			p.removeInterfaces(left)
			continue
		}
		if network.DeletionTimestamp.IsZero() {
			p.do(remove, network)
		}
	}
}

// users are those who need a network, as read from the fabric and from attachments that are not proven Detached.
func (p *planner) users(network string) []string {
	var users []string
	for i := range p.attachments {
		attachment := &p.attachments[i]
		if provenDetached(attachment) {
			continue
		}
		if slices.ContainsFunc(attachment.Spec.Ports, func(port infrav1.MachinePort) bool {
			return p.place.NetworkName(p.tenant, port.Subnet) == network
		}) {
			users = append(users, fmt.Sprintf("DPUAttachment %s (MaasMachine %s)", attachment.Name, attachment.Spec.MachineName))
		}
	}
	for _, port := range p.ports {
		if port.network == network {
			users = append(users, fmt.Sprintf("ServiceInterface %s on DPU %s", port.name, port.node))
		}
	}
	for _, other := range p.interfacesOn(network, false) {
		users = append(users, fmt.Sprintf("DPUServiceInterface %s of somebody else", other.Name))
	}
	return users
}

// takeDown removes everything in DPF's order: interfaces, networks, VPC. Each level waits until the one before is gone.
func (p *planner) takeDown() {
	if p.waitForAttachments() || p.takeDownInterfaces() {
		return
	}
	if p.tenant.Spec.Adopt == nil && (p.takeDownNetworks() || p.takeDownVPC()) {
		return
	}
	p.decision.done = true
}

func (p *planner) waitForAttachments() bool {
	var names []string
	for i := range p.attachments {
		if !provenDetached(&p.attachments[i]) {
			names = append(names, p.attachments[i].Name)
		}
	}
	if len(names) > 0 {
		p.wait("waiting until the ports of DPUAttachments %s are proven detached", enumerate(names))
	}
	return len(names) > 0
}

// provenDetached says whether nothing of an attachment is on the fabric any more.
func provenDetached(attachment *infrav1.DPUAttachment) bool {
	return attachment.Spec.State == infrav1.AttachmentStateDetached &&
		attachment.Status.State == infrav1.AttachmentStateDetached &&
		attachment.Status.ObservedGeneration == attachment.Generation
}

func (p *planner) takeDownInterfaces() bool {
	var ours []*svcv1alpha1.DPUServiceInterface
	networks := map[string]bool{}
	for i := range p.interfaces {
		if p.mine(&p.interfaces[i]) {
			ours = append(ours, &p.interfaces[i])
			networks[networkOf(&p.interfaces[i].Spec.Template.Spec.Template.Spec)] = true
		}
	}
	if len(ours) == 0 {
		return false
	}
	// An interface already in deletion is past the question whether it may go.
	if slices.ContainsFunc(ours, func(i *svcv1alpha1.DPUServiceInterface) bool { return i.DeletionTimestamp.IsZero() }) {
		if p.portsUnknown != nil {
			p.wait("waiting until the ports on the VPC can be read: %v", p.portsUnknown)
			return true
		}
		var left []string
		for _, port := range p.ports {
			if networks[port.network] {
				left = append(left, fmt.Sprintf("%s on DPU %s", port.name, port.node))
			}
		}
		if len(left) > 0 {
			p.wait("waiting until ServiceInterfaces %s are unplugged, for which no DPUAttachment stands any more", enumerate(left))
			return true
		}
	}
	p.removeInterfaces(ours)
	return true
}

// removeInterfaces deletes the first that is not in deletion, and waits for the others.
func (p *planner) removeInterfaces(interfaces []*svcv1alpha1.DPUServiceInterface) {
	var names []string
	for _, i := range interfaces {
		if i.DeletionTimestamp.IsZero() {
			p.do(remove, i)
		}
		names = append(names, i.Name)
	}
	p.wait("waiting until DPF has removed DPUServiceInterfaces %s", enumerate(names))
}

func (p *planner) takeDownNetworks() bool {
	var names, foreign []string
	for i := range p.networks {
		network := &p.networks[i]
		if !p.mine(network) {
			continue
		}
		for _, other := range p.interfacesOn(network.Name, false) {
			foreign = append(foreign, other.Name)
		}
		if network.DeletionTimestamp.IsZero() {
			p.do(remove, network)
		}
		names = append(names, network.Name)
	}
	if len(foreign) > 0 {
		p.decision.step = nil
		p.wait("waiting until somebody else removes DPUServiceInterfaces %s, which are on its subnets", enumerate(foreign))
		return true
	}
	if len(names) > 0 {
		p.wait("waiting until DPF has removed DPUVirtualNetworks %s", enumerate(names))
	}
	return len(names) > 0
}

func (p *planner) takeDownVPC() bool {
	if p.vpc == nil || !p.mine(p.vpc) {
		return false
	}
	var foreign []string
	for i := range p.networks {
		if p.networks[i].Spec.VPCName == p.vpc.Name {
			foreign = append(foreign, p.networks[i].Name)
		}
	}
	if len(foreign) > 0 {
		p.wait("waiting until somebody else removes DPUVirtualNetworks %s, which are in its VPC", enumerate(foreign))
		return true
	}
	if p.vpc.DeletionTimestamp.IsZero() {
		p.do(remove, p.vpc)
	}
	p.wait("waiting until DPF has removed DPUVPC %s", p.vpc.Name)
	return true
}

// interfacesOn are the interfaces on a network: ours, or those of others.
func (p *planner) interfacesOn(network string, ours bool) []*svcv1alpha1.DPUServiceInterface {
	var found []*svcv1alpha1.DPUServiceInterface
	for i := range p.interfaces {
		if p.mine(&p.interfaces[i]) == ours && networkOf(&p.interfaces[i].Spec.Template.Spec.Template.Spec) == network {
			found = append(found, &p.interfaces[i])
		}
	}
	return found
}

// subnetOf is the name of a network's subnet, as far as it is still known.
func (o *observation) subnetOf(network string) string {
	for _, subnet := range o.tenant.Spec.Subnets {
		if o.place.NetworkName(o.tenant, subnet.Name) == network {
			return subnet.Name
		}
	}
	for _, subnet := range o.tenant.Status.Subnets {
		if subnet.NetworkName == network {
			return subnet.Name
		}
	}
	return network
}

// obsolete reports whether a network of ours has no place in the spec.
func (o *observation) obsolete(network *vpcv1alpha1.DPUVirtualNetwork) bool {
	return !slices.ContainsFunc(o.tenant.Spec.Subnets, func(subnet infrav1.VPCSubnet) bool {
		return o.place.NetworkName(o.tenant, subnet.Name) == network.Name
	})
}

// enumerate lists a few names and counts the rest, so that messages stay readable.
func enumerate(names []string) string {
	const shown = 5
	if len(names) <= shown {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:shown], ", "), len(names)-shown)
}
