// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// Stock is what an account has and could be given, read rarely and for all who ask. It is one list: of two, made one after the
// other, neither would have a server that was claimed or given back meanwhile.
type Stock struct {
	mu      sync.Mutex
	maas    Warehouse
	epoch   int
	servers stocktaking[[]maas.Machine]
	names   stocktaking[Names]
}

// Warehouse is what MAAS is asked for a Stock.
type Warehouse interface {
	Zones(ctx context.Context) ([]string, error)
	Pools(ctx context.Context) ([]string, error)
	Tags(ctx context.Context) ([]string, error)
	MachinesMatching(ctx context.Context, constraints maas.Constraints, statuses ...maas.Status) ([]maas.Machine, error)
}

// Names are those that MAAS accepts in constraints.
type Names struct{ Zones, Pools, Tags []string }

// stocktaking is one thing that is read for all.
type stocktaking[T any] struct {
	clock clock.WithTicker
	gate  *gate
	value T
	// at is when the question was sent; zero if the value no longer counts.
	at time.Time
}

// NewStock returns the Stock of one account. What could not be read is not asked for again before the pause is over.
func NewStock(client Warehouse, pause time.Duration, clock clock.WithTicker) *Stock {
	return &Stock{
		maas:    client,
		servers: stocktaking[[]maas.Machine]{clock: clock, gate: newGate(clock, pause)},
		names:   stocktaking[Names]{clock: clock, gate: newGate(clock, pause)},
	}
}

// Servers returns the machines within some zones and pools that the account has and those that nobody has, whatever their state,
// as they were at most maxAge ago, or a minute more while they are read anew: without interfaces, annotations and hardware
// information. Not to be changed. It is always asked for the same zones and pools: those of the identity.
func (s *Stock) Servers(ctx context.Context, zones, pools []string, maxAge time.Duration) ([]maas.Machine, error) {
	return take(ctx, s, &s.servers, maas.Call{Operation: "list matching"}, maxAge, func(ctx context.Context, client Warehouse) ([]maas.Machine, error) {
		found, err := client.MachinesMatching(ctx, maas.Constraints{Zones: zones, Pools: pools})
		for i := range found {
			found[i].Interfaces, found[i].Annotations, found[i].Hardware = nil, nil, nil // There may be thousands of machines.
		}
		return found, err
	})
}

// Names returns all names, as they were at most maxAge ago, or a minute more while they are read anew. Not to be changed.
func (s *Stock) Names(ctx context.Context, maxAge time.Duration) (Names, error) {
	return take(ctx, s, &s.names, maas.Call{Operation: "list tags"}, maxAge, func(ctx context.Context, client Warehouse) (Names, error) {
		var names Names
		var err error
		if names.Tags, err = client.Tags(ctx); err != nil {
			return names, err
		}
		if names.Pools, err = client.Pools(ctx); err != nil {
			return names, err
		}
		names.Zones, err = client.Zones(ctx)
		return names, err
	})
}

// serve asks another client from now on: nothing read before counts.
func (s *Stock) serve(client Warehouse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.maas = client
	s.epoch++
	s.servers.value, s.servers.at, s.names.at = nil, time.Time{}, time.Time{}
	s.servers.gate.reset()
	s.names.gate.reset()
}

// take returns what is known if it is young enough, and else reads it for all.
func take[T any](
	ctx context.Context, s *Stock, of *stocktaking[T], call maas.Call, maxAge time.Duration, read func(context.Context, Warehouse) (T, error),
) (T, error) {
	accepted := maxAge
	if len(of.gate.slot) > 0 {
		accepted += auditGrace // Somebody reads it anew.
	}
	if value, ok := known(s, of, accepted); ok {
		return value, nil
	}
	var none T
	if err := of.gate.enter(ctx, call); err != nil {
		return none, err
	}
	if value, ok := known(s, of, maxAge); ok {
		of.gate.pass()
		return value, nil
	}
	s.mu.Lock()
	client, epoch := s.maas, s.epoch
	s.mu.Unlock()
	sent := of.clock.Now()
	value, err := read(ctx, client)
	of.gate.leave(ctx, err)
	if err != nil {
		return none, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if epoch == s.epoch {
		of.value, of.at = value, sent
	}
	return value, nil
}

func known[T any](s *Stock, of *stocktaking[T], maxAge time.Duration) (T, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return of.value, !of.at.IsZero() && of.clock.Now().Sub(of.at) < maxAge
}
