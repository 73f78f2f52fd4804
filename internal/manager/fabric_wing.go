// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"fmt"

	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/dpuattachment"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/dpufabric"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/dpuserver"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/tenantvpc"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/metrics"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/webhooks"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt"
)

// setupFabricWing adds what attaches and detaches DPU ports and proves it.
func setupFabricWing(ctx context.Context, mgr ctrl.Manager, options *Options) error {
	installation, err := options.installation(ctx, mgr.GetAPIReader())
	if err != nil {
		return err
	}
	fabrics := scope.NewFabrics(scope.FabricsOptions{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Namespace: options.WingNamespace, Installation: installation,
		Clock: clock.RealClock{}, ObserveMaas: metrics.ObserveMAAS, Observe: metrics.ObserveFabric, ObservePosture: metrics.ObservePosture,
		ObserveOVN:   metrics.ObserveOVN,
		PollInterval: options.PollInterval, AuditInterval: options.AuditInterval,
	})
	if err := mgr.Add(fabrics.Poller()); err != nil {
		return fmt.Errorf("add the poller of claims: %w", err)
	}
	watches, readings, err := addWatches(ctx, mgr, fabrics, installation)
	if err != nil {
		return err
	}
	claims := source.Channel(fabrics.Wakes(), &handler.EnqueueRequestForObject{})
	if err := ctrlmetrics.Registry.Register(metrics.NewFabricInventory(mgr.GetClient())); err != nil {
		return fmt.Errorf("register the metrics of fabrics: %w", err)
	}
	if err := (&dpufabric.Reconciler{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Fabrics: fabrics, Recorder: mgr.GetEventRecorder(options.name()),
		Clock: clock.RealClock{}, Installation: installation, WatchFilterValue: options.WatchFilterValue, PollInterval: options.PollInterval,
		Watches: watches,
	}).SetupWithManager(ctx, mgr, options.controllerOptions()); err != nil {
		return err
	}
	if err := (&tenantvpc.Reconciler{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Fabrics: fabrics, Recorder: mgr.GetEventRecorder(options.name()),
		Clock: clock.RealClock{}, Installation: installation, WatchFilterValue: options.WatchFilterValue, PollInterval: options.PollInterval,
		Sources: []source.Source{watches.TenantVPCs()}, Watches: watches, Readings: readings,
	}).SetupWithManager(ctx, mgr, options.controllerOptions()); err != nil {
		return err
	}
	if err := (&dpuserver.Reconciler{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Fabrics: fabrics, Recorder: mgr.GetEventRecorder(options.name()),
		Clock: clock.RealClock{}, Installation: installation, WatchFilterValue: options.WatchFilterValue, PollInterval: options.PollInterval,
		Sources: []source.Source{watches.DPUFabrics()}, Readings: readings,
	}).SetupWithManager(ctx, mgr, options.controllerOptions()); err != nil {
		return err
	}
	if err := (&dpuattachment.Reconciler{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Fabrics: fabrics, Recorder: mgr.GetEventRecorder(options.name()),
		Clock: clock.RealClock{}, Installation: installation, WatchFilterValue: options.WatchFilterValue, PollInterval: options.PollInterval,
		Sources: []source.Source{claims, watches.Attachments()}, Watches: watches, Readings: readings,
	}).SetupWithManager(ctx, mgr, options.controllerOptions()); err != nil {
		return err
	}
	if options.WebhookPort == 0 {
		return nil
	}
	return webhooks.SetupFabricWing(mgr, webhooks.Options{})
}

// addWatches adds the watches on DPF and DPU clusters, and what is read of them for all controllers.
func addWatches(ctx context.Context, mgr ctrl.Manager, fabrics scope.Fabrics, installation string) (*scope.FabricWatches, *dpfzt.Readings, error) {
	if err := scope.IndexFabricWatches(ctx, mgr.GetFieldIndexer()); err != nil {
		return nil, nil, err
	}
	watches := scope.NewFabricWatches(scope.FabricWatchesOptions{
		Fabrics: fabrics, Client: mgr.GetClient(), Installation: installation, Observe: metrics.ObserveFabricWatch,
	})
	if err := mgr.Add(watches); err != nil {
		return nil, nil, fmt.Errorf("add the watches on fabrics: %w", err)
	}
	return watches, dpfzt.NewReadings(clock.RealClock{}, watches.NodesLapsed), nil
}
