// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// losses are what happens to a server behind our back, by somebody who may. Each ends when the server is no longer ours.
var losses = map[string]func(*world, string){
	"vanished from MAAS": func(w *world, id string) {
		w.Expect(w.admin().Machine.Delete(id)).To(Succeed())
	},
	"released by an administrator": func(w *world, id string) {
		w.releaseByAdmin(id)
	},
	"taken by another account": func(w *world, id string) {
		w.releaseByAdmin(id)
		w.take(id)
	},
	"taken by another machine of ours": func(w *world, id string) {
		w.addMachine(tenant, tenant, "second")
		w.until(func() bool { return w.showed("ServerClaimed=" + infrav1.NoServerAvailableReason) }, "the second waits")
		w.releaseByAdmin(id)
		w.until(func() bool { m := w.get(tenant, "second"); return m.Status.SystemID == id }, "the second has it")
	},
}

func (w *world) releaseByAdmin(id string) {
	w.Helper()
	w.Expect(w.as("admin").Release(w.Context(), id, maas.ReleaseRequest{Erase: maas.EraseQuick})).To(Succeed())
	w.until(func() bool { s := w.server(id); return s.Owner != account || s.Claim != w.machine().Spec.Claim.Token }, "released")
}

// TestServerLost takes a running machine's server away: it says so, keeps what it promised, and never touches the server again,
// not even when it is deleted.
func TestServerLost(t *testing.T) {
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{servers: 1, plain: true})
			w.until(w.provisioned, "up")
			id, token := w.machine().Status.SystemID, w.machine().Spec.Claim.Token
			lose(w, id)
			lost := time.Now()
			w.until(w.says(infrav1.ReadyCondition, infrav1.ServerLostReason), "said")
			w.until(func() bool { return len(w.tells.told(infrav1.ServerLostReason)) > 0 }, "an event says it")
			w.Expect(w.provisioned()).To(BeTrue(), "what was promised is not taken back")
			w.remove()
			w.until(w.gone, "down")
			w.expectUntouchedUnder(token, id, lost)
			if second := w.get(tenant, "second"); second != nil {
				w.until(func() bool { return provisioned(w.get(tenant, "second")) }, "the second is up")
				w.removeMachine(second)
				w.until(func() bool { return w.get(tenant, "second") == nil }, "the second is down")
			}
			w.Expect(w.owned(account)).To(BeEmpty())
		})
	}
}

// expectUntouchedUnder expects that no change of a server was asked for a claim after a moment, by what MAAS' journal knows: calls
// carry no claim, but the server has one.
func (w *world) expectUntouchedUnder(token, id string, since time.Time) {
	w.Helper()
	for _, effect := range w.region.Journal() {
		if effect.User == account && effect.SystemID == id && effect.Time.After(since) {
			w.Expect(effect.Claim).NotTo(Equal(token), effect.Operation)
			w.Expect(effect.Annotations[maas.AnnotationToken]).NotTo(Equal(maas.TokenHash(token)), effect.Operation)
		}
	}
	if w.get(tenant, "second") == nil {
		w.expectUntouched(id, since)
	}
}

// TestServerLostOnTheWayUp takes the server away before it is deployed: another is tried, and the lost one avoided.
func TestServerLostOnTheWayUp(t *testing.T) {
	for _, name := range []string{"vanished from MAAS", "released by an administrator", "taken by another account"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newStoppedWorld(t, withPorts())
			w.fabric.tell(func(f *fabric) { f.asleep = true })
			w.supervise()
			w.until(func() bool { return len(w.attachments()) == 1 }, "waiting for the fabric")
			id := w.machine().Status.SystemID
			losses[name](w, id)
			lost := time.Now()
			w.fabric.tell(func(f *fabric) { f.asleep = false })
			w.until(w.provisioned, "up on another")
			w.Expect(w.machine().Status.SystemID).NotTo(Equal(id))
			w.Expect(w.machine().Status.AvoidedServers).To(HaveLen(1))
			w.Expect(w.tells.told(infrav1.ServerLostReason)).NotTo(BeEmpty(), "an event says it")
			w.remove()
			w.until(w.gone, "down")
			w.expectUntouched(id, lost)
			w.Expect(w.owned(account)).To(BeEmpty())
			w.Expect(w.attached()).To(BeEmpty())
		})
	}
}
