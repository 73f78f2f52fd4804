// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	clocktesting "k8s.io/utils/clock/testing"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

func TestCallsInFlightAreBounded(t *testing.T) {
	g := NewWithT(t)
	clock := clocktesting.NewFakeClock(time.Now())
	p := newPulse(clock)
	for range callsInFlight {
		g.Expect(p.admit(t.Context(), "deploy")).To(Succeed())
	}
	g.Expect(p.admit(t.Context(), probing)).To(Succeed(), "whether MAAS answers again is always asked")
	admitted := make(chan error, 2)
	wait := func(ctx context.Context) { go func() { admitted <- p.admit(ctx, "deploy") }() }
	wait(t.Context())
	g.Eventually(clock.HasWaiters).Should(BeTrue())
	g.Expect(admitted).NotTo(Receive())
	p.ended(maas.Observation{Operation: "deploy", Code: 200})
	g.Eventually(admitted).Should(Receive(BeNil()))

	ctx, cancel := context.WithCancel(t.Context())
	wait(ctx)
	cancel()
	g.Eventually(admitted).Should(Receive(MatchError(context.Canceled)))

	// While MAAS answers others one waits on; where it answers nobody one does not.
	wait(t.Context())
	g.Eventually(clock.HasWaiters).Should(BeTrue())
	clock.Step(stalled - time.Second)
	p.ended(maas.Observation{Operation: probing, Code: 503})
	clock.Step(time.Second)
	g.Consistently(admitted, "20ms").ShouldNot(Receive())
	g.Eventually(clock.HasWaiters).Should(BeTrue())
	clock.Step(stalled)
	g.Eventually(admitted).Should(Receive(MatchError(errSlow)))
	g.Expect(p.admit(t.Context(), "deploy")).To(MatchError(errSlow))
	for range callsInFlight {
		p.ended(maas.Observation{Operation: "deploy"})
	}
	g.Expect(p.admit(t.Context(), "deploy")).To(Succeed())
}

func TestPulse(t *testing.T) {
	g := NewWithT(t)
	clock := clocktesting.NewFakeClock(time.Now())
	p := newPulse(clock)
	call := func() { g.Expect(p.admit(t.Context(), "deploy")).To(Succeed()) }
	end := func(code int, took time.Duration) {
		p.ended(maas.Observation{Operation: "deploy", Code: code, Duration: took})
	}
	clock.Step(time.Hour)
	g.Expect(p.hangs()).To(BeFalse(), "it is asked nothing")
	call()
	clock.Step(patience - 1)
	g.Expect(p.hangs()).To(BeFalse(), "it is slow")
	call()
	clock.Step(1)
	g.Expect(p.hangs()).To(BeTrue())
	end(500, patience)
	g.Expect(p.hangs()).To(BeFalse(), "any answer will do")
	end(0, time.Millisecond)
	g.Expect(p.hangs()).To(BeFalse(), "a connection that breaks at once keeps nobody")
	call()
	end(0, stalled)
	g.Expect(p.hangs()).To(BeTrue(), "the last one was not answered in a long time")
	p.alive()
	g.Expect(p.hangs()).To(BeFalse())
}

// TestAHungMAASIsToldAtOnce: who needs an identity whose MAAS has stopped to answer does not wait for a deadline.
func TestAHungMAASIsToldAtOnce(t *testing.T) {
	s := newSetting(t, anIdentity(), aSecret(goodKey))
	fleet := newFleet(1)
	s.identities.(*identities).NewMAAS = func(config maas.Config) (MAAS, error) { s.made = append(s.made, config); return fleet, nil }
	_, err := s.identities.Get(t.Context(), "lab")
	s.Expect(err).NotTo(HaveOccurred())
	s.Expect(s.made[0].Admit(t.Context(), "deploy")).To(Succeed())
	s.clock.Step(patience)

	release := fleet.hang(askWho)
	answers := make(chan error, 100)
	get := func() {
		go func() {
			_, err := s.identities.Get(t.Context(), "lab")
			answers <- err
		}()
	}
	get() // The first one finds out.
	s.Eventually(func() int { return fleet.count(askWho) }).Should(Equal(2))
	for range 50 {
		get()
	}
	s.Eventually(s.clock.HasWaiters).Should(BeTrue())
	s.clock.Step(probePatience)
	unreachable := WithTransform(func(err error) string {
		unusable, _ := AsUnusable(err)
		return unusable.Reason
	}, Equal(infrav1.MaasUnreachableReason))
	for range 50 {
		s.Eventually(func() bool { s.clock.Step(time.Second); return len(answers) > 0 }).Should(BeTrue())
		s.Expect(<-answers).To(unreachable)
	}
	fleet.fail(askWho, &maas.UnavailableError{Err: errRefused})
	release()
	s.Eventually(answers).Should(Receive(unreachable))
	for range 50 {
		_, err := s.identities.Get(t.Context(), "lab")
		s.Expect(err).To(unreachable)
	}
	s.Expect(fleet.count(askWho)).To(Equal(2))

	// While one tries again the others are told what is known.
	s.clock.Step(probeBackoff)
	release = fleet.hang(askWho)
	get()
	s.Eventually(func() int { return fleet.count(askWho) }).Should(Equal(3))
	_, err = s.identities.Get(t.Context(), "lab")
	s.Expect(err).To(unreachable)
	fleet.fail(askWho, nil)
	release()
	s.Eventually(answers).Should(Receive(BeNil()))
	_, err = s.identities.Get(t.Context(), "lab")
	s.Expect(err).NotTo(HaveOccurred())
	s.made[0].Observe(maas.Observation{Operation: "deploy", Code: 200})
	s.Expect(fleet.count(askWho)).To(Equal(3))
}

func TestAQuestionRestsAsLongAsMAASAsksFor(t *testing.T) {
	g := NewWithT(t)
	clock := clocktesting.NewFakeClock(time.Now())
	p := newPulse(clock)
	asked := func(operation string, after time.Duration, question bool) {
		g.Expect(p.admit(t.Context(), operation)).To(Succeed())
		p.ended(maas.Observation{Operation: operation, Code: 503, Question: question, RetryAfter: after})
	}
	asked("list by ID", 10*time.Second, true)
	asked("deploy", 10*time.Second, false)
	g.Expect(maas.RetryAfter(p.admit(t.Context(), "list by ID"))).To(Equal(10 * time.Second))
	g.Expect(p.admit(t.Context(), "list events")).To(Succeed(), "another question")
	g.Expect(p.admit(t.Context(), "deploy")).To(Succeed(), "an order concerns one machine only")
	clock.Step(10 * time.Second)
	asked("list by ID", 24*time.Hour, true)
	clock.Step(longestPause)
	g.Expect(p.admit(t.Context(), "list by ID")).To(Succeed(), "nobody is waited for so long")
}
