// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricwing_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
)

// cardLabel tells the cards of one server apart.
const cardLabel = "example.com/card"

// newCards puts a server with several DPUs into the fabric. Labels of each card tell them apart.
func (w *wing) newCards(count int, change func(*dpfsim.DPU)) []dpfsim.DPU {
	w.t.Helper()
	var cards []dpfsim.DPU
	for range count {
		n := serial.Add(1)
		d := dpfsim.DPU{
			Name: fmt.Sprintf("dpu-%03d", n), Serial: fmt.Sprintf("MT%03d", n), SystemID: fmt.Sprintf("sys%03d", n),
			Device: fmt.Sprintf("mt%03d", n), Node: fmt.Sprintf("server-%03d", n),
			PF0MAC: fmt.Sprintf("58:A2:E1:00:%02X:%02X", n>>8, n&0xff), StandbyPower: true,
		}
		if len(cards) > 0 {
			d.SystemID, d.Node = cards[0].SystemID, cards[0].Node
		}
		if change != nil {
			change(&d)
		}
		cards = append(cards, d)
	}
	w.Expect(world.DPF.Seed(w.t.Context(), cards)).To(Succeed())
	for i, d := range cards {
		w.patchDPF(&provisioningv1alpha1.DPUDevice{}, d.Device, fmt.Sprintf(`{"metadata":{"labels":{%q:"c%d"}}}`, cardLabel, i))
	}
	return cards
}

func (w *wing) patchDPF(object client.Object, name, patch string) {
	w.t.Helper()
	object.SetNamespace(dpfNamespace)
	object.SetName(name)
	w.Expect(world.DPFAdmin.Patch(w.t.Context(), object, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
}

func cardPort(name, card string, pf int32) infrav1.MachinePort {
	port := infrav1.MachinePort{Name: name, PF: ptr.To(pf), Subnet: "workers"}
	if card != "" {
		port.DPUSelector = &metav1.LabelSelector{MatchLabels: map[string]string{cardLabel: card}}
	}
	return port
}

// attachPorts is attach with the ports given.
func (w *wing) attachPorts(name, systemID, token string, ports ...infrav1.MachinePort) *infrav1.DPUAttachment {
	w.t.Helper()
	attachment := &infrav1.DPUAttachment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: name},
		Spec: infrav1.DPUAttachmentSpec{
			State: infrav1.AttachmentStateAttached, MachineName: "m", VPCName: name,
			Server: infrav1.AttachmentServer{Source: source, SystemID: systemID, Token: token}, Ports: ports,
		},
	}
	w.Expect(world.Hub.Create(w.t.Context(), attachment)).To(Succeed())
	w.t.Cleanup(func() {
		ctx := context.WithoutCancel(w.t.Context())
		_ = world.Hub.Delete(ctx, attachment)
		_ = world.Hub.Patch(ctx, attachment, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`)))
	})
	return attachment
}

// labelWrites are the writes to the card's labels for its Node: the test itself writes other things.
func labelWrites(d dpfsim.DPU) dpfsim.WriteCount {
	count := writes(d)
	count.Other = 0
	return count
}

// message of a condition.
func (w *wing) message(object interface {
	client.Object
	conditions.Getter
}, kind string) string {
	w.t.Helper()
	w.Expect(world.Hub.Get(w.t.Context(), client.ObjectKeyFromObject(object), object)).To(Succeed())
	return conditions.GetMessage(object, kind)
}

// pluggedPorts are the PFs of a card that carry a tenant's traffic, as OVN has it.
func pluggedPorts(d dpfsim.DPU) int {
	count := 0
	for _, port := range world.DPF.Ports() {
		if port.DPU == d.Name {
			count++
		}
	}
	return count
}

// TestTwoCards has one port on each of two cards of a server; which card is meant must be said.
func TestTwoCards(t *testing.T) {
	w := newWing(t)
	cards := w.newCards(2, nil)
	w.Eventually(w.eligibility(cards[0])).Should(Equal(infrav1.Eligible))
	w.newTenant("red", "cards")
	token := w.claim("red", "m", cards[0].SystemID)

	vague := w.attachPorts("cards", cards[0].SystemID, token, cardPort("p0", "", 0))
	w.Eventually(w.reason(vague, infrav1.DPUResolvedCondition)).Should(Equal("False/" + infrav1.AmbiguousDPUReason))
	w.Expect(w.message(vague, infrav1.DPUResolvedCondition)).To(ContainSubstring(cards[0].Device + ", " + cards[1].Device))
	w.Expect(labelWrites(cards[0])).To(Equal(dpfsim.WriteCount{}))
	w.detach(vague)
	w.Eventually(w.proven(vague)).Should(Equal(detachedState))
	w.Expect(world.Hub.Delete(t.Context(), vague)).To(Succeed())
	w.Eventually(func() error { return world.Hub.Get(t.Context(), client.ObjectKeyFromObject(vague), vague) }).ShouldNot(Succeed())

	both := w.attachPorts("cards", cards[0].SystemID, token, cardPort("p0", "c0", 0), cardPort("p1", "c1", 0))
	w.Eventually(w.proven(both)).Should(Equal(attachedState))
	for _, d := range cards {
		w.Expect(pluggedPorts(d)).To(Equal(1), d.Name)
		w.Expect(labelWrites(d)).To(Equal(dpfsim.WriteCount{Attach: 2}), d.Name)
	}
	w.Expect([]string{both.Status.Ports[0].DPU, both.Status.Ports[1].DPU}).To(ConsistOf(cards[0].Name, cards[1].Name))
	w.detach(both)
	w.Eventually(w.proven(both)).Should(Equal(detachedState))
	for _, d := range cards {
		w.Expect(pluggedPorts(d)).To(BeZero(), d.Name)
		w.Expect(labelWrites(d)).To(Equal(dpfsim.WriteCount{Attach: 2, Detach: 2}), d.Name)
	}
}

// TestTheOtherCard keeps a tenant off a server of which a card that it did not ask for is on a VPC.
func TestTheOtherCard(t *testing.T) {
	w := newWing(t)
	cards := w.newCards(2, nil)
	w.Eventually(w.eligibility(cards[0])).Should(Equal(infrav1.Eligible))
	release := world.DPF.Inject(dpfsim.Fault{Kind: dpfsim.VPCClaim, Target: cards[1].Name, Value: "elsewhere/other"})
	defer release()
	w.Eventually(w.eligibility(cards[0])).Should(Equal(infrav1.Ineligible))
	w.newTenant("red", "other")
	a := w.attachPorts("other", cards[0].SystemID, w.claim("red", "m", cards[0].SystemID), cardPort("p0", "c0", 0))
	w.Eventually(w.reason(a, infrav1.DPUResolvedCondition)).Should(Equal("False/" + infrav1.ForeignVPCReason))
	w.Expect(labelWrites(cards[0])).To(Equal(dpfsim.WriteCount{}))
	w.detach(a)
	w.Eventually(w.proven(a)).Should(Equal(detachedState))
}

// TestTwoPortsOfACard has PF0 and PF1 of one card, in as many writes as one port.
func TestTwoPortsOfACard(t *testing.T) {
	w := newWing(t)
	d := w.newCards(1, func(d *dpfsim.DPU) { d.NumberOfPFs = 2 })[0]
	w.Eventually(w.eligibility(d)).Should(Equal(infrav1.Eligible))
	w.Expect(w.serverNow(d).Status.DPUs[0].Ports).To(HaveLen(2))
	w.newTenant("red", "dual")
	token := w.claim("red", "m", d.SystemID)
	twice := w.attachPorts("dual", d.SystemID, token, cardPort("p0", "", 1), cardPort("p1", "", 1))
	w.Eventually(w.reason(twice, infrav1.DPUResolvedCondition)).Should(Equal("False/" + infrav1.AmbiguousDPUReason))
	w.Expect(w.message(twice, infrav1.DPUResolvedCondition)).To(ContainSubstring("both PF 1"))
	w.detach(twice)
	w.Eventually(w.proven(twice)).Should(Equal(detachedState))
	w.Expect(world.Hub.Delete(t.Context(), twice)).To(Succeed())
	w.Eventually(func() error { return world.Hub.Get(t.Context(), client.ObjectKeyFromObject(twice), twice) }).ShouldNot(Succeed())

	a := w.attachPorts("dual", d.SystemID, token, cardPort("p0", "", 0), cardPort("p1", "", 1))
	w.Eventually(w.proven(a)).Should(Equal(attachedState))
	w.Expect(pluggedPorts(d)).To(Equal(2))
	w.Expect(labelWrites(d)).To(Equal(dpfsim.WriteCount{Attach: 2}))
	w.detach(a)
	w.Eventually(w.proven(a)).Should(Equal(detachedState))
	w.Expect(pluggedPorts(d)).To(BeZero())
	w.Expect(labelWrites(d)).To(Equal(dpfsim.WriteCount{Attach: 2, Detach: 2}))
}

func (w *wing) serverNow(d dpfsim.DPU) *infrav1.DPUServer {
	w.t.Helper()
	server := w.server(d)
	w.Expect(world.Hub.Get(w.t.Context(), client.ObjectKeyFromObject(server), server)).To(Succeed())
	return server
}

// TestSwappedCard refuses a server whose card is another than the one first seen, until an operator has the binding follow.
func TestSwappedCard(t *testing.T) {
	w := newWing(t)
	d, spare := w.newCards(1, nil)[0], w.newCards(1, func(d *dpfsim.DPU) { d.SystemID = "" })[0]
	w.Eventually(w.eligibility(d)).Should(Equal(infrav1.Eligible))
	w.patchDPF(&provisioningv1alpha1.DPUNode{}, spare.Node, `{"spec":{"dpus":[]}}`)
	w.patchDPF(&provisioningv1alpha1.DPUNode{}, d.Node, fmt.Sprintf(`{"spec":{"dpus":[{"name":%q}]}}`, spare.Device))
	w.Eventually(w.reason(w.server(d), infrav1.ReadyCondition)).Should(Equal("False/" + infrav1.BindingChangedReason))
	w.Expect(w.message(w.server(d), infrav1.ReadyCondition)).To(ContainSubstring("DPUDevice " + d.Device + " is gone, DPUDevice " + spare.Device + " is new"))
	w.newTenant("red", "swapped")
	a := w.attachPorts("swapped", d.SystemID, w.claim("red", "m", d.SystemID), cardPort("p0", "", 0))
	w.Eventually(w.reason(a, infrav1.DPUResolvedCondition)).Should(Equal("False/" + infrav1.BindingChangedReason))
	w.Expect(labelWrites(spare)).To(Equal(dpfsim.WriteCount{}))
	w.detach(a)
	w.Eventually(w.proven(a)).Should(Equal(detachedState))

	server := w.server(d)
	decide := func(patch string) {
		w.Expect(world.Hub.Patch(t.Context(), server, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
	}
	decide(`{"spec":{"override":{"action":"Rebind","by":"olga","reason":"The card burnt."}}}`)
	w.Eventually(w.reason(server, infrav1.ReadyCondition)).Should(Equal("False/" + infrav1.OverriddenReason))
	w.Eventually(func() []infrav1.BoundDPU { return w.serverNow(d).Status.DPUs }).Should(HaveExactElements(HaveField("DPUDevice", spare.Device)))
	w.Expect(w.serverNow(d).Status.Rebound).To(HaveValue(And(HaveField("By", "olga"), HaveField("Before", []string{d.Device}))))
	w.Consistently(w.eligibility(d)).Should(Equal(infrav1.Ineligible), "while the override is there")
	decide(`{"spec":{"override":null}}`)
	w.Eventually(w.eligibility(d)).Should(Equal(infrav1.Eligible))
	w.Expect(w.serverNow(d).Status.Rebound).NotTo(BeNil())
}

// TestOrphanPorts names a DPU whose record nobody stands behind, once, and touches nothing.
func TestOrphanPorts(t *testing.T) {
	w := newWing(t)
	d := w.newCards(1, nil)[0]
	w.Eventually(w.eligibility(d)).Should(Equal(infrav1.Eligible))
	record, err := vpc.Holder{Installation: installation, Namespace: "red", Attachment: "gone", TokenHash: "h", Plugged: true}.Encode()
	w.Expect(err).NotTo(HaveOccurred())
	w.patchDPF(&provisioningv1alpha1.DPU{}, d.Name, fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}},"spec":{"cluster":{"nodeLabels":{%q:"nowhere"}}}}`,
		vpc.HolderAnnotation, record, vpc.VPCKey))

	orphan := func() []infrav1.OrphanPort {
		fabric := w.fabric()
		return slices.DeleteFunc(fabric.Status.Orphans, func(p infrav1.OrphanPort) bool { return p.DPUDevice != d.Device })
	}
	w.Eventually(orphan).Should(HaveExactElements(And(
		HaveField("Reason", infrav1.OrphanPortNoAttachment), HaveField("Attachment", "red/gone"), HaveField("DPU", d.Name),
		HaveField("Server", infrav1.DPUServerName(source, d.SystemID)), HaveField("Since.Time", Not(BeZero())),
	)))
	w.Expect(w.reason(w.fabric(), infrav1.AccountedCondition)()).To(Equal("False/" + infrav1.OrphansFoundReason))
	w.Expect(w.reason(w.server(d), infrav1.FreeCondition)()).To(Equal("False/" + infrav1.InUseReason))
	told := func() int {
		list := &eventsv1.EventList{}
		w.Expect(world.Hub.List(t.Context(), list)).To(Succeed())
		count := 0
		for _, event := range list.Items {
			if event.Reason == infrav1.OrphansFoundReason && event.Regarding.Kind == "DPUFabric" && event.Series == nil &&
				strings.Contains(event.Note, "DPUDevice "+d.Device) {
				count++
			}
		}
		return count
	}
	w.Eventually(told).Should(Equal(1))
	w.Consistently(told).Should(Equal(1))
	w.Consistently(func() string { return w.dpu(d).Annotations[vpc.HolderAnnotation] }).Should(Equal(record), "a report is all")
	w.Expect(labelWrites(d).Attach+labelWrites(d).Detach).To(BeNumerically("<=", 1), "nothing but the test's own write")

	w.freeByHand(d)
	w.Eventually(orphan).Should(BeEmpty())
	w.Eventually(w.eligibility(d)).Should(Equal(infrav1.Eligible))
}

func (w *wing) fabric() *infrav1.DPUFabric {
	w.t.Helper()
	fabric := &infrav1.DPUFabric{ObjectMeta: metav1.ObjectMeta{Name: fabricName}}
	w.Expect(world.Hub.Get(w.t.Context(), client.ObjectKeyFromObject(fabric), fabric)).To(Succeed())
	return fabric
}

// TestInventoryAway says on the fabric that its servers cannot be read, and then that they can.
func TestInventoryAway(t *testing.T) {
	w := newWing(t)
	d := w.newCards(1, nil)[0]
	w.Eventually(w.eligibility(d)).Should(Equal(infrav1.Eligible))
	w.Eventually(w.reason(w.fabric(), infrav1.InventoryReadCondition)).Should(Equal("True/" + infrav1.ReadyReason))
	w.hooks.dpfAway.Store(true)
	w.Eventually(w.reason(w.fabric(), infrav1.InventoryReadCondition)).Should(HavePrefix("Unknown/"))
	w.Expect(w.message(w.fabric(), infrav1.InventoryReadCondition)).To(ContainSubstring("none is handed out"))
	w.Eventually(w.eligibility(d)).Should(Equal(infrav1.EligibilityUnknown))
	w.hooks.dpfAway.Store(false)
	w.Eventually(w.reason(w.fabric(), infrav1.InventoryReadCondition)).Should(Equal("True/" + infrav1.ReadyReason))
	w.Eventually(w.eligibility(d)).Should(Equal(infrav1.Eligible))
}
