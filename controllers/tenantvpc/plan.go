// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package tenantvpc

import (
	"fmt"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// verb is what a step does to its object.
type verb string

const (
	create                verb = "create"
	remove                verb = "delete"
	setInterNetworkAccess verb = "set interNetworkAccess of"
	restore               verb = "restore"
)

// step is one mutation of the fabric.
type step struct {
	verb   verb
	object client.Object
	// desired is what a restored interface is to be like.
	desired *svcv1alpha1.DPUServiceInterface
}

// problem is what somebody has to do something about.
type problem struct{ reason, message string }

// decision is what follows from an observation.
type decision struct {
	// step is the one mutation of this pass; nil when there is nothing to do but to wait.
	step *step
	// waiting says for what, while things are made or deleted.
	waiting []string
	// plugging says which interfaces are on their way; the subnets can take ports meanwhile.
	plugging []string
	// problems keep subnets from taking ports.
	problems []problem
	// removing says of each subnet that left the spec why it is still there; inUse is set where somebody uses one.
	removing []string
	inUse    bool
	// done says that nothing of a deleted TenantVPC is left.
	done bool
}

func (d *decision) settled() bool {
	return d.step == nil && len(d.waiting) == 0 && len(d.plugging) == 0 && len(d.problems) == 0 && len(d.removing) == 0
}

// plan decides on the next step.
func plan(seen *observation) decision {
	p := &planner{observation: seen, owner: seen.place.OwnerOf(seen.tenant), settledOn: map[string]bool{}}
	switch {
	case !seen.tenant.DeletionTimestamp.IsZero():
		p.takeDown()
	case seen.tenant.Spec.Adopt != nil:
		p.adopt()
	default:
		p.build()
	}
	return p.decision
}

type planner struct {
	*observation
	owner    vpc.Owner
	decision decision
	// settledOn are the networks whose lot is decided: those that stay, that are replaced, and those whose subnet cannot be read.
	settledOn map[string]bool
}

// do takes the step unless the pass has one already.
func (p *planner) do(v verb, object client.Object) {
	if p.decision.step == nil {
		p.decision.step = &step{verb: v, object: object}
	}
}

func (p *planner) wait(format string, args ...any) {
	p.decision.waiting = append(p.decision.waiting, fmt.Sprintf(format, args...))
}

func (p *planner) problem(reason, format string, args ...any) {
	p.decision.problems = append(p.decision.problems, problem{reason: reason, message: fmt.Sprintf(format, args...)})
}

func (p *planner) mine(object client.Object) bool {
	return p.owner.OwnershipOf(object.GetAnnotations()) == vpc.Mine
}

// build makes what is missing, in DPF's order: VPC, networks, interfaces.
func (p *planner) build() {
	if err := vpc.CheckMark(p.place.Namespace, p.place.VPCName(p.tenant)); err != nil {
		p.problem(infrav1.FabricNotReadyReason, "%v", err)
		return
	}
	desired := p.desiredNetworks()
	if !p.buildVPC(desired) {
		return
	}
	p.buildInterfaces(p.buildNetworks(desired))
	p.removeObsolete()
}

// wantedNetwork is a subnet of the spec that can be made.
type wantedNetwork struct {
	subnet  infrav1.VPCSubnet
	network *vpcv1alpha1.DPUVirtualNetwork
}

func (p *planner) desiredNetworks() []wantedNetwork {
	var wanted []wantedNetwork
	for _, subnet := range p.tenant.Spec.Subnets {
		network, err := vpc.DesiredNetwork(p.place, p.tenant, subnet)
		if err != nil {
			p.problem(infrav1.SubnetInvalidReason, "%v", err)
			p.settledOn[p.place.NetworkName(p.tenant, subnet.Name)] = true
			continue
		}
		if p.networkNamed(network.Name) == nil && !p.mayAdd(subnet) {
			continue
		}
		wanted = append(wanted, wantedNetwork{subnet: subnet, network: network})
	}
	return wanted
}

// mayAdd says whether a subnet that is not there yet may be made.
func (p *planner) mayAdd(subnet infrav1.VPCSubnet) bool {
	switch {
	case !p.tenant.DeletionTimestamp.IsZero() && len(p.askedOn(p.place.NetworkName(p.tenant, subnet.Name))) > 0:
		return true // It was there, and whoever is on it needs it to get off.
	case !p.tenant.DeletionTimestamp.IsZero():
		return false
	case !p.allowed:
		p.problem(infrav1.NamespaceNotAllowedReason, "subnet %s is not made: DPUFabric %s does not admit namespace %s", subnet.Name, p.fabric.Name, p.tenant.Namespace)
	case !vpc.InPools(subnet.CIDR, p.fabric.Spec.TenantPools):
		p.problem(infrav1.CIDROutsidePoolsReason, "subnet %s is not made: %s lies outside the tenant pools of DPUFabric %s: take a network inside one of %v",
			subnet.Name, subnet.CIDR, p.fabric.Name, p.fabric.Spec.TenantPools)
	default:
		return true
	}
	return false
}

// buildVPC reports whether there is a VPC of ours to build on.
func (p *planner) buildVPC(networks []wantedNetwork) bool {
	desired, current := vpc.DesiredVPC(p.place, p.tenant), p.vpc
	switch {
	case current == nil:
		if len(networks) > 0 {
			p.do(create, desired)
			p.wait("DPUVPC %s is being made", desired.Name)
		}
		return false
	case !p.mine(current):
		p.problem(infrav1.NameTakenReason, "DPUVPC %s on the fabric belongs to somebody else and is not touched: rename this TenantVPC, or let the operator remove it", current.Name)
		return false
	case !current.DeletionTimestamp.IsZero():
		p.replaceVPC(current)
		return false
	case current.Spec.Tenant != desired.Spec.Tenant || !apiequality.Semantic.DeepEqual(current.Spec.NodeSelector, desired.Spec.NodeSelector):
		p.problem(infrav1.DriftedReason, "DPUVPC %s does not select its Nodes as it was made to, and DPF lets nobody change that: delete this TenantVPC and create it again", current.Name)
		return false
	case current.Spec.InterNetworkAccess != desired.Spec.InterNetworkAccess:
		p.do(setInterNetworkAccess, current)
	}
	return true
}

// buildNetworks returns the networks that are as the spec wants them, by name.
func (p *planner) buildNetworks(wanted []wantedNetwork) map[string]bool {
	kept := map[string]bool{}
	for _, w := range wanted {
		current := p.networkNamed(w.network.Name)
		switch {
		case current == nil:
			if p.mayOverlap(w) {
				p.do(create, w.network)
				p.wait("subnet %s is being made", w.subnet.Name)
			}
		case !p.mine(current):
			p.problem(infrav1.NameTakenReason, "DPUVirtualNetwork %s on the fabric belongs to somebody else and is not touched: give subnet %s another name", current.Name, w.subnet.Name)
		case !current.DeletionTimestamp.IsZero():
			p.replaceNetwork(current, w.subnet.Name, "is being deleted on the fabric")
		case !sameNetwork(current, w.network):
			p.replaceNetwork(current, w.subnet.Name, "is another one on the fabric, where nobody can change it")
		default:
			kept[current.Name], p.settledOn[current.Name] = true, true
		}
	}
	return kept
}

// mayOverlap says whether no network of the VPC is in the way of a new one. One of ours that is about to go is waited for.
func (p *planner) mayOverlap(w wantedNetwork) bool {
	for i := range p.networks {
		other := &p.networks[i]
		if other.Spec.VPCName != w.network.Spec.VPCName || !vpc.Overlap(cidrOf(other), cidrOf(w.network)) {
			continue
		}
		if p.mine(other) && p.obsolete(other) && len(p.users(other.Name)) == 0 {
			p.wait("subnet %s is made when subnet %s, which it overlaps, is gone", w.subnet.Name, p.subnetOf(other.Name))
		} else {
			p.problem(infrav1.SubnetInvalidReason, "subnet %s is not made: %s overlaps subnet %s (DPUVirtualNetwork %s) of the same VPC: take another network, or wait until nobody uses that one",
				w.subnet.Name, w.subnet.CIDR, p.subnetOf(other.Name), other.Name)
		}
		return false
	}
	return true
}

// sameNetwork compares what we set.
func sameNetwork(current, desired *vpcv1alpha1.DPUVirtualNetwork) bool {
	left, right := current.Spec, desired.Spec
	left.Masquerade, right.Masquerade = ptr.To(ptr.Deref(left.Masquerade, true)), ptr.To(ptr.Deref(right.Masquerade, true))
	return apiequality.Semantic.DeepEqual(left, right)
}

func cidrOf(network *vpcv1alpha1.DPUVirtualNetwork) string {
	if b := network.Spec.BridgedNetwork; b != nil && b.IPAM != nil && b.IPAM.IPv4 != nil {
		return b.IPAM.IPv4.Subnet
	}
	return ""
}

func (o *observation) networkNamed(name string) *vpcv1alpha1.DPUVirtualNetwork {
	for i := range o.networks {
		if o.networks[i].Name == name {
			return &o.networks[i]
		}
	}
	return nil
}

func (o *observation) interfaceNamed(name string) *svcv1alpha1.DPUServiceInterface {
	for i := range o.interfaces {
		if o.interfaces[i].Name == name {
			return &o.interfaces[i]
		}
	}
	return nil
}
