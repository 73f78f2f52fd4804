// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"context"
	"errors"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// elsewhere is the turn of a machine of another cluster.
var elsewhere = scope.Turn{
	Machine: types.NamespacedName{Namespace: "blue", Name: "m"}, Cluster: types.NamespacedName{Namespace: "blue", Name: "c"}, Wants: "else",
}

// pass reconciles without that time passes.
func (s *scene) pass(name string) ctrl.Result {
	s.Helper()
	result, err := s.reconciler.Reconcile(s.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Namespace: tenant, Name: name}})
	s.Expect(err).NotTo(HaveOccurred())
	return result
}

func TestTheClusterWithFewerServersIsFirst(t *testing.T) {
	s := newScene(t, "a", "b")
	s.add("first")
	s.up("first")
	s.claimed("second")
	grant, verdict := s.turns.Take(elsewhere, nil)
	s.Expect(verdict).To(Equal(scope.TurnGranted))
	calls := s.region.count("allocate")
	s.Expect(s.pass("second").RequeueAfter).To(And(BeNumerically(">=", poll/2), BeNumerically("<=", poll)))
	s.Expect(s.get("second")).To(sayFalse(infrav1.ServerClaimedCondition, infrav1.WaitingForTurnReason))
	s.Expect(conditions.GetMessage(s.get("second"), infrav1.ServerClaimedCondition)).To(ContainSubstring("this one has 1"))
	s.Expect(s.region.count("allocate")).To(Equal(calls))
	grant.Done(scope.OutcomeTaken)
	s.up("second")
}

// TestOneIsRefusedForAll: MAAS is asked once for all who want the same.
func TestOneIsRefusedForAll(t *testing.T) {
	s := newScene(t, "a")
	s.region.servers["a"].Status = maas.StatusNew
	names := []string{"m1", "m2", "m3"}
	for _, name := range names {
		s.claimed(name)
	}
	for range 2 {
		for _, name := range names {
			s.Expect(s.pass(name).RequeueAfter).To(And(BeNumerically(">=", poll/2), BeNumerically("<=", poll)), "a freed server is noticed within a poll")
			s.Expect(s.get(name)).To(sayFalse(infrav1.ServerClaimedCondition, infrav1.NoServerAvailableReason))
		}
	}
	s.Expect(s.region.count("allocate")).To(Equal(1))
	s.region.servers["a"].Status = maas.StatusReady
	s.clock.Step(poll)
	for _, name := range names {
		s.pass(name)
	}
	s.Expect(s.region.servers["a"].Owner).To(Equal(account))
}

// TestATurnIsGivenBack, however the allocation went.
func TestATurnIsGivenBack(t *testing.T) {
	for name, trouble := range map[string]func(*scene){
		"taken":            func(*scene) {},
		"nothing free":     func(s *scene) { s.region.servers["a"].Status = maas.StatusNew },
		"nothing eligible": func(s *scene) { s.region.servers["a"].Status = maas.StatusNew; s.hideServers() },
		"lost":             func(s *scene) { s.region.refuse["allocate"] = lost },
		"never":            func(s *scene) { s.region.refuse["allocate"] = &maas.ConstraintError{} },
		"busy": func(s *scene) {
			s.region.refuse["allocate"] = &maas.RetryableError{Status: 503, RetryAfter: time.Minute}
		},
		"silent":          func(s *scene) { s.region.refuse["allocate"] = &maas.UnavailableError{Err: errors.New("no answer")} },
		"status conflict": func(s *scene) { s.conflicts() },
		"fabric silent":   func(s *scene) { s.silentFabric() },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, "a")
			s.claimed("m")
			trouble(s)
			s.turns = scope.NewTurns(1, poll, s.clock)
			// A conflict is no error: the pass is repeated.
			s.pass("m")
			_, verdict := s.turns.Take(elsewhere, nil)
			s.Expect(verdict).NotTo(Equal(scope.TurnBusy))
			_, verdict = s.turns.Take(scope.Turn{Machine: types.NamespacedName{Name: "third"}, Wants: "third"}, nil)
			s.Expect(verdict).To(Equal(scope.TurnBusy), "there is one turn")
		})
	}
}

// TestAnOldStatusKeepsItsPlace: a cache that still shows the allocation MAAS has refused makes a machine neither look for a server it
// was not given nor lose its place to a cluster that has one already.
func TestAnOldStatusKeepsItsPlace(t *testing.T) {
	s := newScene(t, "a")
	s.region.servers["a"].Status = maas.StatusNew
	s.claimed("m")
	behind := s.behind()
	s.pass("m")
	behind(true)
	calls := s.region.count("allocate")
	s.Expect(calls).To(Equal(1))
	s.region.servers["a"].Status = maas.StatusReady
	s.clock.Step(poll)
	holding := map[types.NamespacedName]types.NamespacedName{{Namespace: "blue", Name: "other"}: elsewhere.Cluster}
	for range 3 {
		s.Expect(s.pass("m").RequeueAfter).To(BeNumerically("<", poll/2), "it comes back at once")
		_, verdict := s.turns.Take(elsewhere, holding)
		s.Expect(verdict).To(Equal(scope.TurnAfter))
	}
	s.Expect(s.region.count("allocate")).To(Equal(calls), "nothing is asked for that could not be recorded")
	behind(false)
	s.pass("m")
	s.Expect(s.region.servers["a"].Owner).To(Equal(account))
}

// behind lets the cache be behind, or not: it shows machines as they were when MAAS was about to be asked.
func (s *scene) behind() (set func(bool)) {
	var old *infrav1.MaasMachine
	is := false
	s.objects = interceptor.NewClient(s.objects, interceptor.Funcs{
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, object client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
			err := c.SubResource(sub).Patch(ctx, object, patch, opts...)
			if m, ok := object.(*infrav1.MaasMachine); ok && err == nil && m.Status.LastAllocateTime != nil {
				old = m.DeepCopy()
			}
			return err
		},
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, opts ...client.GetOption) error {
			if m, ok := object.(*infrav1.MaasMachine); ok && is {
				old.DeepCopyInto(m)
				return nil
			}
			return c.Get(ctx, key, object, opts...)
		},
	})
	s.restart()
	return func(now bool) { is = now }
}

// conflicts lets every change of a status meet a newer version.
func (s *scene) conflicts() {
	s.objects = interceptor.NewClient(s.objects, interceptor.Funcs{
		SubResourcePatch: func(context.Context, client.Client, string, client.Object, client.Patch, ...client.SubResourcePatchOption) error {
			return apierrors.NewConflict(schema.GroupResource{Resource: "maasmachines"}, "m", nil)
		},
	})
	s.restart()
}

// silentFabric keeps DPUServers from being read.
func (s *scene) silentFabric() {
	s.objects = interceptor.NewClient(s.objects, interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			if _, ok := list.(*infrav1.DPUServerList); ok {
				return apierrors.NewServiceUnavailable("no answer")
			}
			return c.List(ctx, list, opts...)
		},
	})
	s.restart()
}

func TestWantsAreThoseOfTheSpec(t *testing.T) {
	s := newScene(t)
	wants := func(change func(*pass)) string {
		p := s.addressPass([]string{"tenant", "storage"}, nil)
		p.owner = &clusterv1.Machine{}
		p.identity = &scope.Identity{Object: &infrav1.MaasClusterIdentity{}}
		change(p)
		return p.turn().Wants
	}
	same := wants(func(*pass) {})
	for name, equal := range map[string]func(*pass){
		"name":  func(p *pass) { p.machine.Name = "else" },
		"image": func(p *pass) { p.machine.Spec.Image = "else" },
		"order of ports": func(p *pass) {
			p.machine.Spec.Ports[0], p.machine.Spec.Ports[1] = p.machine.Spec.Ports[1], p.machine.Spec.Ports[0]
		},
	} {
		s.Expect(wants(equal)).To(Equal(same), name)
	}
	for name, different := range map[string]func(*pass){
		"zone":    func(p *pass) { p.owner.Spec.FailureDomain = "z" },
		"zones":   func(p *pass) { p.identity.Object.Spec.AllowedZones = []string{"z"} },
		"tags":    func(p *pass) { p.machine.Spec.Tags = []string{"t"} },
		"port":    func(p *pass) { p.machine.Spec.Ports[0].PF = ptr.To[int32](1) },
		"no port": func(p *pass) { p.machine.Spec.Ports = nil },
		"avoided": func(p *pass) { p.machine.Status.AvoidedServers = []infrav1.AvoidedServer{{SystemID: "a"}} },
	} {
		s.Expect(wants(different)).NotTo(Equal(same), name)
	}
}
