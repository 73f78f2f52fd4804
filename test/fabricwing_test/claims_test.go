// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricwing_test

import (
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
)

const notConfirmed = "False/" + infrav1.ClaimNotConfirmedReason

// TestReplay sends an attachment again after its server was released and given to somebody else: nothing is written, and the new
// tenant does not notice.
func TestReplay(t *testing.T) {
	s := newSite(t, noAudit)
	d, id := s.rack()
	s.network("red", "replay")
	s.network("blue", "replay")
	token := s.allocate(s.red, "red", "m", id)
	kept := s.ask("red", "kept", "replay", "m", id, token)
	s.Eventually(s.proven(kept)).Should(Equal(attachedState))
	s.detach(kept)
	s.Eventually(s.proven(kept)).Should(Equal(detachedState))
	s.Eventually(s.standing(id)).Should(Equal(infrav1.Eligible))
	s.release(id)

	blue := s.ask("blue", "replay", "replay", "m", id, s.allocate(s.red, "blue", "m", id))
	s.Eventually(s.proven(blue)).Should(Equal(attachedState))
	before := writes(d)
	undisturbed := func() {
		t.Helper()
		s.Consistently(func() bool { return s.proven(blue)() == attachedState && plugged(d) && writes(d) == before }).Should(BeTrue())
		s.Expect(s.standing(id)()).To(Equal(infrav1.Ineligible))
	}

	again := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"state":"Attached"}}`))
	s.Expect(apierrors.IsInvalid(world.Hub.Patch(t.Context(), kept, again))).To(BeTrue(), "what was detached is not attached again")
	s.drop(kept)
	for _, name := range []string{"kept", "anew"} {
		red := s.ask("red", name, "replay", "m", id, token)
		s.Eventually(s.reason(red, infrav1.AuthorizedCondition)).Should(Equal(notConfirmed))
		undisturbed()
		s.drop(red)
	}
	undisturbed()
}

// TestCopies of an attachment fit nothing: not another namespace, not another machine, and not the server once more.
func TestCopies(t *testing.T) {
	s := newSite(t, noAudit)
	d, id := s.rack()
	s.network("red", "copies")
	s.network("blue", "copies")
	token := s.allocate(s.red, "red", "m", id)
	red := s.ask("red", "copies", "copies", "m", id, token)
	s.Eventually(s.proven(red)).Should(Equal(attachedState))
	before := writes(d)
	mismatch := "False/" + infrav1.TokenMismatchReason
	for _, copied := range []*infrav1.DPUAttachment{
		s.ask("blue", "copies", "copies", "m", id, token),
		s.ask("red", "copies-machine", "copies", "other", id, token),
	} {
		s.Eventually(s.reason(copied, infrav1.AuthorizedCondition)).Should(Equal(mismatch))
	}
	twice := s.ask("red", "copies-twice", "copies", "m", id, token)
	s.Eventually(s.reason(twice, infrav1.DPUResolvedCondition)).Should(Equal("False/" + infrav1.ServerHeldByOtherReason))

	_, free := s.rack()
	elsewhere := s.ask("red", "copies-server", "copies", "m", free, token)
	s.Eventually(s.reason(elsewhere, infrav1.AuthorizedCondition)).Should(Equal(notConfirmed))
	s.Consistently(func() bool { return s.proven(red)() == attachedState && plugged(d) && writes(d) == before }).Should(BeTrue())
}

// TestClaimLostBehindOurBack detaches what MAAS holds under the claim no more, and keeps the server from being handed out until
// that is proven. MAAS is left alone, which the site's gateway sees to.
func TestClaimLostBehindOurBack(t *testing.T) {
	t.Run("seen in the event feed", func(t *testing.T) {
		s := newSite(t, noAudit)
		s.network("red", "lost-claim")
		s.losesAClaim("lost-released", s.release)
		s.losesAClaim("lost-reclaimed", func(id string) {
			s.release(id)
			s.allocate(s.red, "blue", "other", id)
		})
	})
	t.Run("seen by the audit only", func(t *testing.T) {
		s := newSite(t, time.Second)
		s.network("red", "lost-claim")
		s.losesAClaim("lost-account", func(id string) {
			s.release(id)
			s.allocate(s.blue, "blue", "other", id)
		})
	})
}

// losesAClaim takes a server away from its claim while its DPU's agent does not answer.
func (s *site) losesAClaim(name string, lose func(systemID string)) {
	s.t.Helper()
	d, id := s.rack()
	a := s.ask("red", name, "lost-claim", "m", id, s.allocate(s.red, "red", "m", id))
	s.Eventually(s.proven(a)).Should(Equal(attachedState))
	s.Eventually(s.standing(id)).Should(Equal(infrav1.Ineligible))

	revive := world.DPF.Inject(dpfsim.Fault{Kind: dpfsim.AgentDown, Target: d.Name})
	lose(id)
	s.Eventually(s.reason(a, infrav1.AuthorizedCondition)).Should(Equal(notConfirmed))
	s.Eventually(s.proven(a)).Should(BeEmpty())
	s.Consistently(func() bool { return s.proven(a)() == "" && s.standing(id)() == infrav1.Ineligible }).Should(BeTrue())
	revive()
	s.Eventually(s.proven(a)).Should(Equal(detachedState))
	s.Expect(plugged(d)).To(BeFalse())
	s.Expect(a.Spec.State).To(Equal(attachedState))
	s.Eventually(s.standing(id)).Should(Equal(infrav1.Eligible))
	s.Expect(writes(d)).To(Equal(dpfsim.WriteCount{Attach: 2, Detach: 2}))
}

// TestClaimLostBetweenTheVerifications: what was written on the word of the first is taken back on the word of the second.
func TestClaimLostBetweenTheVerifications(t *testing.T) {
	s := newSite(t, noAudit)
	s.network("red", "between")
	for write, name := range []string{"between-first", "between-second"} {
		d, id := s.rack()
		token := s.allocate(s.red, "red", "m", id)
		var written atomic.Int32
		told := func() {
			if written.Add(1) != int32(write)+1 {
				return
			}
			if err := s.red.Release(t.Context(), id, maas.ReleaseRequest{Erase: maas.EraseNone}); err != nil {
				t.Error(err)
			}
		}
		s.hooks.onWrite.Store(d.Name, told)
		s.hooks.onWrite.Store(d.Device, told)
		a := s.ask("red", name, "between", "m", id, token)
		attached := s.everAttached(a)
		s.Eventually(func() infrav1.AttachmentState {
			attached()
			return s.proven(a)()
		}).Should(Equal(detachedState))
		s.Expect(attached()).To(BeFalse(), "attached without a claim")
		s.Expect(plugged(d)).To(BeFalse())
		s.Expect(writes(d).Attach).To(Equal(write + 1))
		s.Expect(s.reason(a, infrav1.AuthorizedCondition)()).To(Equal(notConfirmed))
		s.Eventually(s.standing(id)).Should(Equal(infrav1.Eligible))
	}
}

// TestWhatALifeAsks of MAAS: its servers are confirmed by token alone, before each write and after the last, and not at all on the
// way off.
func TestWhatALifeAsks(t *testing.T) {
	s := newSite(t, noAudit)
	s.network("red", "asks")
	d, id := s.rack()
	s.Eventually(s.standing(id)).Should(Equal(infrav1.Eligible))
	tenant := &infrav1.TenantVPC{ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "asks"}}
	s.Eventually(s.reason(tenant, infrav1.ReadyCondition)).Should(Equal("True/" + infrav1.ReadyReason))
	token := s.allocate(s.red, "red", "m", id)
	a := s.ask("red", "asks", "asks", "m", id, token)
	s.Eventually(s.proven(a)).Should(Equal(attachedState))
	s.detach(a)
	s.Eventually(s.proven(a)).Should(Equal(detachedState))
	single, byToken := 0, 0
	for _, call := range s.region.Calls() {
		switch {
		case call.Operation == "read_machine" || call.Operation == "devices":
			single += call.Count
		case call.Operation == "list_machines" && call.AgentName == token:
			byToken += call.Count
		}
	}
	t.Logf("%d single reads, %d queries by token", single, byToken)
	s.Expect(single).To(BeZero())
	s.Expect(writes(d)).To(Equal(dpfsim.WriteCount{Attach: 2, Detach: 2}))
	s.Expect(byToken).To(BeNumerically(">=", 3))
	s.Expect(byToken).To(BeNumerically("<=", 8), "three, one more where the network is made first, and one for each write that came too late")
}
