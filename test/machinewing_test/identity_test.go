// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// brokenIdentity is what can be wrong with the way to MAAS while machines use it.
type brokenIdentity struct {
	// breaks and mends it.
	breaks, mends func(*world)
	// says is the reason machines give, names is what the message names.
	says, names string
}

var brokenIdentities = map[string]brokenIdentity{
	"Secret gone": {
		breaks: func(w *world) {
			w.Expect(w.objects.Delete(w.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: wing, Name: "identity"}})).To(Succeed())
		},
		mends: func(w *world) { w.create(w.secret("identity", keyOf(account))) },
		says:  infrav1.SecretNotFoundReason, names: "Secret identity",
	},
	"Secret without key": {
		breaks: func(w *world) {
			change(w, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: wing, Name: "identity"}}, func(s *corev1.Secret) { s.Data = nil })
		},
		mends: func(w *world) { w.setKey(keyOf(account)) },
		says:  infrav1.SecretInvalidReason, names: "Secret identity",
	},
	"key refused": {
		breaks: func(w *world) { w.setKey(strings.Replace(keyOf(account), "secret0key0", "another0key0", 1)) },
		mends:  func(w *world) { w.setKey(keyOf(account)) },
		says:   infrav1.CredentialsRefusedReason, names: "MaasClusterIdentity identity",
	},
	"key of another account": {
		breaks: func(w *world) { w.setKey(keyOf(other)) },
		mends:  func(w *world) { w.setKey(keyOf(account)) },
		says:   infrav1.AccountChangedReason, names: "its servers to " + account,
	},
	"identity gone": {
		breaks: func(w *world) { w.Expect(w.api.vanish(w.Context(), w.identity("identity"))).To(Succeed()) },
		mends:  func(w *world) { w.create(w.newIdentity("identity", w.site, source)) },
		says:   infrav1.IdentityNotFoundReason, names: "MaasClusterIdentity identity",
	},
}

// TestIdentityBreaksOnTheWayUp lets a claimed machine wait: it names what is missing, changes nothing and goes on once that is back.
func TestIdentityBreaksOnTheWayUp(t *testing.T) {
	for name, b := range brokenIdentities {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newStoppedWorld(t, withPorts())
			w.fabric.tell(func(f *fabric) { f.asleep = true })
			w.supervise()
			w.until(func() bool { return len(w.attachments()) == 1 }, "claimed")
			b.breaks(w)
			w.until(w.says(infrav1.ServerClaimedCondition, b.says), "said")
			w.Expect(conditions.GetMessage(w.machine(), infrav1.ServerClaimedCondition)).To(ContainSubstring(b.names))
			w.fabric.tell(func(f *fabric) { f.asleep = false })
			w.quiet()
			b.mends(w)
			w.live()
		})
	}
}

// TestIdentityBreaksOnTheWayDown keeps the finalizer of a deleted machine.
func TestIdentityBreaksOnTheWayDown(t *testing.T) {
	for name, b := range brokenIdentities {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, withPorts())
			w.until(w.provisioned, "up")
			id := w.machine().Status.SystemID
			b.breaks(w)
			w.until(w.says(infrav1.ServerClaimedCondition, b.says), "said")
			w.remove()
			w.until(w.says(infrav1.ReleasedCondition, b.says), "said of the release")
			w.Expect(conditions.GetMessage(w.machine(), infrav1.ReleasedCondition)).To(ContainSubstring(b.names))
			w.quiet()
			w.Expect(w.machine().Finalizers).To(ContainElement(infrav1.MaasMachineFinalizer))
			w.Expect(w.server(id).StatusName).To(Equal("Deployed"))
			b.mends(w)
			w.until(w.gone, "down")
			w.expectDown()
		})
	}
}

// TestIdentityInUseIsNotDeleted until its last machine has given its server back.
func TestIdentityInUseIsNotDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withPorts())
	w.until(w.provisioned, "up")
	w.Expect(w.objects.Delete(w.Context(), w.identity("identity"))).To(Succeed())
	w.until(w.identitySays(infrav1.ReadyCondition, infrav1.InUseReason), "said")
	w.quiet()
	w.addMachine(tenant, tenant, "late")
	w.until(func() bool {
		return conditions.GetReason(w.get(tenant, "late"), infrav1.ReadyCondition) == infrav1.DeletingReason
	}, "new machines are told")
	w.removeMachine(w.get(tenant, "late"))
	w.down()
	w.Expect(w.objects.Delete(w.Context(), &infrav1.MaasCluster{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: tenant}})).To(Succeed())
	w.until(func() bool {
		list := &infrav1.MaasClusterIdentityList{}
		w.Expect(w.objects.List(w.Context(), list)).To(Succeed())
		return len(list.Items) == 0
	}, "it goes with its last user")
}

// TestRotatedKey takes up a new key without a restart, half-way and in use.
func TestRotatedKey(t *testing.T) {
	t.Parallel()
	w := newStoppedWorld(t, withPorts())
	w.fabric.tell(func(f *fabric) { f.asleep = true })
	w.supervise()
	w.until(func() bool { return len(w.attachments()) == 1 }, "claimed")
	rotated := strings.ReplaceAll(keyOf(account), "0key0", "1key1")
	w.region.RotateKey(account, rotated)
	w.fabric.tell(func(f *fabric) { f.asleep = false })
	w.until(w.says(infrav1.ReadyCondition, infrav1.CredentialsRefusedReason), "the old key is refused")
	w.setKey(rotated)
	w.until(w.provisioned, "up")
	w.expectUp()
	again := strings.ReplaceAll(keyOf(account), "0key0", "2key2")
	w.setKey(again)
	w.region.RotateKey(account, again)
	w.down()
	w.Expect(w.living()).To(HaveLen(1))
	w.Expect(w.started).To(Equal(1), "nothing was restarted")
}

// TestRotatedCA takes up another certificate authority without a restart.
func TestRotatedCA(t *testing.T) {
	t.Parallel()
	old, next := newAuthority(t), newAuthority(t)
	w := newStoppedWorld(t, options{servers: 2, ports: true, tls: old})
	w.fabric.tell(func(f *fabric) { f.asleep = true })
	w.supervise()
	w.until(func() bool { return len(w.attachments()) == 1 }, "claimed")
	w.certify(next)
	w.fabric.tell(func(f *fabric) { f.asleep = false })
	w.until(w.says(infrav1.ReadyCondition, infrav1.MaasUnreachableReason), "a certificate nobody vouches for is no MAAS")
	w.quiet()
	w.changeIdentity(func(i *infrav1.MaasClusterIdentity) { i.Spec.CABundle = next.bundle() })
	w.live()
	w.Expect(w.started).To(Equal(1), "nothing was restarted")
}
