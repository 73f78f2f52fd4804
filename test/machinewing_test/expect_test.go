// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"fmt"
	"strings"

	. "github.com/onsi/gomega"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// expectUp holds the world against I1 to I3 and I7 for a provisioned machine.
func (w *world) expectUp() {
	w.Helper()
	m := w.machine()
	owned := w.owned()
	w.Expect(owned).To(HaveLen(1), "exactly one server is held")
	w.Expect(owned[0].SystemID).To(Equal(m.Status.SystemID))
	w.Expect(owned[0].StatusName).To(Equal("Deployed"))
	w.Expect(owned[0].Claim).To(Equal(m.Spec.Claim.Token))
	w.Expect(m.Spec.ProviderID).To(Equal("maas:///" + owned[0].SystemID))
	w.Expect(w.count("deploy")).To(Equal(1), "one deployment")
	w.Expect(w.violations).To(BeEmpty())
	if len(m.Spec.Ports) > 0 {
		state, _ := w.proven(m.Status.SystemID)
		w.Expect(state).To(Equal(infrav1.AttachmentStateAttached))
		list := &infrav1.DPUAttachmentList{}
		w.Expect(w.objects.List(w.Context(), list)).To(Succeed())
		w.Expect(list.Items).To(HaveLen(1))
	}
}

// expectDown holds the world against I1 and I4 once the machine is gone.
func (w *world) expectDown() {
	w.Helper()
	w.Expect(w.owned()).To(BeEmpty(), "no server is left behind")
	for _, m := range w.region.Machines() {
		w.Expect(m.StatusName).To(Equal("Ready"), m.SystemID)
		w.Expect(m.Dirty).To(BeFalse(), m.SystemID+" was given back dirty")
	}
	list := &infrav1.DPUAttachmentList{}
	w.Expect(w.objects.List(w.Context(), list)).To(Succeed())
	w.Expect(list.Items).To(BeEmpty())
	w.Expect(w.violations).To(BeEmpty())
}

// noSecrets fails if a secret shows in an object.
func (w *world) noSecrets(m *infrav1.MaasMachine) {
	w.Helper()
	text := fmt.Sprintf("%+v", m.Status)
	for _, secret := range []string{"secret1", "join-me", m.Spec.Claim.Token} {
		w.Expect(strings.Contains(text, secret)).To(BeFalse())
	}
}
