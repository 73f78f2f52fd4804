// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

const (
	// remember is for how long the last reading is kept of a machine nobody asks for.
	remember = time.Hour
	// sharedIDLength bounds the system IDs that are put into one query with those of others; MAAS' own have 6 characters.
	sharedIDLength = 16
	// readTries is how often a machine is read with others if each time it changed meanwhile; then it is read by itself.
	readTries = 2
	// perMachine is what MAAS may take besides to list a machine; it was seen to take 16 ms.
	perMachine = 50 * time.Millisecond
	// apartFor is for how long a machine MAAS hung on is read by itself, unless MAAS answers before. It is as long as the audit lets
	// pass, which lists all machines.
	apartFor = 10 * time.Minute
)

// listByID is the question that is asked for all.
var listByID = maas.Call{Operation: "list by ID"}

// Readings reads the machines of one account for everybody who waits for one: a poller reads in one query what has changed and
// what has grown too old; where none runs, whoever comes first does it for all. It also keeps one list of all machines of the
// account, for those who only want to know that nothing changed. A reading is of the time its question was sent, and is ended by
// Invalidate, by Learn and by an event of MAAS about the machine.
type Readings struct {
	interval time.Duration
	// idle is how often MAAS' event feed is asked while nobody waits for a machine.
	idle  time.Duration
	clock clock.WithTicker
	// wake is told of the objects whose server changed; observe of how many machines were asked for. Either may be nil.
	wake    func(types.NamespacedName)
	observe func(machines int)
	// onlyClaims says that only who holds a machine is news; else all that MAAS says of it.
	onlyClaims bool
	// hangs, if set, says that MAAS answers nothing although it is asked: then nobody waits for long.
	hangs func() bool

	reading  *gate
	auditing *gate
	claims   jointClaims

	mu       sync.Mutex
	maas     Reader
	epoch    int
	machines map[string]*machineReading
	feed     coverage
	// polledUntil is until when the poller is believed to run.
	polledUntil time.Time
	owned       map[string]maas.Machine
	ownedAt     time.Time
	// heardAt is when the last question was sent that MAAS answered, trouble what became of a later one; nil if that was answered.
	heardAt time.Time
	trouble error
}

// Reader is what MAAS is asked for everybody. All of it are questions.
type Reader interface {
	Machine(ctx context.Context, systemID string) (maas.Machine, error)
	MachinesByID(ctx context.Context, systemIDs ...string) ([]maas.Machine, error)
	MachinesByTokens(ctx context.Context, tokens ...string) ([]maas.Machine, error)
	MachinesOwnedBy(ctx context.Context, username string) ([]maas.Machine, error)
	Events(ctx context.Context, after int64, query maas.EventQuery) ([]maas.Event, error)
}

// machineReading is the last answer about one machine; at is when the question was sent, zero if it no longer counts. A
// question sent before changed does not count: its answer may be from before the change.
type machineReading struct {
	// asked is when somebody asked last, maxAge what was accepted then; zero if nobody waits.
	asked    time.Time
	maxAge   time.Duration
	watchers map[types.NamespacedName]bool

	changed time.Time
	at      time.Time
	// event is when MAAS was seen to have recorded something about the machine; zero if it was read since.
	event time.Time
	// known says that listed and machine are of an earlier answer, be it one that counts or not.
	known, listed bool
	machine       maas.Machine
	// refusal is MAAS' answer about a machine that is not listed; nil if it was not asked for.
	refusal error
	// apart lets one ask for the machine by itself, until then; nil if it may be put into one question with others.
	apart      *gate
	apartUntil time.Time
}

// NewReadings returns Readings of one account.
func NewReadings(client Reader, interval time.Duration, clock clock.WithTicker) *Readings {
	// A little less than the interval, so that who comes back after it never just misses it.
	pause := interval * 9 / 10
	return &Readings{
		maas: client, interval: interval, idle: idleFeed, clock: clock, machines: map[string]*machineReading{},
		reading: newGate(clock, pause), auditing: newGate(clock, pause),
	}
}

// Machine returns a machine as it was at most maxAge ago (0 means the poll interval) and since the last Invalidate, Learn and
// event about it. More than the interval counts only while MAAS' event feed is followed. Who accepts a minute or less, or twelve
// intervals, waits: the machine is read for it until it has not asked for three intervals. A machine the account does not see is
// asked for by itself, which tells a *maas.NotFoundError from a *maas.ForbiddenError.
func (r *Readings) Machine(ctx context.Context, systemID string, maxAge time.Duration) (maas.Machine, error) {
	if maxAge <= 0 {
		maxAge = r.interval
	}
	if !sharable(systemID) {
		// In one query with others it would spoil theirs.
		client, _ := r.source()
		return client.Machine(ctx, systemID)
	}
	arrived := r.clock.Now()
	for range readTries {
		if reading, ok := r.fresh(systemID, maxAge, arrived); ok {
			return r.answer(ctx, systemID, reading)
		}
		if err := r.readFor(ctx, systemID, maxAge, arrived); err != nil {
			return maas.Machine{}, err
		}
	}
	if reading, ok := r.fresh(systemID, maxAge, arrived); ok {
		return r.answer(ctx, systemID, reading)
	}
	client, _ := r.source()
	return client.Machine(ctx, systemID) // Changed each time while it was read.
}

// readFor reads the machine, with others unless it is apart, and unless somebody has just done so.
func (r *Readings) readFor(ctx context.Context, systemID string, maxAge time.Duration, arrived time.Time) error {
	gate, apart := r.gateOf(systemID)
	if err := gate.enter(ctx, listByID); err != nil {
		return err
	}
	if now, _ := r.gateOf(systemID); now != gate {
		gate.pass()
		return nil // It was set apart meanwhile, or is no more: the next try is at the right gate.
	}
	if _, ok := r.fresh(systemID, maxAge, arrived); ok {
		gate.pass()
		return nil
	}
	if !apart {
		return r.readTogether(ctx, r.dueFor(systemID))
	}
	err := r.read(ctx, []string{systemID})
	gate.leave(ctx, err)
	return err
}

// sharable reports that a system ID may be put into one query with others.
func sharable(systemID string) bool {
	return maas.ValidSystemID(systemID) && len(systemID) <= sharedIDLength
}

// Recent returns the last reading of a machine that is younger than maxAge and was not ended, if there is one.
func (r *Readings) Recent(systemID string, maxAge time.Duration) (maas.Machine, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	reading, ok := r.machines[systemID]
	if !ok || reading.at.IsZero() || !reading.listed || r.clock.Now().Sub(reading.at) >= maxAge {
		return maas.Machine{}, false
	}
	return reading.machine, true
}

// Invalidate ends the reading of a machine, because it was changed.
func (r *Readings) Invalidate(systemID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if reading, ok := r.machines[systemID]; ok {
		reading.at, reading.changed = time.Time{}, r.clock.Now()
	}
}

// Learn takes MAAS' answer to a call of ours that was sent then for a reading. It wakes nobody.
func (r *Readings) Learn(machine maas.Machine, sent time.Time) {
	if machine.SystemID == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	reading := r.entry(machine.SystemID)
	// Whatever is under way may be from before the call took effect.
	reading.changed = r.clock.Now()
	if reading.at.After(sent) || reading.event.After(sent) {
		// Something was learnt while the call was under way: nobody knows which is newer.
		reading.at = time.Time{}
		return
	}
	reading.at, reading.known, reading.listed, reading.machine, reading.refusal = sent, true, true, machine, nil
}

// Watch wakes the object whenever a reading of the server that is not its own doing differs from the one before. What was
// read before the first Watch of the two does not count: it may be from before the claim.
func (r *Readings) Watch(systemID string, object types.NamespacedName) {
	if !sharable(systemID) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	reading := r.entry(systemID)
	if !reading.watchers[object] {
		reading.watchers[object] = true
		reading.at, reading.changed = time.Time{}, r.clock.Now()
	}
}

// Unwatch ends Watch.
func (r *Readings) Unwatch(systemID string, object types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if reading, ok := r.machines[systemID]; ok {
		delete(reading.watchers, object)
	}
}

// entry returns what is kept of a machine. The caller holds the lock.
func (r *Readings) entry(systemID string) *machineReading {
	reading, ok := r.machines[systemID]
	if !ok {
		reading = &machineReading{
			asked: r.clock.Now(), watchers: map[types.NamespacedName]bool{},
		}
		r.machines[systemID] = reading
	}
	return reading
}

// source returns whom to ask, and what tells a later one from it.
func (r *Readings) source() (Reader, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.maas, r.epoch
}

// serve asks another client from now on, because credentials or endpoint changed: nothing read before counts.
func (r *Readings) serve(client Reader) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.maas = client
	r.epoch++
	r.feed, r.owned, r.ownedAt = coverage{}, nil, time.Time{}
	for _, reading := range r.machines {
		reading.at, reading.changed, reading.apart = time.Time{}, r.clock.Now(), nil
	}
	r.reading.reset()
	r.auditing.reset()
}

// fresh notes that the machine is wanted, and returns its reading if it is young enough for somebody who arrived then.
func (r *Readings) fresh(systemID string, maxAge time.Duration, arrived time.Time) (machineReading, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.Now()
	reading := r.entry(systemID)
	// There is one who waits for a server: what it accepts now counts, not what it accepted before.
	reading.asked, reading.maxAge = now, 0
	if waits(maxAge, r.interval) {
		reading.maxAge = maxAge
	}
	if reading.at.IsZero() {
		return machineReading{}, false
	}
	accepted := r.feed.accepted(maxAge, reading.at, now, r.interval)
	if now.After(r.polledUntil) {
		// Without a poller who comes back after the interval should not just miss it.
		accepted = accepted * 9 / 10
	}
	return *reading, now.Sub(reading.at) < accepted || !reading.at.Before(arrived)
}

// answer asks by itself for a machine that is not listed, once for each reading.
func (r *Readings) answer(ctx context.Context, systemID string, reading machineReading) (maas.Machine, error) {
	switch {
	case reading.listed:
		return reading.machine, nil
	case reading.refusal != nil:
		return maas.Machine{}, reading.refusal
	}
	client, epoch := r.source()
	machine, err := client.Machine(ctx, systemID)
	if err == nil || !maas.IsNotFound(err) && !maas.IsForbidden(err) {
		return machine, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if kept, ok := r.machines[systemID]; ok && epoch == r.epoch && kept.at.Equal(reading.at) && !kept.listed {
		kept.refusal = err
	}
	return maas.Machine{}, err
}

// wants returns what is asked for now, and forgets what nobody cares for. The caller holds the lock.
func (r *Readings) wants(now time.Time) []want {
	wants := make([]want, 0, len(r.machines))
	for id, reading := range r.machines {
		if now.Sub(reading.asked) > forgetAfter*r.interval {
			reading.maxAge = 0
		}
		w := want{
			systemID: id, maxAge: reading.maxAge, readAt: reading.at,
			event: !reading.event.IsZero(), watched: len(reading.watchers) > 0,
		}
		if !w.watched && w.maxAge == 0 && now.Sub(reading.asked) > remember {
			delete(r.machines, id)
			continue
		}
		if reading.isApart(now) {
			continue
		}
		wants = append(wants, w)
	}
	return wants
}

// dueFor returns the machine, and what else is to be read with it.
func (r *Readings) dueFor(systemID string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.Now()
	ahead := r.interval
	if !now.After(r.polledUntil) {
		ahead = 0 // The poller reads the others.
	}
	ids := due(r.wants(now), now, ahead, r.interval, r.feed)
	if !slices.Contains(ids, systemID) {
		ids = append(ids, systemID)
	}
	return ids
}
