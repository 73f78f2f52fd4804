// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// question is NoneClaimed under way.
type question struct {
	none bool
	err  error
}

func ask(ctx context.Context, r *Readings, token string) chan question {
	answer := make(chan question, 1)
	go func() {
		none, err := r.NoneClaimed(ctx, token)
		answer <- question{none, err}
	}()
	return answer
}

func aToken(t *testing.T, name string) string {
	t.Helper()
	token, err := maas.NewToken(rand.Reader, "tenant", name)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// joined waits until so many tokens wait for the next query.
func (r *Readings) joined(g Gomega, tokens int) {
	g.Eventually(func() int {
		r.claims.mu.Lock()
		defer r.claims.mu.Unlock()
		if r.claims.next == nil {
			return 0
		}
		return len(r.claims.next.tokens)
	}).Should(Equal(tokens))
}

func TestTokensAreAskedForTogether(t *testing.T) {
	g := NewWithT(t)
	fleet := newFleet(0)
	r := NewReadings(fleet, time.Second, clocktesting.NewFakeClock(time.Now()))
	release := fleet.hang(askTokens)
	first := ask(t.Context(), r, aToken(t, "first"))
	g.Eventually(func() int { return fleet.count(askTokens) }).Should(Equal(1))
	var answers []chan question
	for range 50 {
		answers = append(answers, ask(t.Context(), r, aToken(t, "others")))
	}
	r.joined(g, 50)
	g.Expect(first).NotTo(Receive())
	release()
	for _, answer := range append(answers, first) {
		g.Eventually(answer).Should(Receive(Equal(question{none: true})))
	}
	g.Expect(fleet.count(askTokens)).To(Equal(2), "who comes while a query is under way joins the next one")
	g.Expect(fleet.arguments(askTokens)).To(HaveLen(50))

	g.Expect(r.NoneClaimed(t.Context(), aToken(t, "later"))).To(BeTrue())
	g.Expect(fleet.count(askTokens)).To(Equal(3), "an answer is never older than the question")
}

func TestUnclaimed(t *testing.T) {
	annotated := func(token string) maas.Machine {
		return maas.Machine{SystemID: "m", Annotations: map[string]string{maas.AnnotationToken: maas.TokenHash(token)}}
	}
	tokens := []string{"a", "b", "c"}
	cases := map[string]struct {
		found []maas.Machine
		free  []string
	}{
		"none is claimed":                  {nil, tokens},
		"annotations settle their own":     {[]maas.Machine{annotated("b")}, []string{"a", "c"}},
		"one without may be under any":     {[]maas.Machine{annotated("b"), {SystemID: "n"}}, nil},
		"so may one of somebody else's":    {[]maas.Machine{annotated("z")}, nil},
		"two machines under the same":      {[]maas.Machine{annotated("c"), annotated("c")}, []string{"a", "b"}},
		"all are claimed by what they say": {[]maas.Machine{annotated("a"), annotated("b"), annotated("c")}, nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			var free []string
			for _, token := range tokens {
				if unclaimed(tokens, c.found)[token] {
					free = append(free, token)
				}
			}
			g.Expect(free).To(Equal(c.free))
		})
	}
}

func TestAJointQueryAndItsCallers(t *testing.T) {
	g := NewWithT(t)
	fleet := newFleet(0)
	clock := clocktesting.NewFakeClock(time.Now())
	r := NewReadings(fleet, time.Second, clock)
	release := fleet.hang(askTokens)
	gone, leave := context.WithCancel(t.Context())
	first := ask(gone, r, aToken(t, "gone"))
	g.Eventually(func() int { return fleet.count(askTokens) }).Should(Equal(1))
	second := ask(gone, r, aToken(t, "gone too"))
	r.joined(g, 1)
	third := ask(t.Context(), r, aToken(t, "stays"))
	r.joined(g, 2)

	leave()
	var answer question
	g.Eventually(first).Should(Receive(&answer))
	g.Expect(errors.Is(answer.err, context.Canceled)).To(BeTrue())
	g.Eventually(second).Should(Receive(&answer))
	g.Expect(answer.err).To(HaveOccurred())
	g.Eventually(func() int { return fleet.count(askTokens) }).Should(Equal(2), "a query nobody waits for has ended")
	g.Expect(third).NotTo(Receive())
	release()
	g.Eventually(third).Should(Receive(Equal(question{none: true})), "a caller that left does not fail the others")

	fleet.fail(askTokens, errRefused)
	release = fleet.hang(askTokens)
	first = ask(t.Context(), r, aToken(t, "1"))
	g.Eventually(func() int { return fleet.count(askTokens) }).Should(Equal(3))
	second, third = ask(t.Context(), r, aToken(t, "2")), ask(t.Context(), r, aToken(t, "3"))
	r.joined(g, 2)
	release()
	for _, answer := range []chan question{first, second, third} {
		g.Eventually(answer).Should(Receive(Equal(question{err: errRefused})), "an error is for all who waited")
	}
	fleet.fail(askTokens, nil)

	// MAAS hangs: nobody waits for ever, and nothing is left behind.
	fleet.hang(askTokens)
	first = ask(t.Context(), r, aToken(t, "patient"))
	g.Eventually(clock.HasWaiters).Should(BeTrue())
	clock.Step(patience)
	g.Eventually(first).Should(Receive(&answer))
	g.Expect(maas.IsUnavailable(answer.err)).To(BeTrue())
	g.Eventually(func() bool {
		r.claims.mu.Lock()
		defer r.claims.mu.Unlock()
		return r.claims.busy || r.claims.next != nil
	}).Should(BeFalse())
}

func TestATokenThatIsNoneSpoilsNoQuery(t *testing.T) {
	g := NewWithT(t)
	fleet := newFleet(0)
	r := NewReadings(fleet, time.Second, clocktesting.NewFakeClock(time.Now()))
	fleet.fail(askTokens, errRefused)
	_, err := r.NoneClaimed(t.Context(), "odd")
	g.Expect(err).To(MatchError(errRefused))
	g.Expect(fleet.arguments(askTokens)).To(Equal([]string{"odd"}))
	g.Expect(r.claims.next).To(BeNil())
}

func TestManyAskAtOnce(t *testing.T) {
	g := NewWithT(t)
	fleet := newFleet(1)
	r := NewReadings(fleet, time.Second, clocktesting.NewFakeClock(time.Now()))
	claimed := aToken(t, "claimed")
	fleet.claimed[claimed] = machineID(0)
	// As long as the first question is not answered everybody else joins the second, however slowly they come.
	release := fleet.hang(askTokens)
	first := ask(t.Context(), r, aToken(t, "first"))
	g.Eventually(func() int { return fleet.count(askTokens) }).WithTimeout(time.Minute).Should(Equal(1))
	var group sync.WaitGroup
	for range 200 {
		group.Go(func() {
			if none, err := r.NoneClaimed(t.Context(), claimed); none || err != nil {
				t.Errorf("claimed: %v, %v", none, err)
			}
		})
		group.Go(func() {
			if _, err := r.NoneClaimed(t.Context(), aToken(t, "free")); err != nil {
				t.Error(err)
			}
		})
	}
	g.Eventually(func() int {
		r.claims.mu.Lock()
		defer r.claims.mu.Unlock()
		if r.claims.next == nil {
			return 0
		}
		return r.claims.next.waiting
	}).WithTimeout(time.Minute).Should(Equal(400))
	release()
	group.Wait()
	g.Eventually(first).Should(Receive())
	g.Expect(fleet.count(askTokens)).To(Equal(2))
}
