// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maascluster

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	clusterctlv1 "sigs.k8s.io/cluster-api/cmd/clusterctl/api/v1alpha3"
	"sigs.k8s.io/cluster-api/util"
	"sigs.k8s.io/cluster-api/util/annotations"
	"sigs.k8s.io/cluster-api/util/finalizers"
	"sigs.k8s.io/cluster-api/util/labels"
	"sigs.k8s.io/cluster-api/util/patch"
	"sigs.k8s.io/cluster-api/util/paused"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

const passTimeout = time.Minute

// Reconcile looks at one cluster and says what it lacks.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, passTimeout)
	defer cancel()
	r.once.Do(r.complete)
	object := &infrav1.MaasCluster{}
	if err := r.Client.Get(ctx, request.NamespacedName, object); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !r.ours(object) {
		return ctrl.Result{}, nil
	}
	cluster, err := util.GetOwnerCluster(ctx, r.Client, object.ObjectMeta)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("read the Cluster of MaasCluster: %w", err)
	}
	if err != nil {
		cluster = nil
	}
	if cluster != nil {
		ctx = ctrl.LoggerInto(ctx, ctrl.LoggerFrom(ctx).WithValues("Cluster", client.ObjectKeyFromObject(cluster)))
	}
	if added, err := finalizers.EnsureFinalizer(ctx, r.Client, object, infrav1.MaasClusterFinalizer); added || err != nil {
		return ctrl.Result{}, err
	}
	if stop, requeue, err := paused.EnsurePausedCondition(ctx, r.Client, cluster, object); stop || requeue || err != nil {
		return ctrl.Result{}, err
	}
	return r.run(ctx, object, cluster)
}

func (r *Reconciler) ours(object *infrav1.MaasCluster) bool {
	if r.WatchFilterValue != "" && !labels.HasWatchLabel(object, r.WatchFilterValue) {
		return false
	}
	_, moved := object.Annotations[clusterctlv1.DeleteForMoveAnnotation]
	return !moved && !annotations.IsExternallyManaged(object)
}

func (r *Reconciler) run(ctx context.Context, object *infrav1.MaasCluster, cluster *clusterv1.Cluster) (ctrl.Result, error) {
	patcher, err := patch.NewHelper(object, r.Client)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("prepare the patch of MaasCluster: %w", err)
	}
	observation, err := r.observe(ctx, object, cluster)
	if err != nil {
		return ctrl.Result{}, err
	}
	step := decide(observation)
	if step.DropFinalizer {
		controllerutil.RemoveFinalizer(object, infrav1.MaasClusterFinalizer)
		return ctrl.Result{}, client.IgnoreNotFound(patcher.Patch(ctx, object))
	}
	was := object.Status.Initialization.Provisioned
	report(object, step)
	if r.Recorder != nil && was == nil && object.Status.Initialization.Provisioned != nil {
		r.Recorder.Eventf(object, nil, corev1.EventTypeNormal, infrav1.ReadyReason, "Provision", "The cluster's infrastructure is ready")
	}
	if err := patcher.Patch(ctx, object, patch.WithOwnedConditions{Conditions: ownedConditions}); client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, err
	}
	if step.Ready.Status != metav1.ConditionTrue {
		return ctrl.Result{RequeueAfter: 2 * r.PollInterval}, nil
	}
	return ctrl.Result{}, nil
}

// objectMeta is what util.GetClusterFromMetadata reads.
func objectMeta(object client.Object) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: object.GetNamespace(), Labels: object.GetLabels()}
}
