// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package troubles

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/demo"
)

const (
	nsIdentityLate = "identity-late"
	nsVPCLate      = "vpc-late"
	nsSubnetLate   = "subnet-late"
	nsNoPorts      = "no-ports"
	nsSecrets      = "secrets"
	nsFabricLate   = "fabric-late"
)

// TestBadInput makes things in the wrong order, with references that are missing or forbidden and Secrets that are of no use: a
// condition says what to write, nothing is claimed, and once it is written all goes on by itself.
func TestBadInput(t *testing.T) {
	// What is deleted last, when nobody needs it any more.
	var later []client.Object
	t.Cleanup(func() { deleteAll(t, later...) })
	later = append(later, newFabric(laterFabric))
	for name, test := range map[string]func(*testing.T){
		"identity missing, forbidden, then there": testIdentityLate,
		"TenantVPC missing, then there":           testVPCLate,
		"subnet missing, then there":              testSubnetLate,
		"no ports where isolation is required":    testNoPorts,
		"identity's Secret":                       testIdentitySecret,
		"fabric missing, its Secrets, forbidden":  testFabricLate,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begin(t)
			test(t)
		})
	}
}

// newIdentity is one more identity of the lab's MAAS, with a Secret of its own name.
func newIdentity(name string) *infrav1.MaasClusterIdentity {
	known := &infrav1.MaasClusterIdentity{}
	if err := world.Operator.Get(suite, client.ObjectKey{Name: demo.Identity}, known); err != nil {
		panic(err)
	}
	identity := &infrav1.MaasClusterIdentity{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: *known.Spec.DeepCopy()}
	identity.Spec.AllowedNamespaces = nil
	return identity
}

// testIdentityLate claims nothing before the identity is there and admits the namespace.
func testIdentityLate(t *testing.T) {
	n := newTenant(t, nsIdentityLate)
	create(t, n.vpc())
	n.createCluster("late", vpcName)
	m := n.createMachine("m", port(subnet))
	expect(t, n.cluster(), no(infrav1.IdentityReadyCondition, infrav1.IdentityNotFoundReason, "MaasClusterIdentity late does not exist", "create it"))
	expect(t, n.cluster(), no(infrav1.ReadyCondition, infrav1.IdentityNotFoundReason))
	expect(t, m.object(), no(infrav1.ServerClaimedCondition, infrav1.WaitingForClusterInfrastructureReason))
	m.unclaimed()

	identity := newIdentity("late")
	identity.Spec.AllowedNamespaces = &infrav1.AllowedNamespaces{Names: []string{"somebody-else"}}
	create(t, identity)
	expect(t, n.cluster(), no(infrav1.IdentityReadyCondition, infrav1.NamespaceNotAllowedReason, "late does not admit this namespace", "list it in allowedNamespaces"))
	other := &infrav1.MaasCluster{ObjectMeta: n.meta("other")}
	other.Spec.IdentityRef.Name, other.Spec.VPCName = "late", vpcName
	refused(t, other, `"late" does not allow namespace "identity-late"`, "spec.allowedNamespaces")
	m.unclaimed()

	change(t, identity, func() { identity.Spec.AllowedNamespaces.Names = []string{nsIdentityLate} })
	expect(t, n.cluster(), yes(infrav1.ReadyCondition))
	m.waitUp()

	// Taken off the list, a namespace takes nothing new; what runs goes on and can be given back.
	change(t, identity, func() { identity.Spec.AllowedNamespaces.Names = []string{"somebody-else"} })
	second := n.createMachine("second", port(subnet))
	expect(t, second.object(), no(infrav1.ServerClaimedCondition, infrav1.NamespaceNotAllowedReason, "list it in allowedNamespaces"))
	second.unclaimed()
	expect(t, m.object(), yes(infrav1.ReadyCondition))
	m.down()
}

// testVPCLate claims nothing before the TenantVPC is there.
func testVPCLate(t *testing.T) {
	n := newTenant(t, nsVPCLate)
	n.createCluster(demo.Identity, vpcName)
	m := n.createMachine("m", port(subnet))
	expect(t, n.cluster(), no(infrav1.VPCReadyCondition, infrav1.VPCNotFoundReason, "TenantVPC vpc-late/vpc does not exist", "create it"))
	expect(t, m.object(), no(infrav1.ServerClaimedCondition, infrav1.WaitingForClusterInfrastructureReason))
	m.unclaimed()
	create(t, n.vpc())
	m.waitUp()
	m.down()
}

// testSubnetLate claims nothing for a port whose subnet the TenantVPC has not.
func testSubnetLate(t *testing.T) {
	n := newReadyTenant(t, nsSubnetLate)
	m := n.createMachine("m", port("storage"))
	expect(t, m.object(), no(infrav1.ServerClaimedCondition, infrav1.SubnetNotFoundReason, "no subnet storage, which port tenant asks for", "add it"))
	m.unclaimed()
	vpc := n.vpc()
	change(t, vpc, func() {
		vpc.Spec.Subnets = append(vpc.Spec.Subnets, infrav1.VPCSubnet{Name: "storage", CIDR: "10.64.1.0/24", ExternallyRouted: ptr.To(true)})
	})
	m.waitUp()
	m.down()
}

// testNoPorts has a machine without ports admitted before anybody knows that its identity requires isolation.
func testNoPorts(t *testing.T) {
	n := newTenant(t, nsNoPorts)
	create(t, n.vpc())
	n.createCluster("strict", vpcName)
	bare := &infrav1.MaasCluster{ObjectMeta: metav1.ObjectMeta{Namespace: n.name, Name: "bare"}}
	bare.Spec.IdentityRef.Name = "strict"
	create(t, bare)
	t.Cleanup(func() { deleteAll(t, bare) })
	m := n.createMachine("m")
	expect(t, n.cluster(), no(infrav1.IdentityReadyCondition, infrav1.IdentityNotFoundReason))

	identity := newIdentity("strict")
	identity.Spec.AllowedNamespaces = &infrav1.AllowedNamespaces{Names: []string{nsNoPorts}}
	create(t, identity)
	expect(t, bare, no(infrav1.VPCReadyCondition, infrav1.IsolationRequiredReason, "name a TenantVPC in vpcName"))
	expect(t, m.object(), no(infrav1.ServerClaimedCondition, infrav1.IsolationRequiredReason, "name ports in the MaasMachineTemplate"))
	m.unclaimed()
	refused(t, &infrav1.MaasMachine{ObjectMeta: n.meta("another"), Spec: infrav1.MaasMachineSpec{
		MachineConstraints: infrav1.MachineConstraints{Image: "ubuntu/noble"},
	}}, "name at least one DPU port and its subnet")
	m.unclaimed()
}
