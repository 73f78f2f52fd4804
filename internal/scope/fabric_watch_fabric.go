// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
)

// fabricWatch watches one fabric: the cluster that manages DPF, under the zero key, and its DPU clusters. Nothing in it waits
// for another fabric.
type fabricWatch struct {
	owner  *FabricWatches
	name   string
	uid    types.UID
	cancel context.CancelFunc
	looks  chan struct{}
	// generation of the DPUFabric when it was looked at; of the owner's lock.
	generation int64

	mu      sync.Mutex
	targets map[types.NamespacedName]*watchTarget
	// namespace is DPF's; serverLabelKey and sources are what DPUNodes are mapped to servers by.
	namespace      string
	serverLabelKey string
	sources        []string
}

// look has credentials and DPU clusters looked at soon.
func (f *fabricWatch) look() {
	select {
	case f.looks <- struct{}{}:
	default:
	}
}

// up reports whether everything of a cluster is watched.
func (f *fabricWatch) up(key types.NamespacedName) bool {
	f.mu.Lock()
	target := f.targets[key]
	f.mu.Unlock()
	return target != nil && target.up()
}

func (f *fabricWatch) run(ctx context.Context) {
	ctx = ctrl.LoggerInto(ctx, ctrl.LoggerFrom(ctx).WithValues("DPUFabric", f.name))
	defer f.leaveAll()
	clock := f.owner.options.Clock
	for {
		if err := f.tend(ctx); err != nil && ctx.Err() == nil {
			ctrl.LoggerFrom(ctx).Info("The fabric is not watched in full", "error", err.Error())
		}
		select {
		case <-ctx.Done():
			return
		case <-clock.After(tendingPause):
		}
		select {
		case <-ctx.Done():
			return
		case <-f.looks:
		case <-clock.After(f.owner.options.Interval):
		}
	}
}

// tend gives every watch the credentials of now, begins those that are missing, and ends those of DPU clusters that are gone. A
// fabric that cannot be used because of what people wrote is watched no longer; one that does not answer is waited for.
func (f *fabricWatch) tend(ctx context.Context) error {
	fabric, err := f.owner.options.Fabrics.Get(ctx, f.name)
	if err != nil {
		if unusable, ok := AsUnusable(err); ok && unusable.Reason != infrav1.FabricUnreachableReason {
			f.leaveAll()
		}
		return err
	}
	if f.describe(fabric) {
		f.leaveAll() // Another namespace is to be watched.
	}
	watching, err := fabric.Watch(ctx)
	if err != nil {
		return err
	}
	f.target(ctx, types.NamespacedName{}, dpfKinds).connect(watching)

	clusters := &provisioningv1alpha1.DPUClusterList{}
	if err := fabric.DPF.List(ctx, clusters); err != nil {
		return FabricError(f.name, "list DPUClusters", err)
	}
	exist := map[types.NamespacedName]bool{{}: true}
	for i := range clusters.Items {
		key := client.ObjectKeyFromObject(&clusters.Items[i])
		exist[key] = true
		watching, watchErr := fabric.WatchDPUCluster(ctx, key)
		if watchErr != nil {
			err = fmt.Errorf("DPUCluster %s: %w", key, watchErr)
			continue // The others are watched all the same.
		}
		f.target(ctx, key, dpuClusterKinds).connect(watching)
	}
	f.leave(func(key types.NamespacedName) bool { return !exist[key] })
	return err
}

// describe notes what the fabric says, and reports whether DPF's namespace is another one than before.
func (f *fabricWatch) describe(fabric *Fabric) (moved bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	moved = f.namespace != "" && f.namespace != fabric.Namespace()
	f.namespace, f.serverLabelKey, f.sources = fabric.Namespace(), fabric.Object.Spec.ServerLabelKey, nil
	for i := range fabric.Object.Spec.ClaimSources {
		f.sources = append(f.sources, fabric.Object.Spec.ClaimSources[i].Name)
	}
	return moved
}

// target returns the watches of a cluster.
func (f *fabricWatch) target(ctx context.Context, key types.NamespacedName, kinds []watchedKind) *watchTarget {
	f.mu.Lock()
	defer f.mu.Unlock()
	target := f.targets[key]
	if target == nil {
		target = newWatchTarget(ctx, f, key, f.namespace, kinds)
		f.targets[key] = target
	}
	return target
}

func (f *fabricWatch) leaveAll() { f.leave(func(types.NamespacedName) bool { return true }) }

// leave ends the watches of some clusters and waits for their end.
func (f *fabricWatch) leave(gone func(types.NamespacedName) bool) {
	f.mu.Lock()
	var ended []*watchTarget
	for key, target := range f.targets {
		if gone(key) {
			ended = append(ended, target)
			delete(f.targets, key)
		}
	}
	f.mu.Unlock()
	for _, target := range ended {
		target.end()
	}
}

// all returns the watches of all clusters.
func (f *fabricWatch) all() []*watchTarget {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]*watchTarget, 0, len(f.targets))
	for _, target := range f.targets {
		all = append(all, target)
	}
	return all
}

// known returns an object of DPF or of a DPU cluster as it was seen last, or nil: good enough to find out whom to wake.
func (f *fabricWatch) known(key types.NamespacedName, kind, namespace, name string) any {
	f.mu.Lock()
	target := f.targets[key]
	f.mu.Unlock()
	if target == nil {
		return nil
	}
	return target.known(kind, namespace, name)
}
