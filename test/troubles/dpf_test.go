// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package troubles

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/demo"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
)

const (
	nsAgentDown = "agent-down"
	nsVPCClaim  = "vpc-claim"
	nsUnplugged = "unplugged"
	nsVictim    = "victim"
	nsForger    = "forger"

	// heldWithin is longer than the fabric's detachTimeout.
	heldWithin = 80 * time.Second
)

// testAgentDown cannot prove that the port was unplugged: the server is held, and given back once the agent lives again.
func testAgentDown(t *testing.T) {
	n := newReadyTenant(t, nsAgentDown)
	m := n.up("m")
	systemID, dpu, attachment := m.now().Status.SystemID, m.dpu(), m.attachment()
	heal := world.Fabric.Inject(dpfsim.Fault{Kind: dpfsim.AgentDown, Target: dpu})
	defer heal()
	m.ask()
	expect(t, attachment, no(infrav1.AttachedCondition, infrav1.DetachingPortReason))
	expectWithin(t, heldWithin, m.object(), no(infrav1.ReleasedCondition, infrav1.HeldReason,
		"server "+systemID+" is held", "detachment of the ports could not be proven", "released with erase once that is proven"))
	expect(t, attachment, no(infrav1.AttachedCondition, infrav1.DetachUnprovenReason))
	m.expectHeld(systemID)
	if released := effects(n.name, m.name, "release"); len(released) > 0 {
		t.Fatal("the server was released while its port was plugged")
	}
	heal()
	m.waitDown(upWithin)
	notHeld(t, systemID)
	m.once("allocate", "deploy", "release")
}

// testVPCClaim lets somebody else's VPC select the Node of a running tenant, and then have it. As long as DPF leaves the Node where
// it is, the tenant's VPC tells; once it is marked otherwise, the machine is not isolated.
func testVPCClaim(t *testing.T) {
	n := newReadyTenant(t, nsVPCClaim)
	m := n.up("m")
	dpu := m.dpu()
	heal := world.Fabric.Inject(dpfsim.Fault{Kind: dpfsim.VPCClaim, Target: dpu, Value: demo.ForeignVPC})
	defer heal()
	expect(t, n.vpc(), says{infrav1.ReadyCondition, metav1.ConditionTrue, infrav1.ReadyReason, []string{dpu + " belongs to more than one VPC", demo.ForeignVPC}})
	mark := "ovn.vpc.dpu.nvidia.com/vpc=" + strings.ReplaceAll(demo.ForeignVPC, "/", "_")
	defer world.Fabric.Inject(dpfsim.Fault{Kind: dpfsim.Relabel, Target: dpu, Value: mark})()
	expect(t, m.object(), no(infrav1.IsolatedCondition, infrav1.IsolationBrokenReason, "Node "+dpu+" is marked with another VPC"))
	expect(t, m.object(), no(infrav1.ReadyCondition, infrav1.IsolationBrokenReason))
	if s := server(t, m.now().Status.SystemID); s.StatusName != "Deployed" || !s.PoweredOn {
		t.Errorf("the server is %s, on=%t: it was not to be touched", s.StatusName, s.PoweredOn)
	}
	heal()
	m.down()
	m.once("allocate", "deploy", "release")
}

// testUnplugged takes the label away that plugs a running tenant's port: it is said, and put back in one write.
func testUnplugged(t *testing.T) {
	n := newReadyTenant(t, nsUnplugged)
	m := n.up("m")
	name, attachment := m.dpu(), m.attachment()
	plugged, before := portsOf(name), world.Fabric.Writes()[name].Attach
	dpu := &unstructured.Unstructured{}
	dpu.SetAPIVersion("provisioning.dpu.nvidia.com/v1alpha1")
	dpu.SetKind("DPU")
	dpu.SetNamespace(demo.DPFNamespace)
	dpu.SetName(name)
	admin, err := client.New(world.Lab.DPFManagement(), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	key := strings.NewReplacer("~", "~0", "/", "~1").Replace(vpc.PortKey(0))
	patch := client.RawPatch(types.JSONPatchType, fmt.Appendf(nil, `[{"op":"remove","path":"/spec/cluster/nodeLabels/%s"}]`, key))
	if err := admin.Patch(suite, dpu, patch); err != nil {
		t.Fatal(err)
	}
	// What DPF has done about it by then is said too.
	expectEvent(t, "DPUAttachment", attachment.Name, infrav1.EvidenceMissingReason, "label "+vpc.PortKey(0)+" of DPU "+name+" was taken away", "it is being put back")
	eventually(t, soon, "the port is plugged again", func(context.Context) string {
		if now := portsOf(name); !slices.Equal(now, plugged) {
			return fmt.Sprintf("the ports were %v and are %v", plugged, now)
		}
		return ""
	})
	expect(t, m.object(), yes(infrav1.IsolatedCondition))
	expect(t, m.object(), yes(infrav1.ReadyCondition))
	if after := world.Fabric.Writes()[name].Attach; after != before+1 {
		t.Errorf("the port was put back in %d writes", after-before)
	}
	if s := server(t, m.now().Status.SystemID); s.StatusName != "Deployed" || !s.PoweredOn {
		t.Errorf("the server is %s, on=%t: it was not to be touched", s.StatusName, s.PoweredOn)
	}
	m.down()
	m.once("allocate", "deploy", "release")
}

// testForger is a machine wing in an attacker's hands: with its account it asks for what no claim backs.
func testForger(t *testing.T) {
	victim, forger := newReadyTenant(t, nsVictim), newReadyTenant(t, nsForger)
	target, own := victim.up("m"), forger.up("f")
	stolen, genuine, dpu, wing := target.attachment(), own.attachment(), target.dpu(), wingClient(t)
	plugged, writes := portsOf(dpu), world.Fabric.Writes()[dpu]
	forge := func(name string, from *infrav1.DPUAttachment) *infrav1.DPUAttachment {
		return &infrav1.DPUAttachment{ObjectMeta: metav1.ObjectMeta{Namespace: nsForger, Name: name}, Spec: *from.Spec.DeepCopy()}
	}

	err := wing.Create(suite, forge("copied", stolen))
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "a claim's token fits the machine it was made for alone") {
		t.Errorf("a copy of another tenant's attachment was not refused as such: %v", err)
	}

	crossed := forge("crossed", genuine)
	crossed.Spec.Server.SystemID = stolen.Spec.Server.SystemID
	forgeAndExpect(t, wing, crossed, infrav1.ClaimNotConfirmedReason, "MAAS does not hold server "+stolen.Spec.Server.SystemID+" under this claim")

	invented := forge("invented", stolen)
	invented.Spec.MachineName = "ghost"
	if invented.Spec.Server.Token, err = maas.NewToken(rand.Reader, nsForger, "ghost"); err != nil {
		t.Fatal(err)
	}
	forgeAndExpect(t, wing, invented, infrav1.MachineNotConsentingReason, "no MaasMachine forger/ghost")

	own.down()
	forgeAndExpect(t, wing, forge("replayed", genuine), infrav1.MachineNotConsentingReason, "no MaasMachine forger/f")

	if now := portsOf(dpu); !slices.Equal(now, plugged) {
		t.Errorf("the victim's ports were %v and are %v", plugged, now)
	}
	if now := world.Fabric.Writes()[dpu]; now != writes {
		t.Errorf("the victim's DPU was written to: %+v, before %+v", now, writes)
	}
	expect(t, target.object(), yes(infrav1.IsolatedCondition))
	target.down()
}

// forgeAndExpect makes an attachment that is to be refused, and takes it away at the test's end.
func forgeAndExpect(t *testing.T, wing client.Client, attachment *infrav1.DPUAttachment, reason string, message ...string) {
	t.Helper()
	if err := wing.Create(suite, attachment); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"state":"Detached"}}`))
		if err := errors.Join(wing.Patch(suite, attachment, patch), wing.Delete(suite, attachment)); err != nil {
			t.Error(err)
		}
	})
	expect(t, attachment, no(infrav1.AuthorizedCondition, reason, message...))
	if attachment.Status.State != "" {
		t.Errorf("forged attachment %s is said to be %s", attachment.Name, attachment.Status.State)
	}
}

// portsOf are the ports of a DPU that are on a VPC, as "VPC/network of the host's MAC".
func portsOf(dpu string) []string {
	var ports []string
	for _, p := range world.Fabric.Ports() {
		if p.DPU == dpu {
			ports = append(ports, p.VPC+"/"+p.VirtualNetwork+" of "+p.HostMAC)
		}
	}
	return ports
}

// wingClient acts with the machine wing's account.
func wingClient(t *testing.T) client.Client {
	t.Helper()
	path, err := world.Lab.ServiceAccountKubeconfig(suite, world.Lab.Management(), demo.MachineNamespace, demo.MachineWing)
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config, client.Options{Scheme: world.Operator.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
