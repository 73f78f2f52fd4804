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

// removeObsolete takes away networks of ours that the spec does not have, unless they are used.
func (p *planner) removeObsolete() {
	for i := range p.networks {
		network := &p.networks[i]
		if !p.mine(network) || p.settledOn[network.Name] {
			continue
		}
		name := p.subnetOf(network.Name)
		if users := p.users(network.Name); len(users) > 0 {
			p.decision.inUse = true
			p.removing("subnet %s stays because it is used by %s", name, enumerate(users))
			continue
		}
		if p.portsUnknown != nil {
			p.removing("subnet %s stays because its ports cannot be read: %v", name, p.portsUnknown)
			continue
		}
		p.removing("subnet %s is being removed", name)
		p.clear(network)
	}
}

func (p *planner) removing(format string, args ...any) {
	p.decision.removing = append(p.decision.removing, fmt.Sprintf(format, args...))
}

// clear takes an unused network away: its interfaces first.
func (p *planner) clear(network *vpcv1alpha1.DPUVirtualNetwork) {
	if left := p.interfacesOn(network.Name, true); len(left) > 0 {
		p.removeInterfaces(left)
		return
	}
	if network.DeletionTimestamp.IsZero() {
		p.do(remove, network)
	}
}

// replaceNetwork makes a network anew that is not, or will not stay, as the spec wants it, as soon as nobody uses it. Of one that is
// going anyway only the ports count: while it lingers, DPF lets go of no Node, so that no attachment would ever be proven detached.
func (p *planner) replaceNetwork(network *vpcv1alpha1.DPUVirtualNetwork, subnet, how string) {
	p.settledOn[network.Name] = true
	users := p.plugged(network.Name)
	if network.DeletionTimestamp.IsZero() {
		users = p.users(network.Name)
	}
	switch {
	case len(users) > 0:
		p.problem(infrav1.DriftedReason, "subnet %s %s: it takes no new ports, and is made again by itself once it is not used by %s any more: replace those machines, or add a subnet with another name",
			subnet, how, enumerate(users))
	case p.portsUnknown != nil:
		p.wait("subnet %s %s; it is made again once its ports can be read: %v", subnet, how, p.portsUnknown)
	default:
		p.wait("subnet %s %s; no port is on it, and it is made again", subnet, how)
		p.clear(network)
	}
}

// replaceVPC makes a VPC anew that somebody else deletes: DPF lets it go only when its networks are gone, and those only when
// nobody uses them.
func (p *planner) replaceVPC(current *vpcv1alpha1.DPUVPC) {
	var users []string
	for i := range p.networks {
		if p.mine(&p.networks[i]) {
			users = append(users, p.plugged(p.networks[i].Name)...)
		}
	}
	switch {
	case len(users) > 0:
		p.problem(infrav1.DriftedReason, "DPUVPC %s is being deleted by somebody else: it takes no new ports, and is made again by itself once it is not used by %s any more: replace those machines",
			current.Name, enumerate(users))
	case p.portsUnknown != nil:
		p.wait("DPUVPC %s is being deleted by somebody else; it is made again once its ports can be read: %v", current.Name, p.portsUnknown)
	default:
		p.wait("DPUVPC %s is being deleted by somebody else; no port is in it, and it is made again", current.Name)
		if !p.takeDownInterfaces() {
			p.takeDownNetworks()
		}
	}
}

// users are those who need a network, as read from the fabric and from attachments that are not proven Detached.
func (p *planner) users(network string) []string {
	return append(p.askedOn(network), p.plugged(network)...)
}

// plugged is what is on a network, or may come there by somebody else.
func (p *planner) plugged(network string) []string {
	users := p.portsOn(network)
	for _, other := range p.interfacesOn(network, false) {
		users = append(users, fmt.Sprintf("DPUServiceInterface %s of somebody else", other.Name))
	}
	return users
}

// askedOn are the attachments that need a network and are not proven Detached.
func (p *planner) askedOn(network string) []string {
	var asked []string
	for i := range p.attachments {
		attachment := &p.attachments[i]
		if provenDetached(attachment) {
			continue
		}
		if slices.ContainsFunc(attachment.Spec.Ports, func(port infrav1.MachinePort) bool {
			return p.place.NetworkName(p.tenant, port.Subnet) == network
		}) {
			asked = append(asked, fmt.Sprintf("DPUAttachment %s (MaasMachine %s)", attachment.Name, attachment.Spec.MachineName))
		}
	}
	return asked
}

// portsOn are the ports on a network, whoever plugged them; on one of an adopted VPC only those of our interfaces, and those of
// which nobody says whose they are.
func (p *planner) portsOn(network string) []string {
	var ports []string
	for _, port := range p.ports {
		if port.network == network && network != "" && !p.othersPort(port) {
			ports = append(ports, fmt.Sprintf("ServiceInterface %s on DPU %s", port.name, port.node))
		}
	}
	return ports
}

// othersPort says whether a port in an adopted VPC is there by an interface of somebody else.
func (p *planner) othersPort(port port) bool {
	if p.tenant.Spec.Adopt == nil || port.set == "" {
		return false
	}
	from := p.interfaceNamed(port.set)
	return from != nil && !p.mine(from)
}

// takeDown removes everything in DPF's order: interfaces, networks, VPC. Each level waits until the one before is gone. As long as
// there are attachments, everything is kept as it was made: nothing else lets DPF unplug their ports.
func (p *planner) takeDown() {
	if p.waitForAttachments() {
		p.keep()
		return
	}
	if p.vpcWentFirst() || p.takeDownInterfaces() {
		return
	}
	if p.tenant.Spec.Adopt == nil && (p.takeDownNetworks() || p.takeDownVPC()) {
		return
	}
	p.decision.done = true
}

// keep repairs what the attachments of a deleted TenantVPC need.
func (p *planner) keep() {
	if p.tenant.Spec.Adopt != nil {
		p.adopt()
		return
	}
	p.build()
}

// vpcWentFirst makes a VPC again that somebody took away before its networks and interfaces: DPF does not let go of them without.
func (p *planner) vpcWentFirst() bool {
	if p.vpc != nil || p.tenant.Spec.Adopt != nil {
		return false
	}
	if !slices.ContainsFunc(p.networks, func(n vpcv1alpha1.DPUVirtualNetwork) bool { return p.mine(&n) }) &&
		!slices.ContainsFunc(p.interfaces, func(i svcv1alpha1.DPUServiceInterface) bool { return p.mine(&i) }) {
		return false
	}
	desired := vpc.DesiredVPC(p.place, p.tenant)
	p.do(create, desired)
	p.wait("DPUVPC %s went before its networks, which DPF lets go only while it is there: it is made again", desired.Name)
	return true
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
			if networks[port.network] && !p.othersPort(port) {
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
