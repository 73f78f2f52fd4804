// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"errors"
	"maps"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// account is what is kept of one identity. Who holds its slot may connect and ask MAAS who we are; all else is safe for
// concurrent use.
type account struct {
	// identity is the object's name.
	identity string
	slot     chan struct{}
	// failed is why the account could not be used when that was last found out; nil if it could.
	failed atomic.Pointer[failure]

	generation    int64
	secretVersion string
	secretRead    time.Time
	client        MAAS
	close         func()
	name          string

	readings    *Readings
	stock       *Stock
	allocations *Turns
	pulse       *pulse
}

type failure struct {
	err error
	at  time.Time
}

// keep returns what is kept of an identity. Another one of the same name is forgotten.
func (i *identities) keep(object *infrav1.MaasClusterIdentity) *account {
	i.mu.Lock()
	defer i.mu.Unlock()
	if kept, ok := i.accounts[object.UID]; ok {
		return kept
	}
	i.forget(func(_ types.UID, other *account) bool { return other.identity == object.Name })
	kept := &account{
		identity: object.Name, slot: make(chan struct{}, 1), pulse: newPulse(i.Clock),
		readings: NewReadings(nil, i.PollInterval, i.Clock), allocations: NewTurns(0, i.PollInterval, i.Clock),
		stock: NewStock(nil, i.PollInterval, i.Clock),
	}
	kept.readings.wake, kept.allocations.wake = i.wakes.wake, i.wakes.wake
	if i.ObserveReading != nil {
		kept.readings.observe = func(machines int) { i.ObserveReading(object.Name, machines) }
	}
	i.accounts[object.UID] = kept
	return kept
}

// drop forgets the identities of a name.
func (i *identities) drop(name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.forget(func(_ types.UID, other *account) bool { return other.identity == name })
}

// forget drops accounts. The caller holds the lock. Idle connections close by themselves.
func (i *identities) forget(gone func(types.UID, *account) bool) {
	maps.DeleteFunc(i.accounts, func(uid types.UID, kept *account) bool {
		if !gone(uid, kept) {
			return false
		}
		if i.Forgotten != nil {
			i.Forgotten(kept.identity)
		}
		return true
	})
}

// inUse returns the accounts that were asked for.
func (i *identities) inUse() map[types.UID]*account {
	i.mu.Lock()
	defer i.mu.Unlock()
	return maps.Clone(i.accounts)
}

// retain forgets the identities that no longer exist.
func (i *identities) retain(exist map[types.UID]bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.forget(func(uid types.UID, _ *account) bool { return !exist[uid] })
	maps.DeleteFunc(i.fabrics, func(uid types.UID, _ *remoteFabric) bool { return !exist[uid] })
}

// enter waits for the slot. While MAAS is asked who we are and does not answer, nobody is kept waiting for long.
func (a *account) enter(ctx context.Context, clock clock.WithTicker) error {
	select {
	case a.slot <- struct{}{}:
		return nil
	default:
	}
	if failed := a.failed.Load(); failed != nil {
		return failed.err
	}
	timer := clock.NewTimer(probePatience)
	defer timer.Stop()
	select {
	case a.slot <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C():
		return UnusableMAAS(a.identity, errNoAccount)
	}
}

func (a *account) leave() { <-a.slot }

// forget drops the client and all that was learnt with it.
func (a *account) forget() {
	if a.close != nil {
		a.close()
	}
	a.client, a.close = nil, nil
	a.name, a.secretVersion = "", ""
	a.failed.Store(nil)
}

var errNoAccount = errors.New("MAAS has not answered yet whose key it is")
