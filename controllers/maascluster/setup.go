// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package maascluster says whether a cluster has what its machines need: an identity, an endpoint that can be reached, zones
// and a TenantVPC. It makes nothing outside; it only keeps a MaasCluster until its machines are gone.
package maascluster

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/client-go/tools/events"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util"
	"sigs.k8s.io/cluster-api/util/predicates"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
)

const defaultPollInterval = 5 * time.Second

// Reconciler reconciles MaasClusters.
type Reconciler struct {
	// Client reads from the cache and writes.
	Client client.Client
	// Scope turns identities into clients.
	Scope scope.Identities
	// Recorder tells people of transitions. May be nil.
	Recorder events.EventRecorder
	// WatchFilterValue restricts the clusters to those with that watch label.
	WatchFilterValue string
	// PollInterval is how often something that wakes nobody is looked at again. Default 5 s.
	PollInterval time.Duration

	once sync.Once
}

func (r *Reconciler) complete() { r.PollInterval = cmp.Or(r.PollInterval, defaultPollInterval) }

// SetupWithManager adds the controller to the manager.
func (r *Reconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager, options controller.Options) error {
	r.once.Do(r.complete)
	if err := ctx.Err(); err != nil {
		return err
	}
	log := mgr.GetLogger().WithValues("controller", "maascluster")
	kind := infrav1.GroupVersion.WithKind("MaasCluster")
	err := ctrl.NewControllerManagedBy(mgr).
		Named("maascluster").
		For(&infrav1.MaasCluster{}, builder.WithPredicates(
			predicates.ResourceHasFilterLabel(mgr.GetScheme(), log, r.WatchFilterValue),
			predicates.ResourceIsNotExternallyManaged(mgr.GetScheme(), log))).
		WithOptions(options).
		Watches(&clusterv1.Cluster{},
			handler.EnqueueRequestsFromMapFunc(util.ClusterToInfrastructureMapFunc(ctx, kind, mgr.GetClient(), &infrav1.MaasCluster{})),
			builder.WithPredicates(predicates.ResourceHasFilterLabel(mgr.GetScheme(), log, r.WatchFilterValue))).
		Watches(&infrav1.MaasMachine{}, handler.EnqueueRequestsFromMapFunc(r.clusterOfMachine)).
		Watches(&infrav1.TenantVPC{}, handler.EnqueueRequestsFromMapFunc(r.clustersOfVPC)).
		Watches(&infrav1.MaasClusterIdentity{}, handler.EnqueueRequestsFromMapFunc(r.clustersOfIdentity)).
		Complete(r)
	if err != nil {
		return fmt.Errorf("add the controller of MaasClusters: %w", err)
	}
	return nil
}

// clusterOfMachine wakes a cluster that waits for its last machine to go.
func (r *Reconciler) clusterOfMachine(ctx context.Context, object client.Object) []ctrl.Request {
	if object.GetDeletionTimestamp().IsZero() {
		return nil
	}
	cluster, err := util.GetClusterFromMetadata(ctx, r.Client, objectMeta(object))
	if err != nil || !cluster.Spec.InfrastructureRef.IsDefined() {
		return nil
	}
	return []ctrl.Request{{NamespacedName: client.ObjectKey{Namespace: cluster.Namespace, Name: cluster.Spec.InfrastructureRef.Name}}}
}

func (r *Reconciler) clustersOfVPC(ctx context.Context, object client.Object) []ctrl.Request {
	return r.clusters(ctx, func(c *infrav1.MaasCluster) bool {
		return c.Namespace == object.GetNamespace() && c.Spec.VPCName == object.GetName()
	}, client.InNamespace(object.GetNamespace()))
}

func (r *Reconciler) clustersOfIdentity(ctx context.Context, object client.Object) []ctrl.Request {
	return r.clusters(ctx, func(c *infrav1.MaasCluster) bool { return c.Spec.IdentityRef.Name == object.GetName() })
}

func (r *Reconciler) clusters(ctx context.Context, wanted func(*infrav1.MaasCluster) bool, options ...client.ListOption) []ctrl.Request {
	list := &infrav1.MaasClusterList{}
	if err := r.Client.List(ctx, list, options...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Cannot list MaasClusters")
		return nil
	}
	var requests []ctrl.Request
	for i := range list.Items {
		if wanted(&list.Items[i]) {
			requests = append(requests, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}
