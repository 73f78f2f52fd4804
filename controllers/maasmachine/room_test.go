// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// subnet changes what the fabric says of subnet nodes.
func (s *scene) subnet(capacity, claimed *int32) {
	s.Helper()
	vpc := &infrav1.TenantVPC{}
	s.Expect(s.objects.Get(s.Context(), client.ObjectKey{Namespace: tenant, Name: "vpc"}, vpc)).To(Succeed())
	vpc.Status.Subnets[0].Capacity, vpc.Status.Subnets[0].Claimed = capacity, claimed
	s.Expect(s.objects.Update(s.Context(), vpc)).To(Succeed())
}

// second adds a cluster that shares the VPC, or has one of its own.
func (s *scene) second(cluster, vpc string) func(*infrav1.MaasMachine) {
	s.Helper()
	meta := metav1.ObjectMeta{Namespace: tenant, Name: cluster}
	s.Expect(s.objects.Create(s.Context(), &clusterv1.Cluster{ObjectMeta: *meta.DeepCopy(), Spec: clusterv1.ClusterSpec{
		InfrastructureRef: clusterv1.ContractVersionedObjectReference{APIGroup: infrav1.GroupVersion.Group, Kind: "MaasCluster", Name: cluster},
	}})).To(Succeed())
	s.Expect(s.objects.Create(s.Context(), &infrav1.MaasCluster{ObjectMeta: meta, Spec: infrav1.MaasClusterSpec{VPCName: vpc}})).To(Succeed())
	return func(m *infrav1.MaasMachine) { m.Labels[clusterv1.ClusterNameLabel] = cluster }
}

// TestNoServerForAFullSubnet has room for two machines: those that are first, of whichever cluster.
func TestNoServerForAFullSubnet(t *testing.T) {
	s := newScene(t, "s1", "s2", "s3", "s4")
	s.subnet(ptr.To[int32](2), ptr.To[int32](0))
	s.add("a-other-vpc", s.second("elsewhere", "other"))
	s.add("a", s.second("shares", "vpc"))
	s.add("b")
	s.add("c")

	// Before any of them has claimed, the last is told to wait.
	s.until("c", shows(infrav1.ServerClaimedCondition, infrav1.SubnetFullReason))
	s.Expect(s.get("c").Spec.Claim).To(BeNil())
	s.up("b")
	s.until("c", shows(infrav1.ServerClaimedCondition, infrav1.SubnetFullReason))
	s.Expect(s.get("c").Spec.Claim).To(BeNil(), "another machine is to come and older")

	// The one before it goes: there is room as soon as its address is free.
	s.remove("a")
	s.subnet(ptr.To[int32](2), ptr.To[int32](2))
	s.step("c")
	s.Expect(s.get("c").Spec.Claim).To(BeNil(), "the fabric still has its port")
	s.subnet(ptr.To[int32](2), ptr.To[int32](1))
	s.up("c")
}

func TestUnknownCapacityHindersNobody(t *testing.T) {
	s := newScene(t, "s1", "s2")
	s.subnet(nil, ptr.To[int32](7))
	s.add("a")
	s.up("a")
	s.subnet(ptr.To[int32](2), nil)
	s.add("b")
	s.up("b")
	s.add("c")
	s.until("c", shows(infrav1.ServerClaimedCondition, infrav1.SubnetFullReason))
}

func TestOneMachineMayNeedSeveralAddresses(t *testing.T) {
	s := newScene(t, "s1")
	s.subnet(ptr.To[int32](1), ptr.To[int32](0))
	s.add("a", func(m *infrav1.MaasMachine) {
		m.Spec.Ports = append(m.Spec.Ports, infrav1.MachinePort{Name: "net1", PF: ptr.To[int32](1), Subnet: "nodes"})
	})
	s.until("a", shows(infrav1.ServerClaimedCondition, infrav1.SubnetFullReason))
	s.Expect(s.get("a").Spec.Claim).To(BeNil())
}
