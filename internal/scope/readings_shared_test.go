// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// bench is Readings of a fleet that are followed when the test says so.
type bench struct {
	*testing.T
	*WithT
	fleet    *fleet
	clock    *clocktesting.FakeClock
	readings *Readings
	follower *follower
	woken    []string
	// fallbacks counts the polls without the feed.
	fallbacks int
}

func newBench(t *testing.T, machines int) *bench {
	t.Helper()
	b := &bench{T: t, WithT: NewWithT(t), fleet: newFleet(machines), clock: clocktesting.NewFakeClock(time.Now())}
	b.readings = NewReadings(b.fleet, 5*time.Second, b.clock)
	b.readings.wake = func(object types.NamespacedName) { b.woken = append(b.woken, object.Name) }
	b.follower = &follower{readings: b.readings, fallback: func() { b.fallbacks++ }}
	return b
}

func (b *bench) get(id string, maxAge time.Duration) maas.Machine {
	b.Helper()
	m, err := b.readings.Machine(b.Context(), id, maxAge)
	if err != nil {
		b.Fatal(err)
	}
	return m
}

// watch watches a machine for the object of the same name.
func (b *bench) watch(ids ...string) {
	for _, id := range ids {
		b.readings.Watch(id, named(id))
	}
}

func (b *bench) wakes() []string {
	woken := b.woken
	b.woken = nil
	return woken
}

// asked returns how often each question was asked since the last time.
func (b *bench) asked(question string) int {
	n := b.fleet.count(question)
	b.fleet.mu.Lock()
	defer b.fleet.mu.Unlock()
	delete(b.fleet.calls, question)
	return n
}

func TestWithoutTheFeedNothingOlderThanTheIntervalCounts(t *testing.T) {
	b := newBench(t, 1)
	b.get("m0", time.Minute)
	b.clock.Step(4 * time.Second)
	b.get("m0", time.Minute)
	b.Expect(b.asked(askByID)).To(Equal(1))
	b.get("m0", 3*time.Second)
	b.Expect(b.asked(askByID)).To(Equal(1), "who asks for younger gets younger")
	b.clock.Step(5 * time.Second)
	b.get("m0", time.Hour)
	b.Expect(b.asked(askByID)).To(Equal(1))
}

func TestLearnIsAsGoodAsAReading(t *testing.T) {
	b := newBench(t, 1)
	b.get("m0", 0)
	b.asked(askByID)
	learnt := maas.Machine{SystemID: "m0", Status: maas.StatusDeploying}
	b.clock.Step(time.Second)
	sent := b.clock.Now()
	b.clock.Step(time.Second)
	b.watch("m0")
	b.readings.Learn(learnt, sent)
	b.Expect(b.get("m0", 0).Status).To(Equal(maas.StatusDeploying))
	b.Expect(b.asked(askByID)).To(BeZero())
	b.Expect(b.wakes()).To(BeEmpty(), "who learnt it knows")
	b.clock.Step(4 * time.Second)
	b.get("m0", 0)
	b.Expect(b.asked(askByID)).To(Equal(1), "its age counts from when the call was sent")

	// A reading made while the call was under way may be of before or after it.
	sent = b.clock.Now()
	b.clock.Step(time.Millisecond)
	b.get("m0", time.Nanosecond)
	b.clock.Step(time.Millisecond)
	b.readings.Learn(learnt, sent)
	b.asked(askByID)
	b.Expect(b.get("m0", 0).Status).To(Equal(maas.StatusDeployed))
	b.Expect(b.asked(askByID)).To(Equal(1))

	// So may one whose answer comes after that of the call.
	b.clock.Step(10 * time.Second)
	b.fleet.onAsked(askByID, func() {
		sent := b.clock.Now()
		b.clock.Step(time.Millisecond)
		b.readings.Learn(learnt, sent)
	})
	b.Expect(b.get("m0", 0).Status).To(Equal(maas.StatusDeploying))

	b.readings.Learn(maas.Machine{}, b.clock.Now()) // An answer that could not be read says nothing.
	b.readings.Learn(maas.Machine{SystemID: "new"}, b.clock.Now())
	b.Expect(b.get("new", 0).SystemID).To(Equal("new"))
	b.Expect(b.asked(askOne)).To(BeZero())
}

func TestWhoWatchesIsWokenByADifference(t *testing.T) {
	b := newBench(t, 3)
	b.watch("m0", "m1")
	b.readings.Watch("m0", named("other"))
	for _, id := range []string{"m0", "m1", "m2"} {
		b.get(id, 0)
	}
	b.Expect(b.wakes()).To(BeEmpty(), "what was never known is news to nobody who asks")
	poll := func() []string {
		b.clock.Step(5 * time.Second)
		b.get("m2", 0)
		b.get("m0", 0)
		b.get("m1", 0)
		return b.wakes()
	}
	b.Expect(poll()).To(BeEmpty())
	b.fleet.silently("m0", maas.StatusReleasing)
	b.fleet.silently("m2", maas.StatusReleasing)
	b.Expect(poll()).To(ConsistOf("m0", "other"))
	b.Expect(poll()).To(BeEmpty())
	b.readings.Unwatch("m0", named("other"))
	b.readings.Unwatch("m7", named("other"))
	b.fleet.remove("m0")
	b.clock.Step(5 * time.Second)
	b.get("m1", 0)
	b.Expect(b.wakes()).To(ConsistOf("m0"), "it is gone")
	b.readings.Invalidate("m1")
	b.fleet.silently("m1", maas.StatusReleasing)
	b.clock.Step(time.Millisecond)
	b.get("m1", 0)
	b.Expect(b.wakes()).To(ConsistOf("m1"), "also compared with what no longer counts")
}

func TestAnOddSystemIDSpoilsNoQuery(t *testing.T) {
	b := newBench(t, 1)
	for _, odd := range []string{"", "a b", "../x", strings.Repeat("m", sharedIDLength+1)} {
		_, err := b.readings.Machine(b.Context(), odd, 0)
		b.Expect(err).To(HaveOccurred())
		b.readings.Watch(odd, named("odd"))
		b.Expect(b.fleet.arguments(askOne)).To(Equal([]string{odd}), "it is asked for by itself")
	}
	b.get("m0", 0)
	b.Expect(b.fleet.arguments(askByID)).To(Equal([]string{"m0"}))
}

func TestARefusalIsAskedForOnceAReading(t *testing.T) {
	b := newBench(t, 0)
	for range 3 {
		_, err := b.readings.Machine(b.Context(), "gone", 0)
		b.Expect(maas.IsNotFound(err)).To(BeTrue())
	}
	b.Expect(b.asked(askOne)).To(Equal(1))
	b.clock.Step(5 * time.Second)
	b.fleet.fail(askOne, &maas.ForbiddenError{})
	_, err := b.readings.Machine(b.Context(), "gone", 0)
	b.Expect(maas.IsForbidden(err)).To(BeTrue())

	b.clock.Step(5 * time.Second)
	b.fleet.fail(askOne, &maas.UnavailableError{Err: errRefused})
	for range 3 {
		_, err = b.readings.Machine(b.Context(), "gone", 0)
		b.Expect(maas.IsUnavailable(err)).To(BeTrue(), "no answer is none")
	}
	b.Expect(b.asked(askOne)).To(Equal(4))
}

func TestAFailureIsForAllWhoAsk(t *testing.T) {
	b := newBench(t, 2)
	b.fleet.fail(askByID, errRefused)
	release := b.fleet.hang(askByID)
	answers := make(chan error, 20)
	for range 20 {
		go func() {
			_, err := b.readings.Machine(b.Context(), "m0", 0)
			answers <- err
		}()
	}
	b.Eventually(func() int { return b.fleet.count(askByID) }).Should(Equal(1))
	release()
	for range 20 {
		b.Eventually(answers).Should(Receive(MatchError(errRefused)))
	}
	_, err := b.readings.Machine(b.Context(), "m1", 0)
	b.Expect(err).To(MatchError(errRefused))
	b.Expect(b.asked(askByID)).To(Equal(1), "nobody tries again at once")

	b.clock.Step(b.readings.interval)
	b.fleet.fail(askByID, &maas.RetryableError{RetryAfter: time.Minute})
	_, err = b.readings.Machine(b.Context(), "m0", 0)
	b.Expect(maas.IsRetryable(err)).To(BeTrue())
	b.fleet.fail(askByID, nil)
	b.clock.Step(59 * time.Second)
	_, err = b.readings.Machine(b.Context(), "m0", 0)
	b.Expect(maas.IsRetryable(err)).To(BeTrue(), "MAAS asked to wait")
	b.Expect(b.asked(askByID)).To(Equal(1))
	b.clock.Step(time.Second)
	b.get("m0", 0)
}

func TestAHungReadingKeepsNobody(t *testing.T) {
	b := newBench(t, 1)
	release := b.fleet.hang(askByID)
	first := make(chan error, 1)
	go func() {
		_, err := b.readings.Machine(b.Context(), "m0", 0)
		first <- err
	}()
	b.Eventually(func() int { return b.fleet.count(askByID) }).Should(Equal(1))

	gone, leave := context.WithCancel(b.Context())
	answers := make(chan error, 2)
	for _, ctx := range []context.Context{gone, b.Context()} {
		go func() {
			_, err := b.readings.Machine(ctx, "m0", 0)
			answers <- err
		}()
	}
	leave()
	b.Eventually(answers).Should(Receive(MatchError(context.Canceled)))
	b.Eventually(b.clock.Waiters).Should(Equal(2), "who asks and who waits")
	b.clock.Step(patience)
	b.Eventually(answers).Should(Receive(Satisfy(maas.IsUnavailable)))

	b.fleet.fail(askByID, errRefused)
	release()
	b.Eventually(first).Should(Receive(MatchError(errRefused)))
	b.clock.Step(b.readings.interval)
	release = b.fleet.hang(askByID)
	go func() {
		_, err := b.readings.Machine(b.Context(), "m0", 0)
		first <- err
	}()
	b.Eventually(func() int { return b.fleet.count(askByID) }).Should(Equal(2))
	_, err := b.readings.Machine(b.Context(), "m0", 0)
	b.Expect(err).To(MatchError(errRefused), "after a failure nobody waits for the next attempt")
	release()
	b.Eventually(first).Should(Receive())

	// Who gave up did not fail for the others.
	b.fleet.fail(askByID, nil)
	b.clock.Step(b.readings.interval)
	b.get("m0", 0)
	b.clock.Step(b.readings.interval)
	gone, leave = context.WithCancel(b.Context())
	b.fleet.hang(askByID)
	b.fleet.onAsked(askByID, leave)
	_, err = b.readings.Machine(gone, "m0", 0)
	b.Expect(errors.Is(err, context.Canceled)).To(BeTrue())
	b.fleet.hangs = map[string]chan struct{}{}
	b.get("m0", 0)
}

func TestAnotherClientStartsAnew(t *testing.T) {
	b := newBench(t, 1)
	b.get("m0", 0)
	other := newFleet(1)
	other.silently("m0", maas.StatusReady)
	b.watch("m0")
	b.readings.serve(other)
	b.Expect(b.get("m0", time.Hour).Status).To(Equal(maas.StatusReady))
	b.Expect(b.wakes()).To(Equal([]string{"m0"}))

	// Nor does what the one before hung on.
	b.readings.setApart([]string{"m0"}, errRefused)
	b.readings.serve(other)
	b.Expect(b.get("m0", 0).Status).To(Equal(maas.StatusReady))

	// An answer of the one before counts no more.
	b.clock.Step(time.Minute)
	third := newFleet(1)
	other.onAsked(askByID, func() { b.readings.serve(third) })
	b.Expect(b.get("m0", 0).Status).To(Equal(maas.StatusDeployed))
	b.Expect(third.count(askByID)).To(Equal(1))
}

func TestTheAuditCountsAsReadings(t *testing.T) {
	b := newBench(t, 3)
	b.watch("m0", "m1", "m2")
	for _, id := range []string{"m0", "m1"} {
		b.get(id, 0)
	}
	b.clock.Step(10 * time.Minute)
	b.fleet.silently("m0", maas.StatusBroken)
	b.fleet.remove("m1")
	owned, err := b.readings.Owned(b.Context(), "capi", 10*time.Minute)
	b.Expect(err).NotTo(HaveOccurred())
	b.Expect(owned).To(HaveLen(2))
	b.Expect(b.wakes()).To(ConsistOf("m0", "m1"), "one changed and one is no longer ours")
	m, ok := b.readings.Recent("m2", time.Minute)
	b.Expect(ok && m.Status == maas.StatusDeployed).To(BeTrue())
	_, ok = b.readings.Recent("m1", time.Hour)
	b.Expect(ok).To(BeFalse())
}

func TestWhoAuditsKeepsNobodyWaiting(t *testing.T) {
	b := newBench(t, 1)
	owned := func(maxAge time.Duration) chan error {
		answer := make(chan error, 1)
		go func() {
			_, err := b.readings.Owned(b.Context(), "capi", maxAge)
			answer <- err
		}()
		return answer
	}
	b.Eventually(owned(time.Minute)).Should(Receive(BeNil()))
	b.clock.Step(time.Minute)
	release := b.fleet.hang(askOwned)
	first := owned(time.Minute)
	b.Eventually(func() int { return b.fleet.count(askOwned) }).Should(Equal(2))
	b.Eventually(owned(time.Minute)).Should(Receive(BeNil()), "the list before will do")
	fresh := owned(0)
	b.Consistently(fresh, "20ms").ShouldNot(Receive(), "unless it must be new")
	release()
	b.Eventually(first).Should(Receive(BeNil()))
	b.Eventually(fresh).Should(Receive(BeNil()))
	b.Expect(b.fleet.count(askOwned)).To(Equal(3))
}

// TestAMachineMAASHangsOnHoldsUpNobodyElse takes such a machine out of the questions for all until MAAS answers about it.
func TestAMachineMAASHangsOnHoldsUpNobodyElse(t *testing.T) {
	b := newBench(t, 3)
	answers := map[string]chan error{}
	ask := func(id string) {
		answers[id] = make(chan error, 1)
		go func() {
			_, err := b.readings.Machine(b.Context(), id, 0)
			answers[id] <- err
		}()
	}
	for _, id := range []string{"m0", "m1"} {
		b.get(id, 0)
	}
	b.clock.Step(5 * time.Second)
	release := b.fleet.hang(askByID)
	b.asked(askByID)
	ask("m0")
	b.Eventually(func() int { return b.fleet.count(askByID) }).Should(Equal(1))
	b.Expect(b.fleet.arguments(askByID)).To(ConsistOf("m0", "m1"))
	b.Eventually(b.clock.HasWaiters).Should(BeTrue())
	b.clock.Step(patience + 2*perMachine)
	b.Eventually(answers["m0"]).Should(Receive(Satisfy(maas.IsUnavailable)), "who asked waits no longer")
	b.Expect(b.readings.reading.slot).To(BeEmpty(), "and nobody else waits")

	defer release()
	b.fleet.hangNoMore(askByID)
	b.get("m2", 0)
	b.Expect(b.fleet.arguments(askByID)).To(ConsistOf("m2"), "without those it may hang on")
	b.clock.Step(5 * time.Second)
	again := b.fleet.hang(askByID)
	ask("m0")
	b.Eventually(func() []string { return b.fleet.arguments(askByID) }).Should(ConsistOf("m0"))
	b.Expect(b.readings.reading.slot).To(BeEmpty(), "asked for by itself")
	again()
	b.Eventually(answers["m0"]).Should(Receive(BeNil()))

	b.clock.Step(5 * time.Second)
	b.get("m2", 0)
	b.Expect(b.fleet.arguments(askByID)).To(ConsistOf("m0", "m2"), "MAAS answered about the one")
	b.clock.Step(apartFor)
	b.get("m1", 0)
	b.clock.Step(5 * time.Second)
	b.get("m2", 0)
	b.Expect(b.fleet.arguments(askByID)).To(ContainElement("m1"), "and the other gets another chance")
}

// TestAMAASThatAnswersNothingSetsNobodyApart: it does not hang on a machine.
func TestAMAASThatAnswersNothingSetsNobodyApart(t *testing.T) {
	b := newBench(t, 1)
	b.fleet.fail(askEvents, errRefused)
	b.fleet.fail(askByID, errRefused)
	release := b.fleet.hang(askByID)
	answer := make(chan error, 1)
	go func() {
		_, err := b.readings.Machine(b.Context(), "m0", 0)
		answer <- err
	}()
	b.Eventually(b.clock.HasWaiters).Should(BeTrue())
	b.clock.Step(patience + perMachine)
	b.Eventually(func() int { return b.fleet.count(askEvents) }).Should(Equal(1))
	b.Consistently(answer, 50*time.Millisecond).ShouldNot(Receive())
	b.Expect(b.readings.reading.slot).To(HaveLen(1), "nobody else is let in to wait in vain")
	release()
	b.Eventually(answer).Should(Receive(MatchError(errRefused)))
	gate, apart := b.readings.gateOf("m0")
	b.Expect(apart).To(BeFalse())
	b.Expect(gate).To(BeIdenticalTo(b.readings.reading))
}

// TestAMachineThatChangesWhileItIsReadIsReadAgain with others, so that no call of its own is needed.
func TestAMachineThatChangesWhileItIsReadIsReadAgain(t *testing.T) {
	for changes, alone := range map[int]int{0: 0, 1: 0, readTries: 1} {
		b := newBench(t, 1)
		var change func()
		change = func() {
			if changes == 0 {
				return
			}
			changes--
			b.clock.Step(time.Millisecond)
			b.readings.Invalidate("m0")
			b.fleet.onAsked(askByID, change)
		}
		b.fleet.onAsked(askByID, change)
		b.get("m0", 0)
		b.Expect(b.asked(askOne)).To(Equal(alone))
	}
}
