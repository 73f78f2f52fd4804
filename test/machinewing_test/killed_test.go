// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

// TestKilledAtEveryEffect kills the process after its first effect, its second, and so on to the last of a life, and lets
// fresh ones finish: the world must look as if nothing had happened.
func TestKilledAtEveryEffect(t *testing.T) {
	for name, o := range lives {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, o)
			w.live()
			effects := w.living()[0].done()
			for n := 1; n <= len(effects); n++ {
				t.Run(fmt.Sprintf("%02d %s", n, effects[n-1]), func(t *testing.T) {
					t.Parallel()
					w := newStoppedWorld(t, o)
					w.start(n)
					w.live()
				})
			}
		})
	}
}

// TestKilledAtEveryEffectOfDeletion deletes a machine that is only half up.
func TestKilledAtEveryEffectOfDeletion(t *testing.T) {
	o := lives["ports"]
	w := newWorld(t, o)
	w.until(w.provisioned, "up")
	effects := w.living()[0].done()
	w.down()
	for n := range effects {
		t.Run(fmt.Sprintf("%02d %s", n+1, effects[n]), func(t *testing.T) {
			t.Parallel()
			// A machine killed before its claim has nothing for the checker to see.
			o.idle = true
			w := newStoppedWorld(t, o)
			p := w.start(n + 1)
			w.Eventually(func() bool { return p.dead() || w.provisioned() }).WithTimeout(patience).Should(BeTrue())
			w.down()
		})
	}
}

// TestMoved loses the whole status, as clusterctl move and a restored backup do.
func TestMoved(t *testing.T) {
	for name, when := range map[string]func(*infrav1.MaasMachine) bool{
		"provisioned": provisioned,
		"allocated":   func(m *infrav1.MaasMachine) bool { return m.Status.SystemID != "" },
		"deploying":   func(m *infrav1.MaasMachine) bool { return m.Status.DeployStartTime != nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, withPorts())
			w.until(func() bool { return when(w.machine()) }, "half way")
			id := w.machine().Status.SystemID
			w.move()
			w.until(w.provisioned, "up again")
			w.expectUp()
			w.Expect(w.machine().Status.SystemID).To(Equal(id))
			w.Expect(w.deployments()).To(Equal(map[string]int{id: 1}), "one deployment")
			w.down()
		})
	}
}

// move stops the wing, makes the machine anew as it was but for its status and UID, and starts afresh.
func (w *world) move() {
	w.Helper()
	w.stop()
	m := w.machine()
	if m == nil {
		return
	}
	deleting := m.DeletionTimestamp != nil
	w.unchecked(func() {
		w.Expect(w.api.vanish(w.Context(), m.DeepCopy())).To(Succeed())
		m.Status, m.DeletionTimestamp, m.ResourceVersion = infrav1.MaasMachineStatus{}, nil, ""
		w.create(m)
	})
	if deleting {
		w.remove()
	}
	w.supervise()
}

// TestMovedWhileGoingDown loses the status while a deletion is under way.
func TestMovedWhileGoingDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withPorts())
	w.until(w.provisioned, "up")
	w.remove()
	w.until(func() bool { return w.gone() || w.machine().Status.Release != nil }, "released")
	w.move()
	w.until(w.gone, "down")
	w.expectDown()
}

// TestMovedWhileReleasing loses the status while MAAS releases a server that never had a provider ID: MAAS has forgotten the
// token by then, and only the annotations say whose it is.
func TestMovedWhileReleasing(t *testing.T) {
	t.Parallel()
	w := newStoppedWorld(t, options{servers: 1, ports: true, timing: func(timing *maassim.Timing) { timing.ReleaseTimeout = 3 * time.Second }})
	w.region.Inject(maassim.Fault{Kind: maassim.FaultDeployFails, Operation: "deploy", Count: 1})
	w.region.Inject(maassim.Fault{Kind: maassim.FaultPowerOffNotSeen, Operation: "release", Count: 1})
	w.supervise()
	w.until(func() bool { return w.server(serverID(0)).StatusName == "Releasing" }, "releasing")
	w.remove()
	w.move()
	w.until(func() bool { m := w.machine(); return m != nil && m.Status.SystemID != "" }, "found by annotation")
	w.until(w.gone, "down")
	w.expectDown()
}
