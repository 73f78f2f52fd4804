// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"fmt"
	"slices"
	"testing"

	. "github.com/onsi/gomega"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

// suspects are the servers under suspicion as "server [machines]".
func (w *world) suspects() string {
	w.Helper()
	text := ""
	for _, s := range w.identity().Status.Suspects {
		text += fmt.Sprintf("%s %v", s.SystemID, s.Machines)
	}
	return text
}

// expectListed holds the moment against what must never be: a server that is kept for an operator, that no machine has and that
// the identity does not list.
func (w *world) expectListed() {
	w.Helper()
	list := &infrav1.MaasMachineList{}
	w.Expect(w.objects.List(w.Context(), list)).To(Succeed())
	held := w.identity().Status.Held
	for _, s := range w.region.Machines() {
		kept := s.Annotations[maas.AnnotationHold] != "" && s.Owner == account
		has := slices.ContainsFunc(list.Items, func(m infrav1.MaasMachine) bool { return m.Status.SystemID == s.SystemID })
		listed := slices.ContainsFunc(held, func(h infrav1.HeldServer) bool { return h.SystemID == s.SystemID })
		w.Expect(kept && !has && !listed).To(BeFalse(), "nobody has %s and it is not listed", s.SystemID)
	}
}

// TestSuspect takes a broken server through its life: two machines fail on it, the second leaves it held and goes on, an operator
// releases it, and a machine that works on it clears it.
func TestSuspect(t *testing.T) {
	w := newWorld(t, 1)
	const bad = "srv000"
	heal := w.region.Inject(maassim.Fault{Kind: maassim.FaultDeployFails, Operation: "deploy", SystemID: bad})
	watched := func(done func() bool) func() bool {
		return func() bool {
			w.expectListed()
			return done()
		}
	}
	w.want("first")
	w.until("the first failure is remembered", watched(func() bool { return w.suspects() == bad+" [red/first]" }))
	w.until("the first machine gave it back", watched(func() bool {
		return w.machine("first").Status.SystemID == "" && slices.Contains(w.free(), bad)
	}))
	w.want("second")
	w.until("the second machine let go", watched(func() bool {
		m := w.machine("second")
		return len(m.Status.AvoidedServers) == 1 && m.Status.SystemID == ""
	}))
	w.Expect(w.suspects()).To(Equal(bad + " [red/first red/second]"))
	for range 30 {
		w.step()
		w.expectListed()
	}
	held := w.identity().Status.Held
	w.Expect(held).To(HaveLen(1))
	w.Expect(held[0].SystemID + " " + held[0].Reason + " " + held[0].Machine).To(Equal(bad + " ServerSuspect red/second"))
	w.Expect(w.orphans()).To(BeEmpty())
	w.Expect(w.objects.Delete(t.Context(), w.machine("second"))).To(Succeed())
	w.until("its machine is gone", watched(func() bool {
		list := &infrav1.MaasMachineList{}
		w.Expect(w.objects.List(t.Context(), list)).To(Succeed())
		return len(list.Items) == 1
	}))

	heal()
	w.Expect(w.operator.Release(t.Context(), bad, maas.ReleaseRequest{Erase: maas.EraseQuick})).To(Succeed())
	w.until("an operator released it", watched(func() bool {
		return len(w.identity().Status.Held) == 0 && w.suspects() == "" && slices.Contains(w.free(), bad)
	}))
	w.want("third")
	w.up("third")
	for range 30 {
		w.step()
	}
	w.Expect(w.suspects()).To(BeEmpty(), "what the first machine avoids is no news")
	w.Expect(w.orphans()).To(BeEmpty())
	w.Expect(w.told()).To(BeEmpty())
}
