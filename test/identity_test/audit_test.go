// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// TestOrphans has people use the wing's account and servers in every way that leaves MAAS and the machines at odds. All of it is
// told, once; nothing of it is touched; and what people put right is no longer told.
func TestOrphans(t *testing.T) {
	w := newWorld(t, 5)
	w.want("fine", "robbed", "renamed")
	w.up("fine", "robbed", "renamed")
	w.until("all is well", w.accounted)
	w.Expect(w.orphans()).To(BeEmpty())

	free := w.free()
	w.Expect(free).To(HaveLen(2))
	taken, copied := free[0], free[1]
	robbed, renamed := w.machine("robbed").Status.SystemID, w.machine("renamed").Status.SystemID
	w.byHand(t.Context(), taken)
	w.byHand(t.Context(), copied)
	w.annotate(t.Context(), copied, map[string]string{
		maas.AnnotationToken: maas.TokenHash("a machine of a backup"), maas.AnnotationNamespace: tenant, maas.AnnotationName: "gone",
	})
	w.annotate(t.Context(), renamed, map[string]string{maas.AnnotationName: "somebody-else"})
	w.Expect(w.operator.Release(t.Context(), robbed, maas.ReleaseRequest{Erase: maas.EraseNone, Comment: "by mistake"})).To(Succeed())
	before := len(w.region.Journal())

	want := []string{
		taken + " Unclaimed", copied + " NoMaasMachine red/gone", renamed + " AnnotationsDisagree red/renamed", robbed + " ServerGone red/robbed",
	}
	slices.Sort(want)
	w.until("all of it is told", func() bool { return slices.Equal(w.orphans(), want) })
	said := conditions.Get(w.identity(), infrav1.AccountedCondition)
	w.Expect(said.Reason).To(Equal(infrav1.OrphansFoundReason))
	for _, orphan := range want {
		w.Expect(said.Message).To(ContainSubstring(strings.Join(strings.Fields(orphan)[:2], " ")))
	}
	for range 40 {
		w.step()
	}
	told := w.told()
	w.Expect(told).To(HaveLen(4), "one event for each")
	for _, id := range []string{taken, copied, renamed, robbed} {
		w.Expect(told).To(ContainElement(ContainSubstring("Server " + id + ", ")))
	}
	for _, effect := range w.region.JournalSince(before) {
		w.Expect(effect.User).NotTo(Equal(account), "%s of %s: the wing touched what is not its own", effect.Operation, effect.SystemID)
	}

	for _, id := range []string{taken, copied} {
		w.Expect(w.people.Release(t.Context(), id, maas.ReleaseRequest{Erase: maas.EraseNone})).To(Succeed())
	}
	w.annotate(t.Context(), renamed, map[string]string{maas.AnnotationName: "renamed"})
	w.Expect(w.objects.Delete(t.Context(), w.machine("robbed"))).To(Succeed())
	w.until("all is put right", func() bool { return w.accounted() && len(w.orphans()) == 0 })
	w.Expect(w.told()).To(BeEmpty())
}

// TestNoOrphansInTransition: machines that come and go are never told of as orphans, whatever moment the lists are from.
func TestNoOrphansInTransition(t *testing.T) {
	w := newWorld(t, 4)
	for round := range 4 {
		names := []string{fmt.Sprintf("a%d", round), fmt.Sprintf("b%d", round), fmt.Sprintf("c%d", round)}
		w.want(names...)
		w.up(names...)
		for _, name := range names {
			w.Expect(w.objects.Delete(t.Context(), w.machine(name))).To(Succeed())
		}
		w.until("machines are gone", func() bool {
			list := &infrav1.MaasMachineList{}
			w.Expect(w.objects.List(t.Context(), list)).To(Succeed())
			w.Expect(w.orphans()).To(BeEmpty())
			return len(list.Items) == 0
		})
	}
	w.Expect(w.told()).To(BeEmpty())
	w.Expect(w.free()).To(HaveLen(4))
}

// TestHeldByHand: an operator holds servers with the account's key; the breaker opens, and closes when they are released.
func TestHeldByHand(t *testing.T) {
	w := newWorld(t, 4)
	w.want("fine")
	w.up("fine")
	held := w.free()
	for i, id := range held {
		w.byHand(t.Context(), id)
		w.annotate(t.Context(), id, map[string]string{
			maas.AnnotationToken: maas.TokenHash(fmt.Sprint("gone", i)), maas.AnnotationHold: infrav1.EraseFailedReason,
			maas.AnnotationNamespace: tenant, maas.AnnotationName: fmt.Sprint("gone", i),
		})
	}
	open := func() bool {
		return ptr.Deref(ptr.Deref(w.identity().Status.Breaker, infrav1.BreakerStatus{}).Open, false)
	}
	w.until("three are held", func() bool { return len(w.identity().Status.Held) == 3 && open() })
	for _, server := range w.identity().Status.Held {
		w.Expect(server.Reason).To(Equal(infrav1.EraseFailedReason))
	}
	w.want("late")
	w.until("new claims are refused", func() bool {
		return conditions.GetReason(w.machine("late"), infrav1.ServerClaimedCondition) == infrav1.CircuitBreakerOpenReason
	})
	w.Expect(w.operator.Release(t.Context(), held[0], maas.ReleaseRequest{Erase: maas.EraseQuick})).To(Succeed())
	w.until("claims are taken again", func() bool { return !open() })
	w.up("late")
	w.Expect(w.machine("late").Status.SystemID).To(Equal(held[0]))
	w.Expect(w.orphans()).To(BeEmpty())
}

// TestZonesFollow: what an identity may no longer use, or MAAS no longer has, is no failure domain of its clusters.
func TestZonesFollow(t *testing.T) {
	w := newWorld(t, 1)
	zones := func() string {
		w.Helper()
		cluster := &infrav1.MaasCluster{}
		w.Expect(w.objects.Get(t.Context(), key("red"), cluster)).To(Succeed())
		var names []string
		for _, domain := range cluster.Status.FailureDomains {
			names = append(names, domain.Name)
		}
		return strings.Join(names, " ")
	}
	w.until("all zones", func() bool { return zones() == "default z1 z2" })
	identity := w.identity()
	identity.Spec.AllowedZones, identity.Generation = []string{"z1", "z2", "moon"}, 2
	w.Expect(w.objects.Update(t.Context(), identity)).To(Succeed())
	w.until("those allowed", func() bool { return zones() == "z1 z2" })
	identity = w.identity()
	identity.Spec.AllowedZones, identity.Generation = []string{"z2"}, 3
	w.Expect(w.objects.Update(t.Context(), identity)).To(Succeed())
	w.until("one is taken away", func() bool { return zones() == "z2" })
}
