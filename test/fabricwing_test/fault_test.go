// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricwing_test

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
)

// TestClaimLost releases a server behind the wing's back: its ports are detached, whatever is asked, and MAAS is left alone.
func TestClaimLost(t *testing.T) {
	w := newWing(t)
	d := w.newServer(nil)
	w.newTenant("red", "lost")
	token := w.claim("red", "m", d.SystemID)
	a := w.attach("red", "lost", "lost", "m", d.SystemID, token)
	w.Eventually(w.proven(a)).Should(Equal(attachedState))

	w.maas.setDown(true)
	w.touch(a)
	w.Eventually(w.reason(a, infrav1.AuthorizedCondition)).Should(Equal("Unknown/" + infrav1.MaasUnreachableReason))
	w.Consistently(w.proven(a)).Should(Equal(attachedState), "no answer changes nothing")
	w.Expect(plugged(d)).To(BeTrue())

	w.maas.setDown(false)
	w.maas.hold(d.SystemID, "")
	w.touch(a)
	w.Eventually(w.proven(a)).Should(Equal(detachedState))
	w.Expect(plugged(d)).To(BeFalse())
	w.Expect(a.Spec.State).To(Equal(attachedState))
	w.Expect(w.reason(a, infrav1.AuthorizedCondition)()).To(Equal("False/" + infrav1.ClaimNotConfirmedReason))
	w.Expect(writes(d)).To(Equal(dpfsim.WriteCount{Attach: 2, Detach: 2}))
	w.Eventually(w.eligibility(d)).Should(Equal(infrav1.Eligible))
	w.detach(a)
	w.Eventually(w.proven(a)).Should(Equal(detachedState))
}

func TestMAASAwayAtFirst(t *testing.T) {
	w := newWing(t)
	d := w.newServer(nil)
	w.newTenant("red", "away")
	token := w.claim("red", "m", d.SystemID)
	w.maas.setDown(true)
	a := w.attach("red", "away", "away", "m", d.SystemID, token)
	w.Eventually(w.reason(a, infrav1.AuthorizedCondition)).Should(Equal("Unknown/" + infrav1.MaasUnreachableReason))
	w.Consistently(func() dpfsim.WriteCount { return writes(d) }).Should(Equal(dpfsim.WriteCount{}))
	w.maas.setDown(false)
	w.Eventually(w.proven(a)).Should(Equal(attachedState))
	w.detach(a)
	w.Eventually(w.proven(a)).Should(Equal(detachedState))
}

// TestBadServers are never written to, and said.
func TestBadServers(t *testing.T) {
	w := newWing(t)
	w.newTenant("red", "bad")
	for _, tc := range []struct {
		name, reason, server string
		change               func(*dpfsim.DPU)
		after                func(dpfsim.DPU)
	}{
		{
			"foreign VPC", infrav1.ForeignVPCReason, infrav1.ForeignVPCReason,
			func(d *dpfsim.DPU) { d.ForeignVPC = "somebody/else" }, nil,
		},
		{
			"being installed", infrav1.DPUNotReadyReason, infrav1.DPUNotReadyReason,
			func(d *dpfsim.DPU) { d.Phase = "OS Installing" }, nil,
		},
		{
			"no standby power", infrav1.DPUUnpoweredWithHostReason, infrav1.DPUUnpoweredWithHostReason,
			func(d *dpfsim.DPU) { d.StandbyPower = false },
			func(d dpfsim.DPU) {
				w.Eventually(w.eligibility(d)).Should(Equal(infrav1.Eligible))
				w.maas.setOff(d.SystemID)
				world.DPF.SetHostPower(d.SystemID, false)
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := w.newServer(tc.change)
			if tc.after != nil {
				tc.after(d)
			}
			server := w.server(d)
			w.Eventually(w.reason(server, infrav1.ReadyCondition)).Should(Equal("False/" + tc.server))
			w.Expect(server.Status.Eligibility).To(Equal(infrav1.Ineligible))
			name := "bad-" + strings.ReplaceAll(strings.ToLower(tc.name), " ", "-")
			a := w.attach("red", name, "bad", "m", d.SystemID, w.claim("red", "m", d.SystemID))
			w.Eventually(w.reason(a, infrav1.DPUResolvedCondition)).Should(Equal("False/" + tc.reason))
			w.Consistently(func() dpfsim.WriteCount { return writes(d) }).Should(Equal(dpfsim.WriteCount{}))
			w.detach(a)
			w.Eventually(w.proven(a)).Should(Equal(detachedState), "nothing was ever written")
		})
	}
	t.Run("no DPU", func(t *testing.T) {
		a := w.attach("red", "bad-none", "bad", "m", "nodpu1", w.claim("red", "m", "nodpu1"))
		w.Eventually(w.reason(a, infrav1.DPUResolvedCondition)).Should(Equal("False/" + infrav1.ServerNotMappedReason))
		w.detach(a)
		w.Eventually(w.proven(a)).Should(Equal(detachedState))
	})
}

// TestHungAgent never lets go of the port: detachment is not proven until the agent lives again.
func TestHungAgent(t *testing.T) {
	w := newWing(t)
	d := w.newServer(nil)
	w.newTenant("red", "hung")
	a := w.attach("red", "hung", "hung", "m", d.SystemID, w.claim("red", "m", d.SystemID))
	w.Eventually(w.proven(a)).Should(Equal(attachedState))
	heal := world.DPF.Inject(dpfsim.Fault{Kind: dpfsim.AgentDown, Target: d.Name})
	t.Cleanup(heal)
	w.detach(a)
	w.Eventually(w.reason(a, infrav1.AttachedCondition)).Should(Equal("False/" + infrav1.DetachingPortReason))
	w.Consistently(w.proven(a)).ShouldNot(Equal(detachedState))
	w.clock.shift.Store(int64(31 * time.Second))
	w.Eventually(w.reason(a, infrav1.AttachedCondition)).Should(Equal("False/" + infrav1.DetachUnprovenReason))
	w.Expect(w.eligibility(d)()).To(Equal(infrav1.Ineligible))
	heal()
	w.Eventually(w.proven(a)).Should(Equal(detachedState))
	w.Expect(plugged(d)).To(BeFalse())
	w.Expect(writes(d)).To(Equal(dpfsim.WriteCount{Attach: 2, Detach: 2}))
	w.Eventually(w.eligibility(d)).Should(Equal(infrav1.Eligible))
}

// TestNodeRecreated reinstalls the DPU while its port is being unplugged. That the port's object is gone afterwards proves
// nothing: attach and detach are repeated, but only once MAAS confirms the claim.
func TestNodeRecreated(t *testing.T) {
	w := newWing(t)
	d := w.newServer(nil)
	w.newTenant("red", "recreated")
	a := w.attach("red", "recreated", "recreated", "m", d.SystemID, w.claim("red", "m", d.SystemID))
	w.Eventually(w.proven(a)).Should(Equal(attachedState))
	revive := world.DPF.Inject(dpfsim.Fault{Kind: dpfsim.AgentDown, Target: d.Name})
	w.detach(a)
	w.Eventually(func() dpfsim.WriteCount { return writes(d) }).Should(Equal(dpfsim.WriteCount{Attach: 2, Detach: 1}))
	w.maas.setDown(true)
	reinstalled := world.DPF.Inject(dpfsim.Fault{Kind: dpfsim.Reprovision, Target: d.Name})
	w.Eventually(func() string { return string(w.dpu(d).Status.Phase) }).ShouldNot(Equal("Ready"))
	reinstalled()
	revive()
	w.Eventually(w.reason(a, infrav1.AttachedCondition)).Should(Equal("False/" + infrav1.DetachUnprovenReason))
	w.Consistently(w.proven(a)).Should(BeEmpty())
	w.Expect(w.eligibility(d)()).To(Equal(infrav1.Ineligible))

	w.maas.setDown(false)
	w.Eventually(w.proven(a)).Should(Equal(detachedState))
	w.Expect(plugged(d)).To(BeFalse())
	w.Expect(writes(d)).To(Equal(dpfsim.WriteCount{Attach: 3, Detach: 3}), "one repetition")
	w.Eventually(w.eligibility(d)).Should(Equal(infrav1.Eligible))
}

// TestNodeMarkedOtherwise finds somebody else's mark on the Node between the two writes of the way on.
func TestNodeMarkedOtherwise(t *testing.T) {
	w := newWing(t)
	d := w.newServer(nil)
	w.newTenant("red", "mark")
	tenant := &infrav1.TenantVPC{ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "mark"}}
	w.Eventually(w.reason(tenant, infrav1.ReadyCondition)).Should(HavePrefix("True/"))
	stall := world.DPF.Inject(dpfsim.Fault{Kind: dpfsim.ControllerStalled, Target: dpfsim.ControllerVPC})
	t.Cleanup(stall)
	a := w.attach("red", "mark", "mark", "m", d.SystemID, w.claim("red", "m", d.SystemID))
	w.Eventually(w.reason(a, infrav1.AttachedCondition)).Should(Equal("False/" + infrav1.AttachingVPCReason))
	world.DPF.Inject(dpfsim.Fault{Kind: dpfsim.Relabel, Target: d.Name, Value: "ovn.vpc.dpu.nvidia.com/vpc=somebody_else"})
	w.Eventually(w.reason(a, infrav1.DPUResolvedCondition)).Should(Equal("False/" + infrav1.ForeignVPCReason))
	w.Consistently(func() dpfsim.WriteCount { return writes(d) }).Should(Equal(dpfsim.WriteCount{Attach: 1}), "no port is plugged into somebody else's VPC")
	world.DPF.Inject(dpfsim.Fault{Kind: dpfsim.Relabel, Target: d.Name, Value: "ovn.vpc.dpu.nvidia.com/vpc-"})
	stall()
	w.Eventually(w.proven(a)).Should(Equal(attachedState))
	w.detach(a)
	w.Eventually(w.proven(a)).Should(Equal(detachedState))
}

// TestForceDetach lets an attachment go whose detachment cannot be proven; its server is not handed out.
func TestForceDetach(t *testing.T) {
	w := newWing(t)
	d := w.newServer(nil)
	w.newTenant("red", "force")
	a := w.attach("red", "force", "force", "m", d.SystemID, w.claim("red", "m", d.SystemID))
	w.Eventually(w.proven(a)).Should(Equal(attachedState))
	heal := world.DPF.Inject(dpfsim.Fault{Kind: dpfsim.AgentDown, Target: d.Name})
	t.Cleanup(heal)
	patch := []byte(`{"spec":{"state":"Detached","override":{"action":"ForceDetach","by":"op","reason":"the card is dead"}}}`)
	w.Expect(world.Hub.Patch(t.Context(), a, client.RawPatch(types.MergePatchType, patch))).To(Succeed())
	w.Eventually(w.reason(a, infrav1.ReadyCondition)).Should(Equal("False/" + infrav1.OverriddenReason))
	w.Expect(w.proven(a)()).To(BeEmpty())
	w.Expect(world.Hub.Delete(t.Context(), a)).To(Succeed())
	w.Eventually(func() error { return world.Hub.Get(t.Context(), client.ObjectKeyFromObject(a), a) }).ShouldNot(Succeed())
	heal()
	w.Consistently(w.eligibility(d)).Should(Equal(infrav1.Ineligible))
	w.Expect(w.reason(w.server(d), infrav1.FreeCondition)()).To(Equal("False/" + infrav1.InUseReason))
	w.freeByHand(d)
	w.Eventually(w.eligibility(d)).Should(Equal(infrav1.Eligible))
}
