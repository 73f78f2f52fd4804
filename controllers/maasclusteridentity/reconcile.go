// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasclusteridentity

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/cluster-api/util/finalizers"
	"sigs.k8s.io/cluster-api/util/labels"
	"sigs.k8s.io/cluster-api/util/patch"
	"sigs.k8s.io/cluster-api/util/paused"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

const passTimeout = 2 * time.Minute

// Reconcile tries one identity and reports what it holds.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, passTimeout)
	defer cancel()
	r.once.Do(r.complete)
	object := &infrav1.MaasClusterIdentity{}
	if err := r.Client.Get(ctx, request.NamespacedName, object); err != nil {
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
	patcher, err := patch.NewHelper(object, r.Client)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("prepare the patch of MaasClusterIdentity: %w", err)
	}
	observation, err := r.observe(ctx, object)
	if err != nil {
		return ctrl.Result{}, err
	}
	step := decide(observation)
	if step.DropFinalizer {
		controllerutil.RemoveFinalizer(object, infrav1.MaasClusterIdentityFinalizer)
		return ctrl.Result{}, client.IgnoreNotFound(patcher.Patch(ctx, object))
	}
	was := conditions.Get(object, infrav1.ReadyCondition)
	report(object, observation, step)
	r.tell(object, was, step)
	if err := patcher.Patch(ctx, object, patch.WithOwnedConditions{Conditions: ownedConditions}); client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, err
	}
	if step.Ready.Status != metav1.ConditionTrue {
		return ctrl.Result{RequeueAfter: jitter(r.PollInterval)}, nil
	}
	return ctrl.Result{RequeueAfter: jitter(recheck)}, nil
}

// tell records an event when the identity becomes usable or ceases to be.
func (r *Reconciler) tell(object *infrav1.MaasClusterIdentity, was *metav1.Condition, step Step) {
	if r.Recorder == nil || was != nil && was.Status == step.Ready.Status && was.Reason == step.Ready.Reason {
		return
	}
	kind, note := corev1.EventTypeWarning, step.Ready.Message
	if step.Ready.Status == metav1.ConditionTrue {
		kind, note = corev1.EventTypeNormal, "The MAAS account can be used"
	}
	r.Recorder.Eventf(object, nil, kind, step.Ready.Reason, "Try", "%s", note)
}

func jitter(d time.Duration) time.Duration {
	return d + time.Duration(rand.Float64()*0.2*float64(d))
}
