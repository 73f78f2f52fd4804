// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

func TestEraseIsNeverLessThanTheMinimum(t *testing.T) {
	for _, c := range []struct{ asked, fallback, minimum, want infrav1.ReleaseErase }{
		{"", "", "", infrav1.ReleaseEraseQuick},
		{"", infrav1.ReleaseEraseFull, infrav1.ReleaseEraseQuick, infrav1.ReleaseEraseFull},
		{infrav1.ReleaseEraseNone, infrav1.ReleaseEraseFull, infrav1.ReleaseEraseSecure, infrav1.ReleaseEraseSecure},
		{infrav1.ReleaseEraseNone, infrav1.ReleaseEraseNone, infrav1.ReleaseEraseNone, infrav1.ReleaseEraseNone},
		{infrav1.ReleaseEraseFull, infrav1.ReleaseEraseQuick, infrav1.ReleaseEraseQuick, infrav1.ReleaseEraseFull},
	} {
		p := &pass{machine: &infrav1.MaasMachine{}, identity: &scope.Identity{Object: &infrav1.MaasClusterIdentity{ObjectMeta: metav1.ObjectMeta{Name: "i"}}}}
		p.machine.Spec.Release.Erase = c.asked
		p.identity.Object.Spec.Release = infrav1.IdentityRelease{EraseDefault: c.fallback, EraseMinimum: c.minimum}
		if got := p.erase(); got != c.want {
			t.Errorf("%+v: got %s", c, got)
		}
	}
}

// TestDeletedWithoutTheIdentity: the finalizer stays and the condition names what is missing.
func TestDeletedWithoutTheIdentity(t *testing.T) {
	for name, c := range map[string]struct {
		take, give     func(*scene)
		reason, naming string
	}{
		"identity gone": {
			take:   func(s *scene) { s.Expect(s.objects.Delete(s.Context(), s.manifests(nil)[4])).To(Succeed()) },
			give:   func(s *scene) { s.Expect(s.objects.Create(s.Context(), s.manifests(nil)[4])).To(Succeed()) },
			reason: infrav1.IdentityNotFoundReason, naming: "MaasClusterIdentity identity does not exist",
		},
		"Secret gone": {
			take: func(s *scene) {
				s.broken = &scope.UnusableError{Reason: infrav1.SecretNotFoundReason, Message: "Secret maas does not exist"}
			},
			give:   func(s *scene) { s.broken = nil },
			reason: infrav1.SecretNotFoundReason, naming: "Secret maas does not exist",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, "a")
			s.add("m")
			s.up("m")
			c.take(s)
			s.remove("m")
			calls := len(s.region.calls)
			for range 10 {
				s.step("m")
			}
			s.Expect(s.region.calls).To(HaveLen(calls))
			s.Expect(s.get("m").Finalizers).To(ContainElement(infrav1.MaasMachineFinalizer))
			for _, condition := range []string{infrav1.ReleasedCondition, infrav1.ReadyCondition} {
				s.Expect(s.get("m")).To(sayFalse(condition, c.reason))
				s.Expect(conditions.GetMessage(s.get("m"), condition)).To(ContainSubstring(c.naming))
			}
			c.give(s)
			s.down("m")
			s.Expect(s.region.servers["a"].Status).To(Equal(maas.StatusReady))
		})
	}
}

// TestDeletedWithoutItsOwners: Machine, Cluster and MaasCluster may go first.
func TestDeletedWithoutItsOwners(t *testing.T) {
	s := newScene(t, "a")
	s.add("m")
	s.up("m")
	for _, owner := range []client.Object{
		&clusterv1.Machine{ObjectMeta: metav1.ObjectMeta{Name: "m"}},
		&clusterv1.Cluster{ObjectMeta: metav1.ObjectMeta{Name: "c"}},
		&infrav1.MaasCluster{ObjectMeta: metav1.ObjectMeta{Name: "c"}},
	} {
		owner.SetNamespace(tenant)
		s.Expect(s.objects.Delete(s.Context(), owner)).To(Succeed())
	}
	s.remove("m")
	s.down("m")
	s.Expect(s.region.calls).To(ContainElement("release Quick"))
	s.Expect(s.region.servers["a"].Status).To(Equal(maas.StatusReady))
}

// TestSystemIDCollision: the provider IDs of two servers of two MAAS would be the same.
func TestSystemIDCollision(t *testing.T) {
	s := newScene(t, "a", "b")
	s.add("other", func(m *infrav1.MaasMachine) {
		m.Spec.ProviderID = ProviderID("a")
		m.Spec.Claim = &infrav1.MachineClaim{Token: "v1.x", IdentityName: "another", Source: "maas-b"}
	})
	s.Expect(s.objects.Delete(s.Context(), s.manifests([]string{"a", "b"})[6])).To(Succeed())
	s.add("m")
	s.until("m", func(m *infrav1.MaasMachine) bool { return len(m.Status.AvoidedServers) == 1 })
	s.Expect(s.get("m").Status.AvoidedServers[0].Reason).To(Equal(infrav1.SystemIDCollisionReason))
	s.Expect(s.objects.Create(s.Context(), s.manifests([]string{"a", "b"})[6])).To(Succeed())
	s.up("m")
	s.Expect(s.get("m").Status.SystemID).To(Equal("b"))
	s.Expect(s.region.servers["a"].Owner).To(BeEmpty())
	s.Expect(s.region.calls).To(ContainElement("release None"), "undeployed, without erase")
	s.Expect(s.region.count("deploy")).To(Equal(1))
}
