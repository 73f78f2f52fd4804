// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachinetemplate

import (
	"context"
	"fmt"
	"time"

	clusterctlv1 "sigs.k8s.io/cluster-api/cmd/clusterctl/api/v1alpha3"
	"sigs.k8s.io/cluster-api/util"
	"sigs.k8s.io/cluster-api/util/labels"
	"sigs.k8s.io/cluster-api/util/patch"
	"sigs.k8s.io/cluster-api/util/paused"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// passTimeout is longer than MAAS takes to list some thousand servers.
const passTimeout = 3 * time.Minute

// Reconcile says what the servers that match one template offer.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, passTimeout)
	defer cancel()
	r.once.Do(r.complete)
	template := &infrav1.MaasMachineTemplate{}
	if err := r.Client.Get(ctx, request.NamespacedName, template); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !r.ours(template) {
		return ctrl.Result{}, nil
	}
	cluster, err := util.GetOwnerCluster(ctx, r.Client, template.ObjectMeta)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("read the Cluster of MaasMachineTemplate: %w", err)
	}
	if err != nil {
		cluster = nil
	}
	if cluster != nil {
		ctx = ctrl.LoggerInto(ctx, ctrl.LoggerFrom(ctx).WithValues("Cluster", client.ObjectKeyFromObject(cluster)))
	}
	// This controller does not come back because of what it wrote itself: what the helper says of that is not needed.
	if stop, _, err := paused.EnsurePausedCondition(ctx, r.Client, cluster, template); stop || err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	patcher, err := patch.NewHelper(template, r.Client)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("prepare the patch of MaasMachineTemplate: %w", err)
	}
	observation, err := r.observe(ctx, template, cluster)
	if err != nil {
		return ctrl.Result{}, err
	}
	step := decide(&observation)
	report(template, &step)
	if err := patcher.Patch(ctx, template, patch.WithOwnedConditions{Conditions: ownedConditions}); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	return ctrl.Result{RequeueAfter: r.after(&step)}, nil
}

func (r *Reconciler) ours(template *infrav1.MaasMachineTemplate) bool {
	if r.WatchFilterValue != "" && !labels.HasWatchLabel(template, r.WatchFilterValue) {
		return false
	}
	_, moved := template.Annotations[clusterctlv1.DeleteForMoveAnnotation]
	return !moved && template.DeletionTimestamp.IsZero()
}

// after is when to look again, if nothing wakes the template before.
func (r *Reconciler) after(step *Step) time.Duration {
	if step.Soon {
		return r.soon()
	}
	return r.AuditInterval
}

func (r *Reconciler) soon() time.Duration { return max(r.AuditInterval/impatience, r.PollInterval) }
