// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestSlowController(t *testing.T) {
	ten := v26_4.newTenant(t, "slow", 0, nil)
	heal := ten.Inject(Fault{Kind: ControllerSlow, Target: ControllerVPC, Value: "3s"})
	began := time.Now()
	ten.makeVPC(false)
	ten.g.Eventually(ten.true(kindVPC, "v", "Ready")).Should(BeTrue())
	ten.g.Expect(time.Since(began)).To(BeNumerically(">=", 6*time.Second), "a finalizer, then the rest")
	heal()
}

// Everything there is, with delays of all kinds: it takes longer and ends the same.
func TestShakenDelays(t *testing.T) {
	t.Parallel()
	shaken, stop, err := startSite(assets(), "shaken", Options{
		LabelPlace: LabelsOnDPU, Timing: DPFTiming().Scaled(0.01), Jitter: 4, Seed: 20261121,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	ten := shaken.newTenant(t, "shaken", 2, nil)
	g := ten.g
	ten.makeVPC(false)
	ten.makeNetwork("n", "10.26.0.0/24")
	ten.makeDSI("n-pf0", "n", ten.portSelector("n"))
	for _, d := range ten.dpus {
		ten.attach(d, "n")
	}
	g.Expect(ten.Reachable(ten.dpus[0].PF0MAC, ten.dpus[1].PF0MAC)).To(BeTrue())
	ten.remove(kindDSI, "n-pf0")
	ten.remove(kindVirtualNetwork, "n")
	ten.remove(kindVPC, "v")
	g.Eventually(ten.gone(kindVPC, "v")).Should(BeTrue())
	g.Expect(ten.gone(kindVirtualNetwork, "n")()).To(BeTrue())
	g.Expect(ten.ports()).To(BeEmpty())

	// An absent selector takes no Node, an empty one each.
	spec := map[string]any{"tenant": "t", "isolationClassName": IsolationClassName, "interNetworkAccess": false}
	ten.make(kindVPC, "none", spec)
	spec["nodeSelector"] = map[string]any{}
	ten.make(kindVPC, "all", spec)
	for _, d := range ten.dpus {
		g.Eventually(func() string { return ten.node(d.Name).Labels[labelNodeVPC] }).Should(Equal(ten.namespace + "_all"))
	}
	g.Expect(ten.true(kindVPC, "none", "Ready")()).To(BeTrue())
}

func TestRestartOfTheControllers(t *testing.T) {
	ten := attached(t, "restarted", 1, nil)
	g, d := ten.g, ten.dpus[0]
	uid := ten.node(d.Name).UID
	ten.Restart()
	ten.label(kindDPU, d.Name, map[string]any{ten.portKey(): nil})
	g.Eventually(ten.ports).Should(BeEmpty(), "what changed while they were away is seen")
	g.Expect(ten.node(d.Name).UID).To(Equal(uid))
	ten.label(kindDPU, d.Name, map[string]any{ten.portKey(): "n"})
	g.Eventually(ten.ports).Should(HaveLen(1))
	g.Expect(ten.Writes()[d.Name]).To(Equal(WriteCount{Attach: 3, Detach: 1}))
}

// Marks, labels for Nodes and logical ports stay as they are while the management side does not reach the DPU cluster.
func TestNothingPassesToAnUnreachableDPUCluster(t *testing.T) {
	ten := attached(t, "apart-from-dpus", 1, nil)
	g, d := ten.g, ten.dpus[0]
	heal := ten.Inject(Fault{Kind: DPUClusterUnreachable})
	defer heal()
	cluster := func() string {
		phase, _, _ := unstructured.NestedString(ten.get(kindDPUCluster, ten.options.DPUClusterName).Object, "status", "phase")
		return phase
	}
	g.Expect(cluster()).To(Equal("NotReady"))
	ten.label(kindDPU, d.Name, map[string]any{ten.vpcKey(): nil, ten.portKey(): nil})
	g.Eventually(ten.readyReason(d.Name)).Should(Equal("GetNodeError"))
	g.Consistently(func() map[string]string { return ten.node(d.Name).Labels }).Should(And(HaveKey(ten.vpcKey()), HaveKey(labelNodeVPC)))
	g.Expect(ten.ports()).To(HaveLen(1))
	// Not even where the Node's labels change without DPF. The sets live in the DPU cluster, and are kept out of this.
	stall := ten.Inject(Fault{Kind: ControllerStalled, Target: ControllerServiceInterfaceSet})
	defer stall()
	ten.Inject(Fault{Kind: Relabel, Target: d.Name, Value: ten.vpcKey() + "-"})
	g.Consistently(func() map[string]string { return ten.node(d.Name).Labels }).Should(HaveKey(labelNodeVPC))
	g.Expect(ten.ports()).To(HaveLen(1))
	stall()
	heal()
	g.Eventually(ten.ports).Should(BeEmpty())
	g.Eventually(func() map[string]string { return ten.node(d.Name).Labels }).ShouldNot(HaveKey(labelNodeVPC))
	g.Expect(cluster()).To(Equal("Ready"))
}

// A checker reads who changed which label of a Node, who deleted it, and when a port was plugged into what, under faults too.
func TestJournalIsCompleteUnderFaults(t *testing.T) {
	t.Parallel()
	ten := attached(t, "complete", 1, func(d *DPU) { d.StandbyPower = false })
	g, d := ten.g, ten.dpus[0]
	ten.Inject(Fault{Kind: Relabel, Target: d.Name, Value: ten.portKey() + "-"})
	g.Eventually(ten.ports).Should(BeEmpty())
	ten.label(kindDPU, d.Name, map[string]any{"site.example.com/row": "3"})
	g.Eventually(ten.ports).Should(HaveLen(1))
	ten.SetHostPower(d.Serial, false)
	ten.SetHostPower(d.Serial, true)
	g.Eventually(func() bool { return ten.ports()[0].Connected }).Should(BeTrue())
	again := ten.Inject(Fault{Kind: NodeDeleted, Target: d.Name})
	g.Eventually(ten.ports).Should(BeEmpty())
	again()
	g.Eventually(ten.ports).Should(HaveLen(1))
	finish := ten.Inject(Fault{Kind: Reprovision, Target: d.Name})
	g.Expect(ten.ports()).To(BeEmpty())
	finish()
	g.Eventually(ten.ports).Should(HaveLen(1))
	g.Eventually(func() string { return ten.phase(d.Name) }).Should(Equal(phaseReady))

	var ports, node []string
	var power []string
	marked := map[bool]bool{}
	g.Eventually(func() int {
		ports, node, power = nil, nil, nil
		for _, e := range ten.Journal() {
			switch {
			case e.Port != nil && e.Port.DPU == d.Name:
				ports = append(ports, string(e.Kind))
				g.Expect(e.Port.VPC).To(Equal(ten.namespace + "_v"))
			case e.Kind == EffectPower && e.Object == "DPU "+ten.options.Namespace+"/"+d.Name:
				power = append(power, e.Change)
			case e.Object == "Node /"+d.Name && (e.Kind == EffectCreated || e.Kind == EffectDeleted):
				node = append(node, string(e.Kind))
			case e.Object == "Node /"+d.Name && e.Kind == EffectAdjusted && strings.Contains(e.Change, "+"+labelNodeVPC+"="):
				marked[true] = true
			case e.Object == "Node /"+d.Name && e.Kind == EffectChanged && strings.Contains(e.Change, "labels -"+ten.portKey()):
				marked[false] = true
			}
		}
		return len(node)
	}).Should(Equal(5))
	g.Expect(node).To(Equal([]string{"Created", "Deleted", "Created", "Deleted", "Created"}))
	g.Expect(ports).To(Equal([]string{"Plug", "Unplug", "Plug", "Unplug", "Plug", "Unplug", "Plug"}))
	g.Expect(power).To(Equal([]string{"down", "boots"}))
	g.Expect(marked).To(HaveKey(true), "DPF's mark is DPF's")
	g.Expect(marked).To(HaveKey(false), "the label taken off behind DPF's back is somebody else's doing")
	g.Expect(ten.nodeReady(d.Name)).To(Equal(corev1.ConditionTrue))
}
