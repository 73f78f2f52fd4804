// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasclusteridentity

import (
	"context"
	"slices"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// TestZonesAreAskedWhenTheyMatter: after the recheck, and when people touched the identity; not for every machine.
func TestZonesAreAskedWhenTheyMatter(t *testing.T) {
	w := newWorld(t)
	asked := func(want int, why string) {
		t.Helper()
		w.pass()
		if got := w.region.calls["zones"]; got != want {
			t.Errorf("%s: asked %d times, want %d", why, got, want)
		}
	}
	asked(1, "new")
	asked(1, "woken by a machine")
	touch := func(change func(*infrav1.MaasClusterIdentity)) {
		t.Helper()
		object := w.identity()
		change(object)
		if err := w.objects.Update(w.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	touch(func(i *infrav1.MaasClusterIdentity) { i.Annotations = map[string]string{"look": "again"} })
	asked(2, "annotated")
	asked(2, "nothing new")
	touch(func(i *infrav1.MaasClusterIdentity) { i.Generation++; i.Spec.AllowedZones = []string{"z2", "z3"} })
	asked(3, "changed")
	if zones := w.identity().Status.Zones; !slices.Equal(zones, []string{"z2"}) {
		t.Errorf("zones %v after the identity was narrowed", zones)
	}
	w.clock.Step(recheck)
	w.region.zones = []string{"z1"}
	asked(4, "a minute later")
	if zones := w.identity().Status.Zones; len(zones) != 0 {
		t.Errorf("zones %v after MAAS lost them", zones)
	}
	w.want("no zone is left", w.says(infrav1.ReadyCondition), "False NoZone")
	w.region.away["zones"] = true
	w.clock.Step(recheck)
	asked(5, "MAAS is away")
	asked(6, "and is tried again")
	w.want("away", w.says(infrav1.ReadyCondition), "False MaasUnreachable")
}

// TestSuspectsWithoutMAAS: a failure is recorded also while MAAS does not answer.
func TestSuspectsWithoutMAAS(t *testing.T) {
	w := newWorld(t)
	w.region.away["zones"] = true
	w.add(machine("m", "x", avoiding("x", infrav1.DeployFailedReason, metav1.NewTime(w.clock.Now()))))
	w.pass()
	w.want("recorded", w.suspects(), "x [red/m]")
}

// TestSuspectProvesGood: a machine provisioned on a suspect server clears it, also for later, while those that failed there live.
func TestSuspectProvesGood(t *testing.T) {
	w := newWorld(t, server("x", "n", maas.StatusDeployed))
	w.add(machine("m", "x", avoiding("x", infrav1.DeployFailedReason, metav1.NewTime(w.clock.Now()))))
	w.pass()
	w.want("suspect", w.suspects(), "x [red/m]")
	w.change("m", func(m *infrav1.MaasMachine) { m.Status.SystemID = "" })
	w.add(machine("n", "x"))
	w.pass()
	w.want("tried again", w.suspects(), "x [red/m]")
	w.change("n", provisioned)
	w.later(2 * time.Minute)
	w.want("works", w.suspects(), "")
	w.remove("n")
	w.pass()
	w.want("worked", w.suspects(), "")
}

// TestStaleCache: a status decided on an old version is not written over a newer one; the pass is repeated, and nothing is told.
func TestStaleCache(t *testing.T) {
	w := newWorld(t, server("x", "gone", maas.StatusDeployed, hold("Abandoned")))
	stale := w.identity()
	w.pass()
	w.want("listed", w.held(), "x Abandoned")
	w.told()
	w.r.Client = interceptor.NewClient(w.objects, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, opts ...client.GetOption) error {
			if identity, ok := object.(*infrav1.MaasClusterIdentity); ok {
				stale.DeepCopyInto(identity)
				return nil
			}
			return c.Get(ctx, key, object, opts...)
		},
	})
	w.clock.Step(time.Hour)
	if after := w.pass().RequeueAfter; after <= 0 || after > time.Second {
		t.Errorf("decided again after %s", after)
	}
	w.want("not overwritten", w.held(), "x Abandoned")
	if told := w.told(); len(told) != 0 {
		t.Errorf("told %q", told)
	}
	since := w.identity().Status.Held[0].Since
	w.r.Client = w.objects
	w.pass()
	if now := w.identity().Status.Held[0].Since; !now.Equal(&since) {
		t.Errorf("since %v, was %v", now, since)
	}
}

// TestForgetsIdentity: an identity of the same name that is made later starts anew.
func TestForgetsIdentity(t *testing.T) {
	w := newWorld(t)
	w.pass()
	if err := w.objects.Delete(w.Context(), w.identity()); err != nil {
		t.Fatal(err)
	}
	w.pass() // Nobody needs it: the finalizer goes.
	w.pass()
	if _, ok := w.r.accounts.Load(rackA); ok {
		t.Error("the identity is gone and remembered")
	}
}

// TestWakes: of all that happens to machines only what changes the identity's status wakes it.
func TestWakes(t *testing.T) {
	for name, c := range map[string]struct {
		from infrav1.MaasMachine
		to   func(*infrav1.MaasMachine)
		want bool
	}{
		"gets a server":           {machine("m", ""), func(m *infrav1.MaasMachine) { m.Status.SystemID = "x" }, false},
		"is provisioned":          {machine("m", "x"), provisioned, false},
		"releases":                {machine("m", "x"), released(infrav1.ReleasingReason), false},
		"is held":                 {machine("m", "x"), released(infrav1.HeldReason), true},
		"is held for good":        {machine("m", "x", released(infrav1.HeldReason)), released(infrav1.ServerSuspectReason), true},
		"is no longer held":       {machine("m", "x", released(infrav1.HeldReason)), released(infrav1.ReleasingReason), true},
		"avoids a server":         {machine("m", "x"), avoiding("x", infrav1.DeployFailedReason, metav1.Now()), true},
		"lets its server go":      {machine("m", "x"), func(m *infrav1.MaasMachine) { m.Status.SystemID = "" }, true},
		"has another server":      {machine("m", "x"), func(m *infrav1.MaasMachine) { m.Status.SystemID = "y" }, true},
		"says something else":     {machine("m", "x"), lostServer, false},
		"is described by MAAS":    {machine("m", "x"), func(m *infrav1.MaasMachine) { m.Status.Hostname = "node-1" }, false},
		"is described once again": {machine("m", "x", avoiding("x", "A", metav1.Now())), func(m *infrav1.MaasMachine) { m.Status.Hostname = "node-1" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.add(c.from)
			if got := w.change("m", c.to); got != c.want {
				t.Errorf("wakes: %v, want %v", got, c.want)
			}
		})
	}
}
