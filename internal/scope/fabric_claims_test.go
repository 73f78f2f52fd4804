// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

const auditEvery = 10 * time.Minute

// seen is the part of a fleet that an account sees, as the fabric wing may ask it.
type seen struct {
	maas.Verifier
	*fleet
}

func (s seen) WhoAmI(ctx context.Context) (maas.Account, error) { return s.fleet.WhoAmI(ctx) }

func (s seen) Machine(ctx context.Context, id string) (maas.Machine, error) {
	if err := s.asked(ctx, askOne, id); err != nil {
		return maas.Machine{}, err
	}
	call := maas.Call{Operation: "read", Object: "machine " + id}
	found := s.pick([]string{id})
	switch {
	case len(found) == 0:
		return maas.Machine{}, &maas.NotFoundError{Call: call}
	case found[0].Owner != "" && found[0].Owner != "capi":
		return maas.Machine{}, &maas.ForbiddenError{Call: call}
	}
	return found[0], nil
}

func (s seen) MachinesByID(ctx context.Context, ids ...string) ([]maas.Machine, error) {
	return s.fleet.MachinesByID(ctx, ids...)
}

func (s seen) MachinesByTokens(ctx context.Context, tokens ...string) ([]maas.Machine, error) {
	return s.fleet.MachinesByTokens(ctx, tokens...)
}

func (s seen) MachinesOwnedBy(ctx context.Context, account string) ([]maas.Machine, error) {
	return s.fleet.MachinesOwnedBy(ctx, account)
}

func (s seen) Events(ctx context.Context, after int64, query maas.EventQuery) ([]maas.Event, error) {
	return s.fleet.Events(ctx, after, query)
}

func (s seen) ConfirmClaim(ctx context.Context, account, token, id string) (maas.Machine, maas.Ownership, error) {
	machine, err := s.Machine(ctx, id)
	if err != nil {
		return maas.Machine{}, maas.Ownership{}, err
	}
	ownership := machine.ClaimedBy(account, token)
	if !ownership.Unannotated {
		return machine, ownership, nil
	}
	found, err := s.MachinesByTokens(ctx, token)
	if err != nil || len(found) == 0 || found[0].SystemID != id {
		return machine, maas.Ownership{Answer: maas.No}, err
	}
	return machine, maas.Ownership{Answer: maas.Yes}, nil
}

// claims are those of a fleet, all held.
type claims struct {
	*bench
	verifier Verifier
	tokens   []string
}

func newClaims(t *testing.T, machines int) *claims {
	t.Helper()
	c := &claims{bench: newBench(t, machines)}
	s := seen{fleet: c.fleet}
	c.readings.maas, c.readings.idle, c.readings.onlyClaims = s, c.readings.interval, true
	c.verifier = Verifier{Verifier: s, Account: "capi", readings: c.readings, maxAge: 2*auditEvery + auditGrace}
	for i := range machines {
		token := aToken(t, machineID(i))
		c.tokens = append(c.tokens, token)
		c.give(i, "capi", token, maas.StatusDeployed)
	}
	return c
}

// give lets an account hold a machine under a token; without one it is nobody's.
func (c *claims) give(i int, owner, token string, status maas.Status) {
	c.fleet.mu.Lock()
	defer c.fleet.mu.Unlock()
	id := machineID(i)
	machine := maas.Machine{SystemID: id, Owner: owner, Status: status}
	for known, holds := range c.fleet.claimed {
		if holds == id {
			delete(c.fleet.claimed, known)
		}
	}
	if token != "" {
		machine.Annotations = map[string]string{maas.AnnotationToken: maas.TokenHash(token)}
		c.fleet.claimed[token] = id
	}
	c.fleet.machines[id] = machine
}

func (c *claims) confirm(i int) Held {
	c.Helper()
	held, err := c.verifier.Confirm(c.Context(), c.tokens[i], machineID(i))
	c.Expect(err).NotTo(HaveOccurred())
	return held
}

func (c *claims) standing(i int) Standing {
	c.Helper()
	standing, err := c.verifier.Standing(c.tokens[i], machineID(i))
	c.Expect(err).NotTo(HaveOccurred())
	return standing
}

// follow watches all machines and reads them once, as by the audit after a start.
func (c *claims) follow() {
	c.Helper()
	for i := range c.tokens {
		c.watch(machineID(i))
	}
	c.poll()
	c.audit()
	c.wakes()
	c.fleet.forget()
}

func (c *claims) audit() {
	c.Helper()
	c.clock.Step(c.readings.interval)
	c.Expect(c.readings.auditClaims(c.Context(), "capi")).To(Succeed())
}

func TestConfirm(t *testing.T) {
	for _, tc := range []struct {
		name   string
		become func(c *claims)
		answer maas.Answer
		// alone says that the server had to be read by itself.
		alone bool
	}{
		{"held", func(*claims) {}, maas.Yes, false},
		{"released", func(c *claims) { c.give(0, "", "", maas.StatusReady) }, maas.No, true},
		{"another machine's of the account", func(c *claims) { c.give(0, "capi", aToken(t, "other"), maas.StatusDeployed) }, maas.No, true},
		{"another account's", func(c *claims) { c.give(0, "other", aToken(t, "other"), maas.StatusDeployed) }, maas.No, true},
		{"gone", func(c *claims) { c.fleet.remove("m0") }, maas.No, true},
		{"another server under the token", func(c *claims) { c.fleet.claimed[c.tokens[0]] = "m1"; c.fleet.remove("m0") }, maas.No, true},
		{"adopted", func(c *claims) { delete(c.fleet.claimed, c.tokens[0]) }, maas.Yes, true},
		{"being released", func(c *claims) { c.fleet.silently("m0", maas.StatusReleasing) }, maas.Unknown, true},
		{"not annotated yet", func(c *claims) { c.fleet.machines["m0"] = maas.Machine{SystemID: "m0", Owner: "capi"} }, maas.Yes, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newClaims(t, 2)
			tc.become(c)
			held := c.confirm(0)
			c.Expect(held.Answer).To(Equal(tc.answer), held.Reason)
			c.Expect(c.asked(askTokens)).To(Equal(1))
			c.Expect(c.asked(askOne) > 0).To(Equal(tc.alone))
		})
	}
}

// TestNoAnswerIsNoWord: whatever becomes of a question, nothing is said of the claim; what a list was refused least of all.
func TestNoAnswerIsNoWord(t *testing.T) {
	for name, err := range map[string]error{
		"refused":   &maas.ForbiddenError{Call: maas.Call{Operation: "list by token"}},
		"not found": &maas.NotFoundError{Call: maas.Call{Operation: "list by token"}},
		"key":       &maas.UnauthorizedError{},
		"error":     &maas.ServerError{Status: 500},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClaims(t, 1)
			for _, question := range []string{askTokens, askOne} {
				c.give(0, "", "", maas.StatusReady)
				c.fleet.fail(question, err)
				held, got := c.verifier.Confirm(t.Context(), c.tokens[0], "m0")
				c.Expect(got).To(MatchError(err))
				c.Expect(held.Answer).To(Equal(maas.Unknown))
				c.fleet.fail(question, nil)
			}
			c.Expect(c.confirm(0).No()).To(BeTrue())
		})
	}
}

// TestClaimsAreConfirmedTogether: all who ask while a question is under way get the answer to the next, which was sent after they
// came.
func TestClaimsAreConfirmedTogether(t *testing.T) {
	const machines = 50
	c := newClaims(t, machines)
	release := c.fleet.hang(askTokens)
	var group sync.WaitGroup
	ask := func(i int) {
		group.Go(func() {
			if held, err := c.verifier.Confirm(t.Context(), c.tokens[i], machineID(i)); err != nil || !held.Yes() {
				t.Errorf("%s: %+v, %v", machineID(i), held, err)
			}
		})
	}
	ask(0)
	c.Eventually(func() int { return c.fleet.count(askTokens) }).WithTimeout(time.Minute).Should(Equal(1))
	for i := range machines {
		ask(i)
	}
	c.readings.joined(c, machines)
	release()
	group.Wait()
	c.Expect(c.asked(askTokens)).To(Equal(2))
	c.Expect(c.asked(askOne)).To(BeZero())
}

// TestWhichOfTwoTokensIsAskedFor: a server without an annotation may have been allocated under any token of a joint question.
func TestWhichOfTwoTokensIsAskedFor(t *testing.T) {
	c := newClaims(t, 3)
	c.fleet.machines["m0"] = maas.Machine{SystemID: "m0", Owner: "capi"}
	c.fleet.claimed[c.tokens[1]] = "m0"
	delete(c.fleet.claimed, c.tokens[0])
	release := c.fleet.hang(askTokens)
	var group sync.WaitGroup
	group.Go(func() { c.confirm(2) })
	c.Eventually(func() int { return c.fleet.count(askTokens) }).WithTimeout(time.Minute).Should(Equal(1))
	var impostor, rightful Held
	group.Go(func() { impostor, _ = c.verifier.Confirm(t.Context(), c.tokens[0], "m0") })
	group.Go(func() { rightful, _ = c.verifier.Confirm(t.Context(), c.tokens[1], "m0") })
	c.readings.joined(c, 2)
	release()
	group.Wait()
	c.Expect(impostor.Answer).To(Equal(maas.No))
	c.Expect(rightful.Answer).To(Equal(maas.Yes))
}

// TestAnEventMakesAClaimDoubtful: without asking anything a steady claim stands until the feed tells of its server.
func TestAnEventMakesAClaimDoubtful(t *testing.T) {
	c := newClaims(t, 3)
	c.follow()
	for range 60 {
		c.poll()
		c.Expect(c.standing(0)).To(Equal(StandingHeld))
	}
	c.Expect(c.asked(askEvents)).To(Equal(60), "the feed, and nothing else")
	c.Expect(c.fleet.calls).To(BeEmpty())

	c.fleet.record("m0")
	c.poll()
	c.Expect(c.asked(askByID)).To(Equal(1))
	c.Expect(c.wakes()).To(BeEmpty(), "the claim is as it was")
	c.Expect(c.standing(0)).To(Equal(StandingHeld))

	c.give(1, "", "", maas.StatusReady)
	c.fleet.record("m1")
	c.poll()
	c.Expect(c.wakes()).To(Equal([]string{"m1"}))
	c.Expect(c.standing(1)).To(Equal(StandingDoubtful))
	c.Expect(c.confirm(1).No()).To(BeTrue())
	c.Expect(c.standing(1)).To(Equal(StandingDoubtful))
	c.Expect(c.standing(2)).To(Equal(StandingHeld))
}

// TestTheAuditFindsWhatLeftNoEvent: a server that was given to another account between two polls is seen by nobody but the audit,
// also where it was never read before.
func TestTheAuditFindsWhatLeftNoEvent(t *testing.T) {
	c := newClaims(t, 3)
	c.follow()
	c.give(0, "other", aToken(t, "other"), maas.StatusDeployed)
	c.give(1, "capi", aToken(t, "another"), maas.StatusDeployed)
	for !c.readings.auditDue(auditEvery) {
		c.Expect(c.standing(0)).To(Equal(StandingHeld))
		c.poll()
	}
	c.audit()
	c.Expect(c.wakes()).To(ContainElements("m0", "m1"))
	c.Expect(c.standing(0)).To(Equal(StandingDoubtful))
	c.Expect(c.standing(1)).To(Equal(StandingDoubtful))
	c.Expect(c.standing(2)).To(Equal(StandingHeld))
	c.Expect(c.confirm(0).No()).To(BeTrue())
	c.Expect(c.confirm(1).No()).To(BeTrue())

	// The process starts again, and finds another one gone.
	c = newClaims(t, 2)
	c.watch("m0", "m1")
	c.give(0, "other", "", maas.StatusDeployed)
	c.Expect(c.standing(0)).To(Equal(StandingUnknown))
	c.Expect(c.readings.auditDue(auditEvery)).To(BeTrue())
	c.audit()
	c.Expect(c.wakes()).To(Equal([]string{"m0"}))
	c.Expect(c.standing(0)).To(Equal(StandingDoubtful))
	c.Expect(c.standing(1)).To(Equal(StandingHeld))
	c.poll() // The feed is begun after the audit: there may have been an event in between.
	c.Expect(c.readings.auditDue(auditEvery)).To(BeFalse())
	c.clock.Step(unreadAudit)
	c.Expect(c.readings.auditDue(auditEvery)).To(BeTrue())
}

// TestWhatIsNotKnownIsSaid: a MAAS that does not answer, or whose lists fail, leaves claims standing for a while only.
func TestWhatIsNotKnownIsSaid(t *testing.T) {
	c := newClaims(t, 1)
	c.follow()
	down := &maas.ServerError{Status: 500}
	c.fleet.fail(askEvents, down)
	c.poll()
	c.Expect(c.standing(0)).To(Equal(StandingHeld), "one failure is none")
	for range 4 {
		c.poll()
	}
	standing, err := c.verifier.Standing(c.tokens[0], "m0")
	c.Expect(standing).To(Equal(StandingUnknown))
	c.Expect(err).To(MatchError(down))
	c.fleet.fail(askEvents, nil)
	c.poll()
	c.Expect(c.standing(0)).To(Equal(StandingHeld))

	c.fleet.fail(askOwned, down)
	for range int(c.verifier.maxAge/c.readings.interval) + 1 {
		c.poll()
	}
	standing, err = c.verifier.Standing(c.tokens[0], "m0")
	c.Expect(standing).To(Equal(StandingUnknown))
	c.Expect(err).To(MatchError(errStale))
}

// TestARefusedClaimIsCheap: who comes back with a claim that MAAS refused costs the question by token, until something happens.
func TestARefusedClaimIsCheap(t *testing.T) {
	c := newClaims(t, 2)
	c.follow()
	c.give(0, "capi", aToken(t, "blue"), maas.StatusDeployed)
	c.Expect(c.confirm(0).No()).To(BeTrue())
	recheck := func() Held {
		held, err := c.verifier.Recheck(t.Context(), c.tokens[0], "m0")
		c.Expect(err).NotTo(HaveOccurred())
		return held
	}
	c.fleet.forget()
	for range 10 {
		c.poll()
		c.Expect(recheck().No()).To(BeTrue())
	}
	c.Expect(c.fleet.calls).To(Equal(map[string]int{askTokens: 10, askEvents: 10}))
	c.give(0, "capi", c.tokens[0], maas.StatusDeployed)
	c.Expect(recheck().Yes()).To(BeTrue(), "by its token it is found at once")
	delete(c.fleet.claimed, c.tokens[0])
	c.fleet.record("m0")
	c.poll()
	c.Expect(recheck().Yes()).To(BeTrue(), "by its annotation after the event")
}

// TestWatchersAreForgotten: what no attachment cares for is neither audited nor followed.
func TestWatchersAreForgotten(t *testing.T) {
	c := newClaims(t, 2)
	c.follow()
	c.clock.Step(auditEvery)
	c.Expect(c.readings.auditDue(auditEvery)).To(BeTrue())
	c.readings.retainWatchers(func(id string, object types.NamespacedName) bool { return id == "m0" && object.Name == "m0" })
	c.fleet.record("m1")
	c.poll()
	c.Expect(c.wakes()).To(BeEmpty())
	c.readings.retainWatchers(func(string, types.NamespacedName) bool { return false })
	c.Expect(c.readings.auditDue(auditEvery)).To(BeFalse())
	c.fleet.forget()
	c.poll()
	c.Expect(c.fleet.calls).To(BeEmpty())
}
