// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"testing"

	. "github.com/onsi/gomega"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// refuseServers lets the fabric refuse the first servers.
func (w *world) refuseServers(n int, reason string) {
	w.fabric.tell(func(f *fabric) {
		for i := range n {
			f.refuse[serverID(i)] = reason
		}
	})
}

func TestRefusedServersAreGivenBackUndeployedAndAvoided(t *testing.T) {
	t.Parallel()
	w := newStoppedWorld(t, withPorts())
	w.refuseServers(2, infrav1.ForeignVPCReason)
	w.supervise()
	w.until(w.provisioned, "up")
	w.expectUp()
	w.Expect(w.machine().Status.SystemID).To(Equal(serverID(2)))
	for _, avoided := range w.machine().Status.AvoidedServers {
		s := w.server(avoided.SystemID)
		w.Expect(s.StatusName).To(Equal("Ready"))
		w.Expect(s.OSInstalled || s.Dirty).To(BeFalse())
		for _, effect := range w.journal("release", avoided.SystemID) {
			w.Expect(effect.Erase).To(BeEmpty(), "what never carried a tenant is not erased")
		}
	}
	w.down()
}

// TestAllServersRefused ends in people's hands: no fleet is tried through.
func TestAllServersRefused(t *testing.T) {
	t.Parallel()
	w := newStoppedWorld(t, options{servers: 7, ports: true})
	w.refuseServers(7, infrav1.UnaccountedPortReason)
	w.addMachine(tenant, tenant, "plain", func(m *infrav1.MaasMachine) { m.Spec.Ports = nil })
	w.supervise()
	w.until(w.says(infrav1.ReadyCondition, infrav1.AttachmentRefusedReason), "given up")
	w.Expect(w.machine().Status.AvoidedServers).To(HaveLen(5))
	w.until(func() bool { return provisioned(w.get(tenant, "plain")) }, "another machine does without the fabric")
	w.Expect(w.owned(account)).To(HaveLen(1))
	w.quiet()
	w.removeMachine(w.get(tenant, "plain"))
	w.remove()
	w.until(func() bool { return len(w.machines()) == 0 }, "down")
	w.expectDown()
}
