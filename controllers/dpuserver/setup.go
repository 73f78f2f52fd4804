// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package dpuserver keeps the fabric's memory of its servers: which DPUs each has, whether they are healthy, and whether a
// server may be claimed.
//
// One pass serves a whole fabric: it reads DPF and the DPU clusters once and judges every server by that.
package dpuserver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"sigs.k8s.io/cluster-api/util/predicates"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt"
)

const (
	// DefaultPollInterval is how often DPF is asked about what is under way elsewhere; the inventory is read less often.
	DefaultPollInterval = 5 * time.Second
	// passesPerPoll is how many poll intervals pass between two passes when nothing happens.
	passesPerPoll = 5
	// gatherEvents is how long events are gathered before a pass, since one pass serves them all.
	gatherEvents = 200 * time.Millisecond
	// passTimeout bounds everything one pass asks of others.
	passTimeout = 90 * time.Second
)

// Reconciler keeps the DPUServers of DPUFabrics. It alone writes them, apart from their overrides.
type Reconciler struct {
	// Client reads from the cache and writes to the management cluster.
	Client client.Client
	// APIReader reads a DPUServer that the cache does not know yet.
	APIReader client.Reader
	Fabrics   scope.Fabrics
	Recorder  events.EventRecorder
	Clock     clock.Clock
	// Installation tells this management cluster from others that share a DPF control plane.
	Installation string
	// WatchFilterValue limits the fabrics to those with that label cluster.x-k8s.io/watch-filter; empty means all.
	WatchFilterValue string
	// PollInterval is how often DPF is asked about what is under way; zero means DefaultPollInterval. The inventory is read
	// again every five of them.
	PollInterval time.Duration
	// Sources of further requests, named as DPUFabrics, for example watches on DPF and DPU clusters.
	Sources []source.Source
	// Readings are shared with others who read the same fabrics; nil means nobody.
	Readings *dpfzt.Readings

	labelPlaces *dpfzt.LabelPlaces
	mu          sync.Mutex
	powers      map[powerKey]powerReading
	// freed is when servers were seen to be let go.
	freed  map[string]time.Time
	doubts map[string]map[string]doubt
	macs   map[powerKey]macReading
}

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager, options controller.Options) error {
	r.setDefaults()
	log := ctrl.LoggerFrom(ctx).WithValues("controller", "dpuserver")
	filter := predicates.ResourceHasFilterLabel(mgr.GetScheme(), log, r.WatchFilterValue)
	b := ctrl.NewControllerManagedBy(mgr).
		For(&infrav1.DPUFabric{}, builder.WithPredicates(filter, predicate.GenerationChangedPredicate{})).
		Named("dpuserver").
		WithOptions(options).
		Watches(&infrav1.DPUAttachment{}, r.gather(r.fabricsOfAttachment), builder.WithPredicates(scope.AttachmentChanged())).
		// Of a DPUServer only what others do counts: an override, or its deletion.
		Watches(&infrav1.DPUServer{}, r.gather(fabricOfServer), builder.WithPredicates(predicate.GenerationChangedPredicate{}))
	for _, s := range r.Sources {
		b = b.WatchesRawSource(s)
	}
	if err := b.Complete(r); err != nil {
		return fmt.Errorf("set up the controller of DPUServers: %w", err)
	}
	return nil
}

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
	if r.powers == nil {
		r.powers = map[powerKey]powerReading{}
	}
	if r.macs == nil {
		r.macs = map[powerKey]macReading{}
	}
	if r.doubts == nil {
		r.doubts = map[string]map[string]doubt{}
	}
}

// gather asks for a pass over the fabrics of an object, a moment later: fifty attachments that change at once need one.
func (r *Reconciler) gather(fabrics func(context.Context, client.Object) []string) handler.EventHandler {
	enqueue := func(ctx context.Context, object client.Object, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
		for _, name := range fabrics(ctx, object) {
			queue.AddAfter(reconcile.Request{NamespacedName: types.NamespacedName{Name: name}}, gatherEvents)
		}
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			enqueue(ctx, e.Object, queue)
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			enqueue(ctx, e.ObjectNew, queue)
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			enqueue(ctx, e.Object, queue)
		},
	}
}

func (r *Reconciler) fabricsOfAttachment(ctx context.Context, object client.Object) []string {
	attachment, ok := object.(*infrav1.DPUAttachment)
	if !ok {
		return nil
	}
	if attachment.Status.FabricName != "" {
		return []string{attachment.Status.FabricName}
	}
	list := &infrav1.DPUFabricList{}
	if err := r.Client.List(ctx, list); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Unable to list DPUFabrics")
		return nil
	}
	if fabric := scope.SourceOwner(list.Items, attachment.Spec.Server.Source); fabric != nil {
		return []string{fabric.Name}
	}
	return nil
}

func fabricOfServer(_ context.Context, object client.Object) []string {
	server, ok := object.(*infrav1.DPUServer)
	if !ok || server.Spec.FabricName == "" {
		return nil
	}
	return []string{server.Spec.FabricName}
}

// Reconcile makes one pass over the servers of a fabric.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, passTimeout)
	defer cancel()
	seen, err := r.observe(ctx, req.Name)
	if err != nil || seen == nil {
		return ctrl.Result{}, err
	}
	if err := errors.Join(r.act(ctx, seen), r.reportFabric(ctx, seen)); err != nil {
		return ctrl.Result{}, err
	}
	if seen.waitsForBMCs() {
		return ctrl.Result{RequeueAfter: r.PollInterval}, nil
	}
	return ctrl.Result{RequeueAfter: passesPerPoll * r.PollInterval}, nil
}
