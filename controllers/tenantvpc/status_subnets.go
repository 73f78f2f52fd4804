// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package tenantvpc

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// subnets are those of the spec and then those that are still on the fabric; or those of an adopted VPC.
func subnets(seen *observation) []infrav1.VPCSubnetStatus {
	owner := seen.place.OwnerOf(seen.tenant)
	var all []infrav1.VPCSubnetStatus
	for _, subnet := range seen.tenant.Spec.Subnets {
		all = append(all, subnetStatus(seen, owner, subnet))
	}
	for _, network := range seen.adoptedNetworks() {
		status := networkStatus(seen, network.Name, network)
		status.Ready = ptr.To(canTakePorts(network))
		if addresses, ok := vpc.NetworkCapacity(network); ok {
			status.Capacity = ptr.To(addresses)
		}
		all = append(all, status)
	}
	names := map[string]bool{}
	for i := range all {
		names[all[i].Name] = true
	}
	for i := range seen.networks {
		network := &seen.networks[i]
		if owner.OwnershipOf(network.Annotations) != vpc.Mine || !seen.obsolete(network) {
			continue
		}
		if name := seen.subnetOf(network.Name); !names[name] {
			status := networkStatus(seen, name, network)
			status.Ready = ptr.To(false)
			all = append(all, status)
		}
	}
	return all
}

// networkStatus is a subnet as its network on the fabric is.
func networkStatus(seen *observation, name string, network *vpcv1alpha1.DPUVirtualNetwork) infrav1.VPCSubnetStatus {
	used := used(seen, network.Name)
	return infrav1.VPCSubnetStatus{
		Name: name, NetworkName: network.Name, CIDR: cidrOf(network), ExternallyRouted: ptr.To(network.Spec.ExternallyRouted),
		Used: used, Claimed: claimed(seen, name, used),
	}
}

func subnetStatus(seen *observation, owner vpc.Owner, subnet infrav1.VPCSubnet) infrav1.VPCSubnetStatus {
	name := seen.place.NetworkName(seen.tenant, subnet.Name)
	used := used(seen, name)
	status := infrav1.VPCSubnetStatus{
		Name: subnet.Name, NetworkName: name, CIDR: subnet.CIDR,
		ExternallyRouted: ptr.To(ptr.Deref(subnet.ExternallyRouted, false)), Used: used, Claimed: claimed(seen, subnet.Name, used),
	}
	if capacity, err := vpc.Capacity(subnet); err == nil {
		status.Capacity = ptr.To(capacity)
	}
	network := seen.networkNamed(name)
	desired, err := vpc.DesiredNetwork(seen.place, seen.tenant, subnet)
	status.Ready = ptr.To(err == nil && network != nil && owner.OwnershipOf(network.Annotations) == vpc.Mine &&
		sameNetwork(network, desired) && canTakePorts(network))
	return status
}

// used counts the ports on a network; nil when they could not be read.
func used(seen *observation, network string) *int32 {
	if seen.portsUnknown != nil {
		return nil
	}
	var count int32
	for _, port := range seen.ports {
		if port.network == network {
			count++
		}
	}
	return &count
}

// claimed adds the ports that are asked for and not proven attached: one of them that is plugged already counts twice for the moment
// until it is proven. Nil when the ports could not be read.
func claimed(seen *observation, subnet string, used *int32) *int32 {
	if used == nil {
		return nil
	}
	count := *used
	for i := range seen.attachments {
		attachment := &seen.attachments[i]
		if attachment.Spec.State != infrav1.AttachmentStateAttached || attachment.Status.State == infrav1.AttachmentStateAttached {
			continue
		}
		for _, port := range attachment.Spec.Ports {
			if port.Subnet == subnet {
				count++
			}
		}
	}
	return &count
}

// reportAddresses names the subnets that have no address left.
func reportAddresses(tenant *infrav1.TenantVPC, seen *observation) {
	if seen.portsUnknown != nil {
		set(tenant, infrav1.AddressesAvailableCondition, metav1.ConditionUnknown, infrav1.DPUClusterUnreachableReason,
			fmt.Sprintf("the ports on the subnets could not be counted: %v", seen.portsUnknown))
		return
	}
	var full []string
	for _, subnet := range tenant.Status.Subnets {
		if subnet.Capacity != nil && subnet.Claimed != nil && *subnet.Claimed >= *subnet.Capacity {
			full = append(full, fmt.Sprintf("subnet %s has no address left: %d ports of %d", subnet.Name, *subnet.Claimed, *subnet.Capacity))
		}
	}
	if len(full) == 0 {
		set(tenant, infrav1.AddressesAvailableCondition, metav1.ConditionTrue, infrav1.ReadyReason, "")
		return
	}
	set(tenant, infrav1.AddressesAvailableCondition, metav1.ConditionFalse, infrav1.SubnetFullReason,
		strings.Join(full, "; ")+": delete machines, or add a subnet and use it")
}
