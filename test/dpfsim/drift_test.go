// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// onlyInterface is the tenant's only ServiceInterface.
func (ten *tenant) onlyInterface() unstructured.Unstructured {
	ten.t.Helper()
	interfaces := ten.interfaces()
	ten.g.Expect(interfaces).To(HaveLen(1))
	return interfaces[0]
}

// readyReason is that of a DPU's condition Ready, "" if it is True.
func (ten *tenant) readyReason(dpu string) func() string {
	return ten.reason(kindDPU, dpu, "Ready")
}

func TestRebootedDPU(t *testing.T) {
	t.Parallel()
	ten := attached(t, "reboot", 1, nil)
	g, d := ten.g, ten.dpus[0]
	before := ten.node(d.Name)
	up := ten.Inject(Fault{Kind: DPUReboot, Target: d.Name})
	g.Expect(ten.ports()[0].Connected).To(BeFalse(), "traffic stops at once")
	g.Eventually(func() corev1.ConditionStatus { return ten.nodeReady(d.Name) }).Should(Equal(corev1.ConditionUnknown))
	si := ten.onlyInterface()
	g.Expect(conditionTrue(&si, "Ready")).To(BeTrue(), "a condition from before the reboot lingers")
	g.Expect(si.GetAnnotations()).To(HaveKeyWithValue(annotationConnected, "true"))
	g.Eventually(ten.readyReason(d.Name)).Should(Equal("NodeNotReady"))
	g.Expect(ten.phase(d.Name)).To(Equal(phaseReady), "the phase is another thing")
	up()
	g.Eventually(func() corev1.ConditionStatus { return ten.nodeReady(d.Name) }).Should(Equal(corev1.ConditionTrue))
	after := ten.node(d.Name)
	g.Expect(after.Status.NodeInfo.BootID).NotTo(Equal(before.Status.NodeInfo.BootID))
	g.Expect(after.UID).To(Equal(before.UID))
	g.Expect(after.Labels).To(Equal(before.Labels))
	g.Eventually(func() bool { return ten.ports()[0].Connected }).Should(BeTrue())
	g.Eventually(ten.readyReason(d.Name)).Should(BeEmpty())
}

func TestAgentThatDoesNotComeBackAfterAReboot(t *testing.T) {
	t.Parallel()
	ten := attached(t, "lingering", 1, nil)
	g, d := ten.g, ten.dpus[0]
	heal := ten.Inject(Fault{Kind: AgentDown, Target: d.Name})
	boot := ten.node(d.Name).Status.NodeInfo.BootID
	ten.Inject(Fault{Kind: DPUReboot, Target: d.Name})()
	g.Eventually(func() string { return ten.node(d.Name).Status.NodeInfo.BootID }).ShouldNot(Equal(boot))
	ten.label(kindDPU, d.Name, map[string]any{ten.portKey(): nil})
	g.Eventually(func() []string { si := ten.onlyInterface(); return si.GetFinalizers() }).Should(ConsistOf(finalizerSINode))
	si := ten.onlyInterface()
	g.Expect(conditionTrue(&si, "Ready")).To(BeTrue(), "nobody is there to correct it")
	heal()
	g.Eventually(ten.interfaces).Should(BeEmpty())
}

func TestLabelsOfADeadDPUStayOnItsNode(t *testing.T) {
	t.Parallel()
	ten := attached(t, "deaf", 1, nil)
	g, d := ten.g, ten.dpus[0]
	heal := ten.Inject(Fault{Kind: NodeNotReady, Target: d.Name})
	g.Eventually(ten.readyReason(d.Name)).Should(Equal("NodeNotReady"))
	ten.label(kindDPU, d.Name, map[string]any{ten.portKey(): nil})
	g.Consistently(func() map[string]string { return ten.node(d.Name).Labels }).Should(HaveKey(ten.portKey()))
	g.Expect(ten.ports()).To(HaveLen(1))
	heal()
	g.Eventually(ten.ports).Should(BeEmpty())
	g.Eventually(func() map[string]string { return ten.node(d.Name).Labels }).ShouldNot(HaveKey(ten.portKey()))
}

func TestNodeDeletedAndRegisteredAnew(t *testing.T) {
	t.Parallel()
	ten := attached(t, "renode", 1, nil)
	g, d := ten.g, ten.dpus[0]
	ten.Inject(Fault{Kind: Relabel, Target: d.Name, Value: "site.example.com/rack=12"})
	before := ten.node(d.Name)
	again := ten.Inject(Fault{Kind: NodeDeleted, Target: d.Name})
	g.Eventually(func() []string { si := ten.onlyInterface(); return si.GetFinalizers() }).Should(ConsistOf(finalizerSINode), "its agent is gone with the Node")
	g.Eventually(ten.readyReason(d.Name)).Should(Equal("NodeNotFound"))
	g.Consistently(func() types.UID { return ten.node(d.Name).UID }).Should(BeEmpty(), "a running kubelet does not register again")
	again()
	g.Eventually(func() types.UID { return ten.node(d.Name).UID }).ShouldNot(BeEmpty())
	g.Eventually(ten.ports).Should(HaveLen(1), "DPF puts its labels on the new Node")
	after := ten.node(d.Name)
	g.Expect(after.UID).NotTo(Equal(before.UID))
	g.Expect(after.Status.NodeInfo.BootID).To(Equal(before.Status.NodeInfo.BootID))
	g.Expect(after.Labels).NotTo(HaveKey("site.example.com/rack"), "labels of others are lost")
	g.Eventually(ten.readyReason(d.Name)).Should(BeEmpty())
}

// Somebody with access to the DPU cluster deletes the Node; no fault is told.
func TestNodeDeletedBehindTheSimulatorsBack(t *testing.T) {
	t.Parallel()
	ten := attached(t, "nodeless", 1, nil)
	g, d := ten.g, ten.dpus[0]
	g.Expect(ten.Fabric.dpuCluster.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: d.Name}})).To(Succeed())
	g.Eventually(func() []string { si := ten.onlyInterface(); return si.GetFinalizers() }).Should(ConsistOf(finalizerSINode))
	g.Eventually(func() bool { return ten.agentAlive(d.Name) }).Should(BeFalse())
	ten.Inject(Fault{Kind: DPUReboot, Target: d.Name})()
	g.Eventually(ten.ports).Should(HaveLen(1), "a boot registers the Node")
}

func (ten *tenant) maintenance(d DPU) *unstructured.Unstructured {
	return ten.get(kindDPUNodeMaintenance, maintenanceName(d.Node))
}

// release lets DPF go on with what it holds.
func (ten *tenant) release(d DPU) {
	ten.t.Helper()
	ten.g.Eventually(func() error {
		return annotate(ten.ctx(), ten.Fabric.management, ten.maintenance(d), map[string]string{annotationHold: "false"})
	}).Should(Succeed())
}

func TestReplacedDPU(t *testing.T) {
	t.Parallel()
	ten := v26_4.newTenant(t, "replaced", 1, func(d *DPU) { d.TemplateLabels = map[string]string{"site.example.com/row": "3"} })
	g, d := ten.g, ten.dpus[0]
	ten.makeVPC(false)
	ten.makeNetwork("n", "10.14.0.0/24")
	ten.makeDSI("n-pf0", "n", ten.portSelector("n"))
	ten.attach(d, "n")
	g.Expect(ten.node(d.Name).Labels).To(HaveKeyWithValue("site.example.com/row", "3"))
	uid, node := ten.get(kindDPU, d.Name).GetUID(), ten.node(d.Name).UID

	ten.Inject(Fault{Kind: DPUReplaced, Target: d.Name})
	g.Eventually(func() types.UID {
		if dpu := ten.get(kindDPU, d.Name); dpu != nil {
			return dpu.GetUID()
		}
		return uid
	}).ShouldNot(Equal(uid))
	g.Eventually(func() string { return ten.phase(d.Name) }).Should(Equal(phaseNodeEffect))
	g.Eventually(func() types.UID { return ten.node(d.Name).UID }).Should(BeEmpty(), "a hold does not save the Node")
	labels := nodeLabels(ten.get(kindDPU, d.Name))
	g.Expect(labels).NotTo(Or(HaveKey(ten.vpcKey()), HaveKey(ten.portKey())), "labels of others are lost with the DPU")
	g.Expect(labels).To(HaveKeyWithValue("site.example.com/row", "3"))
	g.Eventually(func() *unstructured.Unstructured { return ten.maintenance(d) }).ShouldNot(BeNil())
	g.Expect(ten.maintenance(d).GetAnnotations()).To(HaveKeyWithValue(annotationHold, "true"))
	c, _ := ten.hardware.get(d.Name)
	g.Consistently(func() string { return ten.phase(d.Name) }).Should(Equal(phaseNodeEffect), "nothing is installed while it is held")
	now, _ := ten.hardware.get(d.Name)
	g.Expect(now.installs).To(Equal(c.installs))

	g.Eventually(ten.reason(kindDPUNode, d.Node, "Ready")).Should(Equal(reasonPending))
	g.Eventually(ten.true(kindDPUNode, d.Node, "DPUNodeNodeEffectInProgress")).Should(BeTrue())

	ten.release(d)
	g.Eventually(func() string { return ten.phase(d.Name) }).Should(Equal(phaseReady))
	g.Eventually(ten.true(kindDPUNode, d.Node, "Ready")).Should(BeTrue())
	g.Expect(ten.node(d.Name).UID).NotTo(Or(BeEmpty(), Equal(node)))
	g.Expect(ten.node(d.Name).Labels).To(HaveKeyWithValue("site.example.com/row", "3"))
	g.Eventually(func() bool { return ten.maintenance(d) == nil }).Should(BeTrue())
	g.Eventually(ten.interfaces).Should(BeEmpty())
	g.Expect(ten.ports()).To(BeEmpty())
}

func TestWantedReinstallWaitsForTheHold(t *testing.T) {
	t.Parallel()
	ten := attached(t, "wanted", 1, nil)
	g, d := ten.g, ten.dpus[0]
	uid := ten.node(d.Name).UID
	withdraw := ten.Inject(Fault{Kind: ReinstallWanted, Target: d.Name})
	g.Eventually(func() string { return ten.phase(d.Name) }).Should(Equal(phaseNodeEffect))
	g.Eventually(func() *unstructured.Unstructured { return ten.maintenance(d) }).ShouldNot(BeNil())
	g.Consistently(func() bool { return len(ten.ports()) == 1 && ten.ports()[0].Connected }).Should(BeTrue(), "traffic goes on")
	withdraw()
	g.Eventually(func() string { return ten.phase(d.Name) }).Should(Equal(phaseReady))
	g.Expect(ten.node(d.Name).UID).To(Equal(uid))

	again := ten.Inject(Fault{Kind: ReinstallWanted, Target: d.Name})
	defer again()
	g.Eventually(func() *unstructured.Unstructured { return ten.maintenance(d) }).ShouldNot(BeNil())
	ten.release(d)
	g.Eventually(func() types.UID { return ten.node(d.Name).UID }).ShouldNot(Equal(uid), "released, it is installed")
	g.Eventually(func() string { return ten.phase(d.Name) }).Should(Equal(phaseReady))
	g.Eventually(ten.ports).Should(HaveLen(1), "the DPU kept its labels")
}

// A DPU leaves Ready with every label, and comes back by itself.
func TestDPUBlinksWithEveryLabel(t *testing.T) {
	t.Parallel()
	ten := v26_4.newTenant(t, "blink", 1, nil)
	g, d := ten.g, ten.dpus[0]
	g.Eventually(ten.readyReason(d.Name)).Should(BeEmpty())
	watching, err := client.NewWithWatch(ten.site.management, client.Options{Scheme: ten.scheme})
	g.Expect(err).NotTo(HaveOccurred())
	events, err := watching.Watch(t.Context(), newList(kindDPU), client.InNamespace(ten.options.Namespace), client.MatchingFields{"metadata.name": d.Name})
	g.Expect(err).NotTo(HaveOccurred())
	defer events.Stop()
	ten.label(kindDPU, d.Name, map[string]any{ten.vpcKey(): "in"})
	var phases []string
	deadline := time.After(patience)
	for len(phases) < 2 || phases[len(phases)-1] != phaseReady+"/True" {
		select {
		case e := <-events.ResultChan():
			dpu, ok := e.Object.(*unstructured.Unstructured)
			g.Expect(ok).To(BeTrue())
			phase, _, _ := unstructured.NestedString(dpu.Object, "status", "phase")
			ready := meta.FindStatusCondition(conditionsOf(dpu, "conditions"), "Ready")
			g.Expect(ready).NotTo(BeNil())
			if ready.Reason == "NodeNotReady" {
				continue // A Node falls silent for a moment on a busy machine.
			}
			if now := phase + "/" + string(ready.Status); len(phases) == 0 || phases[len(phases)-1] != now {
				phases = append(phases, now)
			}
		case <-deadline:
			t.Fatalf("still %v", phases)
		}
	}
	g.Expect(phases).To(Equal([]string{"Ready/True", "DPU Cluster Config/False", "Node Effect Removal/False", "Ready/True"}))
}

func TestStuckPhase(t *testing.T) {
	t.Parallel()
	ten := v26_4.newTenant(t, "stuck", 1, nil)
	d := ten.dpus[0]
	heal := ten.Inject(Fault{Kind: DPUPhase, Target: d.Name, Value: "Error"})
	ten.g.Eventually(func() string { return ten.phase(d.Name) }).Should(Equal("Error"))
	ten.g.Expect(ten.readyReason(d.Name)()).NotTo(BeEmpty())
	ten.label(kindDPU, d.Name, map[string]any{ten.vpcKey(): "in"})
	ten.g.Consistently(func() map[string]string { return ten.node(d.Name).Labels }).ShouldNot(HaveKey(ten.vpcKey()))
	heal()
	ten.g.Eventually(func() map[string]string { return ten.node(d.Name).Labels }).Should(HaveKey(ten.vpcKey()))
	ten.g.Eventually(func() string { return ten.phase(d.Name) }).Should(Equal(phaseReady))
}

// A network or VPC that is not Ready leaves its ports as they are, and its annotations with them.
func TestConnectedLingersWhileTheNetworkIsNotReady(t *testing.T) {
	t.Parallel()
	ten := attached(t, "unready", 1, nil)
	g, d := ten.g, ten.dpus[0]
	heal := ten.Inject(Fault{Kind: NetworkNotReady, Target: ten.namespace + "/n"})
	g.Eventually(ten.reason(kindVirtualNetwork, "n", "Ready")).Should(Equal(reasonError))
	g.Eventually(ten.reason(kindVPC, "v", "Ready")).Should(Equal(reasonPending), "the VPC waits for its networks")
	// The Node leaves the VPC, which nobody looks at now.
	stall := ten.Inject(Fault{Kind: ControllerStalled, Target: ControllerServiceInterfaceSet})
	defer stall()
	ten.label(kindDPU, d.Name, map[string]any{ten.vpcKey(): nil})
	g.Eventually(func() map[string]string { return ten.node(d.Name).Labels }).ShouldNot(HaveKey(ten.vpcKey()))
	g.Consistently(func() string { si := ten.onlyInterface(); return si.GetAnnotations()[annotationConnected] }).Should(Equal("true"))
	g.Expect(ten.ports()).To(HaveLen(1))
	heal()
	g.Eventually(func() string { si := ten.onlyInterface(); return si.GetAnnotations()[annotationConnected] }).Should(Equal("false"))
	g.Eventually(ten.ports).Should(BeEmpty())
}

func TestVPCNotReadyTakesNoFurtherNode(t *testing.T) {
	t.Parallel()
	ten := attached(t, "unready-vpc", 2, nil)
	g := ten.g
	heal := ten.Inject(Fault{Kind: VPCNotReady, Target: ten.namespace + "/v"})
	g.Eventually(ten.reason(kindVPC, "v", conditionTopology)).Should(Equal(reasonError))
	ten.label(kindDPU, ten.dpus[1].Name, map[string]any{ten.vpcKey(): "in", ten.portKey(): "n"})
	g.Eventually(ten.interfaces).Should(HaveLen(2))
	g.Consistently(ten.ports).Should(HaveLen(1), "the running one goes on, no other is plugged")
	heal()
	g.Eventually(ten.ports).Should(HaveLen(2))
}

func TestStrayDPUClusterStallsEveryInterface(t *testing.T) {
	ten := attached(t, "stray", 1, nil)
	g := ten.g
	heal := ten.Inject(Fault{Kind: StrayDPUCluster, Target: "elsewhere"})
	ten.remove(kindDSI, "n-pf0")
	g.Eventually(ten.reason(kindDSI, "n-pf0", conditionSetReconciled)).Should(Equal(reasonError))
	g.Consistently(ten.ports).Should(HaveLen(1), "a cluster nobody selects keeps the interface from going")
	heal()
	g.Eventually(ten.gone(kindDSI, "n-pf0")).Should(BeTrue())
	stray := newObject(kindDPUCluster)
	key := client.ObjectKey{Namespace: ten.options.Namespace, Name: "elsewhere"}
	g.Expect(apierrors.IsNotFound(ten.Fabric.management.Get(t.Context(), key, stray))).To(BeTrue())
}

func TestInstallationWaitsForThePowerCycle(t *testing.T) {
	t.Parallel()
	ten := v26_4.newTenant(t, "power-cycle", 1, nil)
	g, d := ten.g, ten.dpus[0]
	uid := ten.node(d.Name).UID
	defer ten.Inject(Fault{Kind: ExternalReboot, Target: d.Name})()
	ten.Inject(Fault{Kind: DPUReplaced, Target: d.Name})
	g.Eventually(func() bool { return ten.maintenance(d) != nil }).Should(BeTrue())
	ten.release(d)
	g.Eventually(ten.reason(kindDPU, d.Name, "Rebooted")).Should(Equal("WaitingForManualPowerCycleOrReboot"))
	g.Eventually(func() map[string]string { return ten.get(kindDPUNode, d.Node).GetAnnotations() }).Should(HaveKey(annotationReboot))
	g.Consistently(func() string { return ten.phase(d.Name) }).Should(Equal(phaseRebooting))
	g.Expect(annotate(t.Context(), ten.Fabric.management, ten.get(kindDPUNode, d.Node), map[string]string{annotationReboot: ""})).To(Succeed())
	g.Eventually(func() string { return ten.phase(d.Name) }).Should(Equal(phaseReady))
	g.Expect(ten.node(d.Name).UID).NotTo(Or(BeEmpty(), Equal(uid)))
}

// Without its database the VPC service finalizes nothing, says of every port it looks at that it is not connected, and cuts none off.
func TestNorthboundUnreachable(t *testing.T) {
	ten := attached(t, "no-northbound", 1, nil)
	g := ten.g
	heal := ten.Inject(Fault{Kind: NorthboundUnreachable})
	defer heal()
	si := ten.onlyInterface()
	g.Expect(annotate(t.Context(), ten.Fabric.dpuCluster, &si, map[string]string{"touched": "yes"})).To(Succeed())
	g.Eventually(func() string { si := ten.onlyInterface(); return si.GetAnnotations()[annotationConnected] }).Should(Equal("false"))
	g.Consistently(ten.ports).Should(HaveLen(1), "which is not true")
	ten.remove(kindDSI, "n-pf0")
	g.Eventually(func() []string { si := ten.onlyInterface(); return si.GetFinalizers() }).Should(ConsistOf(finalizerSI))
	g.Consistently(func() []string { si := ten.onlyInterface(); return si.GetFinalizers() }).Should(ConsistOf(finalizerSI))
	heal()
	g.Eventually(ten.gone(kindDSI, "n-pf0")).Should(BeTrue())
	g.Expect(ten.ports()).To(BeEmpty())
}
