// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/source"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

const (
	// DefaultWatchInterval is how often the credentials and the DPU clusters of a fabric are looked at.
	DefaultWatchInterval = 30 * time.Second
	// fabricsInterval is how often the DPUFabrics in the cache are looked at.
	fabricsInterval = time.Second
	// tendingPause bounds how often refused credentials make them be read again.
	tendingPause = 2 * time.Second
)

// FabricWatchesOptions are what FabricWatches are made from.
type FabricWatchesOptions struct {
	Fabrics Fabrics
	// Client reads DPUFabrics, DPUServers, DPUAttachments and TenantVPCs, from a cache with the indexes of IndexFabricWatches.
	Client client.Reader
	// Installation tells this management cluster from others that share a DPF control plane.
	Installation string
	// Clock measures time; nil means the real one.
	Clock clock.WithTicker
	// Interval is how often credentials and DPU clusters are looked at; zero means DefaultWatchInterval.
	Interval time.Duration
	// GatherServers is how long changes are gathered before the pass over all servers of a fabric that they cause; zero means
	// two seconds.
	GatherServers time.Duration
	// Observe, if set, is told whenever a watch comes up or breaks. It must not block.
	Observe func(WatchState)
}

// WatchState says whether a watch is to be relied on. Where it is not, its objects are polled.
type WatchState struct {
	// Fabric is the DPUFabric, Cluster the DPUCluster ("namespace/name"), empty for the DPF management cluster.
	Fabric, Cluster string
	Kind            string
	Up              bool
	// Gone says that the watch was ended with its fabric or DPU cluster.
	Gone bool
	// Err is why it is not up; nil if it just began or ended.
	Err error
}

// FabricWatches watches DPF and the DPU clusters of every usable DPUFabric and wakes those that a change concerns. It tells
// nobody what has changed: whoever is woken reads for himself. It runs with the manager, on the leader only.
type FabricWatches struct {
	options                      FabricWatchesOptions
	attachments, tenants, fabric *wakeQueue

	mu      sync.Mutex
	watched map[string]*fabricWatch
}

// NewFabricWatches returns FabricWatches that watch nothing before Start.
func NewFabricWatches(options FabricWatchesOptions) *FabricWatches {
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	options.Interval = cmp.Or(options.Interval, DefaultWatchInterval)
	return &FabricWatches{
		options:     options,
		attachments: newWakeQueue(options.Clock, gatherAttachment),
		tenants:     newWakeQueue(options.Clock, gatherTenant),
		fabric:      newWakeQueue(options.Clock, cmp.Or(options.GatherServers, gatherServers)),
		watched:     map[string]*fabricWatch{},
	}
}

// Attachments is the source of requests for DPUAttachments; it serves one controller.
func (w *FabricWatches) Attachments() source.Source { return w.attachments }

// TenantVPCs is the source of requests for TenantVPCs; it serves one controller.
func (w *FabricWatches) TenantVPCs() source.Source { return w.tenants }

// DPUFabrics is the source of requests for all servers of a DPUFabric; it serves one controller.
func (w *FabricWatches) DPUFabrics() source.Source { return w.fabric }

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (w *FabricWatches) NeedLeaderElection() bool { return true }

// Covers reports whether changes in the fabric's DPF and in those of its DPU clusters are watched now: if not, only polling
// notices them. Nil covers nothing.
func (w *FabricWatches) Covers(fabric string, dpuClusters ...types.NamespacedName) bool {
	if w == nil {
		return false
	}
	w.mu.Lock()
	watched := w.watched[fabric]
	w.mu.Unlock()
	if watched == nil || !watched.up(types.NamespacedName{}) {
		return false
	}
	for _, key := range dpuClusters {
		if !watched.up(key) {
			return false
		}
	}
	return true
}

// CoversAll reports whether changes in the fabric's DPF and in all its DPU clusters are watched now. Nil covers nothing.
func (w *FabricWatches) CoversAll(fabric string) bool {
	if !w.Covers(fabric) {
		return false
	}
	w.mu.Lock()
	watched := w.watched[fabric]
	w.mu.Unlock()
	return watched != nil && !slices.ContainsFunc(watched.all(), func(t *watchTarget) bool { return !t.up() })
}

// Unwatched returns what of the fabric is not watched now, by kind and DPU cluster, and why; nil errors are of watches that have
// yet to begin. Nil watches nothing.
func (w *FabricWatches) Unwatched(fabric string) map[string]error {
	if w == nil {
		return map[string]error{"everything": nil}
	}
	w.mu.Lock()
	watched := w.watched[fabric]
	w.mu.Unlock()
	if watched == nil {
		return map[string]error{"everything": nil}
	}
	unwatched := map[string]error{}
	for _, target := range watched.all() {
		target.listUnwatched(unwatched)
	}
	if len(unwatched) == 0 && !w.CoversAll(fabric) {
		return map[string]error{"everything": nil}
	}
	return unwatched
}

// WokenAt is when a change that concerns the attachment was seen last, zero if none was lately.
func (w *FabricWatches) WokenAt(attachment types.NamespacedName) time.Time {
	if w == nil {
		return time.Time{}
	}
	return w.attachments.wokenAt(attachment)
}

// TenantWokenAt is when a change that concerns the TenantVPC was seen last, zero if none was lately.
func (w *FabricWatches) TenantWokenAt(tenant types.NamespacedName) time.Time {
	if w == nil {
		return time.Time{}
	}
	return w.tenants.wokenAt(tenant)
}

// NodesLapsed wakes those whom Nodes concern that were found to have fallen silent, or to speak again, by other means than a
// watch.
func (w *FabricWatches) NodesLapsed(fabric string, nodes []string) {
	w.mu.Lock()
	watched := w.watched[fabric]
	w.mu.Unlock()
	if watched == nil {
		return
	}
	for _, name := range nodes {
		watched.wakeCards(context.Background(), cardNames{dpu: name})
	}
}

// Start implements manager.Runnable: it watches until ctx ends, and returns when all watches have ended.
func (w *FabricWatches) Start(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ticker := w.options.Clock.NewTicker(fabricsInterval)
	defer ticker.Stop()
	for {
		if err := w.follow(ctx, &running); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Unable to find the DPUFabrics to watch")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
		}
	}
}

// follow begins to watch new fabrics, looks again at changed ones and leaves those that are gone.
func (w *FabricWatches) follow(ctx context.Context, running *sync.WaitGroup) error {
	list := &infrav1.DPUFabricList{}
	if err := w.options.Client.List(ctx, list); err != nil {
		return fmt.Errorf("list DPUFabrics: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	exist := map[string]bool{}
	for i := range list.Items {
		object := &list.Items[i]
		exist[object.Name] = true
		watched := w.watched[object.Name]
		switch {
		case watched != nil && watched.uid == object.UID:
			if watched.generation != object.Generation {
				watched.generation = object.Generation
				watched.look()
			}
			continue
		case watched != nil:
			watched.cancel()
		}
		w.watched[object.Name] = w.begin(ctx, running, object)
	}
	for name, watched := range w.watched {
		if !exist[name] {
			watched.cancel()
			delete(w.watched, name)
		}
	}
	return nil
}

func (w *FabricWatches) begin(ctx context.Context, running *sync.WaitGroup, object *infrav1.DPUFabric) *fabricWatch {
	ctx, cancel := context.WithCancel(ctx)
	watched := &fabricWatch{
		owner: w, name: object.Name, uid: object.UID, generation: object.Generation,
		cancel: cancel, looks: make(chan struct{}, 1), targets: map[types.NamespacedName]*watchTarget{},
	}
	running.Go(func() { watched.run(ctx) })
	return watched
}
