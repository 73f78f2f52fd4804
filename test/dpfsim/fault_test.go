// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// attached is a tenant whose first DPU is on network n.
func attached(t *testing.T, name string, dpus int, edit func(*DPU)) *tenant {
	t.Helper()
	ten := v26_4.newTenant(t, name, dpus, edit)
	ten.makeVPC(false)
	ten.makeNetwork("n", "10.8.0.0/24")
	ten.makeDSI("n-pf0", "n", ten.portSelector("n"))
	ten.attach(ten.dpus[0], "n")
	ten.g.Eventually(func() bool { si := ten.interfaces()[0]; return conditionTrue(&si, "Ready") }).Should(BeTrue())
	return ten
}

func TestServerOffWithStandbyPowerKeepsItsDPU(t *testing.T) {
	t.Parallel()
	ten := attached(t, "standby", 1, nil)
	ten.SetHostPower(ten.dpus[0].SystemID, false)
	ten.g.Consistently(func() bool { return ten.ports()[0].Connected }).Should(BeTrue())
	ten.remove(kindDSI, "n-pf0")
	ten.g.Eventually(ten.gone(kindDSI, "n-pf0")).Should(BeTrue())
	ten.g.Expect(ten.ports()).To(BeEmpty())
}

func TestDeadDPUKeepsTheNodesFinalizer(t *testing.T) {
	t.Parallel()
	ten := attached(t, "dead", 1, func(d *DPU) { d.StandbyPower = false })
	g, d := ten.g, ten.dpus[0]
	boot := ten.node(d.Name).Status.NodeInfo.BootID
	ten.SetHostPower(d.Serial, false)
	g.Expect(ten.ports()[0].Connected).To(BeFalse())
	_, _, ok := ten.Lease(d.PF0MAC)
	g.Expect(ok).To(BeFalse())
	g.Eventually(func() corev1.ConditionStatus { return ten.nodeReady(d.Name) }).Should(Equal(corev1.ConditionUnknown))

	ten.remove(kindDSI, "n-pf0")
	g.Eventually(func() []string { return ten.interfaces()[0].GetFinalizers() }).Should(ConsistOf(finalizerSINode), "OVN is clean, the DPU is not")
	g.Eventually(ten.reason(kindDSI, "n-pf0", conditionSetReconciled)).Should(Equal(reasonAwaitingDeletion))
	g.Consistently(ten.gone(kindDSI, "n-pf0")).Should(BeFalse())

	ten.SetHostPower(d.Serial, true)
	g.Eventually(ten.gone(kindDSI, "n-pf0")).Should(BeTrue())
	g.Expect(ten.ports()).To(BeEmpty())
	g.Eventually(func() corev1.ConditionStatus { return ten.nodeReady(d.Name) }).Should(Equal(corev1.ConditionTrue))
	g.Expect(ten.node(d.Name).Status.NodeInfo.BootID).NotTo(Equal(boot))
}

func TestSilentKubelet(t *testing.T) {
	t.Parallel()
	ten := attached(t, "silent", 1, nil)
	d := ten.dpus[0]
	lease := &coordinationv1.Lease{}
	ten.g.Expect(ten.Fabric.dpuCluster.Get(t.Context(), client.ObjectKey{Namespace: leaseNamespace, Name: d.Name}, lease)).To(Succeed())
	ten.g.Expect(time.Since(lease.Spec.RenewTime.Time)).To(BeNumerically("<", 30*time.Second))
	heal := ten.Inject(Fault{Kind: NodeNotReady, Target: d.Name})
	ten.g.Eventually(func() corev1.ConditionStatus { return ten.nodeReady(d.Name) }).Should(Equal(corev1.ConditionUnknown))
	ten.g.Expect(ten.ports()[0].Connected).To(BeTrue(), "traffic does not need a kubelet")
	heal()
	ten.g.Eventually(func() corev1.ConditionStatus { return ten.nodeReady(d.Name) }).Should(Equal(corev1.ConditionTrue))
}

func TestDeadAgent(t *testing.T) {
	t.Parallel()
	ten := attached(t, "agentless", 1, nil)
	g, d := ten.g, ten.dpus[0]
	heal := ten.Inject(Fault{Kind: AgentDown, Target: d.Name})
	ten.label(kindDPU, d.Name, map[string]any{ten.portKey(): nil})
	g.Eventually(func() []string { return ten.interfaces()[0].GetFinalizers() }).Should(ConsistOf(finalizerSINode))
	g.Expect(ten.ports()).To(BeEmpty(), "without its logical port, the port on the switch carries nothing")
	g.Expect(ten.nodeReady(d.Name)).To(Equal(corev1.ConditionTrue))
	heal()
	g.Eventually(ten.interfaces).Should(BeEmpty())
}

// Objects can be gone while traffic still flows: what a proof from objects alone cannot see.
func TestGoneObjectsAreNoProofWhileOVNHangs(t *testing.T) {
	t.Parallel()
	ten := attached(t, "hung", 1, nil)
	g, d := ten.g, ten.dpus[0]
	unhang := ten.Inject(Fault{Kind: OVNControllerHung, Target: d.Name})
	remember := ten.Inject(Fault{Kind: AgentForgetsPort, Target: d.Name})
	ten.remove(kindDSI, "n-pf0")
	g.Eventually(ten.gone(kindDSI, "n-pf0")).Should(BeTrue())
	g.Expect(ten.interfaces()).To(BeEmpty())
	g.Expect(ten.ports()).To(HaveLen(1))
	g.Expect(ten.ports()[0].Connected).To(BeTrue())
	g.Expect(ten.Reachable(d.PF0MAC, d.PF0MAC)).To(BeTrue())
	_, _, ok := ten.Lease(d.PF0MAC)
	g.Expect(ok).To(BeFalse(), "a hung OVN controller answers no DHCP")
	unhang()
	g.Eventually(ten.ports).Should(BeEmpty())
	remember()
}

func TestVPCMarkRemovedCutsTheHostOff(t *testing.T) {
	ten := attached(t, "cutoff", 1, nil)
	d := ten.dpus[0]
	// The agent is down: the second way to cut a host off does not need it.
	heal := ten.Inject(Fault{Kind: AgentDown, Target: d.Name})
	defer heal()
	stall := ten.Inject(Fault{Kind: ControllerStalled, Target: ControllerServiceInterfaceSet})
	defer stall()
	ten.label(kindDPU, d.Name, map[string]any{ten.vpcKey(): nil})
	ten.g.Eventually(ten.ports).Should(BeEmpty())
	ten.g.Eventually(func() string { return ten.interfaces()[0].GetAnnotations()[annotationConnected] }).Should(Equal("false"))
	si := ten.interfaces()[0]
	ten.g.Expect(conditionTrue(&si, "Ready")).To(BeTrue(), "the last word of a dead agent lingers")
}

func TestNodeInTwoVPCsBlocksBoth(t *testing.T) {
	t.Parallel()
	ten := attached(t, "twice", 2, nil)
	g, a, b := ten.g, ten.dpus[0], ten.dpus[1]
	release := ten.Inject(Fault{Kind: VPCClaim, Target: a.Name, Value: "somebody/else"})
	g.Eventually(ten.reason(kindVPC, "v", conditionNodesReconciled)).Should(Equal(reasonError))
	other := newObject(kindVPC)
	g.Eventually(func() bool {
		_, err := find(t.Context(), ten.Fabric.management, other, "somebody", "else")
		g.Expect(err).NotTo(HaveOccurred())
		return meta.IsStatusConditionFalse(conditionsOf(other, "conditions"), conditionNodesReconciled)
	}).Should(BeTrue(), "the other is blocked as well")
	g.Expect(ten.node(a.Name).Labels[labelNodeVPC]).To(Equal(ten.namespace+"_v"), "the first mark stays")
	ten.label(kindDPU, b.Name, map[string]any{ten.vpcKey(): "in", ten.portKey(): "n"})
	g.Eventually(func() string { return ten.node(b.Name).Labels[labelNodeVPC] }).Should(Equal(ten.namespace+"_v"), "other Nodes are marked all the same")
	g.Eventually(func() []string {
		var connected []string
		for _, si := range ten.interfaces() {
			connected = append(connected, si.GetAnnotations()[annotationConnected])
		}
		return connected
	}).Should(ConsistOf("true", "false"), "but get no gateway")
	release()
	g.Eventually(func() bool { _, _, ok := ten.Lease(b.PF0MAC); return ok }).Should(BeTrue())
}

// A Node's event wakes no VPC when several select the Node: both go on saying that they are Ready.
func TestQuietClaimOfAnotherVPC(t *testing.T) {
	t.Parallel()
	ten := attached(t, "quiet", 1, nil)
	g, d := ten.g, ten.dpus[0]
	release := ten.Inject(Fault{Kind: QuietVPCClaim, Target: d.Name, Value: "nobody/quiet"})
	g.Eventually(func() map[string]string { return ten.node(d.Name).Labels }).Should(HaveKey(claimLabel))
	g.Consistently(ten.true(kindVPC, "v", "Ready")).Should(BeTrue())
	g.Expect(ten.ports()).To(HaveLen(1))
	ten.Inject(Fault{Kind: VPCNotReady, Target: ten.namespace + "/v"})()
	g.Eventually(ten.reason(kindVPC, "v", conditionNodesReconciled)).Should(Equal(reasonError), "until something has DPF look")
	release()
	g.Eventually(ten.true(kindVPC, "v", "Ready")).Should(BeTrue())
}

// A Node's mark that names a VPC which does not exist stays: DPF asks that VPC to take it away.
func TestMarkOfAVPCThatIsNot(t *testing.T) {
	t.Parallel()
	ten := attached(t, "marked", 1, nil)
	g, d := ten.g, ten.dpus[0]
	ten.Inject(Fault{Kind: Relabel, Target: d.Name, Value: labelNodeVPC + "=no_body"})
	g.Consistently(func() string { return ten.node(d.Name).Labels[labelNodeVPC] }).Should(Equal("no_body"))
	g.Expect(ten.true(kindVPC, "v", "Ready")()).To(BeTrue())
	ten.Inject(Fault{Kind: Relabel, Target: d.Name, Value: labelNodeVPC + "-"})
	g.Eventually(func() string { return ten.node(d.Name).Labels[labelNodeVPC] }).Should(Equal(ten.namespace+"_v"), "a missing one is put back")
}

func TestSeededForeignVPC(t *testing.T) {
	t.Parallel()
	ten := v26_4.newTenant(t, "foreign", 1, func(d *DPU) { d.ForeignVPC = "other/theirs" })
	ten.g.Eventually(func() string { return ten.node(ten.dpus[0].Name).Labels[labelNodeVPC] }).Should(Equal("other_theirs"))
}

func TestNodeWithoutAgentBlocksTheWholeVPC(t *testing.T) {
	t.Parallel()
	ten := v26_4.newTenant(t, "blocked", 2, nil)
	g, good, bad := ten.g, ten.dpus[0], ten.dpus[1]
	heal := ten.Inject(Fault{Kind: AgentDown, Target: bad.Name})
	before := ten.node(bad.Name).UID
	finish := ten.Inject(Fault{Kind: Reprovision, Target: bad.Name})
	g.Eventually(func() string { return string(ten.node(bad.Name).UID) }).ShouldNot(Equal(string(before)))
	finish()
	g.Eventually(func() bool {
		node := ten.node(bad.Name)
		return node.UID != "" && node.UID != before && node.Annotations[annotationVTEP] == ""
	}).Should(BeTrue())
	ten.makeVPC(false)
	ten.makeNetwork("n", "10.9.0.0/24")
	ten.makeDSI("n-pf0", "n", ten.portSelector("n"))
	ten.label(kindDPU, bad.Name, map[string]any{ten.vpcKey(): "in"})
	g.Eventually(ten.reason(kindVPC, "v", conditionPrerequisites)).Should(Equal(reasonPending))
	ten.label(kindDPU, good.Name, map[string]any{ten.vpcKey(): "in", ten.portKey(): "n"})
	g.Eventually(ten.interfaces).Should(HaveLen(1))
	g.Consistently(ten.ports).Should(BeEmpty())
	heal()
	g.Eventually(ten.ports).Should(HaveLen(1))
}

func TestReprovisionedDPU(t *testing.T) {
	t.Parallel()
	ten := attached(t, "again", 1, nil)
	g, d := ten.g, ten.dpus[0]
	uid := ten.node(d.Name).UID
	finish := ten.Inject(Fault{Kind: Reprovision, Target: d.Name})
	g.Expect(ten.ports()).To(BeEmpty())
	g.Eventually(func() string { return ten.phase(d.Name) }).Should(Equal(phaseInstalling))
	g.Eventually(func() string { return string(ten.node(d.Name).UID) }).Should(BeEmpty())
	g.Eventually(func() []string { return ten.interfaces()[0].GetFinalizers() }).Should(ConsistOf(finalizerSINode))
	finish()
	g.Eventually(ten.ports).Should(HaveLen(1), "DPF labels the new Node as the old one")
	g.Expect(ten.node(d.Name).UID).NotTo(Equal(uid))
	g.Eventually(func() string { return ten.phase(d.Name) }).Should(Equal(phaseReady))
}

func TestDPUUnderInstallationHasNoNode(t *testing.T) {
	t.Parallel()
	ten := v26_4.newTenant(t, "installing", 1, func(d *DPU) { d.Phase = "OS Installing" })
	name := ten.dpus[0].Name
	ten.g.Consistently(func() string { return string(ten.node(name).UID) }).Should(BeEmpty())
	ten.g.Expect(ten.phase(name)).To(Equal("OS Installing"))
	ten.FinishInstall(name)
	ten.g.Eventually(func() string { return ten.phase(name) }).Should(Equal(phaseReady))
	ten.g.Expect(ten.nodeReady(name)).To(Equal(corev1.ConditionTrue))
}

func TestWrongMACGetsNoLease(t *testing.T) {
	t.Parallel()
	ten := v26_4.newTenant(t, "mac", 1, nil)
	d := ten.dpus[0]
	defer ten.Inject(Fault{Kind: WrongMAC, Target: d.Name, Value: "02:00:00:00:00:01"})()
	ten.makeVPC(false)
	ten.makeNetwork("n", "10.10.0.0/24")
	ten.makeDSI("n-pf0", "n", ten.portSelector("n"))
	ten.label(kindDPU, d.Name, map[string]any{ten.vpcKey(): "in", ten.portKey(): "n"})
	ten.g.Eventually(ten.ports).Should(HaveLen(1))
	ten.g.Expect(ten.ports()[0].MAC).To(Equal("02:00:00:00:00:01"))
	_, _, ok := ten.Lease(d.PF0MAC)
	ten.g.Expect(ok).To(BeFalse())
}

func TestLabelBehindDPFsBack(t *testing.T) {
	t.Parallel()
	ten := attached(t, "relabel", 1, nil)
	d := ten.dpus[0]
	ten.Inject(Fault{Kind: Relabel, Target: d.Name, Value: ten.portKey() + "-"})
	ten.Inject(Fault{Kind: Relabel, Target: d.Name, Value: "site.example.com/rack=12"})
	ten.g.Eventually(ten.ports).Should(BeEmpty())
	ten.g.Consistently(func() map[string]string { return ten.node(d.Name).Labels }).ShouldNot(HaveKey(ten.portKey()), "DPF looks at its record, not at the Node")
	ten.label(kindDPU, d.Name, map[string]any{"site.example.com/row": "3"})
	ten.g.Eventually(func() map[string]string { return ten.node(d.Name).Labels }).Should(And(
		HaveKeyWithValue(ten.portKey(), "n"), HaveKeyWithValue("site.example.com/row", "3"), HaveKeyWithValue("site.example.com/rack", "12")),
		"with the next label all of DPF's come back, and others' stay")
}

func TestApplyOnLabelChangeWaitsForAHuman(t *testing.T) {
	t.Parallel()
	ten := v26_4.newTenant(t, "held", 1, nil)
	g, d := ten.g, ten.dpus[0]
	ten.change(kindDPU, d.Name, func(dpu *unstructured.Unstructured) {
		dpu.Object["spec"].(map[string]any)["nodeEffect"] = map[string]any{"hold": true, "applyOnLabelChange": true}
	})
	ten.label(kindDPU, d.Name, map[string]any{ten.vpcKey(): "in"})
	g.Eventually(func() string { return ten.phase(d.Name) }).Should(Equal(phaseNodeEffect))
	g.Eventually(ten.gone(kindDPUNodeMaintenance, maintenanceName(d.Node))).Should(BeFalse())
	g.Consistently(func() map[string]string { return ten.node(d.Name).Labels }).ShouldNot(HaveKey(ten.vpcKey()))
	ten.release(d)
	g.Eventually(func() map[string]string { return ten.node(d.Name).Labels }).Should(HaveKey(ten.vpcKey()))
	g.Eventually(func() string { return ten.phase(d.Name) }).Should(Equal(phaseReady))
}

func TestUnreachableDPUClusterStallsDeletion(t *testing.T) {
	ten := attached(t, "unreachable", 1, nil)
	heal := ten.Inject(Fault{Kind: DPUClusterUnreachable})
	ten.remove(kindDSI, "n-pf0")
	ten.g.Eventually(ten.reason(kindDSI, "n-pf0", conditionSetReconciled)).Should(Equal(reasonError))
	ten.g.Consistently(ten.ports).Should(HaveLen(1))
	heal()
	ten.g.Eventually(ten.gone(kindDSI, "n-pf0")).Should(BeTrue())
}

func TestWrongDeleteOrderHangs(t *testing.T) {
	t.Parallel()
	ten := attached(t, "order-of-deletion", 1, nil)
	g := ten.g
	// Somebody takes the VPC's finalizer off by force.
	vpc := ten.get(kindVPC, "v")
	ten.remove(kindVPC, "v")
	g.Eventually(func() error {
		return dropFinalizer(t.Context(), ten.Fabric.management, ten.get(kindVPC, "v"), finalizerVPC)
	}).Should(Succeed())
	g.Eventually(ten.gone(kindVPC, "v")).Should(BeTrue())
	ten.remove(kindDSI, "n-pf0")
	ten.remove(kindVirtualNetwork, "n")
	g.Consistently(func() []string { return ten.interfaces()[0].GetFinalizers() }).Should(ContainElement(finalizerSI))
	ten.makeVPC(false)
	g.Eventually(ten.gone(kindDSI, "n-pf0")).Should(BeTrue(), "the VPC must exist for its ports to go: "+vpc.GetName())
	g.Eventually(ten.gone(kindVirtualNetwork, "n")).Should(BeTrue())
}

func TestOVSProblemAndLostNorthbound(t *testing.T) {
	ten := attached(t, "lost", 1, nil)
	d := ten.dpus[0]
	heal := ten.Inject(Fault{Kind: OVSProblem, Target: d.Name})
	healthy := func() corev1.ConditionStatus {
		for _, c := range ten.node(d.Name).Status.Conditions {
			if c.Type == "OVSHealthy" {
				return c.Status
			}
		}
		return ""
	}
	ten.g.Eventually(healthy).Should(Equal(corev1.ConditionFalse))
	heal()
	ten.g.Eventually(healthy).Should(Equal(corev1.ConditionTrue))
	ten.Inject(Fault{Kind: NorthboundLost})
	ten.g.Expect(ten.ports()).To(BeEmpty())
	si := ten.interfaces()[0]
	ten.g.Expect(si.GetAnnotations()[annotationConnected]).To(Equal("true"), "the objects do not know")
}
