// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"context"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/controllers/clustercache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// maxAddresses is how many the API takes.
const maxAddresses = 64

// reportAddresses writes the machine's addresses, and reports whether its InternalIP is known.
func (p *pass) reportAddresses(ctx context.Context, o Observation) bool {
	if !o.Provisioned || o.Server.Held != maas.Yes {
		return true
	}
	internal := p.internalIPs(ctx, o)
	if len(internal) == 0 && o.Ports {
		internal = p.knownIPs()
	}
	var external []string
	if o.Ports {
		// Of the provisioning network, which is not the tenant's.
		external = o.Server.Machine.IPAddresses
	}
	p.machine.Status.Addresses = addresses(o.Server.Machine, internal, external)
	return len(internal) > 0
}

// addresses are the names MAAS has for a server and the addresses given, without empty ones and duplicates.
func addresses(m maas.Machine, internal, external []string) []clusterv1.MachineAddress {
	var list []clusterv1.MachineAddress
	add := func(kind clusterv1.MachineAddressType, address string) {
		known := slices.ContainsFunc(list, func(a clusterv1.MachineAddress) bool {
			return a.Address == address && (a.Type == kind || kind == clusterv1.MachineExternalIP)
		})
		if address != "" && !known && len(list) < maxAddresses {
			list = append(list, clusterv1.MachineAddress{Type: kind, Address: address})
		}
	}
	add(clusterv1.MachineHostName, m.Hostname)
	for _, address := range internal {
		add(clusterv1.MachineInternalIP, address)
	}
	for _, address := range external {
		add(clusterv1.MachineExternalIP, address)
	}
	add(clusterv1.MachineInternalDNS, m.FQDN)
	return list
}

// internalIPs are that of the primary port, which is never any other's, and after it those of the other ports. A machine without
// ports has only the addresses MAAS gave it.
func (p *pass) internalIPs(ctx context.Context, o Observation) []string {
	if !o.Ports {
		return o.Server.Machine.IPAddresses
	}
	port := primaryPort(p.machine)
	primary := p.portAddress(port.Name)
	if primary == "" {
		primary = p.nodeAddress(ctx, port.Subnet)
	}
	if primary == "" {
		return nil // Whoever wants the InternalIP takes the first.
	}
	return append([]string{primary}, p.otherAddresses(port.Name)...)
}

// knownIPs are those known so far: what came from the Node stays known while the workload cluster does not answer. The first is
// the primary port's.
func (p *pass) knownIPs() []string {
	for _, known := range p.machine.Status.Addresses {
		if known.Type == clusterv1.MachineInternalIP {
			return append([]string{known.Address}, p.otherAddresses(primaryPort(p.machine).Name)...)
		}
	}
	return nil
}

// portAddress is what the fabric's evidence says of a port.
func (p *pass) portAddress(name string) string {
	if p.attachment != nil {
		for _, status := range p.attachment.Status.Ports {
			if status.Name == name {
				return status.Address
			}
		}
	}
	return ""
}

func (p *pass) otherAddresses(primary string) []string {
	var others []string
	for _, port := range p.machine.Spec.Ports {
		if port.Name != primary {
			others = append(others, p.portAddress(port.Name))
		}
	}
	return others
}

func primaryPort(machine *infrav1.MaasMachine) infrav1.MachinePort {
	for _, port := range machine.Spec.Ports {
		if port.Name == machine.Spec.PrimaryPort {
			return port
		}
	}
	return machine.Spec.Ports[0]
}

// nodeAddress is the Node's address inside the subnet: a tenant's word, used for nothing but this status.
func (p *pass) nodeAddress(ctx context.Context, subnet string) string {
	if p.r.ClusterCache == nil || p.cluster == nil || p.machine.Spec.ProviderID == "" {
		return ""
	}
	network, ok := p.subnetCIDR(ctx, subnet)
	if !ok {
		return ""
	}
	workload, err := p.r.ClusterCache.GetReader(ctx, client.ObjectKeyFromObject(p.cluster))
	if err != nil {
		return "" // The cluster's source wakes us once it is connected.
	}
	nodes := &corev1.NodeList{}
	if err := workload.List(ctx, nodes, client.MatchingFields{clustercache.NodeProviderIDIndex.Field: p.machine.Spec.ProviderID}); err != nil {
		p.log.V(4).Info("Cannot list the Nodes of the workload cluster", "err", err.Error())
		return ""
	}
	for i := range nodes.Items {
		for _, address := range nodes.Items[i].Status.Addresses {
			ip, err := netip.ParseAddr(address.Address)
			if err == nil && address.Type == corev1.NodeInternalIP && network.Contains(ip) {
				return address.Address
			}
		}
	}
	return ""
}

func (p *pass) subnetCIDR(ctx context.Context, subnet string) (netip.Prefix, bool) {
	if p.maasCluster == nil || p.maasCluster.Spec.VPCName == "" || p.fabric == nil {
		return netip.Prefix{}, false
	}
	vpc := &infrav1.TenantVPC{}
	key := client.ObjectKey{Namespace: p.fabric.Namespace(p.machine.Namespace), Name: p.maasCluster.Spec.VPCName}
	if err := p.fabric.Client.Get(ctx, key, vpc); err != nil {
		return netip.Prefix{}, false
	}
	for _, status := range vpc.Status.Subnets {
		if status.Name == subnet {
			prefix, err := netip.ParsePrefix(status.CIDR)
			return prefix, err == nil
		}
	}
	return netip.Prefix{}, false
}
