// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package maasmachinetemplate says what a machine made from a template would offer at least, so that cluster-autoscaler can scale
// a group of machines from zero. It changes nothing in MAAS, and asks it the same few questions however many templates there are.
package maasmachinetemplate

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/predicates"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
)

const (
	defaultPollInterval  = 5 * time.Second
	defaultAuditInterval = 10 * time.Minute
	// impatience is how much oftener servers are looked for while none matches.
	impatience = 5
)

// Reconciler reconciles MaasMachineTemplates.
type Reconciler struct {
	// Client reads from the cache and writes.
	Client client.Client
	// Scope turns identities into clients.
	Scope scope.Identities
	// WatchFilterValue restricts the templates to those with that watch label.
	WatchFilterValue string
	// PollInterval bounds how often MAAS is asked. Default 5 s.
	PollInterval time.Duration
	// AuditInterval is how often the servers of an account are listed. Default 10 min.
	AuditInterval time.Duration

	once sync.Once
}

func (r *Reconciler) complete() {
	r.PollInterval = cmp.Or(r.PollInterval, defaultPollInterval)
	r.AuditInterval = cmp.Or(r.AuditInterval, defaultAuditInterval)
}

// SetupWithManager adds the controller to the manager.
func (r *Reconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager, options controller.Options) error {
	r.once.Do(r.complete)
	if err := ctx.Err(); err != nil {
		return err
	}
	log := mgr.GetLogger().WithValues("controller", "maasmachinetemplate")
	err := ctrl.NewControllerManagedBy(mgr).
		Named("maasmachinetemplate").
		For(&infrav1.MaasMachineTemplate{}, builder.WithPredicates(
			predicates.ResourceHasFilterLabel(mgr.GetScheme(), log, r.WatchFilterValue), templateChanged())).
		WithOptions(options).
		Watches(&clusterv1.Cluster{}, handler.EnqueueRequestsFromMapFunc(r.templatesOfCluster), builder.WithPredicates(clusterChanged())).
		Watches(&infrav1.MaasCluster{}, handler.EnqueueRequestsFromMapFunc(r.templatesOfMaasCluster),
			builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&infrav1.MaasClusterIdentity{}, handler.EnqueueRequestsFromMapFunc(r.templatesOfIdentity), builder.WithPredicates(identityChanged())).
		Complete(r)
	if err != nil {
		return fmt.Errorf("add the controller of MaasMachineTemplates: %w", err)
	}
	return nil
}
