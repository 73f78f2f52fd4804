// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
)

// Turn asks for permission to allocate one server.
type Turn struct {
	// Machine is the MaasMachine that wants the server, Cluster the Cluster it is for.
	Machine, Cluster types.NamespacedName
	// Wants stands for what is asked for: equal Wants are refused together.
	Wants string
}

// Verdict says what became of a Turn.
type Verdict string

// The verdicts.
const (
	// TurnGranted means: allocate now, then say how it went.
	TurnGranted Verdict = "Granted"
	// TurnBusy means that as many allocations as the identity permits are under way.
	TurnBusy Verdict = "Busy"
	// TurnAfter means that another cluster with fewer servers waits and can be served, or that it is too early to tell.
	TurnAfter Verdict = "After"
	// TurnRefused means that MAAS had nothing free for the same Wants a moment ago, or is being asked for them.
	TurnRefused Verdict = "Refused"
)

// Outcome is how an allocation went.
type Outcome string

// The outcomes.
const (
	// OutcomeTaken means that the machine has a server now.
	OutcomeTaken Outcome = "Taken"
	// OutcomeRefused means that nothing is free for these Wants now.
	OutcomeRefused Outcome = "Refused"
	// OutcomeConflict means that MAAS was not asked, because the machine was changed meanwhile: it comes back and keeps its place.
	OutcomeConflict Outcome = "Conflict"
	// OutcomeFailed is anything else, a lost answer included.
	OutcomeFailed Outcome = "Failed"
)

// waitsFor is for how long at least a machine counts as waiting that has not asked again: those who wait leave when they no longer
// do, and the process may be slow.
const waitsFor = 15 * time.Second

// takenFor is for how long the caller's cache may not show a server that was taken.
const takenFor = time.Minute

// Turns say who of those who wait for a server of an identity may ask MAAS for one: at most so many at once, and clusters with
// fewer servers first, so that of N clusters that wait none gets its k+1st server before the others got k, while they can be
// served. Nobody waits inside: who gets no turn comes back, and is woken when its turn comes. A machine counts as waiting for
// some intervals after it asked last, so that one that vanished holds up nobody for longer.
type Turns struct {
	interval time.Duration
	clock    clock.PassiveClock
	// wake is told of machines whose turn has come. May be nil.
	wake func(types.NamespacedName)
	mu   sync.Mutex
	// settled is when all who wait have asked once since the start of this process.
	settled time.Time
	size    int
	waiting map[types.NamespacedName]*waiter
	granted map[*Grant]bool
	taken   map[types.NamespacedName]taken
	// holding is what the last caller said. Not to be changed.
	holding map[types.NamespacedName]types.NamespacedName
	scarce  map[string]scarcity
	failing map[types.NamespacedName]failures
}

// waiter is a machine that asked for a turn.
type waiter struct {
	Turn
	since, seen time.Time
	// failed is when its own last allocation failed, or was not sent.
	failed time.Time
}

// taken is a server taken in this process that the caller's cache need not show yet. Shown is when one did first: what others say for
// an interval after that may be older.
type taken struct {
	cluster   types.NamespacedName
	at, shown time.Time
}

// scarcity says that nothing was free for some Wants: nobody asks until then, and one at a time afterwards.
type scarcity struct{ until time.Time }

// failures are how many allocations of a cluster failed in a row, and when the last one did.
type failures struct {
	count int
	at    time.Time
}

// NewTurns returns that many free turns; interval is how often those who wait come back.
func NewTurns(size int, interval time.Duration, clock clock.PassiveClock) *Turns {
	return &Turns{
		size: size, interval: interval, clock: clock, settled: clock.Now().Add(interval),
		waiting: map[types.NamespacedName]*waiter{}, granted: map[*Grant]bool{}, taken: map[types.NamespacedName]taken{},
		scarce: map[string]scarcity{}, failing: map[types.NamespacedName]failures{},
	}
}

// Grant is a turn that was granted.
type Grant struct {
	Turn
	turns *Turns
	since time.Time
	once  sync.Once
}

// Done gives the turn back and says how it went. It must be called once; further calls do nothing.
func (g *Grant) Done(outcome Outcome) { g.once.Do(func() { g.turns.done(g, outcome) }) }

// Take asks for a turn. Holding are the MaasMachines that have a server, with their Clusters; it is kept, so that the caller
// must not change it. There is a grant with TurnGranted only.
func (t *Turns) Take(turn Turn, holding map[types.NamespacedName]types.NamespacedName) (*Grant, Verdict) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock.Now()
	if t.holding == nil && len(holding) == 0 {
		t.settled = now // Where nobody has a server nobody can have too many.
	}
	t.holding = holding
	t.expire(now)
	w, ok := t.waiting[turn.Machine]
	if !ok {
		w = &waiter{since: now}
		t.waiting[turn.Machine] = w
	}
	w.Turn, w.seen = turn, now

	line := t.line(now)
	verdict := line.judge(w)
	switch verdict {
	case TurnGranted:
		grant := &Grant{Turn: turn, turns: t, since: now}
		t.granted[grant] = true
		return grant, verdict
	case TurnAfter:
		if first := line.next(); first != nil && first != w {
			t.call(first)
		}
	}
	return nil, verdict
}

// Leave says that the machine no longer waits.
func (t *Turns) Leave(machine types.NamespacedName) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.waiting[machine]; ok {
		delete(t.waiting, machine)
		t.callNext()
	}
}

func (t *Turns) done(grant *Grant, outcome Outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock.Now()
	delete(t.granted, grant)
	switch outcome {
	case OutcomeTaken:
		t.taken[grant.Machine] = taken{cluster: grant.Cluster, at: now}
		delete(t.waiting, grant.Machine)
		delete(t.scarce, grant.Wants)
		delete(t.failing, grant.Cluster)
	case OutcomeRefused:
		if until := t.refusedUntil(grant.since, now); until.After(t.scarce[grant.Wants].until) {
			t.scarce[grant.Wants] = scarcity{until}
		}
		delete(t.failing, grant.Cluster)
	case OutcomeConflict:
		t.comesBack(grant.Machine, now)
	default:
		t.failing[grant.Cluster] = failures{count: t.failing[grant.Cluster].count + 1, at: now}
		t.comesBack(grant.Machine, now)
	}
	t.expire(now)
	t.callNext()
}

// comesBack notes that the machine asks again by itself. The caller holds the lock.
func (t *Turns) comesBack(machine types.NamespacedName, now time.Time) {
	if w, ok := t.waiting[machine]; ok {
		w.failed = now
	}
}

// refusedUntil counts from when MAAS was asked, so that a poll later it is asked again; a MAAS that takes long to refuse gets
// some rest.
func (t *Turns) refusedUntil(asked, answered time.Time) time.Time {
	until := asked.Add(t.lately())
	if rested := answered.Add(t.interval / 2); rested.After(until) {
		until = rested
	}
	return until
}

// lately is a little less than the interval, so that who comes back after it is not just too early.
func (t *Turns) lately() time.Duration { return t.interval * 9 / 10 }

// nudge wakes those whose turn it is, because time passed.
func (t *Turns) nudge() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(t.clock.Now())
	t.callNext()
}

func (t *Turns) resize(size int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.size = size
}

// expire forgets what no longer counts. The caller holds the lock.
func (t *Turns) expire(now time.Time) {
	gone := now.Add(-forgetAfter * t.interval)
	for machine, w := range t.waiting {
		if now.Sub(w.seen) > max(forgetAfter*t.interval, waitsFor) {
			delete(t.waiting, machine)
		}
	}
	for machine, server := range t.taken {
		if _, shown := t.holding[machine]; shown && server.shown.IsZero() {
			server.shown = now
			t.taken[machine] = server
		}
		if !server.shown.IsZero() && now.Sub(server.shown) > t.interval || now.Sub(server.at) > takenFor {
			delete(t.taken, machine)
		}
	}
	for wants, scarcity := range t.scarce {
		if scarcity.until.Before(gone) {
			delete(t.scarce, wants)
		}
	}
	for cluster, failed := range t.failing {
		if failed.at.Before(gone) {
			delete(t.failing, cluster)
		}
	}
}

// callNext wakes as many as there are turns. The caller holds the lock.
func (t *Turns) callNext() {
	line := t.line(t.clock.Now())
	for {
		w := line.next()
		if w == nil {
			return
		}
		t.call(w)
		line.grant(w)
	}
}

func (t *Turns) call(w *waiter) {
	if t.wake != nil {
		t.wake(w.Machine)
	}
}
