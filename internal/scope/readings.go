// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

const (
	// forgetAfter is for how many intervals nobody may ask for a machine before it is no longer read.
	forgetAfter = 3
	// remember is for how long its last reading is kept then.
	remember = time.Hour
)

// Readings reads the machines in transition for everybody who waits for one: whoever comes first after an interval reads all
// that were asked for lately, in one query; the others find it done. It also keeps one list of all machines of the account,
// for those who only want to know that nothing changed. A reading permits no mutation: who changes a machine confirms it first.
type Readings struct {
	maas     MAAS
	interval time.Duration
	clock    clock.PassiveClock

	// reading is held by who asks MAAS, so that one asks for all.
	reading sync.Mutex

	mu       sync.Mutex
	machines map[string]*machineReading

	auditing sync.Mutex
	owned    map[string]maas.Machine
	ownedAt  time.Time
}

// machineReading is the last answer about one machine; at is when the question was sent, zero if none counts. A question sent
// before changed does not count: its answer may be from before the change.
type machineReading struct {
	asked   time.Time
	changed time.Time
	at      time.Time
	listed  bool
	machine maas.Machine
}

func newReadings(client MAAS, interval time.Duration, clock clock.PassiveClock) *Readings {
	return &Readings{maas: client, interval: interval, clock: clock, machines: map[string]*machineReading{}}
}

// NewReadings returns Readings of one account that are at most interval old.
func NewReadings(client MAAS, interval time.Duration, clock clock.PassiveClock) *Readings {
	return newReadings(client, interval, clock)
}

// Machine returns a machine as it was at most maxAge ago (0 means the interval) and after the last Invalidate. A machine the
// account does not see is asked for by itself, which tells a *maas.NotFoundError from a *maas.ForbiddenError.
func (r *Readings) Machine(ctx context.Context, systemID string, _ time.Duration) (maas.Machine, error) {
	if reading, ok := r.fresh(systemID); ok {
		return r.answer(ctx, systemID, reading)
	}
	r.reading.Lock()
	defer r.reading.Unlock()
	if reading, ok := r.fresh(systemID); ok {
		return r.answer(ctx, systemID, reading)
	}
	if err := r.readAll(ctx); err != nil {
		return maas.Machine{}, err
	}
	reading, ok := r.fresh(systemID)
	if !ok {
		return r.maas.Machine(ctx, systemID) // Changed while it was read.
	}
	return r.answer(ctx, systemID, reading)
}

// Recent returns the last reading of a machine that is younger than maxAge and than the last Invalidate, if there is one.
func (r *Readings) Recent(systemID string, maxAge time.Duration) (maas.Machine, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	reading, ok := r.machines[systemID]
	if !ok || reading.at.IsZero() || !reading.listed || r.clock.Now().Sub(reading.at) >= maxAge {
		return maas.Machine{}, false
	}
	return reading.machine, true
}

func (r *Readings) answer(ctx context.Context, systemID string, reading machineReading) (maas.Machine, error) {
	if reading.listed {
		return reading.machine, nil
	}
	return r.maas.Machine(ctx, systemID)
}

// fresh notes that the machine is wanted, and returns its reading if it is young enough.
func (r *Readings) fresh(systemID string) (machineReading, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.Now()
	reading, ok := r.machines[systemID]
	if !ok {
		reading = &machineReading{}
		r.machines[systemID] = reading
	}
	reading.asked = now
	// A little less than the interval, so that who comes back after it never just misses it.
	return *reading, !reading.at.IsZero() && now.Sub(reading.at) < r.interval*9/10
}

func (r *Readings) readAll(ctx context.Context) error {
	at := r.clock.Now()
	ids := r.wanted(at)
	found, err := r.maas.MachinesByID(ctx, ids...)
	if err != nil {
		return err
	}
	listed := make(map[string]maas.Machine, len(found))
	for i := range found {
		listed[found[i].SystemID] = found[i]
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		if reading, ok := r.machines[id]; ok && !at.Before(reading.changed) {
			reading.at = at
			reading.machine, reading.listed = listed[id]
		}
	}
	return nil
}

func (r *Readings) wanted(now time.Time) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []string
	for id, reading := range r.machines {
		switch idle := now.Sub(reading.asked); {
		case idle > remember:
			delete(r.machines, id)
		case idle <= forgetAfter*r.interval:
			ids = append(ids, id)
		}
	}
	return ids
}

// Invalidate forgets what was read of a machine, because it was changed.
func (r *Readings) Invalidate(systemID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if reading, ok := r.machines[systemID]; ok {
		reading.at, reading.changed = time.Time{}, r.clock.Now()
		return
	}
	r.machines[systemID] = &machineReading{asked: r.clock.Now(), changed: r.clock.Now()}
}

// Learn takes MAAS' answer to a call of ours that was sent then for a reading.
func (r *Readings) Learn(machine maas.Machine, sent time.Time) {
	if machine.SystemID == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	reading, ok := r.machines[machine.SystemID]
	if !ok {
		reading = &machineReading{asked: r.clock.Now()}
		r.machines[machine.SystemID] = reading
	}
	if sent.Before(reading.changed) || sent.Before(reading.at) {
		return
	}
	reading.machine, reading.listed, reading.at, reading.changed = machine, true, sent, sent
}

// Watch wakes the MaasMachine whenever a reading of the server differs from the one before.
func (r *Readings) Watch(_ string, _ types.NamespacedName) {}

// Unwatch ends Watch.
func (r *Readings) Unwatch(_ string, _ types.NamespacedName) {}

// NoneClaimed reports that no machine is allocated under the token. False means: ask MachinesByToken.
func (r *Readings) NoneClaimed(ctx context.Context, token string) (bool, error) {
	found, err := r.maas.MachinesByTokens(ctx, token)
	return err == nil && len(found) == 0, err
}

// Owned returns the account's own machines by system ID, as they were at most maxAge ago. Not to be changed.
func (r *Readings) Owned(ctx context.Context, account string, maxAge time.Duration) (map[string]maas.Machine, error) {
	r.auditing.Lock()
	defer r.auditing.Unlock()
	at := r.clock.Now()
	if r.owned != nil && at.Sub(r.ownedAt) < maxAge {
		return r.owned, nil
	}
	found, err := r.maas.MachinesOwnedBy(ctx, account)
	if err != nil {
		return nil, err
	}
	owned := make(map[string]maas.Machine, len(found))
	for i := range found {
		owned[found[i].SystemID] = found[i]
	}
	r.owned, r.ownedAt = owned, at
	return owned, nil
}
