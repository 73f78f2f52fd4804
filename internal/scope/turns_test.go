// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
)

type holding = map[types.NamespacedName]types.NamespacedName

// queue is Turns with a clock and a list of who was woken; clusters and machines are letters and numbers.
type queue struct {
	*testing.T
	*WithT
	clock *clocktesting.FakeClock
	turns *Turns
	woken []string
	holds holding
}

func newQueue(t *testing.T, size int) *queue {
	t.Helper()
	q := &queue{T: t, WithT: NewWithT(t), clock: clocktesting.NewFakeClock(time.Now()), holds: holding{}}
	q.turns = NewTurns(size, 10*time.Second, q.clock)
	q.turns.wake = func(machine types.NamespacedName) { q.woken = append(q.woken, machine.Name) }
	return q
}

func clusterOf(machine string) types.NamespacedName {
	return types.NamespacedName{Namespace: "tenant", Name: machine[:1]}
}

func named(machine string) types.NamespacedName {
	return types.NamespacedName{Namespace: "tenant", Name: machine}
}

// take asks for the machine, which wants anything unless said otherwise.
func (q *queue) take(machine string, wants ...string) (*Grant, Verdict) {
	q.clock.Step(time.Millisecond) // No two things happen at once.
	turn := Turn{Machine: named(machine), Cluster: clusterOf(machine)}
	if len(wants) > 0 {
		turn.Wants = wants[0]
	}
	return q.turns.Take(turn, q.holds)
}

func (q *queue) expect(verdict Verdict, machine string, wants ...string) *Grant {
	q.Helper()
	grant, got := q.take(machine, wants...)
	if got != verdict || (grant != nil) != (verdict == TurnGranted) {
		q.Fatalf("%s: got %s (%v), want %s", machine, got, grant != nil, verdict)
	}
	return grant
}

func (q *queue) hold(machines ...string) {
	holds := holding{}
	for _, machine := range machines {
		holds[named(machine)] = clusterOf(machine)
	}
	q.holds = holds
}

func (q *queue) calls() []string {
	woken := q.woken
	q.woken = nil
	return woken
}

func TestTurnsAreBounded(t *testing.T) {
	q := newQueue(t, 2)
	first := q.expect(TurnGranted, "a1")
	q.expect(TurnBusy, "a1")
	q.expect(TurnGranted, "a2")
	q.expect(TurnBusy, "a3")
	first.Done(OutcomeFailed)
	first.Done(OutcomeFailed) // Giving back twice gives back once.
	q.Expect(q.calls()).To(Equal([]string{"a3"}), "who failed comes back by itself")
	q.expect(TurnGranted, "a3")
	q.expect(TurnBusy, "a4")
	q.turns.resize(3)
	q.expect(TurnGranted, "a4")
}

func TestClustersWithFewerServersGoFirst(t *testing.T) {
	q := newQueue(t, 4)
	q.hold("a1", "b1", "c1", "c2")
	q.clock.Step(time.Minute)
	q.expect(TurnGranted, "c3").Done(OutcomeFailed) // Nobody else waits.

	b2, b3 := q.expect(TurnGranted, "b2"), q.expect(TurnGranted, "b3")
	q.expect(TurnAfter, "b4") // c3 waits, and c has two.
	b2.Done(OutcomeTaken)
	b3.Done(OutcomeTaken)
	q.Expect(q.calls()).To(BeEmpty(), "c3 failed a moment ago and comes back by itself")
	c3 := q.expect(TurnGranted, "c3")

	a2, a3 := q.expect(TurnGranted, "a2"), q.expect(TurnGranted, "a3")
	q.expect(TurnAfter, "a4") // c3 is under way, and may fail.
	q.Expect(q.calls()).To(BeEmpty(), "who is first asks already")
	a2.Done(OutcomeTaken)
	a3.Done(OutcomeTaken)
	q.Expect(q.calls()).To(BeEmpty())
	c3.Done(OutcomeTaken)
	q.Expect(q.calls()).To(Equal([]string{"b4", "a4"}), "all have three")
}

func TestWhatIsUnderWayCountsAgainstWhoAsks(t *testing.T) {
	q := newQueue(t, 4)
	a1, b1 := q.expect(TurnGranted, "a1"), q.expect(TurnGranted, "b1")
	q.expect(TurnAfter, "a2") // b1 may fail: b would have none then.
	b1.Done(OutcomeFailed)
	q.expect(TurnAfter, "a2")
	b1 = q.expect(TurnGranted, "b1")
	b1.Done(OutcomeTaken)
	q.expect(TurnGranted, "a2")
	a1.Done(OutcomeTaken)
	q.expect(TurnGranted, "b2")
}

func TestTakenServersCountBeforeTheCacheShowsThem(t *testing.T) {
	q := newQueue(t, 1)
	q.expect(TurnGranted, "a1").Done(OutcomeTaken)
	q.expect(TurnGranted, "b1").Done(OutcomeTaken)
	q.expect(TurnGranted, "a2").Done(OutcomeTaken)
	busy := q.expect(TurnGranted, "b2")
	q.expect(TurnBusy, "a3")
	busy.Done(OutcomeFailed)
	q.expect(TurnAfter, "a3") // Two against one, though the cache shows none.

	q.hold("a1", "b1", "a2")
	q.expect(TurnAfter, "a3") // Not counted twice.
	q.expect(TurnGranted, "b2").Done(OutcomeTaken)
	q.hold("b1", "b2", "a2")
	q.expect(TurnGranted, "a3").Done(OutcomeFailed) // a1 was given back: the cache showed it once.
	q.clock.Step(takenFor)
	q.clock.Step(time.Second)
	q.hold("b1")
	q.expect(TurnGranted, "b3").Done(OutcomeTaken) // b2 never came to be in the cache: it is not believed for ever.
}

// TestWhatWasShownOnceMayBeMissingInAnOlderReading: callers read who holds what apart, and share it for a while.
func TestWhatWasShownOnceMayBeMissingInAnOlderReading(t *testing.T) {
	q := newQueue(t, 4)
	q.hold("a1", "a2", "b1", "b2")
	older := q.holds
	q.expect(TurnAfter, "a3")
	q.clock.Step(10 * time.Second)
	q.expect(TurnGranted, "a3").Done(OutcomeTaken)
	q.hold("a1", "a2", "a3", "b1", "b2")
	asking := q.expect(TurnGranted, "b3")
	q.holds = older
	q.expect(TurnAfter, "a4")
	asking.Done(OutcomeFailed)
	q.clock.Step(11 * time.Second)
	q.expect(TurnGranted, "b3")
	q.expect(TurnGranted, "a4") // a3 was given back.
}

func TestEqualWantsAreRefusedTogether(t *testing.T) {
	q := newQueue(t, 4)
	calls := 0
	for round := range 10 {
		for i := range 50 {
			grant, verdict := q.take(fmt.Sprintf("a%d", i), "gpu")
			if verdict == TurnGranted {
				calls++
				grant.Done(OutcomeRefused)
				continue
			}
			q.Expect(verdict).To(Equal(TurnRefused))
		}
		q.Expect(calls).To(Equal(round+1), "fifty that want the same cost one allocate a poll")
		q.clock.Step(q.turns.interval - 50*time.Millisecond)
	}
	grant := q.expect(TurnGranted, "b1", "gpu")
	q.expect(TurnRefused, "a2", "gpu") // Where nothing was free, one at a time finds out.
	q.expect(TurnGranted, "c1", "cpu") // Who wants something else is not concerned.
	q.calls()
	grant.Done(OutcomeTaken)
	q.Expect(q.calls()).To(ContainElement(HavePrefix("a")), "there is one again: the next one looks")
	q.expect(TurnGranted, "a2", "gpu")
	q.expect(TurnAfter, "a3", "gpu") // c waits for its first.
}

func TestASlowRefusalGivesMAASRest(t *testing.T) {
	q := newQueue(t, 4)
	grant := q.expect(TurnGranted, "a1", "gpu")
	q.clock.Step(time.Minute)
	grant.Done(OutcomeRefused)
	q.expect(TurnRefused, "a2", "gpu")
	q.clock.Step(q.turns.interval / 2)
	q.expect(TurnGranted, "a2", "gpu")
}

func TestWhoCannotBeServedHoldsUpNobody(t *testing.T) {
	q := newQueue(t, 4)
	q.hold("a1", "a2", "a3")
	q.clock.Step(time.Minute)
	refused := q.expect(TurnGranted, "b1", "gpu")
	q.expect(TurnAfter, "a4", "cpu")
	q.calls()
	refused.Done(OutcomeRefused)
	q.Expect(q.calls()).To(Equal([]string{"a4"}))
	q.expect(TurnGranted, "a4", "cpu").Done(OutcomeRefused)
	q.clock.Step(q.turns.interval)
	q.expect(TurnAfter, "a4", "cpu")
	q.Expect(q.calls()).To(Equal([]string{"b1"}), "the first one is called")

	// One that vanished is waited for no longer than three intervals.
	q.clock.Step(forgetAfter * q.turns.interval)
	q.expect(TurnGranted, "a4", "cpu").Done(OutcomeFailed)

	// So is one that says that it leaves, and one that has got a server in another way.
	q.expect(TurnGranted, "b1", "gpu").Done(OutcomeFailed)
	q.expect(TurnAfter, "a4", "cpu")
	q.calls()
	q.clock.Step(q.turns.interval)
	q.turns.Leave(named("b1"))
	q.Expect(q.calls()).To(Equal([]string{"a4"}))
	q.expect(TurnGranted, "b1", "gpu").Done(OutcomeFailed)
	q.hold("a1", "a2", "a3", "b1")
	q.expect(TurnGranted, "a4", "cpu")
}

func TestWhoFailsAgainAndAgainHoldsUpNobody(t *testing.T) {
	q := newQueue(t, 4)
	q.hold("a1")
	q.clock.Step(time.Minute)
	q.expect(TurnGranted, "b1").Done(OutcomeFailed)
	q.expect(TurnAfter, "a2")
	q.expect(TurnGranted, "b1").Done(OutcomeFailed)
	q.expect(TurnGranted, "a2").Done(OutcomeFailed)
	q.clock.Step(q.turns.interval)
	q.expect(TurnAfter, "a2")

	// Who could not ask, because it was changed meanwhile, did not fail.
	for range 3 {
		q.expect(TurnGranted, "b1").Done(OutcomeConflict)
		q.expect(TurnAfter, "a2")
	}

	// An allocation that hangs counts as under way, but not for ever.
	hangs := q.expect(TurnGranted, "b1")
	q.expect(TurnAfter, "a2")
	q.clock.Step(forgetAfter * q.turns.interval)
	q.expect(TurnGranted, "a2")
	hangs.Done(OutcomeTaken)
}

func TestAfterARestartEverybodyIsHeardFirst(t *testing.T) {
	q := newQueue(t, 4)
	q.hold("a1", "a2")
	q.expect(TurnAfter, "a3") // Others may be about to ask.
	q.expect(TurnGranted, "b1").Done(OutcomeTaken)
	q.expect(TurnAfter, "b2")
	q.clock.Step(q.turns.interval)
	q.calls()
	q.turns.nudge()
	q.Expect(q.calls()).To(Equal([]string{"b2"}))
	q.expect(TurnGranted, "b2").Done(OutcomeTaken)
	q.expect(TurnGranted, "a3")
}

func TestNudgeWakesOneForEachWants(t *testing.T) {
	q := newQueue(t, 4)
	for _, wants := range []string{"gpu", "cpu"} {
		q.expect(TurnGranted, "a1"+wants, wants).Done(OutcomeRefused)
		q.expect(TurnRefused, "a2"+wants, wants)
		q.expect(TurnRefused, "a3"+wants, wants)
	}
	q.calls()
	q.turns.nudge()
	q.Expect(q.calls()).To(BeEmpty())
	q.clock.Step(q.turns.interval)
	q.turns.nudge()
	q.Expect(q.calls()).To(Equal([]string{"a1gpu", "a1cpu"}))
	q.turns.resize(1)
	q.turns.nudge()
	q.Expect(q.calls()).To(Equal([]string{"a1gpu"}))
}
