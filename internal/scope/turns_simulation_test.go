// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
)

// simulation runs clusters that want servers of several kinds, in steps of a tenth of a second. It keeps its own books, so that
// what Turns believe is not what they are judged by.
type simulation struct {
	*testing.T
	random   *rand.Rand
	clock    *clocktesting.FakeClock
	turns    *Turns
	interval time.Duration

	machines []*simulated
	byName   map[types.NamespacedName]*simulated
	// free are the servers by the only wants they meet.
	free map[string]int
	// appeared is when a server came that nobody has taken yet, by wants.
	appeared map[string]time.Time
	// shown is what the cache shows.
	shown holding
	// refused is until when wants are believed not to be met.
	refused map[string]time.Time
	// failed counts the failures in a row of a cluster, failedAt is when the last one was.
	failed   map[types.NamespacedName]int
	failedAt map[types.NamespacedName]time.Time

	failing  float64
	slowest  time.Duration
	refusals int
}

// simulated is a machine that wants a server.
type simulated struct {
	name, cluster types.NamespacedName
	wants         string
	next          time.Time
	seen          time.Time
	vanished      bool

	grant            *Grant
	asked, ends      time.Time
	served           bool
	servedAt, showAt time.Time
}

const tick = 100 * time.Millisecond

func newSimulation(t *testing.T, seed uint64) *simulation {
	t.Helper()
	s := &simulation{
		T: t, random: rand.New(rand.NewPCG(seed, 7)), clock: clocktesting.NewFakeClock(time.Unix(1e9, 0)), interval: 5 * time.Second,
		byName: map[types.NamespacedName]*simulated{}, free: map[string]int{}, appeared: map[string]time.Time{}, shown: holding{},
		refused: map[string]time.Time{}, failed: map[types.NamespacedName]int{}, failedAt: map[types.NamespacedName]time.Time{},
	}
	s.turns = NewTurns(1+s.random.IntN(4), s.interval, s.clock)
	s.turns.wake = func(name types.NamespacedName) { s.byName[name].next = s.clock.Now() }
	return s
}

func (s *simulation) add(cluster, machine int, wants string) *simulated {
	m := &simulated{
		name:    types.NamespacedName{Namespace: "tenant", Name: fmt.Sprintf("%d-%d", cluster, machine)},
		cluster: types.NamespacedName{Namespace: "tenant", Name: fmt.Sprint(cluster)}, wants: wants,
		next: s.clock.Now().Add(time.Duration(s.random.Int64N(int64(20 * s.interval)))),
	}
	s.machines, s.byName[m.name] = append(s.machines, m), m
	return m
}

// has counts the servers a cluster has got, be they shown or not.
func (s *simulation) has(cluster types.NamespacedName) (has, asking int) {
	for _, m := range s.machines {
		switch {
		case m.cluster != cluster:
		case m.served:
			has++
		case m.grant != nil:
			asking++
		}
	}
	return has, asking
}

// servable reports that a machine waits, and that nothing says that it cannot be served now.
func (s *simulation) servable(m *simulated) bool {
	now := s.clock.Now()
	if m.served || m.seen.IsZero() || s.failed[m.cluster] > 1 && now.Sub(s.failedAt[m.cluster]) < s.interval*9/10 {
		return false
	}
	if m.grant != nil {
		return now.Sub(m.asked) < forgetAfter*s.interval
	}
	return now.Sub(m.seen) <= forgetAfter*s.interval && !now.Before(s.refused[m.wants])
}

// visit is a pass of the machine's reconciler.
func (s *simulation) visit(m *simulated) {
	now := s.clock.Now()
	m.next = now.Add(s.interval + time.Duration(s.random.Int64N(int64(s.interval/10))))
	has, asking := s.has(m.cluster)
	m.seen = now
	grant, verdict := s.turns.Take(Turn{Machine: m.name, Cluster: m.cluster, Wants: m.wants}, s.shown)
	if grant == nil {
		if verdict == TurnGranted {
			s.Fatal("granted without a grant")
		}
		return
	}
	for _, other := range s.machines {
		if other.cluster == m.cluster || !s.servable(other) {
			continue
		}
		if others, _ := s.has(other.cluster); others < has+asking {
			s.Fatalf("%s: cluster %s may get server %d while %s of a cluster with %d waits and can be served",
				now.Format(time.TimeOnly), m.cluster.Name, has+asking+1, other.name.Name, others)
		}
	}
	if now.Before(s.refused[m.wants]) {
		s.Fatalf("%s was refused a moment ago", m.wants)
	}
	m.grant, m.asked = grant, now
	m.ends = now.Add(tick * time.Duration(1+s.random.IntN(8)))
	if s.random.Float64() < s.failing/4 {
		m.ends = now.Add(time.Minute) // The answer is lost.
	}
}

// end is MAAS' answer.
func (s *simulation) end(m *simulated) {
	now := s.clock.Now()
	outcome := OutcomeFailed
	switch {
	case s.random.Float64() < s.failing || now.Sub(m.asked) >= time.Minute:
		s.failed[m.cluster]++
		s.failedAt[m.cluster] = now
	case s.free[m.wants] == 0:
		outcome = OutcomeRefused
		s.refusals++
		s.failed[m.cluster] = 0
		// Of several answers the one to the latest question is believed, in whatever order they come.
		if until := m.asked.Add(s.interval * 9 / 10); until.After(s.refused[m.wants]) {
			s.refused[m.wants] = until
		}
	default:
		outcome = OutcomeTaken
		s.failed[m.cluster] = 0
		s.free[m.wants]--
		delete(s.refused, m.wants)
		if at, ok := s.appeared[m.wants]; ok {
			s.slowest = max(s.slowest, now.Sub(at))
			delete(s.appeared, m.wants)
		}
		m.served, m.servedAt, m.showAt = true, now, now.Add(tick*time.Duration(s.random.IntN(20)))
	}
	grant := m.grant
	m.grant = nil
	grant.Done(outcome)
}

// step passes a tick of time.
func (s *simulation) step(n int) {
	s.clock.Step(tick)
	now := s.clock.Now()
	if n%int(s.interval/tick) == 0 {
		s.turns.nudge() // As the poller does.
	}
	shown := holding{}
	for _, i := range s.random.Perm(len(s.machines)) {
		m := s.machines[i]
		switch {
		case m.grant != nil && !now.Before(m.ends):
			s.end(m)
		case m.grant == nil && !m.served && !m.vanished && !now.Before(m.next):
			s.visit(m)
		}
		if m.served && !now.Before(m.showAt) {
			shown[m.name] = m.cluster
		}
	}
	s.shown = shown
}

// TestFairness: whatever happens, of clusters that wait and can be served none gets its k+1st server before the others got k,
// and nobody is forgotten.
func TestFairness(t *testing.T) {
	for seed := range uint64(150) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			s := newSimulation(t, seed)
			s.failing = []float64{0, 0.1, 0.5}[seed%3]
			kinds := 1 + s.random.IntN(3)
			left := map[string]int{}
			for cluster := range 2 + s.random.IntN(5) {
				for machine := range 1 + s.random.IntN(8) {
					m := s.add(cluster, machine, fmt.Sprint("kind-", s.random.IntN(kinds)))
					left[m.wants]++
				}
			}
			served := func() (served, vanished int) {
				for _, m := range s.machines {
					if m.served {
						served++
					} else if m.vanished {
						vanished++
					}
				}
				return served, vanished
			}
			for n := range 20000 {
				for wants := range left {
					if left[wants] > 0 && s.random.IntN(60) == 0 {
						s.free[wants]++
						left[wants]--
					}
				}
				if s.random.IntN(2000) == 0 {
					s.machines[s.random.IntN(len(s.machines))].vanished = true
				}
				s.step(n)
				if n, gone := served(); n+gone == len(s.machines) {
					return
				}
			}
			n, gone := served()
			t.Fatalf("%d of %d have a server, %d vanished: somebody starves", n, len(s.machines), gone)
		})
	}
}

// TestAFreedServerIsTakenWithinAPoll: while many wait for several kinds of servers, one that is freed is taken a poll later,
// although each kind is asked for once a poll.
func TestAFreedServerIsTakenWithinAPoll(t *testing.T) {
	for seed := range uint64(50) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			s := newSimulation(t, seed)
			for cluster := range 3 {
				for machine := range 10 {
					s.add(cluster, machine, fmt.Sprint("kind-", machine%3)).next = s.clock.Now()
				}
			}
			const minutes = 5
			steps := int(minutes * time.Minute / tick)
			for n := range steps {
				if n > 200 && n%300 == 0 {
					wants := fmt.Sprint("kind-", s.random.IntN(3))
					s.free[wants]++
					s.appeared[wants] = s.clock.Now()
				}
				s.step(n)
			}
			// Besides the poll itself: its jitter, and asking for the other kinds before.
			if limit := s.interval*12/10 + time.Second; s.slowest == 0 || s.slowest > limit || len(s.appeared) > 0 {
				t.Errorf("the slowest was taken after %v, limit %v; %d were not", s.slowest, limit, len(s.appeared))
			}
			// At the beginning, and after each server taken, some ask at once.
			polls := int(minutes * time.Minute / s.interval)
			if limit := 3*polls*11/10 + 4*3 + 4*10; s.refusals > limit {
				t.Errorf("MAAS was asked in vain %d times, limit %d", s.refusals, limit)
			}
		})
	}
}
