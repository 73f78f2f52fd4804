// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"fmt"

	"k8s.io/utils/clock"
	"sigs.k8s.io/cluster-api/controllers/clustercache"
	"sigs.k8s.io/cluster-api/controllers/remote"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/maascluster"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/maasclusteridentity"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/maasmachine"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/maasmachinetemplate"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/metrics"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/webhooks"
)

// setupMachineWing adds what claims, deploys and releases servers.
func setupMachineWing(ctx context.Context, mgr ctrl.Manager, options *Options) error {
	identities := scope.NewIdentities(scope.IdentityOptions{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Namespace: options.WingNamespace,
		PollInterval: options.PollInterval, Clock: clock.RealClock{}, Observe: metrics.ObserveMAAS,
		ObserveReading: metrics.SharedReading, ObserveFallback: metrics.FeedFallback, Forgotten: metrics.ForgetIdentity,
	})
	if err := mgr.Add(identities.Poller()); err != nil {
		return fmt.Errorf("add the poller of MAAS: %w", err)
	}
	if err := ctrlmetrics.Registry.Register(metrics.NewInventory(mgr.GetClient())); err != nil {
		return fmt.Errorf("register the metrics of identities: %w", err)
	}
	clusters, err := clusterCache(ctx, mgr, options)
	if err != nil {
		return err
	}
	if err := (&maasclusteridentity.Reconciler{
		Client: mgr.GetClient(), Scope: identities, Recorder: mgr.GetEventRecorder(options.name()),
		Clock: clock.RealClock{}, WatchFilterValue: options.WatchFilterValue,
		PollInterval: options.PollInterval, AuditInterval: options.AuditInterval,
	}).SetupWithManager(ctx, mgr, options.controllerOptions()); err != nil {
		return err
	}
	if err := (&maascluster.Reconciler{
		Client: mgr.GetClient(), Scope: identities, Recorder: mgr.GetEventRecorder(options.name()),
		WatchFilterValue: options.WatchFilterValue, PollInterval: options.PollInterval,
	}).SetupWithManager(ctx, mgr, options.controllerOptions()); err != nil {
		return err
	}
	if err := (&maasmachine.Reconciler{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Scope: identities, ClusterCache: clusters,
		Recorder: mgr.GetEventRecorder(options.name()), Clock: clock.RealClock{}, WatchFilterValue: options.WatchFilterValue,
		PollInterval: options.PollInterval, AuditInterval: options.AuditInterval, ServiceAccount: options.WingNamespace + ":" + options.name(),
		PassesPerIdentity: max(options.Concurrency/4, 1),
	}).SetupWithManager(ctx, mgr, options.controllerOptions()); err != nil {
		return err
	}
	if err := (&maasmachinetemplate.Reconciler{
		Client: mgr.GetClient(), Scope: identities, WatchFilterValue: options.WatchFilterValue,
		PollInterval: options.PollInterval, AuditInterval: options.AuditInterval,
	}).SetupWithManager(ctx, mgr, options.controllerOptions()); err != nil {
		return err
	}
	if options.WebhookPort == 0 {
		return nil
	}
	return webhooks.SetupMachineWing(mgr, webhooks.Options{})
}

// clusterCache connects to workload clusters, for the addresses of Nodes alone. It reads each kubeconfig Secret past the
// cache, with the right the tenant's namespace grants by its RoleBinding.
func clusterCache(ctx context.Context, mgr ctrl.Manager, options *Options) (clustercache.ClusterCache, error) {
	return clustercache.SetupWithManager(ctx, mgr, clustercache.Options{
		SecretClient:     mgr.GetAPIReader(),
		WatchFilterValue: options.WatchFilterValue,
		Cache: clustercache.CacheOptions{
			DefaultTransform: cache.TransformStripManagedFields(),
			Indexes:          []clustercache.CacheOptionsIndex{clustercache.NodeProviderIDIndex},
		},
		Client: clustercache.ClientOptions{
			QPS: options.ClusterCacheQPS, Burst: options.ClusterCacheBurst, UserAgent: remote.DefaultClusterAPIUserAgent(options.name()),
		},
	}, controller.Options{MaxConcurrentReconciles: options.ClusterCacheConcurrency})
}
