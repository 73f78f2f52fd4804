// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasclusteridentity

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/finalizers"
	"sigs.k8s.io/cluster-api/util/labels"
	"sigs.k8s.io/cluster-api/util/paused"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

const (
	passTimeout = 2 * time.Minute
	// staleRetry is how long the cache is given to catch up with a write of ours.
	staleRetry = 50 * time.Millisecond
)

// Reconcile tries one identity and reports what it holds.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, passTimeout)
	defer cancel()
	r.once.Do(r.complete)
	object := &infrav1.MaasClusterIdentity{}
	if err := r.Client.Get(ctx, request.NamespacedName, object); err != nil {
		if apierrors.IsNotFound(err) {
			r.accounts.Delete(request.Name)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if r.WatchFilterValue != "" && !labels.HasWatchLabel(object, r.WatchFilterValue) {
		return ctrl.Result{}, nil
	}
	if added, err := finalizers.EnsureFinalizer(ctx, r.Client, object, infrav1.MaasClusterIdentityFinalizer); added || err != nil {
		return ctrl.Result{}, err
	}
	if stop, requeue, err := paused.EnsurePausedCondition(ctx, r.Client, nil, object); stop || requeue || err != nil {
		return ctrl.Result{}, err
	}
	observation, err := r.observe(ctx, object)
	if err != nil {
		return ctrl.Result{}, err
	}
	step := decide(object, observation)
	before := object.DeepCopy()
	if step.DropFinalizer {
		controllerutil.RemoveFinalizer(object, infrav1.MaasClusterIdentityFinalizer)
		return ctrl.Result{}, client.IgnoreNotFound(r.Client.Patch(ctx, object, client.MergeFrom(before)))
	}
	report(object, observation, step)
	if err := r.store(ctx, before, object); err != nil {
		if apierrors.IsConflict(err) {
			// The cache was behind: what was decided is decided again on the newest version.
			return ctrl.Result{RequeueAfter: jitter(staleRetry)}, nil
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	r.tell(before, object)
	return ctrl.Result{RequeueAfter: r.after(object, observation, step)}, nil
}

// store writes the status as one, against the version it was decided on: written over a newer one it would forget what that
// listed, and machines rely on what is listed.
func (r *Reconciler) store(ctx context.Context, before, object *infrav1.MaasClusterIdentity) error {
	if equality.Semantic.DeepEqual(before.Status, object.Status) {
		return nil
	}
	if err := r.Client.Status().Patch(ctx, object, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("store the status of MaasClusterIdentity: %w", err)
	}
	return nil
}

// after is when something changes that wakes nobody.
func (r *Reconciler) after(object *infrav1.MaasClusterIdentity, o Observation, step Step) time.Duration {
	if step.Ready.Status != metav1.ConditionTrue || o.Unanswered {
		return jitter(r.PollInterval)
	}
	next := jitter(r.round())
	for _, held := range o.Held {
		if held.Reason == infrav1.HeldReason {
			next = min(next, jitter(r.PollInterval)) // Its machine is about to write the reason to MAAS.
		}
	}
	_, leaves := heldLately(object.Spec.CircuitBreaker, o.Held, o.Now)
	for _, at := range []time.Time{o.Due, leaves} {
		if !at.IsZero() {
			next = min(next, max(at.Sub(o.Now), 0)+time.Millisecond)
		}
	}
	return next
}

func jitter(d time.Duration) time.Duration {
	return d + time.Duration(rand.Float64()*0.2*float64(d))
}
