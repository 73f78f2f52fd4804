// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"testing"

	. "github.com/onsi/gomega"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func TestBulkheadBoundsThePassesOfOneIdentity(t *testing.T) {
	g := NewWithT(t)
	b := newBulkhead(2)
	first, ok := b.enter("a")
	g.Expect(ok).To(BeTrue())
	second, ok := b.enter("a")
	g.Expect(ok).To(BeTrue())
	_, ok = b.enter("a")
	g.Expect(ok).To(BeFalse(), "a third pass")
	_, ok = b.enter("b")
	g.Expect(ok).To(BeTrue(), "another identity")
	first()
	third, ok := b.enter("a")
	g.Expect(ok).To(BeTrue(), "after one has left")
	second()
	third()
	g.Expect(b.underWay).NotTo(HaveKey("a"), "nothing is kept of who has left")
}

// TestACrowdedIdentityIsComeBackTo: the pass asks MAAS nothing, and changes nothing.
func TestACrowdedIdentityIsComeBackTo(t *testing.T) {
	s := newScene(t, "a")
	s.add("m")
	s.up("m")
	for range s.reconciler.bulkhead.limit {
		_, ok := s.reconciler.bulkhead.enter("identity")
		s.Expect(ok).To(BeTrue())
	}
	before, asked := s.get("m"), len(s.region.calls)
	result, err := s.reconciler.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(before)})
	s.Expect(err).NotTo(HaveOccurred())
	s.Expect(result.RequeueAfter).To(BeNumerically(">", 0))
	s.Expect(s.region.calls).To(HaveLen(asked))
	s.Expect(s.get("m").ResourceVersion).To(Equal(before.ResourceVersion))
}
