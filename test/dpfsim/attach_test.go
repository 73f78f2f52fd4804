// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"net/netip"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestAttachAndDetach(t *testing.T) {
	t.Parallel()
	ten := v26_4.newTenant(t, "attach", 2, nil)
	g, a, b := ten.g, ten.dpus[0], ten.dpus[1]
	ten.makeVPC(false)
	ten.makeNetwork("n", "172.30.8.0/24")
	ten.makeDSI("n-pf0", "n", ten.portSelector("n"))
	g.Eventually(ten.true(kindVPC, "v", "Ready")).Should(BeTrue())
	g.Eventually(ten.true(kindDSI, "n-pf0", "Ready")).Should(BeTrue(), "Ready proves nothing: there is no Node yet")
	g.Expect(ten.interfaces()).To(BeEmpty())

	ten.attach(a, "n")
	address, network, ok := ten.Lease(a.PF0MAC)
	g.Expect(ok).To(BeTrue())
	g.Expect(address).To(Equal(netip.MustParseAddr("172.30.8.2")), "the first address is the gateway's")
	g.Expect(network.Gateway).To(Equal(netip.MustParseAddr("172.30.8.1")))
	g.Eventually(ten.interfaces).Should(HaveLen(1))
	g.Eventually(func() bool { si := ten.interfaces()[0]; return conditionTrue(&si, "Ready") }).Should(BeTrue())
	si := ten.interfaces()[0]
	g.Expect(si.GetAnnotations()).To(HaveKeyWithValue(annotationConnected, "true"))
	g.Expect(si.GetAnnotations()[annotationMAC]).NotTo(Equal(a.PF0MAC), "the agent writes lower case, the BMC capitals")
	g.Expect(si.GetFinalizers()).To(ConsistOf(finalizerSI, finalizerSINode))
	g.Eventually(func() string { return ten.phase(a.Name) }).Should(Equal(phaseReady))
	g.Expect(ten.get(kindDSI, "n-pf0").GetGeneration()).To(BeNumerically(">", 1), "DPF labels the template")

	ten.attach(b, "n")
	g.Expect(ten.Reachable(a.PF0MAC, b.PF0MAC)).To(BeTrue())

	ten.label(kindDPU, a.Name, map[string]any{ten.portKey(): nil})
	g.Eventually(ten.ports).Should(HaveLen(1))
	g.Eventually(ten.interfaces).Should(HaveLen(1))
	ten.label(kindDPU, a.Name, map[string]any{ten.vpcKey(): nil})
	g.Eventually(func() map[string]string { return ten.node(a.Name).Labels }).ShouldNot(HaveKey(labelNodeVPC))
	g.Eventually(func() string { return ten.phase(a.Name) }).Should(Equal(phaseReady))
	g.Expect(ten.Reachable(a.PF0MAC, b.PF0MAC)).To(BeFalse())
	g.Expect(ten.Writes()[a.Name]).To(Equal(WriteCount{Attach: 2, Detach: 2}))

	ten.remove(kindVPC, "v")
	ten.remove(kindVirtualNetwork, "n")
	g.Eventually(ten.reason(kindVPC, "v", conditionVPCReconciled)).Should(Equal(reasonAwaitingDeletion))
	g.Eventually(ten.reason(kindVirtualNetwork, "n", conditionNetworkReconciled)).Should(Equal(reasonAwaitingDeletion))
	g.Expect(ten.ports()).To(HaveLen(1), "deletion waits for the interface")
	ten.remove(kindDSI, "n-pf0")
	g.Eventually(ten.gone(kindDSI, "n-pf0")).Should(BeTrue())
	g.Expect(ten.ports()).To(BeEmpty())
	g.Eventually(ten.gone(kindVirtualNetwork, "n")).Should(BeTrue())
	g.Eventually(ten.gone(kindVPC, "v")).Should(BeTrue())
	g.Eventually(func() map[string]string { return ten.node(b.Name).Labels }).ShouldNot(HaveKey(labelNodeVPC))
}

func TestJournalTellsWhoAndWhat(t *testing.T) {
	t.Parallel()
	ten := v26_4.newTenant(t, "journal", 1, nil)
	d := ten.dpus[0]
	ten.makeVPC(false)
	ten.makeNetwork("n", "10.1.0.0/24")
	ten.makeDSI("n-pf0", "n", ten.portSelector("n"))
	ten.attach(d, "n")
	var writers, changes []string
	var plugs []Port
	for _, effect := range ten.Journal() {
		switch {
		case effect.Object == "DPU "+ten.options.Namespace+"/"+d.Name && effect.Kind == EffectChanged:
			writers, changes = append(writers, effect.Writer), append(changes, effect.Change)
		case effect.Kind == EffectPlug && effect.Port.DPU == d.Name:
			plugs = append(plugs, *effect.Port)
		}
	}
	ten.g.Expect(writers).To(Equal([]string{"provider", "provider"}))
	ten.g.Expect(changes).To(Equal([]string{
		"spec.cluster.nodeLabels +" + ten.vpcKey() + "=in", "spec.cluster.nodeLabels +" + ten.portKey() + "=n",
	}))
	ten.g.Expect(plugs).To(HaveLen(1))
	ten.g.Expect(plugs[0].VPC).To(Equal(ten.namespace + "_v"))
}

func TestSetWithoutSelectorTakesEveryNode(t *testing.T) {
	ten := v26_4.newTenant(t, "greedy", 2, nil)
	ten.makeVPC(false)
	ten.makeNetwork("n", "10.2.0.0/24")
	ten.makeDSI("greedy", "n", nil)
	nodes := &corev1.NodeList{}
	ten.g.Expect(ten.Fabric.dpuCluster.List(t.Context(), nodes)).To(Succeed())
	ten.g.Eventually(ten.interfaces).Should(HaveLen(len(nodes.Items)))
	ten.g.Consistently(ten.ports).Should(BeEmpty(), "no Node is in the VPC")
	ten.remove(kindDSI, "greedy")
	ten.g.Eventually(ten.gone(kindDSI, "greedy")).Should(BeTrue())
}

func TestInterfaceWaitsForCreationOfItsNetwork(t *testing.T) {
	t.Parallel()
	ten := v26_4.newTenant(t, "order", 1, nil)
	ten.makeDSI("early", "n", ten.portSelector("n"))
	ten.g.Eventually(ten.reason(kindDSI, "early", conditionPreReqs)).Should(Equal(reasonPending))
	ten.makeNetwork("n", "10.3.0.0/24")
	ten.g.Eventually(ten.reason(kindVirtualNetwork, "n", conditionPrerequisites)).Should(Equal(reasonPending))
	ten.makeVPC(false)
	ten.g.Eventually(ten.true(kindDSI, "early", "Ready")).Should(BeTrue())
	ten.attach(ten.dpus[0], "n")
}

func TestNetworksOfAVPC(t *testing.T) {
	t.Parallel()
	for _, peering := range []bool{false, true} {
		name := map[bool]string{false: "apart", true: "peered"}[peering]
		t.Run(name, func(t *testing.T) {
			ten := v26_4.newTenant(t, name, 2, nil)
			ten.makeVPC(peering)
			ten.makeNetwork("n", "10.4.0.0/24")
			ten.makeNetwork("m", "10.5.0.0/24")
			ten.makeDSI("n-pf0", "n", ten.portSelector("n"))
			ten.makeDSI("m-pf0", "m", ten.portSelector("m"))
			ten.attach(ten.dpus[0], "n")
			ten.attach(ten.dpus[1], "m")
			ten.g.Expect(ten.Reachable(ten.dpus[0].PF0MAC, ten.dpus[1].PF0MAC)).To(Equal(peering))
		})
	}
}

func TestSpecsRefuseWhatDPFRefuses(t *testing.T) {
	t.Parallel()
	ten := v26_4.newTenant(t, "immutable", 1, nil)
	ten.makeVPC(false)
	ten.makeNetwork("n", "10.6.0.0/24")
	ten.makeDSI("n-pf0", "n", ten.portSelector("n"))
	for _, refused := range []struct {
		name   string
		kind   schema.GroupVersionKind
		object string
		edit   func(spec map[string]any)
	}{
		{"VPC selector", kindVPC, "v", func(spec map[string]any) { delete(spec, "nodeSelector") }},
		{"network", kindVirtualNetwork, "n", func(spec map[string]any) { spec["externallyRouted"] = false }},
		{"interface's network", kindDSI, "n-pf0", func(spec map[string]any) {
			template := spec["template"].(map[string]any)["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
			template["pf"].(map[string]any)["virtualNetwork"] = "other"
		}},
	} {
		ten.g.Eventually(func() string {
			object := ten.get(refused.kind, refused.object)
			refused.edit(object.Object["spec"].(map[string]any))
			err := ten.Fabric.management.Update(t.Context(), object)
			if err == nil {
				return ""
			}
			return err.Error()
		}).Should(ContainSubstring("immutable"), refused.name)
	}
}
