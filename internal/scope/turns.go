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
	// TurnAfter means that another cluster with fewer servers waits and can be served.
	TurnAfter Verdict = "After"
	// TurnRefused means that MAAS had nothing free for the same Wants a moment ago.
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
	// OutcomeFailed is anything else, a lost answer included.
	OutcomeFailed Outcome = "Failed"
)

// Turns bound how many allocations of an identity are under way at once. Nobody waits inside: who gets none comes back later.
type Turns struct {
	mu          sync.Mutex
	size, taken int
}

// NewTurns returns that many free turns; interval is how often those who wait come back.
func NewTurns(size int, _ time.Duration, _ clock.PassiveClock) *Turns { return &Turns{size: size} }

// Grant is a turn that was granted.
type Grant struct{ done func(Outcome) }

// Done gives the turn back and says how it went. It must be called once; further calls do nothing.
func (g *Grant) Done(outcome Outcome) { g.done(outcome) }

// Take asks for a turn. Holding are the MaasMachines that have a server, with their Clusters.
func (t *Turns) Take(_ Turn, _ map[types.NamespacedName]types.NamespacedName) (*Grant, Verdict) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.taken >= t.size {
		return nil, TurnBusy
	}
	t.taken++
	release := sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.taken--
	})
	return &Grant{done: func(Outcome) { release() }}, TurnGranted
}

// Leave says that the machine no longer waits.
func (t *Turns) Leave(types.NamespacedName) {}

func (t *Turns) resize(size int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.size = size
}
