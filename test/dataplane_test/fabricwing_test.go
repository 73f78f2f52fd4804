// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"context"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	requests "sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/dpuattachment"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/dpuserver"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/tenantvpc"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/fabriclab"
)

// wingPoll is how often the wing looks at what it is not told of.
const wingPoll = 100 * time.Millisecond

// startWing runs the fabric wing's controllers as one process would.
func (s *site) startWing(ctx context.Context) error {
	mgr, err := ctrl.NewManager(s.lab.HubConfig, ctrl.Options{
		Scheme: s.lab.Hub.Scheme(), Logger: logr.Discard(), Metrics: metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: ptr.To(true), UsePriorityQueue: ptr.To(false)}, NewClient: s.told.newClient,
	})
	if err != nil {
		return err
	}
	fabrics := scope.NewFabrics(scope.FabricsOptions{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Namespace: fabriclab.WingNamespace, Installation: installation,
		PollInterval: wingPoll, AuditInterval: time.Hour,
	})
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	if err := setUpWing(running, mgr, fabrics); err != nil {
		cancel()
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(running) }()
	s.stops = append(s.stops, func() error {
		cancel()
		return <-ended
	})
	return nil
}

func setUpWing(ctx context.Context, mgr ctrl.Manager, fabrics scope.Fabrics) error {
	if err := scope.IndexFabricWatches(ctx, mgr.GetFieldIndexer()); err != nil {
		return err
	}
	watches := scope.NewFabricWatches(scope.FabricWatchesOptions{Fabrics: fabrics, Client: mgr.GetClient(), Installation: installation})
	if err := mgr.Add(watches); err != nil {
		return err
	}
	if err := mgr.Add(fabrics.Poller()); err != nil {
		return err
	}
	var (
		real     = clock.RealClock{}
		readings = dpfzt.NewReadings(real, watches.NodesLapsed)
		claims   = requests.Channel(fabrics.Wakes(), &handler.EnqueueRequestForObject{})
		options  = controller.Options{MaxConcurrentReconciles: 4}
	)
	if err := (&tenantvpc.Reconciler{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Fabrics: fabrics, Recorder: mgr.GetEventRecorder("tenantvpc"), Clock: real,
		Installation: installation, PollInterval: wingPoll, Sources: []requests.Source{watches.TenantVPCs()}, Watches: watches, Readings: readings,
	}).SetupWithManager(ctx, mgr, options); err != nil {
		return err
	}
	if err := (&dpuattachment.Reconciler{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Fabrics: fabrics, Recorder: mgr.GetEventRecorder("dpuattachment"), Clock: real,
		Installation: installation, PollInterval: wingPoll, Sources: []requests.Source{watches.Attachments(), claims}, Watches: watches, Readings: readings,
	}).SetupWithManager(ctx, mgr, options); err != nil {
		return err
	}
	return (&dpuserver.Reconciler{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Fabrics: fabrics, Recorder: mgr.GetEventRecorder("dpuserver"), Clock: real,
		Installation: installation, PollInterval: wingPoll, Sources: []requests.Source{watches.DPUFabrics()}, Readings: readings,
	}).SetupWithManager(ctx, mgr, options)
}
