// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package troubles

import (
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/demo"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const (
	nsMAASAway   = "maas-away"
	nsFabricAway = "fabric-away"

	// staleWithin is longer than the fabric's proofMaxAge.
	staleWithin = 60 * time.Second
)

func theIdentity() *infrav1.MaasClusterIdentity {
	return &infrav1.MaasClusterIdentity{ObjectMeta: metav1.ObjectMeta{Name: demo.Identity}}
}

func theFabric() *infrav1.DPUFabric {
	return &infrav1.DPUFabric{ObjectMeta: metav1.ObjectMeta{Name: demo.Fabric}}
}

// TestMAASAway starts both wings while MAAS answers nothing but 503: they are ready, say so, take nothing and lose nothing.
func TestMAASAway(t *testing.T) {
	begin(t)
	n := newReadyTenant(t, nsMAASAway)
	running := n.up("running")
	back := world.MAAS.Inject(maassim.Fault{Kind: maassim.FaultStatus, Status: http.StatusServiceUnavailable})
	defer back()
	wings.kill(t, demo.MachineWing, demo.FabricWing)
	waiting := n.createMachine("waiting", port(subnet))
	expect(t, theIdentity(), no(infrav1.ReadyCondition, infrav1.MaasUnreachableReason, "nothing is changed until it does"))
	expect(t, theIdentity(), unknown(infrav1.CredentialsValidCondition, infrav1.MaasUnreachableReason))
	expect(t, theFabric(), no(infrav1.ClaimSourcesReadyCondition, infrav1.MaasUnreachableReason, "MAAS of claim source "+demo.Identity+" does not answer"))
	expect(t, waiting.object(), no(infrav1.ServerClaimedCondition, infrav1.MaasUnreachableReason, "nothing is changed until it does"))
	expect(t, running.object(), unknown(infrav1.ServerClaimedCondition, infrav1.MaasUnreachableReason))
	expect(t, running.object(), yes(infrav1.IsolatedCondition))
	waiting.unclaimed()
	back()
	expect(t, theIdentity(), yes(infrav1.ReadyCondition))
	waiting.waitUp()
	expect(t, running.object(), yes(infrav1.ReadyCondition))
	expectWithin(t, staleWithin+soon, theFabric(), yes(infrav1.ReadyCondition))
	running.once("allocate", "deploy")
}

// TestFabricAway starts the fabric wing while nobody reaches DPF, and narrows the tenant pools meanwhile.
func TestFabricAway(t *testing.T) {
	begin(t)
	n := newReadyTenant(t, nsFabricAway)
	running := n.up("running")
	dpf.set(true)
	defer dpf.set(false)
	wings.kill(t, demo.FabricWing)
	outside := n.vpc()
	outside.Name, outside.Spec.Subnets[0].CIDR = "outside", "10.96.0.0/24"
	create(t, outside)
	expect(t, theFabric(), no(infrav1.DPFReachableCondition, infrav1.FabricUnreachableReason, "fabric "+demo.Fabric+" could not be asked", "nothing is changed until it answers"))
	expect(t, theFabric(), unknown(infrav1.ReadyCondition, infrav1.FabricUnreachableReason, "could not be asked"))
	expect(t, outside, unknown(infrav1.FabricReadyCondition, infrav1.FabricUnreachableReason, "could not be asked"))
	expect(t, n.vpc(), unknown(infrav1.FabricReadyCondition, infrav1.FabricUnreachableReason))
	waiting := n.createMachine("waiting", port(subnet))
	expect(t, waiting.object(), no(infrav1.ServerClaimedCondition, infrav1.VPCNotReadyReason, "see its conditions"))
	if taken := effects(n.name, "waiting", "allocate"); len(taken) > 0 {
		t.Error("a server was taken that could not have been attached")
	}
	expectWithin(t, staleWithin, running.object(), unknown(infrav1.IsolatedCondition, infrav1.ProofStaleReason, "older than the fabric allows"))

	fabric := theFabric()
	change(t, fabric, func() { fabric.Spec.TenantPools = []string{"10.64.0.0/16"} })
	refusal := updateRefused(t, n)
	dpf.set(false)
	expect(t, fabric, yes(infrav1.ReadyCondition))
	expect(t, running.object(), yes(infrav1.IsolatedCondition))
	expect(t, n.vpc(), yes(infrav1.ReadyCondition))
	expect(t, outside, no(infrav1.NetworksReadyCondition, infrav1.CIDROutsidePoolsReason, "10.96.0.0/24 lies outside the tenant pools", "take a network inside one of [10.64.0.0/16]"))
	if !strings.Contains(refusal, "10.64.0.0/16") {
		t.Errorf("refusal %q does not tell the pools", refusal)
	}
	waiting.waitUp()
	change(t, fabric, func() { fabric.Spec.TenantPools = []string{demo.TenantPool} })
	expect(t, outside, yes(infrav1.ReadyCondition))
	running.once("allocate", "deploy")
}

// updateRefused adds a subnet outside the pools to the tenant's TenantVPC, which is not admitted.
func updateRefused(t *testing.T, n *tenant) string {
	t.Helper()
	vpc := n.vpc()
	err := updateKey(suite, vpc, client.ObjectKeyFromObject(vpc), func() {
		vpc.Spec.Subnets = append(vpc.Spec.Subnets, infrav1.VPCSubnet{Name: "more", CIDR: "10.96.1.0/24"})
	})
	if err == nil {
		t.Fatal("a subnet outside the pools was admitted")
	}
	return err.Error()
}
