// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package maasclusteridentity says whether a MAAS account can be used, and audits its servers: which are held, on which
// deployments failed, whether so many are held that new claims have to stop, and about which MAAS and the MaasMachines do not
// agree. It changes nothing in MAAS. It keeps an identity while machines or clusters need it.
package maasclusteridentity

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"sigs.k8s.io/cluster-api/util/predicates"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
)

const (
	defaultPollInterval  = 5 * time.Second
	defaultAuditInterval = 10 * time.Minute
	// recheck is how often a usable identity is tried: its Secret wakes nobody.
	recheck = time.Minute
)

// Reconciler reconciles MaasClusterIdentities.
type Reconciler struct {
	// Client reads from the cache and writes.
	Client client.Client
	// Scope turns identities into clients.
	Scope scope.Identities
	// Recorder tells people of transitions. May be nil.
	Recorder events.EventRecorder
	// Clock defaults to the real one.
	Clock clock.PassiveClock
	// WatchFilterValue restricts the identities to those with that watch label.
	WatchFilterValue string
	// PollInterval is how often an identity that cannot be used is tried again, at least. Default 5 s.
	PollInterval time.Duration
	// AuditInterval is how often all servers of the account are listed. Default 10 min.
	AuditInterval time.Duration
	// OrphanGrace is for how long MAAS and a machine must disagree before it is told. Default 2 min, or AuditInterval if that
	// is shorter.
	OrphanGrace time.Duration

	once sync.Once
	// accounts are what is remembered, by the identity's name: *account.
	accounts sync.Map
}

// account is what is remembered of an identity.
func (r *Reconciler) account(identity string) *account {
	kept, _ := r.accounts.LoadOrStore(identity, &account{looks: map[string]look{}, doubts: map[string]*doubt{}})
	return kept.(*account)
}

// SetupWithManager adds the controller to the manager.
func (r *Reconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager, options controller.Options) error {
	r.once.Do(r.complete)
	if err := ctx.Err(); err != nil {
		return err
	}
	log := mgr.GetLogger().WithValues("controller", "maasclusteridentity")
	err := ctrl.NewControllerManagedBy(mgr).
		Named("maasclusteridentity").
		For(&infrav1.MaasClusterIdentity{}, builder.WithPredicates(predicates.ResourceHasFilterLabel(mgr.GetScheme(), log, r.WatchFilterValue))).
		WithOptions(options).
		Watches(&infrav1.MaasMachine{}, handler.EnqueueRequestsFromMapFunc(identityOfMachine), builder.WithPredicates(r.machineMatters())).
		Watches(&infrav1.MaasCluster{}, handler.EnqueueRequestsFromMapFunc(identityOfCluster), builder.WithPredicates(predicate.Funcs{
			CreateFunc: func(event.CreateEvent) bool { return false },
			UpdateFunc: func(event.UpdateEvent) bool { return false },
		})).
		Complete(r)
	if err != nil {
		return fmt.Errorf("add the controller of MaasClusterIdentities: %w", err)
	}
	return nil
}

func (r *Reconciler) complete() {
	r.PollInterval = cmp.Or(r.PollInterval, defaultPollInterval)
	r.AuditInterval = cmp.Or(r.AuditInterval, defaultAuditInterval)
	r.OrphanGrace = cmp.Or(r.OrphanGrace, min(defaultOrphanGrace, r.AuditInterval))
	if r.Clock == nil {
		r.Clock = clock.RealClock{}
	}
}

// round is after how long a usable identity is looked at again.
func (r *Reconciler) round() time.Duration { return min(recheck, r.AuditInterval) }

func identityOfMachine(_ context.Context, object client.Object) []ctrl.Request {
	machine, ok := object.(*infrav1.MaasMachine)
	if !ok || machine.Spec.Claim == nil {
		return nil
	}
	return []ctrl.Request{{NamespacedName: client.ObjectKey{Name: machine.Spec.Claim.IdentityName}}}
}

func identityOfCluster(_ context.Context, object client.Object) []ctrl.Request {
	cluster, ok := object.(*infrav1.MaasCluster)
	if !ok {
		return nil
	}
	return []ctrl.Request{{NamespacedName: client.ObjectKey{Name: cluster.Spec.IdentityRef.Name}}}
}

// machineMatters lets through machines that go, those that become held or are no longer, those that let their server go, and
// those that avoid another server. It notes which servers were let go: they may be held.
func (r *Reconciler) machineMatters() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, ok1 := e.ObjectOld.(*infrav1.MaasMachine)
			after, ok2 := e.ObjectNew.(*infrav1.MaasMachine)
			if !ok1 || !ok2 {
				return false
			}
			lost := before.Status.SystemID != "" && before.Status.SystemID != after.Status.SystemID
			if lost {
				r.leave(before)
			}
			return lost || heldBy(before) != heldBy(after) ||
				!equality.Semantic.DeepEqual(before.Status.AvoidedServers, after.Status.AvoidedServers)
		},
		DeleteFunc: func(e event.DeleteEvent) bool {
			machine, ok := e.Object.(*infrav1.MaasMachine)
			if ok {
				r.leave(machine)
			}
			return ok
		},
	}
}

// leave notes that a machine no longer has its server. One that was given back in order is of no interest unless it is listed.
func (r *Reconciler) leave(machine *infrav1.MaasMachine) {
	if id := machine.Status.SystemID; machine.Spec.Claim != nil && id != "" {
		maybeHeld := heldBy(machine) != "" || avoids(machine, id) || machine.Spec.Override != nil
		r.account(machine.Spec.Claim.IdentityName).leave(id, maybeHeld)
	}
}
