// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

// TestMovedMachine loses the whole status, as clusterctl move and a restored backup do.
func TestMovedMachine(t *testing.T) {
	for name, when := range map[string]func(*world) bool{
		"provisioned": (*world).provisioned,
		"allocated":   func(w *world) bool { return w.machine().Status.SystemID != "" },
		"deploying":   func(w *world) bool { return w.machine().Status.DeployStartTime != nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{servers: 3, ports: true})
			w.until(func() bool { return when(w) }, "half way")
			id := w.machine().Status.SystemID
			m := w.machine()
			m.Status = infrav1.MaasMachineStatus{}
			w.Expect(w.objects.Status().Update(w.Context(), m)).To(Succeed())
			w.restart(0)
			w.until(w.provisioned, "up again")
			w.expectUp()
			w.Expect(w.machine().Status.SystemID).To(Equal(id))
			w.remove()
			w.until(w.gone, "down")
			w.expectDown()
		})
	}
}

// TestMovedWhileGoingDown loses the status while a deletion is under way.
func TestMovedWhileGoingDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 2, ports: true})
	w.until(w.provisioned, "up")
	w.remove()
	w.until(func() bool { return w.machine() == nil || w.machine().Status.Release != nil }, "released")
	if m := w.machine(); m != nil {
		m.Status = infrav1.MaasMachineStatus{}
		w.Expect(w.objects.Status().Update(w.Context(), m)).To(Succeed())
	}
	w.restart(0)
	w.until(w.gone, "down")
	w.expectDown()
}

// TestMovedWhileReleasing loses the status while MAAS releases a server that never had a provider ID: MAAS has forgotten the
// token by then, and only the annotations say whose it is.
func TestMovedWhileReleasing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 1, ports: true, releaseTimeout: 3 * time.Second})
	w.region.Inject(maassim.Fault{Kind: maassim.FaultDeployFails, Operation: "deploy", Count: 1})
	w.region.Inject(maassim.Fault{Kind: maassim.FaultPowerOffNotSeen, Operation: "release", Count: 1})
	w.until(func() bool { return w.server(serverID(0)).StatusName == "Releasing" }, "releasing")
	w.remove()
	m := w.machine()
	m.Status = infrav1.MaasMachineStatus{}
	w.Expect(w.objects.Status().Update(w.Context(), m)).To(Succeed())
	w.restart(0)
	w.until(func() bool { m := w.machine(); return m != nil && m.Status.SystemID != "" }, "found by annotation")
	w.until(w.gone, "down")
	w.expectDown()
}
