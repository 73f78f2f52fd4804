// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package dpufabric says of each DPUFabric whether its credentials are taken, DPF, the DPU clusters and OVN answer and MAAS
// confirms claims, and keeps it as long as somebody needs it.
package dpufabric

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	kerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/cluster-api/util/finalizers"
	"sigs.k8s.io/cluster-api/util/patch"
	"sigs.k8s.io/cluster-api/util/paused"
	"sigs.k8s.io/cluster-api/util/predicates"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
)

const (
	// DefaultPollInterval is how often a fabric that is not Ready, or is being deleted, is looked at.
	DefaultPollInterval = 5 * time.Second
	// resyncInterval is how often a fabric is looked at otherwise.
	resyncInterval = time.Minute
	// nextPass follows at once.
	nextPass = time.Millisecond
)

// Reconciler reconciles DPUFabrics.
type Reconciler struct {
	// Client reads from the cache and writes to the management cluster.
	Client client.Client
	// APIReader reads those who need a fabric uncached, before it goes.
	APIReader client.Reader
	Fabrics   scope.Fabrics
	// Watches on the fabrics; nil if there are none.
	Watches  *scope.FabricWatches
	Recorder events.EventRecorder
	Clock    clock.Clock
	// Installation tells this management cluster from others that share a DPF control plane.
	Installation string
	// WatchFilterValue limits the objects to those with that label cluster.x-k8s.io/watch-filter; empty means all.
	WatchFilterValue string
	// PollInterval is how often an unready fabric is looked at; zero means DefaultPollInterval.
	PollInterval time.Duration

	mu    sync.Mutex
	known map[string]*probed
}

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager, options controller.Options) error {
	if r.PollInterval == 0 {
		r.PollInterval = DefaultPollInterval
	}
	log := ctrl.LoggerFrom(ctx).WithValues("controller", "dpufabric")
	// A pass writes the status, and its servers are written every few seconds: without these it would cause the next pass.
	asked := predicate.Or[client.Object](predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}, predicate.LabelChangedPredicate{})
	err := ctrl.NewControllerManagedBy(mgr).
		For(&infrav1.DPUFabric{}, builder.WithPredicates(asked)).
		Named("dpufabric").
		WithOptions(options).
		WithEventFilter(predicates.ResourceHasFilterLabel(mgr.GetScheme(), log, r.WatchFilterValue)).
		Watches(&infrav1.DPUServer{}, handler.EnqueueRequestsFromMapFunc(serverToFabric), builder.WithPredicates(counted)).
		Complete(r)
	if err != nil {
		return fmt.Errorf("set up the controller of DPUFabrics: %w", err)
	}
	return nil
}

// counted lets through what a fabric says of its servers.
var counted = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	before, ok := e.ObjectOld.(*infrav1.DPUServer)
	after, also := e.ObjectNew.(*infrav1.DPUServer)
	return !ok || !also || before.Status.Eligibility != after.Status.Eligibility ||
		(before.Status.Holder == nil) != (after.Status.Holder == nil)
}}

func serverToFabric(_ context.Context, object client.Object) []reconcile.Request {
	server, ok := object.(*infrav1.DPUServer)
	if !ok || server.Spec.FabricName == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: client.ObjectKey{Name: server.Spec.FabricName}}}
}

// Reconcile makes one pass.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (_ ctrl.Result, reterr error) {
	fabric := &infrav1.DPUFabric{}
	if err := r.Client.Get(ctx, req.NamespacedName, fabric); err != nil {
		r.remember(req.Name, nil)
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if added, err := finalizers.EnsureFinalizer(ctx, r.Client, fabric, infrav1.DPUFabricFinalizer); err != nil || added {
		return ctrl.Result{RequeueAfter: nextPass}, err
	}
	switch isPaused, requeue, err := paused.EnsurePausedCondition(ctx, r.Client, nil, fabric); {
	case err != nil, isPaused:
		return ctrl.Result{}, err
	case requeue:
		return ctrl.Result{RequeueAfter: nextPass}, nil
	}
	if !controllerutil.ContainsFinalizer(fabric, infrav1.DPUFabricFinalizer) {
		return ctrl.Result{}, nil
	}

	helper, err := patch.NewHelper(fabric, r.Client)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("prepare to report on DPUFabric %s: %w", fabric.Name, err)
	}
	defer func() {
		if err := helper.Patch(ctx, fabric, patch.WithOwnedConditions{Conditions: ownedConditions}); err != nil {
			reterr = kerrors.NewAggregate([]error{reterr, client.IgnoreNotFound(err)})
		}
	}()
	if !fabric.DeletionTimestamp.IsZero() {
		return r.reconcileDelete(ctx, fabric)
	}

	wasReady := isReady(fabric)
	seen, err := r.observe(ctx, fabric, r.probeInterval(wasReady))
	if err != nil {
		return ctrl.Result{}, err
	}
	report(fabric, seen)
	r.tell(fabric, wasReady)
	left := r.probeInterval(isReady(fabric)) - r.Clock.Since(seen.at)
	if !conditions.IsTrue(fabric, infrav1.ChangesWatchedCondition) {
		left = min(left, 2*r.PollInterval)
	}
	return ctrl.Result{RequeueAfter: max(left, nextPass)}, nil
}

// probeInterval is how often a fabric's systems are asked.
func (r *Reconciler) probeInterval(ready bool) time.Duration {
	if ready {
		return resyncInterval
	}
	return 2 * r.PollInterval
}

// reconcileDelete lets a fabric go when nobody needs it any more, and takes its memory of free servers with it.
func (r *Reconciler) reconcileDelete(ctx context.Context, fabric *infrav1.DPUFabric) (ctrl.Result, error) {
	needs, err := r.observeNeeds(ctx, fabric)
	if err != nil {
		return ctrl.Result{}, err
	}
	decided := planDeletion(needs)
	reportDeletion(fabric, decided)
	switch {
	case decided.done:
		// Credential requests stay in DPF: the account they are for may serve other installations too.
		controllerutil.RemoveFinalizer(fabric, infrav1.DPUFabricFinalizer)
		return ctrl.Result{}, nil
	case len(decided.forget) > 0:
		return ctrl.Result{RequeueAfter: r.PollInterval}, r.forgetServers(ctx, decided.forget)
	default:
		return ctrl.Result{RequeueAfter: r.PollInterval}, nil
	}
}

// tell records that a fabric became usable or stopped being so.
func (r *Reconciler) tell(fabric *infrav1.DPUFabric, wasReady bool) {
	ready := conditions.Get(fabric, infrav1.ReadyCondition)
	switch {
	case ready == nil || isReady(fabric) == wasReady:
	case wasReady:
		r.Recorder.Eventf(fabric, nil, corev1.EventTypeWarning, ready.Reason, "Probe", "%s", ready.Message)
	default:
		r.Recorder.Eventf(fabric, nil, corev1.EventTypeNormal, ready.Reason, "Probe", "DPF, its DPU clusters, OVN where it is named, and all claim sources answer")
	}
}
