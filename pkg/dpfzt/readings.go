// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfzt

import (
	"context"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/shared"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// How old a reading may be that only renews what is known: nothing is begun or ended by it.
const (
	// SteadyMaxAge is for those whom a watch would have told of a change since.
	SteadyMaxAge = 10 * time.Second
	// UnwatchedMaxAge is for those who are told nothing.
	UnwatchedMaxAge = 2 * time.Second

	// readingTimeout bounds one reading, of several requests.
	readingTimeout = 20 * time.Second
)

// Readings reads DPF and DPU clusters for all who ask at the same time. Each fabric and each DPU cluster is read by itself: one
// that is slow delays only those who ask about it. What is read is live and says when its reading started; it is shared, so
// nobody may change it. The zero value is not usable; make one with NewReadings.
type Readings struct {
	clock clock.Clock
	// lapsed is told of Nodes whose leases expired or came back between two readings, which no watch shows. May be nil.
	lapsed func(fabric string, nodes []string)

	mu          sync.Mutex
	clusters    map[clusterKey]*shared.Reading[*ClusterState]
	inventories map[string]*shared.Reading[*Inventory]
	around      map[string]*shared.Reading[*Surroundings]
}

type clusterKey struct {
	fabric  string
	cluster types.NamespacedName
}

// NewReadings returns Readings without any yet. Lapsed, unless nil, is told of the Nodes of a fabric whose leases were found to
// have expired, or to be renewed again. It must not block.
func NewReadings(c clock.Clock, lapsed func(fabric string, nodes []string)) *Readings {
	return &Readings{
		clock: c, lapsed: lapsed,
		clusters: map[clusterKey]*shared.Reading[*ClusterState]{}, inventories: map[string]*shared.Reading[*Inventory]{}, around: map[string]*shared.Reading[*Surroundings]{},
	}
}

// State returns what a DPU cluster was like in a reading that started at notBefore or later. What could not be read is said in
// all evidence made of it.
func (r *Readings) State(ctx context.Context, fabric string, clusters DPUClusters, key types.NamespacedName, notBefore time.Time) *ClusterState {
	state, started, err := slotOf(r, r.clusters, clusterKey{fabric, key}).Get(ctx, notBefore, func(ctx context.Context) (*ClusterState, error) {
		state := &ClusterState{started: r.clock.Now()}
		reader, err := clusters(ctx, key)
		if err != nil {
			return nil, err
		}
		if err := state.read(ctx, reader); err != nil {
			return nil, err
		}
		r.compare(clusterKey{fabric, key}, state)
		return state, nil
	})
	if err != nil {
		return &ClusterState{started: started, err: err}
	}
	return state
}

// States are the states of several DPU clusters, read side by side.
func (r *Readings) States(ctx context.Context, fabric string, clusters DPUClusters, keys []types.NamespacedName, notBefore time.Time) map[types.NamespacedName]*ClusterState {
	var wait sync.WaitGroup
	var mu sync.Mutex
	states := make(map[types.NamespacedName]*ClusterState, len(keys))
	for _, key := range keys {
		wait.Go(func() {
			state := r.State(ctx, fabric, clusters, key, notBefore)
			mu.Lock()
			defer mu.Unlock()
			states[key] = state
		})
	}
	wait.Wait()
	return states
}

// Inventory returns what DPF knew of all servers and cards in a reading that started at notBefore or later.
func (r *Readings) Inventory(ctx context.Context, fabric string, reader client.Reader, namespace string, notBefore time.Time) (*Inventory, error) {
	inventory, _, err := slotOf(r, r.inventories, fabric).Get(ctx, notBefore, func(ctx context.Context) (*Inventory, error) {
		started := r.clock.Now()
		inventory, err := ReadInventory(ctx, reader, namespace)
		if err != nil {
			return nil, err
		}
		inventory.started = started
		return inventory, nil
	})
	return inventory, err
}

// Surroundings returns all VPCs of the fabric, and who reaches for its DPUs, in a reading that started at notBefore or later. A
// failure is said in it.
func (r *Readings) Surroundings(ctx context.Context, fabric string, reader client.Reader, namespace string, notBefore time.Time) *Surroundings {
	around, started, err := slotOf(r, r.around, fabric).Get(ctx, notBefore, func(ctx context.Context) (*Surroundings, error) {
		started := r.clock.Now()
		around, err := readSurroundings(ctx, reader, namespace)
		if err != nil {
			return nil, err
		}
		around.started = started
		return around, nil
	})
	if err != nil {
		return &Surroundings{Surroundings: vpc.Surroundings{Err: err}, started: started}
	}
	return around
}

// slotOf returns what is shared of one fabric or DPU cluster.
func slotOf[K comparable, T any](r *Readings, slots map[K]*shared.Reading[T], key K) *shared.Reading[T] {
	r.mu.Lock()
	defer r.mu.Unlock()
	slot := slots[key]
	if slot == nil {
		slot = &shared.Reading[T]{Clock: r.clock, Timeout: readingTimeout}
		slots[key] = slot
	}
	return slot
}

// compare tells of the Nodes whose leases lapsed, or came back, since the last reading that succeeded.
func (r *Readings) compare(key clusterKey, state *ClusterState) {
	before := slotOf(r, r.clusters, key).Last()
	if before == nil {
		return
	}
	var nodes []string
	for name := range state.nodes {
		if before.nodes[name] != nil && before.fresh(name) != state.fresh(name) {
			nodes = append(nodes, name)
		}
	}
	if len(nodes) > 0 && r.lapsed != nil {
		slices.Sort(nodes)
		r.lapsed(key.fabric, nodes)
	}
}

// fresh reports whether a Node's lease was young enough when it was read.
func (s *ClusterState) fresh(node string) bool {
	lease := s.leases[node]
	return lease != nil && lease.Spec.RenewTime != nil && s.started.Sub(lease.Spec.RenewTime.Time) < vpc.LeaseMaxAge
}
