// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// poll polls if something is due, as the poller does after each interval.
func (b *bench) poll() time.Duration {
	b.clock.Step(b.readings.interval)
	if !b.follower.due() {
		return 0
	}
	return b.follower.poll(b.Context(), logr.Discard())
}

func TestTheFeedIsFollowed(t *testing.T) {
	b := newBench(t, 3)
	b.fleet.record("m0", "m1", "m2")
	b.get("m0", time.Minute)
	b.get("m1", time.Minute)
	b.watch("m0", "m1")
	b.poll() // Begins with the newest event, and renews the readings from before.
	b.Expect(b.follower.cursor).To(Equal(int64(3)))
	b.Expect(b.asked(askByID)).To(Equal(3))
	b.poll()
	b.Expect(b.asked(askByID)).To(BeZero())

	b.fleet.become("m1", maas.StatusReleasing)
	b.fleet.record("m2", "unknown")
	b.poll()
	b.Expect(b.asked(askByID)).To(Equal(1))
	b.Expect(b.fleet.arguments(askByID)).To(Equal([]string{"m1"}), "nobody cares for the others")
	b.Expect(b.wakes()).To(Equal([]string{"m1"}))
	b.Expect(b.get("m1", time.Minute).Status).To(Equal(maas.StatusReleasing))
	b.Expect(b.get("m0", time.Minute).Status).To(Equal(maas.StatusDeployed))
	b.Expect(b.asked(askByID)).To(BeZero(), "who waits finds it done")

	b.fleet.record("m0")
	b.poll()
	b.Expect(b.fleet.arguments(askByID)).To(Equal([]string{"m0"}))
	b.Expect(b.wakes()).To(BeEmpty(), "nothing changed")
}

func TestWhatTheFeedMissesIsReadWithinTheAgeAccepted(t *testing.T) {
	b := newBench(t, 2)
	b.get("m0", time.Minute)
	b.watch("m0")
	b.poll()
	b.poll()
	b.fleet.silently("m0", maas.StatusReleasing)
	for i := 1; ; i++ {
		b.get("m0", time.Minute)
		b.poll()
		if len(b.wakes()) > 0 {
			b.Expect(i).To(BeNumerically("<=", 12))
			b.Expect(i).To(BeNumerically(">", 8))
			break
		}
		b.Expect(i).To(BeNumerically("<", 13), "it is never seen")
	}
	// Where somebody waits for the power the same is seen at the next poll.
	b.get("m0", 0)
	b.poll()
	b.fleet.silently("m0", maas.StatusReady)
	b.poll()
	b.Expect(b.wakes()).To(Equal([]string{"m0"}))
}

func TestWhoOnlyWantsToKnowThatNothingChangedDoesNotWait(t *testing.T) {
	b := newBench(t, 1)
	b.get("m0", time.Minute)
	b.Expect(b.follower.due()).To(BeTrue())
	b.get("m0", 10*time.Minute)
	b.Expect(b.follower.due()).To(BeFalse())
}

func TestWhoAsksBetweenPollsLeavesTheOthersToThePoller(t *testing.T) {
	b := newBench(t, 10)
	for i := range 10 {
		b.get(machineID(i), 0)
	}
	b.poll()
	b.clock.Step(time.Second)
	b.readings.Invalidate("m3")
	b.get("m3", 0)
	b.Expect(b.fleet.arguments(askByID)).To(Equal([]string{"m3"}))
	b.poll()
	b.Expect(b.fleet.arguments(askByID)).To(HaveLen(10))
}

func TestAnEventEndsAReading(t *testing.T) {
	b := newBench(t, 1)
	b.get("m0", time.Minute)
	b.poll()
	b.get("m0", time.Minute)
	b.fleet.become("m0", maas.StatusReleasing)
	b.fleet.fail(askByID, errRefused)
	b.poll()
	_, err := b.readings.Machine(b.Context(), "m0", time.Minute)
	b.Expect(err).To(MatchError(errRefused), "what is known is from before")
	_, ok := b.readings.Recent("m0", time.Hour)
	b.Expect(ok).To(BeFalse())
}

func TestSettledMachinesAreLookedAtOnceAMinute(t *testing.T) {
	b := newBench(t, 100)
	for i := range 100 {
		b.watch(machineID(i))
	}
	b.poll()
	b.asked(askEvents)
	for range 120 {
		b.poll()
	}
	b.Expect(b.asked(askEvents)).To(Equal(10))
	b.Expect(b.asked(askByID)).To(BeZero())

	b.fleet.become("m7", maas.StatusReady)
	for range 12 {
		b.poll()
	}
	b.Expect(b.wakes()).To(Equal([]string{"m7"}))
	b.Expect(b.asked(askByID)).To(Equal(1))
	m, ok := b.readings.Recent("m7", time.Hour)
	b.Expect(ok && m.Status == maas.StatusReady).To(BeTrue())
	b.fleet.record("m7")
	for range 12 {
		b.poll()
	}
	b.Expect(b.wakes()).To(Equal([]string{"m7"}), "nobody asks: it is told that something happened")

	// What could not be read is read at the next poll, not a minute later.
	b.fleet.record("m8")
	b.fleet.fail(askByID, errRefused)
	for range 12 {
		b.poll()
	}
	b.Expect(b.wakes()).To(BeEmpty())
	b.fleet.fail(askByID, nil)
	b.poll()
	b.Expect(b.wakes()).To(Equal([]string{"m8"}))

	for i := range 100 {
		b.readings.Unwatch(machineID(i), named(machineID(i)))
	}
	b.asked(askEvents)
	for range 20 * 60 {
		b.poll()
	}
	b.Expect(b.asked(askEvents)).To(BeZero(), "nobody cares for any machine")
	b.Expect(b.readings.machines).To(BeEmpty(), "after an hour nothing is left")
	for range 2 * maas.MaxEvents {
		b.fleet.record("m1")
	}
	b.watch("m1")
	b.poll()
	b.Expect(b.follower.cursor).To(Equal(int64(len(b.fleet.events))))
	b.Expect(b.asked(askEvents)).To(Equal(1), "after a long pause it begins anew")
}

func TestABacklogIsReadInPages(t *testing.T) {
	b := newBench(t, 2)
	b.watch("m0", "m1")
	b.get("m1", time.Minute)
	b.poll()
	b.asked(askEvents)
	for range 7*maas.MaxEvents + 1 {
		b.fleet.record("other")
	}
	b.fleet.record("m0")
	b.poll()
	b.Expect(b.asked(askEvents)).To(Equal(feedPages))
	b.Expect(b.wakes()).To(BeEmpty())
	b.poll()
	b.Expect(b.asked(askEvents)).To(Equal(3))
	b.Expect(b.wakes()).To(Equal([]string{"m0"}))
}

func TestWithoutTheFeedEverythingWaitedForIsRead(t *testing.T) {
	b := newBench(t, 50)
	var said []string
	log := funcr.New(func(_, args string) { said = append(said, args) }, funcr.Options{})
	poll := func() time.Duration {
		b.clock.Step(b.readings.interval)
		for i := range 50 {
			b.get(machineID(i), time.Minute)
		}
		b.asked(askByID)
		b.Expect(b.follower.due()).To(BeTrue())
		return b.follower.poll(b.Context(), log)
	}
	poll()
	poll()
	b.Expect(b.asked(askByID)).To(BeZero())
	b.fleet.fail(askEvents, &maas.ForbiddenError{})
	for i := range 12 {
		b.asked(askEvents)
		poll()
		b.Expect(b.asked(askByID)).To(Equal(1), "poll %d", i)
		b.Expect(b.fleet.arguments(askByID)).To(HaveLen(50))
		if i > feedTries {
			b.Expect(b.asked(askEvents)).To(BeZero(), "it is tried again after a minute")
		}
	}
	b.Expect(said).To(HaveLen(1), "it is said once")
	b.Expect(b.fallbacks).To(Equal(12))
	b.fleet.fail(askEvents, nil)
	b.fleet.become("m3", maas.StatusReleasing)
	b.asked(askEvents)
	for b.follower.failures > 0 {
		poll()
	}
	b.Expect(b.asked(askEvents)).To(Equal(1))
	b.Expect(said).To(HaveLen(2))
	poll()
	b.Expect(b.asked(askByID)).To(BeZero())
	b.Expect(b.fallbacks).To(BeNumerically("~", 14, 1))
	b.Expect(said).To(HaveLen(2))
}

func TestAFeedThatHangsHoldsUpNobody(t *testing.T) {
	b := newBench(t, 1)
	b.get("m0", time.Minute)
	b.fleet.onAsked(askEvents, func() {
		b.clock.Step(6 * time.Second)
		b.get("m0", time.Minute)
	})
	b.poll()
	b.Expect(b.asked(askByID)).To(BeNumerically(">=", 2))
}

func TestRetryAfterIsHonoured(t *testing.T) {
	b := newBench(t, 1)
	b.get("m0", time.Minute)
	b.fleet.fail(askEvents, &maas.RetryableError{RetryAfter: 8 * time.Second})
	b.asked(askByID)
	b.Expect(b.poll()).To(Equal(8 * time.Second))
	_, err := b.readings.Machine(b.Context(), "m0", 0)
	b.Expect(maas.IsRetryable(err)).To(BeTrue(), "nobody asks meanwhile")
	b.Expect(b.asked(askByID)).To(BeZero())

	b.fleet.fail(askEvents, nil)
	b.clock.Step(5 * time.Second)
	b.fleet.fail(askByID, &maas.RetryableError{RetryAfter: time.Hour})
	b.Expect(b.poll()).To(Equal(longestPause), "within reason")
	b.fleet.fail(askByID, &maas.RetryableError{})
	b.Expect(b.poll()).To(BeZero())
	b.fleet.fail(askByID, errRefused)
	b.Expect(b.poll()).To(BeZero())
}

func TestTheEndOfThePollerIsNoFailure(t *testing.T) {
	b := newBench(t, 1)
	b.get("m0", time.Minute)
	b.clock.Step(time.Second)
	ctx, cancel := context.WithCancel(b.Context())
	b.fleet.hang(askEvents)
	b.fleet.hang(askByID)
	b.fleet.onAsked(askEvents, cancel)
	b.Expect(b.follower.due()).To(BeTrue())
	b.follower.poll(ctx, funcr.New(func(_, args string) { b.Errorf("said %s", args) }, funcr.Options{}))
	b.Expect(b.fallbacks).To(BeZero())
	b.Expect(b.readings.reading.last()).To(Succeed())
}

func TestAnotherClientsFeedBeginsAnew(t *testing.T) {
	b := newBench(t, 1)
	b.fleet.record("m0", "m0", "m0")
	b.get("m0", time.Minute)
	b.poll()
	other := newFleet(1)
	other.record("m0")
	b.readings.serve(other)
	b.poll()
	b.Expect(b.follower.cursor).To(Equal(int64(1)))
	// An answer of the one before says nothing about this one.
	other.onAsked(askEvents, func() { other.record("m0"); b.readings.serve(newFleet(1)) })
	b.poll()
	b.Expect(b.readings.feed).To(Equal(coverage{}))
	b.Expect(errors.Is(b.readings.reading.last(), nil)).To(BeTrue())
}
