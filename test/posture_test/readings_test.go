// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package posture_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	testingclock "k8s.io/utils/clock/testing"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/answer"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/posture"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/bmcsim"
)

// shared are readings over a yard, and what was told of them.
type shared struct {
	*yard
	*posture.Readings
	desk  *desk
	clock *testingclock.FakePassiveClock

	mu    sync.Mutex
	calls []posture.Call
}

func newShared(t *testing.T, options posture.Options) *shared {
	t.Helper()
	y := newYard(t)
	s := &shared{yard: y, desk: &desk{access: y.access()}, clock: testingclock.NewFakePassiveClock(time.Now())}
	options.Access, options.Clock = s.desk.get, s.clock
	options.Observe = func(call posture.Call) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.calls = append(s.calls, call)
	}
	s.Readings = posture.NewReadings(options)
	t.Cleanup(s.Close)
	return s
}

// done is how many readings have ended.
func (s *shared) done() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.calls)
}

func (s *shared) pass(by time.Duration) { s.clock.SetTime(s.clock.Now().Add(by)) }

// now has a reading made since now.
func (s *shared) now(card posture.Card) posture.Reading {
	s.t.Helper()
	since := s.clock.Now()
	s.Eventually(func() bool { _, fresh := s.Latest(card, since, true); return fresh }).Should(BeTrue())
	reading, _ := s.Latest(card, since, true)
	return reading
}

// TestOneReadingForAll asks a BMC once for everybody, and again when it is asked for something newer.
func TestOneReadingForAll(t *testing.T) {
	s := newShared(t, posture.Options{})
	bmc, card := s.card(1)
	since := s.clock.Now()
	for range 100 {
		s.Latest(card, since, false)
	}
	s.Eventually(func() bool { _, fresh := s.Latest(card, since, true); return fresh }).Should(BeTrue())
	s.Eventually(s.done).Should(Equal(1))
	s.pass(time.Minute)
	_, fresh := s.Latest(card, since, true)
	s.Expect(fresh).To(BeTrue())
	s.Expect(s.done()).To(Equal(1), "a good reading that is young enough was made again")

	bmc.Set(func(state *bmcsim.State) { state.HostRshim = "Enabled" })
	reading := s.now(card)
	s.Expect(answers(reading)).To(Equal(except(posture.HostRShimDisabled, answer.No)))
	s.Expect(reading.At).To(Equal(s.clock.Now()))
}

// TestABadReading is made again by itself, after a pause.
func TestABadReading(t *testing.T) {
	s := newShared(t, posture.Options{})
	bmc, card := s.card(1)
	bmc.Set(func(state *bmcsim.State) { state.CurrentBoot = "Disabled" })
	since := s.clock.Now()
	s.Expect(s.now(card).Good()).To(BeFalse())
	bmc.Set(func(state *bmcsim.State) { state.CurrentBoot = "Enabled" })
	s.pass(20 * time.Second)
	reading, fresh := s.Latest(card, since, true)
	s.Expect(fresh).To(BeTrue())
	s.Expect(reading.Good()).To(BeFalse())
	s.Eventually(s.done).Should(Equal(1))
	s.pass(20 * time.Second)
	s.Eventually(func() bool { reading, _ := s.Latest(card, since, true); return reading.Good() }).Should(BeTrue())
}

// TestBadForLong: a card that was bad for hours is seen to be repaired within minutes where its BMC answers, and is asked as often
// as any other where it does not.
func TestBadForLong(t *testing.T) {
	s := newShared(t, posture.Options{})
	bmc, card := s.card(1)
	bmc.Set(func(state *bmcsim.State) { state.CurrentBoot = "Disabled" })
	dead, gone := s.card(2)
	s.Expect(dead.Close()).To(Succeed())
	for range 10 {
		s.now(card)
		s.now(gone)
		s.pass(time.Minute)
	}
	s.Eventually(s.done).Should(Equal(20))
	began := s.clock.Now().Add(-time.Hour)
	bmc.Set(func(state *bmcsim.State) { state.CurrentBoot = "Enabled" })
	s.pass(2 * time.Minute)
	s.Eventually(func() bool { reading, _ := s.Latest(card, began, false); return reading.Good() }).Should(BeTrue())
	s.Latest(gone, began, false)
	s.pass(5 * time.Minute)
	s.Latest(gone, began, false)
	s.Expect(s.done()).To(Equal(21), "a BMC that has been dead for long was asked again soon")
	s.pass(5 * time.Minute)
	s.Latest(gone, began, false)
	s.Eventually(s.done).Should(Equal(22))
}

// TestAnotherAddress makes what was read before worthless.
func TestAnotherAddress(t *testing.T) {
	s := newShared(t, posture.Options{})
	_, card := s.card(1)
	since := s.clock.Now()
	s.Expect(s.now(card).Good()).To(BeTrue())
	_, moved := s.card(1)
	reading, fresh := s.Latest(moved, since, true)
	s.Expect(fresh).To(BeFalse())
	s.Expect(reading.Results).To(BeEmpty())
}

// TestRotation: renewed credentials and pins count from the next reading on, and refused ones are not tried again at once,
// because BMCs lock users out.
func TestRotation(t *testing.T) {
	s := newShared(t, posture.Options{})
	bmc, card := s.card(1)
	s.Expect(s.now(card).Good()).To(BeTrue())
	const next = "battery staple"
	bmc.Set(func(state *bmcsim.State) { state.Password = next })
	s.pass(time.Minute)
	reading := s.now(card)
	s.Expect(answers(reading)).To(Equal(all(answer.Unknown)))
	logins := len(bmc.Requests())
	for range 3 {
		s.pass(time.Minute)
		reading = s.now(card)
		s.Expect(reading.Result(posture.DPUMode).Message).To(ContainSubstring("refused the credentials"))
	}
	s.Expect(bmc.Requests()).To(HaveLen(logins), "refused credentials were tried again")
	s.pass(5 * time.Minute)
	s.now(card)
	s.Expect(len(bmc.Requests())).To(BeNumerically(">", logins), "refused credentials are never tried again")

	s.desk.set(func(d *desk) {
		d.access.Credentials, d.access.Version = posture.NewCredentials(username, next), "2"
	})
	s.pass(time.Second)
	s.Expect(s.now(card).Good()).To(BeTrue(), "renewed credentials wait for the pause of those before")

	s.Expect(bmc.SetCertificate(bmcsim.Certificate{SelfSigned: true})).To(Succeed())
	s.pass(time.Minute)
	s.Expect(answers(s.now(card))).To(Equal(all(answer.Unknown)))
	s.desk.set(func(d *desk) { d.access.Trust.PinnedCertificates = []string{bmc.Fingerprint()} })
	s.pass(time.Minute)
	s.Expect(s.now(card).Good()).To(BeTrue())

	s.desk.set(func(d *desk) { d.err = errors.New("no Secret") })
	s.pass(time.Minute)
	reading = s.now(card)
	s.Expect(answers(reading)).To(Equal(all(answer.Unknown)))
	s.Expect(reading.Result(posture.Identity).Message).To(Equal("no Secret"))
}

// TestHundredCards of which twenty hang for ever: all others are read, the first time and every time after, and never are more
// than 16 asked at once.
func TestHundredCards(t *testing.T) {
	const cards, hanging = 100, 20
	// Those that hang hang for longer than the test waits: were anybody to wait for them, it would fail.
	// A good one is swift also on a busy machine.
	s := newShared(t, posture.Options{Swift: 5 * time.Second, Patient: time.Hour, Total: time.Hour})
	s.SetDefaultEventuallyTimeout(2 * time.Minute)
	var good, bad []posture.Card
	var mute []*bmcsim.BMC
	for n := range cards {
		bmc, card := s.card(n)
		if n%(cards/hanging) == 0 {
			mute, bad = append(mute, bmc), append(bad, card)
		} else {
			good = append(good, card)
		}
	}
	s.logRound("without faults", good, good)
	for _, bmc := range mute {
		bmc.Set(func(state *bmcsim.State) { state.Faults = []bmcsim.Fault{{Kind: bmcsim.Hang}} })
	}
	for _, round := range []string{"first", "second", "third"} {
		s.logRound(round, slices.Concat(bad, good), good)
	}
	requests, _ := s.site.MostInFlight()
	// A BMC sees a little later than we that a request was given up.
	s.Expect(requests).To(BeNumerically("<=", 16+4))
	s.Expect(requests).To(BeNumerically(">", 8), "the good ones were asked one by one")
	for _, card := range bad {
		reading, _ := s.Latest(card, s.clock.Now(), false)
		s.Expect(reading.Good()).To(BeFalse())
	}
}

func (s *shared) logRound(name string, all, good []posture.Card) {
	s.t.Helper()
	took := s.round(all, good)
	slices.Sort(took)
	s.t.Logf("%s: p50 %s, p95 %s, last %s", name, took[len(took)/2].Round(time.Millisecond), took[len(took)*95/100].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	s.pass(time.Minute)
}

// round asks for all, the bad ones first, and returns how long it took for each of the good ones.
func (s *shared) round(all, good []posture.Card) []time.Duration {
	s.t.Helper()
	since, began := s.clock.Now(), time.Now()
	for _, card := range all {
		s.Latest(card, since, false)
	}
	took := map[string]time.Duration{}
	s.Eventually(func() int {
		for _, card := range good {
			if _, known := took[card.Device]; known {
				continue
			}
			if reading, fresh := s.Latest(card, since, false); fresh && reading.Good() {
				took[card.Device] = time.Since(began)
			}
		}
		return len(took)
	}).Should(Equal(len(good)))
	var sorted []time.Duration
	for _, d := range took {
		sorted = append(sorted, d)
	}
	return sorted
}
