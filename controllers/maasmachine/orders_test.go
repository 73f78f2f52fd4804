// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"errors"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

var lost = &maas.UnknownOutcomeError{Err: errors.New("no answer")}

// settled is for how long the effect of a lost order can appear.
const settled = maas.DefaultTimeout + maas.OutcomeWindow

func TestOrdersAreStoredBeforeTheyAreSent(t *testing.T) {
	s := newScene(t, "a")
	s.add("m")
	s.up("m")
	seen := map[string]*infrav1.MachineOrder{}
	for _, operation := range []string{"power off", "release"} {
		s.region.during[operation] = func() { seen[operation] = s.get("m").Status.OpenOrder.DeepCopy() }
	}
	s.region.stay = maas.StatusReleasing
	s.remove("m")
	s.until("m", func(*infrav1.MaasMachine) bool { return s.region.count("power off") == 1 })
	s.Expect(seen["power off"].Operation).To(Equal(infrav1.MachineOrderPowerOff))
	s.Expect(seen["power off"].SystemID).To(Equal("a"))
	s.Expect(s.get("m").Status.OpenOrder).To(BeNil(), "it was answered")
	s.until("m", func(m *infrav1.MaasMachine) bool { return m.Status.Release != nil })
	s.Expect(seen["release"].Operation).To(Equal(infrav1.MachineOrderRelease))
	s.Expect(s.get("m").Status.OpenOrder).To(BeNil(), "it was answered")
}

// TestAServerGivenBackMeanwhileIsNotPoweredOff: MAAS would do it, and the server could be anybody's by then.
func TestAServerGivenBackMeanwhileIsNotPoweredOff(t *testing.T) {
	for name, meanwhile := range map[string]func(*region){
		"released": func(r *region) {
			a := r.servers["a"]
			a.Status, a.Owner, a.Annotations, r.tokens["a"] = maas.StatusReady, "", map[string]string{}, ""
		},
		"taken under another claim": func(r *region) {
			r.servers["a"].Annotations = map[string]string{}
			r.give("a", "another")
		},
		"erasing": func(r *region) { r.servers["a"].Status = maas.StatusDiskErasing },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, "a")
			s.add("m")
			s.up("m")
			s.region.during["read"] = func() { meanwhile(s.region) }
			s.remove("m")
			s.until("m", func(*infrav1.MaasMachine) bool { return s.region.count("read") > 0 })
			for range 20 {
				s.step("m")
			}
			s.Expect(s.region.count("power off")).To(BeZero())
		})
	}
}

// TestALostOrderOutlivesTheProcess: a server that is given back too soon could be powered off, or released, under its next tenant.
func TestALostOrderOutlivesTheProcess(t *testing.T) {
	for name, c := range map[string]struct {
		lose   func(*region)
		mend   func(*region)
		before int // releases before the order is settled
	}{
		"power-off done, answer lost": {lose: func(r *region) { r.lose["power off"] = lost }},
		"power-off lost": {
			lose: func(r *region) { r.refuse["power off"] = lost },
			mend: func(r *region) { r.refuse["power off"] = nil },
		},
		"release lost": {
			lose:   func(r *region) { r.refuse["release"] = lost },
			mend:   func(r *region) { r.refuse["release"] = nil },
			before: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, "a")
			s.add("m")
			s.up("m")
			c.lose(s.region)
			s.remove("m")
			s.until("m", func(m *infrav1.MaasMachine) bool { return m.Status.OpenOrder != nil })
			sent := s.get("m").Status.OpenOrder.SentAt.Time
			if c.mend != nil {
				c.mend(s.region)
			}
			for s.clock.Now().Before(sent.Add(settled)) {
				s.restart()
				s.step("m")
				s.Expect(s.region.count("release")).To(Equal(c.before), "%s after the order", s.clock.Since(sent))
			}
			s.Expect(s.get("m")).To(sayFalse(infrav1.ReleasedCondition, infrav1.ReleaseOutcomeUnknownReason))
			s.down("m")
			s.Expect(s.region.count("release")).To(Equal(c.before + 1))
			s.Expect(s.region.servers["a"].Status).To(Equal(maas.StatusReady))
		})
	}
}

// TestALostOrderOutlivesTheIdentity: how long it can take is written there.
func TestALostOrderOutlivesTheIdentity(t *testing.T) {
	s := newScene(t, "a")
	s.configure(func(spec *infrav1.MaasClusterIdentitySpec) { spec.Deadlines.CallSeconds = ptr.To[int32](300) })
	s.add("m")
	s.up("m")
	s.region.refuse["release"] = lost
	s.remove("m")
	s.until("m", func(m *infrav1.MaasMachine) bool { return s.region.count("release") == 1 })
	s.region.refuse["release"] = nil
	s.broken = &scope.UnusableError{Reason: infrav1.SecretNotFoundReason, Message: "no Secret"}
	s.clock.Step(settled)
	s.step("m")
	s.broken = nil
	s.step("m")
	s.Expect(s.region.count("release")).To(Equal(1))
	s.Expect(s.get("m").Status.OpenOrder).NotTo(BeNil())
	s.down("m")
}

// TestAnAnsweredOrderDoesNotHideALostOne: the first can still come.
func TestAnAnsweredOrderDoesNotHideALostOne(t *testing.T) {
	s := suspectScene(t, "a")
	s.add("m")
	s.fails("m", "a")
	s.region.refuse["power off"] = lost
	s.until("m", func(m *infrav1.MaasMachine) bool { s.suspects(); return m.Status.OpenOrder != nil })
	sent := s.get("m").Status.OpenOrder.SentAt
	s.region.refuse["power off"] = nil
	s.step("m")
	s.Expect(s.region.count("power off")).To(Equal(2))
	s.Expect(s.region.servers["a"].PowerState).To(Equal(maas.PowerOff))
	s.Expect(s.get("m").Status.OpenOrder.SentAt).To(Equal(sent))
}

// TestALostReleaseIsNotWaitedForWhereItIsSeen: MAAS shows it under way, or done.
func TestALostReleaseIsNotWaitedForWhereItIsSeen(t *testing.T) {
	for _, shown := range []maas.Status{maas.StatusReleasing, maas.StatusDiskErasing, 0} {
		t.Run(shown.String(), func(t *testing.T) {
			s := newScene(t, "a")
			s.add("m")
			s.up("m")
			s.region.lose["release"], s.region.stay = lost, shown
			s.remove("m")
			s.until("m", func(*infrav1.MaasMachine) bool { return s.region.count("release") == 1 })
			sent := s.clock.Now()
			for range 3 {
				s.restart()
				s.step("m")
			}
			if shown != 0 {
				s.Expect(s.get("m")).To(sayFalse(infrav1.ReleasedCondition, infrav1.ReleasingReason))
				s.Expect(s.get("m").Status.Release).NotTo(BeNil())
				s.region.servers["a"].Status, s.region.servers["a"].Owner = maas.StatusReady, ""
			}
			s.down("m")
			s.Expect(s.clock.Since(sent)).To(BeNumerically("<", settled))
			s.Expect(s.region.count("release")).To(Equal(1))
		})
	}
}

// TestRetryAfter: MAAS is not told anything before the time it asked for, whoever wakes the machine.
func TestRetryAfter(t *testing.T) {
	const pause = time.Minute
	busy := &maas.RetryableError{Status: 503, RetryAfter: pause}
	for _, operation := range []string{"allocate", "annotate", "deploy", "power off", "release"} {
		t.Run(operation, func(t *testing.T) {
			s := newScene(t, "a")
			s.add("m")
			s.region.refuse[operation] = busy
			if operation == "power off" || operation == "release" {
				s.up("m")
				s.remove("m")
			}
			requeue := time.Duration(0)
			for s.region.count(operation) == 0 {
				requeue = s.step("m").RequeueAfter
			}
			s.Expect(requeue).To(BeNumerically(">=", pause))
			asked := s.clock.Now()
			for s.clock.Since(asked) < pause-poll {
				s.Expect(s.step("m").RequeueAfter).To(BeNumerically(">", pause-poll-s.clock.Since(asked)))
			}
			s.Expect(s.region.count(operation)).To(Equal(1))
			delete(s.region.refuse, operation)
			s.until("m", func(*infrav1.MaasMachine) bool { return s.region.count(operation) == 2 })
		})
	}
}

// TestRetryAfterOfReadings: also who reads for others is asked to wait.
func TestRetryAfterOfReadings(t *testing.T) {
	busy := &maas.RetryableError{Status: 503, RetryAfter: time.Minute}
	s := newScene(t, "a")
	s.add("m")
	s.until("m", func(m *infrav1.MaasMachine) bool { return m.Status.SystemID != "" })
	s.clock.Step(time.Minute)
	s.region.refuse["list by ID"] = busy
	s.Expect(s.step("m").RequeueAfter).To(BeNumerically(">=", time.Minute))
	s.Expect(s.get("m")).To(sayUnknown(infrav1.ServerClaimedCondition, infrav1.MaasUnreachableReason))

	s.broken = &scope.UnusableError{Reason: infrav1.MaasUnreachableReason, Message: "no answer", Err: busy}
	s.Expect(s.step("m").RequeueAfter).To(BeNumerically(">=", time.Minute))
	s.broken, s.region.refuse["list by ID"] = nil, nil
	s.up("m")
}
