// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package dpuattachment takes a server's DPU ports into a tenant's VPC and out of it again, and proves both.
//
// A pass observes MAAS, DPF and the DPU cluster, plans one write at most, makes it, and reports. What was read is the truth;
// the object remembers only what nobody else can tell: that something was written, and what the Node was like before.
package dpuattachment

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
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
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/metrics"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt"
)

const (
	// DefaultPollInterval is how often DPF is asked about what is under way.
	DefaultPollInterval = 5 * time.Second
	// refusedIntervals is how many poll intervals pass before what only people can change is looked at again.
	refusedIntervals = 6
	// proofsPerMaxAge is how often a proof is renewed within its greatest age.
	proofsPerMaxAge = 3
	// steadyInterval is how often a steady attachment is looked at at least: there are changes that no watch shows.
	steadyInterval = time.Minute
	// unwatchedInterval is the same where the fabric is not watched.
	unwatchedInterval = 45 * time.Second
	// watchedIntervals is how many poll intervals pass before what is under way is looked at although no watch tells of a change.
	watchedIntervals = 3
	// nextPass follows at once.
	nextPass = time.Millisecond
	// passTimeout bounds everything one pass asks of others.
	passTimeout = 45 * time.Second
)

// Reconciler reconciles DPUAttachments.
type Reconciler struct {
	// Client reads from the cache and writes to the management cluster.
	Client client.Client
	// APIReader reads the objects that stand behind a claim uncached: what they say is evidence.
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
	// Sources of further requests, for example watches on DPF and DPU clusters, besides polling.
	Sources []source.Source
	// Watches say whether those watches are to be relied on; nil means that there are none.
	Watches *scope.FabricWatches
	// Readings are shared with others who read the same fabrics; nil means nobody.
	Readings *dpfzt.Readings

	labelPlaces   *dpfzt.LabelPlaces
	confirmations confirmations
	progresses    progresses
}

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager, options controller.Options) error {
	r.setDefaults()
	if err := mgr.GetFieldIndexer().IndexField(ctx, &infrav1.DPUAttachment{}, serverIndex, byServer); err != nil {
		return fmt.Errorf("index DPUAttachments by server: %w", err)
	}
	log := ctrl.LoggerFrom(ctx).WithValues("controller", "dpuattachment")
	// A pass writes the times of its proofs: without this it would cause the next pass.
	asked := predicate.Or[client.Object](predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}, predicate.LabelChangedPredicate{})
	b := ctrl.NewControllerManagedBy(mgr).
		For(&infrav1.DPUAttachment{}, builder.WithPredicates(asked)).
		Named("dpuattachment").
		WithOptions(options).
		WithEventFilter(predicates.ResourceHasFilterLabel(mgr.GetScheme(), log, r.WatchFilterValue)).
		Watches(&infrav1.TenantVPC{}, handler.EnqueueRequestsFromMapFunc(r.fromTenantVPC)).
		Watches(&infrav1.DPUFabric{}, handler.EnqueueRequestsFromMapFunc(r.fromFabric), builder.WithPredicates(predicate.GenerationChangedPredicate{}))
	for _, s := range r.Sources {
		b = b.WatchesRawSource(s)
	}
	if err := b.Complete(r); err != nil {
		return fmt.Errorf("set up the controller of DPUAttachments: %w", err)
	}
	return nil
}

// serverIndex finds the attachments of a server among thousands.
const serverIndex = scope.AttachmentServerIndex

func byServer(object client.Object) []string { return scope.AttachmentServer(object) }

func (r *Reconciler) setDefaults() {
	if r.PollInterval == 0 {
		r.PollInterval = DefaultPollInterval
	}
	if r.labelPlaces == nil {
		r.labelPlaces = dpfzt.NewLabelPlaces(r.Clock)
	}
	if r.Readings == nil {
		r.Readings = dpfzt.NewReadings(r.Clock, nil)
	}
}

// fromTenantVPC asks again for the attachments that may wait for the TenantVPC; steady ones are left alone.
func (r *Reconciler) fromTenantVPC(ctx context.Context, tenant client.Object) []reconcile.Request {
	return r.requests(ctx, func(a *infrav1.DPUAttachment) bool {
		return a.Spec.VPCName == tenant.GetName() && a.Status.State == ""
	}, client.InNamespace(tenant.GetNamespace()))
}

// fromFabric asks again for all attachments of a fabric whose spec changed.
func (r *Reconciler) fromFabric(ctx context.Context, object client.Object) []reconcile.Request {
	fabric, ok := object.(*infrav1.DPUFabric)
	if !ok {
		return nil
	}
	sources := map[string]bool{}
	for _, s := range fabric.Spec.ClaimSources {
		sources[s.Name] = true
	}
	return r.requests(ctx, func(a *infrav1.DPUAttachment) bool {
		return sources[a.Spec.Server.Source] || a.Status.FabricName == fabric.Name
	})
}

func (r *Reconciler) requests(ctx context.Context, wanted func(*infrav1.DPUAttachment) bool, options ...client.ListOption) []reconcile.Request {
	list := &infrav1.DPUAttachmentList{}
	if err := r.Client.List(ctx, list, options...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Unable to list DPUAttachments")
		return nil
	}
	var requests []reconcile.Request
	for i := range list.Items {
		if wanted(&list.Items[i]) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}

// Reconcile makes one pass.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, passTimeout)
	defer cancel()
	attachment := &infrav1.DPUAttachment{}
	if err := r.Client.Get(ctx, req.NamespacedName, attachment); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if added, err := finalizers.EnsureFinalizer(ctx, r.Client, attachment, infrav1.DPUAttachmentFinalizer); err != nil || added {
		return ctrl.Result{RequeueAfter: nextPass}, err
	}
	isPaused, requeue, err := paused.EnsurePausedCondition(ctx, r.Client, nil, attachment)
	switch {
	case err != nil, isPaused:
		return ctrl.Result{}, err
	case requeue:
		return ctrl.Result{RequeueAfter: nextPass}, nil
	case !controllerutil.ContainsFinalizer(attachment, infrav1.DPUAttachmentFinalizer):
		// Deleted before anything was done, or done with.
		return ctrl.Result{}, nil
	}
	return r.pass(ctx, attachment)
}

// look observes and decides. Fresh takes no reading from before this pass.
func (r *Reconciler) look(ctx context.Context, attachment *infrav1.DPUAttachment, fresh bool) (*observation, decision, error) {
	seen, err := r.observe(ctx, attachment, fresh)
	if err != nil {
		return nil, decision{}, err
	}
	decided := decide(seen)
	if decided.needsClaim {
		r.observeClaim(ctx, seen)
		decided = decide(seen)
	}
	if decided.needsDevices {
		r.observeDevices(ctx, seen)
		decided = decide(seen)
	}
	return seen, decided, nil
}

func (r *Reconciler) pass(ctx context.Context, attachment *infrav1.DPUAttachment) (ctrl.Result, error) {
	seen, decided, err := r.look(ctx, attachment, false)
	if err == nil && (decided.write != nil || decided.raise != nil) && seen.shared {
		// What was read for others, before this pass, is not acted on.
		seen, decided, err = r.look(ctx, attachment, true)
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	// The memory is stored before the write it remembers.
	switch err := r.storeMemory(ctx, attachment, decided.memory); {
	case apierrors.IsConflict(err):
		return ctrl.Result{RequeueAfter: r.PollInterval}, nil
	case err != nil:
		return ctrl.Result{}, err
	}
	helper, err := patch.NewHelper(attachment, r.Client)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("prepare to report on DPUAttachment %s/%s: %w", attachment.Namespace, attachment.Name, err)
	}
	loss := seen.losesClaim()
	result, err := r.act(ctx, seen, &decided)
	if err != nil {
		return result, err
	}
	r.keepProgress(attachment, decided)
	r.announcePosture(seen, decided)
	report(seen, decided)
	r.announce(seen, decided)
	if err := helper.Patch(ctx, attachment, patch.WithOwnedConditions{Conditions: ownedConditions}); err != nil {
		return result, client.IgnoreNotFound(err)
	}
	if loss {
		metrics.ClaimLost(attachment.Spec.Server.Source)
	}
	if !decided.finalize {
		return result, nil
	}
	// The proof is in the status before the object goes: nobody has to take its absence for one.
	before := attachment.DeepCopy()
	controllerutil.RemoveFinalizer(attachment, infrav1.DPUAttachmentFinalizer)
	return result, client.IgnoreNotFound(r.Client.Patch(ctx, attachment, client.MergeFrom(before)))
}
