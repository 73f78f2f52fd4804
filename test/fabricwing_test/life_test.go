// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricwing_test

import (
	"context"
	"sync/atomic"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
)

const (
	attachedState = infrav1.AttachmentStateAttached
	detachedState = infrav1.AttachmentStateDetached
)

func TestAttachAndDetach(t *testing.T) {
	w := newWing(t)
	d := w.newServer(nil)
	w.Eventually(w.eligibility(d)).Should(Equal(infrav1.Eligible))
	w.newTenant("red", "life")
	token := w.claim("red", "m", d.SystemID)
	a := w.attach("red", "life", "life", "m", d.SystemID, token)
	w.Eventually(w.proven(a)).Should(Equal(attachedState))
	w.Expect(plugged(d)).To(BeTrue(), "proven attached, and not plugged")
	w.Expect(writes(d)).To(Equal(dpfsim.WriteCount{Attach: 2}))
	w.Expect(a.Status.TokenHash).To(Equal(maas.TokenHash(token)))
	w.Expect(a.Status.ValidUntil.Sub(a.Status.ProvenAt.Time).Seconds()).To(BeEquivalentTo(30))
	w.Expect(a.Status.FabricName).To(Equal(fabricName))
	w.Expect(a.Status.PortIsolation).To(Equal(infrav1.PortIsolationNotAsserted))
	w.Expect(a.Status.Ports).To(HaveLen(1))
	port := a.Status.Ports[0]
	w.Expect(port.DPU).To(Equal(d.Name))
	w.Expect(port.MAC).To(Equal(vpc.NormalizeMAC(d.PF0MAC)))
	w.Expect(port.Evidence).To(Equal(infrav1.EvidenceServiceInterface))
	w.Expect(port.NetworkName).To(Equal(vpc.NetworkName(installation, "red", "life", "workers")))
	for _, kind := range []string{infrav1.AuthorizedCondition, infrav1.DPUResolvedCondition, infrav1.PostureVerifiedCondition, infrav1.AttachedCondition, infrav1.ReadyCondition} {
		w.Expect(w.reason(a, kind)()).To(HavePrefix("True/"), kind)
	}
	w.Eventually(w.eligibility(d)).Should(Equal(infrav1.Ineligible))
	server := w.server(d)
	w.Expect(w.reason(server, infrav1.FreeCondition)()).To(Equal("False/" + infrav1.InUseReason))
	w.Expect(server.Status.Holder).To(Equal(&infrav1.DPUServerHolder{Namespace: "red", Name: "life", TokenHash: maas.TokenHash(token)}))

	w.detach(a)
	w.Eventually(w.proven(a)).Should(Equal(detachedState))
	w.Expect(plugged(d)).To(BeFalse(), "proven detached, and still plugged")
	w.Expect(writes(d)).To(Equal(dpfsim.WriteCount{Attach: 2, Detach: 2}))
	w.Expect(w.reason(a, infrav1.ReadyCondition)()).To(Equal("True/" + infrav1.DetachedReason))
	w.Eventually(w.eligibility(d)).Should(Equal(infrav1.Eligible))

	w.Expect(world.Hub.Delete(t.Context(), a)).To(Succeed())
	w.Eventually(func() error { return world.Hub.Get(t.Context(), client.ObjectKeyFromObject(a), a) }).ShouldNot(Succeed())
}

// TestTheNextTenant takes over a server, with the same subnet, after the first one has gone; and the first one's old request,
// sent again, is not served.
func TestTheNextTenant(t *testing.T) {
	w := newWing(t)
	d := w.newServer(nil)
	w.newTenant("red", "next")
	w.newTenant("blue", "next")
	old := w.claim("red", "m", d.SystemID)
	red := w.attach("red", "next", "next", "m", d.SystemID, old)
	w.Eventually(w.proven(red)).Should(Equal(attachedState))
	last := w.lastVersion(red)
	w.Expect(world.Hub.Delete(t.Context(), red)).To(Succeed())
	w.Eventually(func() error { return world.Hub.Get(t.Context(), client.ObjectKeyFromObject(red), red) }).ShouldNot(Succeed(), "deletion detaches first")
	w.Expect(plugged(d)).To(BeFalse())
	w.Expect(last().Status.State).To(Equal(detachedState), "the proof is to be read before the object goes")

	blue := w.attach("blue", "next", "next", "m", d.SystemID, w.claim("blue", "m", d.SystemID))
	w.Eventually(w.proven(blue)).Should(Equal(attachedState))
	again := w.attach("red", "again", "next", "m", d.SystemID, old)
	w.Eventually(w.reason(again, infrav1.AuthorizedCondition)).Should(Equal("False/" + infrav1.ClaimNotConfirmedReason))
	w.Consistently(w.proven(blue)).Should(Equal(attachedState))
	w.Expect(writes(d)).To(Equal(dpfsim.WriteCount{Attach: 4, Detach: 2}))
	w.detach(again)
	w.Eventually(w.proven(again)).Should(Equal(detachedState), "nothing was ever attached for it")
	w.Expect(plugged(d)).To(BeTrue())
	w.detach(blue)
	w.Eventually(w.proven(blue)).Should(Equal(detachedState))
}

// lastVersion follows an attachment, and returns what it was when it went.
func (w *wing) lastVersion(attachment *infrav1.DPUAttachment) func() *infrav1.DPUAttachment {
	w.t.Helper()
	c, err := client.NewWithWatch(world.HubConfig, client.Options{Scheme: world.Hub.Scheme()})
	w.Expect(err).NotTo(HaveOccurred())
	following, err := c.Watch(w.t.Context(), &infrav1.DPUAttachmentList{}, client.InNamespace(attachment.Namespace), client.MatchingFields{"metadata.name": attachment.Name})
	w.Expect(err).NotTo(HaveOccurred())
	return func() *infrav1.DPUAttachment {
		defer following.Stop()
		for event := range following.ResultChan() {
			if event.Type == watch.Deleted {
				return event.Object.(*infrav1.DPUAttachment)
			}
		}
		return &infrav1.DPUAttachment{}
	}
}

// TestCrashes stops the wing right after each write, as if the answer had never arrived, and starts it again.
func TestCrashes(t *testing.T) {
	w := newWing(t)
	d := w.newServer(nil)
	w.newTenant("red", "crash")
	var wrote atomic.Int32
	crash := make(chan struct{}, 8)
	w.stop()
	w.hooks.afterWrite = func() error {
		wrote.Add(1)
		crash <- struct{}{}
		return context.DeadlineExceeded
	}
	w.start()
	token := w.claim("red", "m", d.SystemID)
	a := w.attach("red", "crash", "crash", "m", d.SystemID, token)
	restart := func() {
		w.Eventually(crash).Should(Receive())
		w.stop()
		w.start()
	}
	restart()
	restart()
	w.Eventually(w.proven(a)).Should(Equal(attachedState))
	w.Expect(writes(d)).To(Equal(dpfsim.WriteCount{Attach: 2}))
	w.detach(a)
	restart()
	restart()
	w.Eventually(w.proven(a)).Should(Equal(detachedState))
	w.Expect(writes(d)).To(Equal(dpfsim.WriteCount{Attach: 2, Detach: 2}))
	w.Expect(wrote.Load()).To(BeEquivalentTo(4))
	w.Expect(plugged(d)).To(BeFalse())
}

func TestTwoAttachmentsForOneServer(t *testing.T) {
	w := newWing(t)
	d := w.newServer(nil)
	w.newTenant("red", "two")
	token := w.claim("red", "m", d.SystemID)
	first := w.attach("red", "two-a", "two", "m", d.SystemID, token)
	w.Eventually(w.proven(first)).Should(Equal(attachedState))
	second := w.attach("red", "two-b", "two", "m", d.SystemID, token)
	w.Eventually(w.reason(second, infrav1.DPUResolvedCondition)).Should(Equal("False/" + infrav1.ServerHeldByOtherReason))
	w.detach(second)
	w.Eventually(w.proven(second)).Should(Equal(detachedState))
	w.Consistently(w.proven(first)).Should(Equal(attachedState))
	w.Expect(plugged(d)).To(BeTrue())
	w.detach(first)
	w.Eventually(w.proven(first)).Should(Equal(detachedState))
	w.Expect(writes(d)).To(Equal(dpfsim.WriteCount{Attach: 2, Detach: 2}))
}

func TestUnauthorised(t *testing.T) {
	w := newWing(t)
	d := w.newServer(nil)
	w.newTenant("red", "auth")
	token := w.claim("red", "m", d.SystemID)
	for name, tc := range map[string]struct{ namespace, vpcName, machine, token, reason string }{
		"copied":    {"red", "auth", "other", token, infrav1.TokenMismatchReason},
		"elsewhere": {"blue", "auth", "m", token, infrav1.TokenMismatchReason},
		"forbidden": {"green", "auth", "m", token, infrav1.NamespaceNotAllowedReason},
		"no-vpc":    {"red", "none", "m", token, infrav1.VPCNotFoundReason},
	} {
		a := w.attach(tc.namespace, "auth-"+name, tc.vpcName, tc.machine, d.SystemID, tc.token)
		w.Eventually(w.reason(a, infrav1.AuthorizedCondition)).Should(Equal("False/"+tc.reason), name)
		w.detach(a)
		w.Eventually(w.proven(a)).Should(Equal(detachedState), name)
	}
	w.Expect(writes(d)).To(Equal(dpfsim.WriteCount{}))
	w.Expect(w.eligibility(d)()).To(Equal(infrav1.Eligible), "what is not authorised holds nothing")
}
