// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"cmp"
	"context"
	"fmt"

	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// roomProblem names a subnet that has no address left for the machine. Many machines claim at once, long before the fabric can count
// their ports: so those of the VPC that hold a server or are older come first, and who finds no place in that line waits.
func (p *pass) roomProblem(ctx context.Context, vpc *infrav1.TenantVPC) *Problem {
	wanted := portsBySubnet(p.machine)
	var first map[string]int32
	for i := range vpc.Status.Subnets {
		subnet := &vpc.Status.Subnets[i]
		ports := wanted[subnet.Name]
		if ports == 0 || subnet.Capacity == nil {
			continue
		}
		full := func(format string, args ...any) *Problem {
			return &Problem{Reason: infrav1.SubnetFullReason, Message: fmt.Sprintf(
				"subnet %s of TenantVPC %s/%s has no address left (%s): no server is claimed; delete machines, or use another subnet",
				subnet.Name, vpc.Namespace, vpc.Name, fmt.Sprintf(format, args...))}
		}
		if subnet.Claimed != nil && *subnet.Claimed+ports > *subnet.Capacity {
			return full("%d of %d are spoken for", *subnet.Claimed, *subnet.Capacity)
		}
		if first == nil {
			var err error
			if first, err = p.portsBefore(ctx); err != nil {
				return fabricProblem(err)
			}
		}
		if first[subnet.Name]+ports > *subnet.Capacity {
			return full("%d, and other machines come first for %d", *subnet.Capacity, first[subnet.Name])
		}
	}
	return nil
}

func portsBySubnet(machine *infrav1.MaasMachine) map[string]int32 {
	ports := map[string]int32{}
	for _, port := range machine.Spec.Ports {
		ports[port.Subnet]++
	}
	return ports
}

// portsBefore counts, by subnet, the ports of other machines of the same VPC that come first.
func (p *pass) portsBefore(ctx context.Context) (map[string]int32, error) {
	machines := &infrav1.MaasMachineList{}
	// Nothing of the list is changed, and it is as long as the namespace has machines.
	if err := p.r.Client.List(ctx, machines, client.InNamespace(p.machine.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list the MaasMachines of namespace %s: %w", p.machine.Namespace, err)
	}
	ports := map[string]int32{}
	vpcs := map[string]string{p.machine.Labels[clusterv1.ClusterNameLabel]: p.maasCluster.Spec.VPCName}
	for i := range machines.Items {
		other := &machines.Items[i]
		if other.Name == p.machine.Name || len(other.Spec.Ports) == 0 || !comesBefore(other, p.machine) {
			continue
		}
		cluster := other.Labels[clusterv1.ClusterNameLabel]
		if _, known := vpcs[cluster]; !known {
			name, err := p.vpcOf(ctx, cluster)
			if err != nil {
				return nil, err
			}
			vpcs[cluster] = name
		}
		if vpcs[cluster] != p.maasCluster.Spec.VPCName {
			continue
		}
		for subnet, n := range portsBySubnet(other) {
			ports[subnet] += n
		}
	}
	return ports, nil
}

// comesBefore says whether a machine has an address of its subnet, or is to have one, before another that holds no server yet.
func comesBefore(machine, other *infrav1.MaasMachine) bool {
	if serverOf(machine) != "" {
		return true
	}
	switch reason := conditions.GetReason(machine, infrav1.ServerClaimedCondition); {
	case !machine.DeletionTimestamp.IsZero(), reason == infrav1.DeployFailedReason, reason == infrav1.AttachmentRefusedReason:
		return false // It takes no server any more.
	}
	return cmp.Or(machine.CreationTimestamp.Compare(other.CreationTimestamp.Time), cmp.Compare(machine.Name, other.Name)) < 0
}

// vpcOf is the TenantVPC of a Cluster of the namespace; empty where there is none.
func (p *pass) vpcOf(ctx context.Context, name string) (string, error) {
	cluster, infrastructure := &clusterv1.Cluster{}, &infrav1.MaasCluster{}
	key := client.ObjectKey{Namespace: p.machine.Namespace, Name: name}
	if err := p.r.Client.Get(ctx, key, cluster); err != nil {
		return "", client.IgnoreNotFound(err)
	}
	key.Name = cluster.Spec.InfrastructureRef.Name
	if err := p.r.Client.Get(ctx, key, infrastructure); err != nil {
		return "", client.IgnoreNotFound(err)
	}
	return infrastructure.Spec.VPCName, nil
}
