// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package tenantvpc makes a TenantVPC's objects on its fabric, keeps count of their use, and takes them away in the order DPF
// asks for.
//
// A pass observes the fabric, plans one step at most, takes it, and reports. Nothing is remembered between passes.
package tenantvpc

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt"
)

const (
	// DefaultPollInterval is how often DPF is asked about what is under way.
	DefaultPollInterval = 5 * time.Second
	// steadyInterval is how often a TenantVPC is looked at when nothing is under way; its use is counted then.
	steadyInterval = time.Minute
	// unwatchedInterval is how often it is looked at then if the fabric is not watched.
	unwatchedInterval = 45 * time.Second
	// watchedIntervals is how many poll intervals pass before what is under way is looked at although no watch tells of a change.
	watchedIntervals = 3
	// nextStep follows a step at once, in a new pass that observes what the step did.
	nextStep = time.Millisecond
)

// Reconciler reconciles TenantVPCs.
type Reconciler struct {
	// Client reads from the cache and writes to the management cluster.
	Client client.Client
	// APIReader reads DPUAttachments uncached, because their absence lets networks be deleted.
	APIReader client.Reader
	Fabrics   scope.Fabrics
	Recorder  events.EventRecorder
	Clock     clock.Clock
	// Installation tells this management cluster from others that share a DPF control plane.
	Installation string
	// WatchFilterValue limits the objects to those with that label cluster.x-k8s.io/watch-filter; empty means all.
	WatchFilterValue string
	// PollInterval is how often DPF is asked about what is under way; zero means DefaultPollInterval.
	PollInterval time.Duration
	// Sources of further requests, for example watches on DPF, besides polling.
	Sources []source.Source
	// Watches say whether those watches are to be relied on; nil means that there are none.
	Watches *scope.FabricWatches
	// Readings are shared with others who read the same fabrics; nil means nobody.
	Readings *dpfzt.Readings
}

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager, options controller.Options) error {
	if r.PollInterval == 0 {
		r.PollInterval = DefaultPollInterval
	}
	if r.Readings == nil {
		r.Readings = dpfzt.NewReadings(r.Clock, nil)
	}
	log := ctrl.LoggerFrom(ctx).WithValues("controller", "tenantvpc")
	b := ctrl.NewControllerManagedBy(mgr).
		For(&infrav1.TenantVPC{}).
		Named("tenantvpc").
		WithOptions(options).
		WithEventFilter(predicates.ResourceHasFilterLabel(mgr.GetScheme(), log, r.WatchFilterValue)).
		Watches(&infrav1.DPUAttachment{}, handler.EnqueueRequestsFromMapFunc(attachmentToTenantVPC), builder.WithPredicates(scope.AttachmentChanged())).
		Watches(&infrav1.DPUFabric{}, handler.EnqueueRequestsFromMapFunc(r.fabricToTenantVPCs))
	for _, s := range r.Sources {
		b = b.WatchesRawSource(s)
	}
	if err := b.Complete(r); err != nil {
		return fmt.Errorf("set up the controller of TenantVPCs: %w", err)
	}
	return nil
}

func attachmentToTenantVPC(_ context.Context, object client.Object) []reconcile.Request {
	attachment, ok := object.(*infrav1.DPUAttachment)
	if !ok || attachment.Spec.VPCName == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: client.ObjectKey{Namespace: attachment.Namespace, Name: attachment.Spec.VPCName}}}
}

func (r *Reconciler) fabricToTenantVPCs(ctx context.Context, fabric client.Object) []reconcile.Request {
	list := &infrav1.TenantVPCList{}
	if err := r.Client.List(ctx, list); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Unable to list the TenantVPCs of a changed fabric", "DPUFabric", fabric.GetName())
		return nil
	}
	var requests []reconcile.Request
	for i := range list.Items {
		if list.Items[i].Spec.FabricName == fabric.GetName() {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}

// Reconcile makes one pass.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (_ ctrl.Result, reterr error) {
	tenant := &infrav1.TenantVPC{}
	if err := r.Client.Get(ctx, req.NamespacedName, tenant); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if added, err := finalizers.EnsureFinalizer(ctx, r.Client, tenant, infrav1.TenantVPCFinalizer); err != nil || added {
		return ctrl.Result{}, err
	}
	if isPaused, requeue, err := paused.EnsurePausedCondition(ctx, r.Client, nil, tenant); err != nil || isPaused || requeue {
		return ctrl.Result{}, err
	}
	if !controllerutil.ContainsFinalizer(tenant, infrav1.TenantVPCFinalizer) {
		return ctrl.Result{}, nil
	}

	helper, err := patch.NewHelper(tenant, r.Client)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("prepare to report on TenantVPC %s: %w", req, err)
	}
	defer func() {
		if err := helper.Patch(ctx, tenant, patch.WithOwnedConditions{Conditions: ownedConditions}); err != nil {
			reterr = kerrors.NewAggregate([]error{reterr, client.IgnoreNotFound(err)})
		}
	}()
	return r.reconcile(ctx, tenant)
}

// look observes and plans. Fresh takes no reading from before this pass.
func (r *Reconciler) look(ctx context.Context, tenant *infrav1.TenantVPC, fresh bool) (*scope.Fabric, *observation, decision, error) {
	fabric, seen, err := r.observe(ctx, tenant, fresh)
	if err != nil {
		return nil, nil, decision{}, err
	}
	return fabric, seen, plan(seen), nil
}

func (r *Reconciler) reconcile(ctx context.Context, tenant *infrav1.TenantVPC) (ctrl.Result, error) {
	steady := tenant.DeletionTimestamp.IsZero() && conditions.IsTrue(tenant, infrav1.ReadyCondition)
	fabric, seen, decided, err := r.look(ctx, tenant, !steady)
	if err == nil && seen.shared && (decided.step != nil || decided.done) {
		// Nothing is made or deleted by what was read for others, before this pass.
		fabric, seen, decided, err = r.look(ctx, tenant, true)
	}
	if unusable, ok := scope.AsUnusable(err); ok {
		return r.unusable(ctx, tenant, unusable)
	}
	if err != nil {
		return ctrl.Result{}, err
	}

	if decided.step != nil && decided.step.verb == create && tenant.Annotations[infrav1.TenantVPCMadeAnnotation] == "" {
		// Stored before anything is made: without it a fabric that cannot be asked is taken for one that has nothing of ours.
		metav1.SetMetaDataAnnotation(&tenant.ObjectMeta, infrav1.TenantVPCMadeAnnotation, seen.place.VPCName(tenant))
		decided.step = nil
		report(tenant, seen, decided)
		return ctrl.Result{RequeueAfter: nextStep}, nil
	}
	report(tenant, seen, decided)
	switch {
	case decided.done:
		controllerutil.RemoveFinalizer(tenant, infrav1.TenantVPCFinalizer)
		return ctrl.Result{}, nil
	case decided.step != nil:
		if err := r.act(ctx, fabric, tenant, decided.step); err != nil {
			if unusable, ok := scope.AsUnusable(err); ok {
				return r.unusable(ctx, tenant, unusable)
			}
			return ctrl.Result{}, err
		}
		if decided.step.verb == restore {
			// Whoever edits it may do so again, and is not to be raced.
			return ctrl.Result{RequeueAfter: r.PollInterval}, nil
		}
		return ctrl.Result{RequeueAfter: nextStep}, nil
	case decided.settled() && networksReady(tenant) && !r.Watches.CoversAll(tenant.Spec.FabricName):
		return ctrl.Result{RequeueAfter: unwatchedInterval}, nil
	case decided.settled() && networksReady(tenant):
		return ctrl.Result{RequeueAfter: steadyInterval}, nil
	case r.Watches.CoversAll(tenant.Spec.FabricName):
		return ctrl.Result{RequeueAfter: watchedIntervals * r.PollInterval}, nil
	default:
		return ctrl.Result{RequeueAfter: r.PollInterval}, nil
	}
}

// unusable reports a fabric that cannot be asked. A TenantVPC that never made anything on one goes when it is deleted.
func (r *Reconciler) unusable(ctx context.Context, tenant *infrav1.TenantVPC, unusable *scope.UnusableError) (ctrl.Result, error) {
	reportUnusable(tenant, unusable)
	if tenant.DeletionTimestamp.IsZero() || madeSomething(tenant) {
		return ctrl.Result{RequeueAfter: 2 * r.PollInterval}, nil
	}
	// Only the API server itself knows that the annotation was never written.
	now := &infrav1.TenantVPC{}
	if err := r.APIReader.Get(ctx, client.ObjectKeyFromObject(tenant), now); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if madeSomething(now) {
		return ctrl.Result{RequeueAfter: 2 * r.PollInterval}, nil
	}
	controllerutil.RemoveFinalizer(tenant, infrav1.TenantVPCFinalizer)
	return ctrl.Result{}, nil
}

// madeSomething says whether anything can be on the fabric for the TenantVPC.
func madeSomething(tenant *infrav1.TenantVPC) bool {
	return tenant.Annotations[infrav1.TenantVPCMadeAnnotation] != "" || tenant.Status.VPCName != ""
}
