// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasclusteridentity

import (
	"strings"
	"testing"
	"time"

	"k8s.io/utils/ptr"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// TestOrphanIsSeenTwice: what disagrees is told after the grace and a look, once, and no longer after a look that finds it well.
func TestOrphanIsSeenTwice(t *testing.T) {
	w := newWorld(t, server("x", "", maas.StatusAllocated))
	w.pass()
	w.want("at once", w.orphans(), "")
	w.want("at once", w.says(infrav1.AccountedCondition), "Unknown AuditPending")
	w.told()
	w.later(2*time.Minute - time.Second)
	w.want("within the grace", w.orphans(), "")
	w.later(time.Second + 2*time.Millisecond)
	w.want("after the grace", w.orphans(), "x Unclaimed ")
	w.want("after the grace", w.says(infrav1.AccountedCondition), "False OrphansFound")
	if since := w.identity().Status.Orphans[0].Since; !since.Equal(ptr.To(metav1.NewTime(w.clock.Now().Add(-2 * time.Minute).Truncate(time.Second)))) {
		t.Errorf("since %v, want when it was seen first", since)
	}
	w.later(20 * time.Minute)
	if told := w.told(); len(told) != 1 || !strings.HasPrefix(told[0], "Warning OrphansFound Server x, Unclaimed: ") {
		t.Errorf("told %q, want one event", told)
	}

	w.free("x")
	w.later(2 * time.Minute) // The list is older than that.
	w.want("released", w.orphans(), "")
	w.want("released", w.says(infrav1.AccountedCondition), "True Accounted")
	if told := w.told(); len(told) != 0 {
		t.Errorf("told %q", told)
	}
}

// TestOrphanThatPasses: what agrees again before the second look is not told.
func TestOrphanThatPasses(t *testing.T) {
	w := newWorld(t, server("x", "gone", maas.StatusDeployed))
	w.pass()
	w.later(time.Minute)
	w.free("x")
	w.later(30 * time.Minute)
	w.want("passed", w.orphans(), "")
	for _, told := range w.told() {
		if strings.Contains(told, "Server x") {
			t.Errorf("told %q", told)
		}
	}
}

// TestOrphanChanges: another disagreement about the same server has a grace of its own, and an event.
func TestOrphanChanges(t *testing.T) {
	w := newWorld(t, server("x", "", maas.StatusAllocated))
	w.later(4 * time.Minute)
	w.want("first", w.orphans(), "x Unclaimed ")
	w.told()
	w.put(server("x", "gone", maas.StatusDeployed))
	w.later(80 * time.Second)
	w.want("seen changed", w.orphans(), "")
	w.later(20 * time.Minute)
	w.want("then", w.orphans(), "x NoMaasMachine red/gone")
	if told := w.told(); len(told) != 1 || !strings.HasPrefix(told[0], "Warning OrphansFound Server x, NoMaasMachine: ") {
		t.Errorf("told %q", told)
	}
}

// TestNewMachinesAreNoOrphans: servers claimed since the list was made are not missing, and are looked at once at most.
func TestNewMachinesAreNoOrphans(t *testing.T) {
	w := newWorld(t)
	w.pass()
	w.put(server("x", "m", maas.StatusAllocated), server("y", "n", maas.StatusAllocated))
	w.add(machine("m", "x"), machine("n", "y"))
	w.later(9 * time.Minute)
	w.want("new", w.orphans(), "")
	w.want("new", w.says(infrav1.AccountedCondition), "True Accounted")
	if looks := w.region.calls["look"]; looks != 1 {
		t.Errorf("MAAS was asked %d times for servers that are fine", looks)
	}
	w.free("y")
	w.later(25 * time.Minute)
	w.want("lost since", w.orphans(), "y ServerGone red/n")
}

// TestOrphansWithoutAnswer: nothing is said or taken back while MAAS does not answer.
func TestOrphansWithoutAnswer(t *testing.T) {
	w := newWorld(t, server("x", "", maas.StatusAllocated))
	w.region.away["look"] = true
	w.later(3 * time.Minute)
	w.want("no second look", w.orphans(), "")
	if after := w.pass().RequeueAfter; after > 10*time.Second {
		t.Errorf("tried again after %s", after)
	}
	w.region.away["look"] = false
	w.later(10 * time.Second)
	w.want("second look", w.orphans(), "x Unclaimed ")

	w.free("x")
	w.region.away["look"] = true
	w.later(30 * time.Minute)
	w.want("the list says that it is free, nobody looked", w.orphans(), "x Unclaimed ")
	w.region.away["list"] = true
	w.later(15 * time.Minute)
	w.region.away["look"] = false
	w.later(15 * time.Minute)
	w.want("no list", w.orphans(), "x Unclaimed ")
	w.region.away["list"] = false
	w.later(2 * time.Minute)
	w.want("answered", w.orphans(), "")
}

// TestOrphansAfterRestart: a new process says what the old one said, and takes back what is over, without another event.
func TestOrphansAfterRestart(t *testing.T) {
	w := newWorld(t, server("x", "", maas.StatusAllocated), server("y", "", maas.StatusAllocated))
	w.later(3 * time.Minute)
	w.want("before", w.orphans(), "x Unclaimed , y Unclaimed ")
	since := w.identity().Status.Orphans[0].Since
	w.told()
	w.free("y")
	w.r = &Reconciler{Client: w.objects, Scope: w, Recorder: w.recorder, Clock: w.clock}
	w.pass()
	w.want("after", w.orphans(), "x Unclaimed ")
	if now := w.identity().Status.Orphans[0].Since; !now.Equal(&since) {
		t.Errorf("since %v, was %v", now, since)
	}
	if told := w.told(); len(told) != 0 {
		t.Errorf("told again: %q", told)
	}
}

// TestTokenExcuses: a server that its machine is about to annotate is not unclaimed, however long that takes.
func TestTokenExcuses(t *testing.T) {
	w := newWorld(t, server("x", "", maas.StatusAllocated), server("y", "", maas.StatusAllocated))
	w.add(machine("m", "x"), machine("n", "y"))
	w.region.tokens[token("m")] = "x"
	w.later(10 * time.Minute)
	w.want("one has the token", w.orphans(), "y Unclaimed red/n")
	w.region.away["tokens"] = true
	w.region.tokens[token("n")] = "y"
	w.later(10 * time.Minute)
	w.want("no answer", w.orphans(), "y Unclaimed red/n")
	w.region.away["tokens"] = false
	w.later(2 * time.Minute)
	w.want("both have it", w.orphans(), "")
}

// TestAllocationUnderWay: a server nobody claims may come from an allocation that was not answered; later allocations do not
// hide it.
func TestAllocationUnderWay(t *testing.T) {
	w := newWorld(t, server("x", "", maas.StatusAllocated))
	asks := func(m *infrav1.MaasMachine) { m.Status.LastAllocateTime = ptr.To(metav1.NewTime(w.clock.Now())) }
	w.add(machine("m", ""))
	w.change("m", asks)
	w.later(5 * time.Minute)
	w.want("it may be the machine's", w.orphans(), "")
	w.change("m", asks)
	w.later(2 * time.Minute)
	w.want("it was there before the machine asked", w.orphans(), "x Unclaimed ")
}

// TestForgottenAllocation: a machine nobody reconciles does not hide a server for ever.
func TestForgottenAllocation(t *testing.T) {
	w := newWorld(t, server("x", "", maas.StatusAllocated))
	w.add(machine("m", "", func(m *infrav1.MaasMachine) { m.Status.LastAllocateTime = ptr.To(metav1.NewTime(w.clock.Now())) }))
	w.later(9 * time.Minute)
	w.want("the machine may still be looking", w.orphans(), "")
	w.later(3 * time.Minute)
	w.want("it does not", w.orphans(), "x Unclaimed ")
}

// TestShortAudit: who audits often is told soon.
func TestShortAudit(t *testing.T) {
	w := newWorld(t)
	w.r.AuditInterval = 5 * time.Second
	w.pass()
	w.put(server("x", "", maas.StatusAllocated))
	w.later(13 * time.Second)
	w.want("taken", w.orphans(), "x Unclaimed ")
	w.free("x")
	w.later(7 * time.Second)
	w.want("released", w.orphans(), "")
	w.later(4 * time.Minute)
	if zones := w.region.calls["zones"]; zones > 6 {
		t.Errorf("zones were asked for %d times", zones)
	}
}

// TestLetGo walks through a suspect server's life: at no moment between its machine's letting go and an operator's release is it
// not listed, although the list of the account's servers is from before all that.
func TestLetGo(t *testing.T) {
	w := newWorld(t, server("x", "m", maas.StatusFailedDeployment))
	w.add(machine("m", "x"))
	w.pass()
	w.want("before", w.held(), "")

	if !w.change("m", avoiding("x", infrav1.DeployFailedReason, metav1.NewTime(w.clock.Now()))) {
		t.Error("a failed deployment wakes nobody")
	}
	w.pass()
	w.want("recorded", w.suspects(), "x [red/m]")

	if !w.change("m", released(infrav1.HeldReason)) {
		t.Error("a server that becomes held wakes nobody")
	}
	w.pass()
	w.want("held, not annotated yet", w.held(), "x Held")
	since := w.identity().Status.Held[0].Since

	w.clock.Step(5 * time.Second)
	w.put(server("x", "m", maas.StatusFailedDeployment, hold(infrav1.ServerSuspectReason)))
	// The machine lets go, in the two writes that its controller makes.
	if !w.change("m", func(m *infrav1.MaasMachine) { m.Status.SystemID = "" }) {
		t.Error("a server that is let go wakes nobody")
	}
	w.pass()
	w.want("let go", w.held(), "x ServerSuspect")
	w.change("m", released(infrav1.NotReleasedReason))
	w.pass()
	w.change("m", func(m *infrav1.MaasMachine) { m.Status.SystemID = "y" })
	w.put(server("y", "m", maas.StatusAllocated))
	for range 40 {
		w.later(30 * time.Second)
		w.want("later", w.held(), "x ServerSuspect")
	}
	w.want("held servers are no orphans", w.orphans(), "")
	if now := w.identity().Status.Held[0].Since; !now.Equal(&since) {
		t.Errorf("since %v, was %v", now, since)
	}
	w.want("still suspect", w.suspects(), "x [red/m]")

	w.put(server("x", "m", maas.StatusDiskErasing, hold(infrav1.ServerSuspectReason)))
	w.later(2 * time.Minute)
	w.want("an operator releases it", w.held(), "x ServerSuspect")
	w.free("x")
	w.later(2 * time.Minute)
	w.want("released", w.held(), "")
	w.want("released", w.suspects(), "")
	w.later(30 * time.Minute)
	w.want("what the machine avoids is no news", w.suspects(), "")
}

// TestAbandoned: a machine that goes leaves its server behind; the list of a moment before does not know.
func TestAbandoned(t *testing.T) {
	w := newWorld(t, server("x", "m", maas.StatusDeployed))
	m := machine("m", "x")
	m.Spec.Override = &infrav1.MachineOverride{Override: infrav1.Override{Action: infrav1.OverrideAbandon, By: "op", Reason: "why"}}
	w.add(m)
	w.pass()
	w.put(server("x", "m", maas.StatusDeployed, hold(infrav1.AbandonedReason)))
	w.region.away["look"] = true
	w.remove("m")
	if after := w.pass().RequeueAfter; after > 10*time.Second {
		t.Errorf("MAAS did not answer, tried again after %s", after)
	}
	w.want("no answer", w.held(), "")
	w.region.away["look"] = false
	w.pass()
	w.want("asked again", w.held(), "x Abandoned")
	w.region.away["look"], w.region.away["list"] = true, true
	w.later(15 * time.Minute)
	w.want("known stays without an answer", w.held(), "x Abandoned")
}

// TestLetGoBeforeItWasListed: held and let go between two passes.
func TestLetGoBeforeItWasListed(t *testing.T) {
	w := newWorld(t, server("x", "m", maas.StatusFailedDeployment))
	w.add(machine("m", "x"))
	w.pass()
	w.put(server("x", "m", maas.StatusFailedDeployment, hold(infrav1.ServerSuspectReason)))
	w.change("m", released(infrav1.ServerSuspectReason))
	w.change("m", func(m *infrav1.MaasMachine) { m.Status.SystemID = "" })
	w.pass()
	w.want("let go", w.held(), "x ServerSuspect")
}

// TestReadingsOfOthersCount: what was read for a machine that waits for its server is not asked for again.
func TestReadingsOfOthersCount(t *testing.T) {
	w := newWorld(t)
	w.pass()
	w.put(server("x", "m", maas.StatusDeploying), server("y", "n", maas.StatusDeployed, hold(infrav1.EraseFailedReason)))
	w.add(machine("m", "x"), machine("n", "y", released(infrav1.HeldReason)))
	for range 16 {
		for _, id := range []string{"x", "y"} {
			if _, err := w.readings.Machine(w.Context(), id, 0); err != nil {
				t.Fatal(err)
			}
		}
		w.region.calls["look"] = 0
		w.later(30 * time.Second)
		if looks := w.region.calls["look"]; looks != 0 {
			t.Fatalf("MAAS was asked %d times", looks)
		}
	}
	w.want("why it is held", w.held(), "y EraseFailed")
}

// TestLookBeforeLettingGo: what a look found a moment before a machine let its server go does not count.
func TestLookBeforeLettingGo(t *testing.T) {
	w := newWorld(t, server("x", "m", maas.StatusDeployed, annotated(maas.AnnotationName, "n")))
	m := machine("m", "x")
	m.Spec.Override = &infrav1.MachineOverride{Override: infrav1.Override{Action: infrav1.OverrideAbandon, By: "op", Reason: "why"}}
	w.add(m)
	w.later(2*time.Minute + time.Second)
	w.want("just looked at", w.orphans(), "x AnnotationsDisagree red/m")
	w.change("m", released(infrav1.AbandonedReason))
	w.pass()
	w.want("about to be let go", w.held(), "x Abandoned")
	w.put(server("x", "m", maas.StatusDeployed, annotated(maas.AnnotationName, "n"), hold(infrav1.AbandonedReason)))
	w.region.away["look"] = true
	w.remove("m")
	w.pass()
	w.want("let go, MAAS does not answer", w.held(), "x Abandoned")
	w.region.away["look"] = false
	w.pass()
	w.want("let go", w.held(), "x Abandoned")
}

// TestReleasedServerIsNotHeldAgain: the list is from before a held server was released by its machine.
func TestReleasedServerIsNotHeldAgain(t *testing.T) {
	w := newWorld(t, server("x", "m", maas.StatusDeployed, hold(infrav1.DetachUnprovenReason)))
	w.add(machine("m", "x", released(infrav1.HeldReason)))
	w.pass()
	w.want("held", w.held(), "x DetachUnproven")
	since := w.identity().Status.Held[0].Since
	for range 3 { // A release that fails is tried again, and is no news.
		w.clock.Step(10 * time.Second)
		w.change("m", released(infrav1.ReleasingReason))
		w.pass()
		w.want("being released", w.held(), "x DetachUnproven")
		w.clock.Step(10 * time.Second)
		w.change("m", released(infrav1.HeldReason))
		w.pass()
		w.want("held again", w.held(), "x DetachUnproven")
	}
	if now := w.identity().Status.Held[0].Since; !now.Equal(&since) {
		t.Errorf("since %v, was %v", now, since)
	}
	w.change("m", released(infrav1.ReleasingReason))
	w.pass()
	w.free("x")
	w.remove("m")
	w.pass()
	w.want("at once", w.held(), "")
	for range 20 {
		w.later(30 * time.Second)
		w.want("released", w.held(), "")
	}
}

// TestBreakerOpensAndCloses tells and wakes at the right moments.
func TestBreakerOpensAndCloses(t *testing.T) {
	w := newWorld(t, server("a", "gone", maas.StatusDeployed, hold("EraseFailed")), server("b", "gone", maas.StatusDeployed, hold("EraseFailed")))
	w.pass()
	w.want("two", w.says(infrav1.ClaimsAdmittedCondition), "True ClaimsAdmitted")
	w.clock.Step(30 * time.Minute)
	w.pass()
	w.told()
	w.add(machine("m", "c", released(infrav1.HeldReason)))
	w.put(server("c", "m", maas.StatusDeployed, hold("EraseFailed")))
	w.pass()
	w.want("three", w.says(infrav1.ClaimsAdmittedCondition), "False CircuitBreakerOpen")
	if told := w.told(); len(told) != 1 || !strings.HasPrefix(told[0], "Warning CircuitBreakerOpen ") || !strings.Contains(told[0], "(a, b, c)") {
		t.Errorf("told %q", told)
	}
	w.later(30*time.Minute - 2*time.Second)
	w.want("two for almost an hour", w.says(infrav1.ClaimsAdmittedCondition), "False CircuitBreakerOpen")
	w.later(3 * time.Second)
	w.want("two for an hour", w.says(infrav1.ClaimsAdmittedCondition), "True ClaimsAdmitted")
	if told := w.told(); len(told) != 1 || !strings.HasPrefix(told[0], "Normal ClaimsAdmitted ") {
		t.Errorf("told %q", told)
	}
}

// TestBreakerClosesByRelease: an operator who released the servers does not wait for the next list.
func TestBreakerClosesByRelease(t *testing.T) {
	w := newWorld(t)
	for _, id := range []string{"a", "b", "c"} {
		w.put(server(id, "gone", maas.StatusDeployed, hold("EraseFailed")))
	}
	w.later(2 * time.Minute)
	w.want("open", w.says(infrav1.ClaimsAdmittedCondition), "False CircuitBreakerOpen")
	w.free("b")
	w.later(80 * time.Second)
	w.want("one is released", w.held(), "a EraseFailed, c EraseFailed")
	w.want("closed", w.says(infrav1.ClaimsAdmittedCondition), "True ClaimsAdmitted")
}

// TestTraffic counts what MAAS is asked in an hour: once a minute for the zones, the list as often as it is audited, and once a
// minute more while servers are held without a machine or orphans are known. Machines that come and go cost nothing.
func TestTraffic(t *testing.T) {
	for name, c := range map[string]struct {
		servers []maas.Machine
		looks   int
	}{
		"nothing wrong":                  {[]maas.Machine{server("x", "m", maas.StatusDeployed)}, 0},
		"one held, two orphans, no more": {[]maas.Machine{server("a", "gone", maas.StatusDeployed, hold("Abandoned")), server("b", "", maas.StatusAllocated), server("c", "gone", maas.StatusDeployed), server("x", "m", maas.StatusDeployed)}, 61},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.servers...)
			w.add(machine("m", "x"))
			for range 60 {
				for range 10 {
					w.pass() // Somebody woke us.
				}
				w.later(time.Minute)
			}
			calls := w.region.calls
			if calls["zones"] > 61 || calls["list"] > 7 || calls["look"] > c.looks+1 || calls["tokens"] > 0 {
				t.Errorf("MAAS was asked %v", calls)
			}
			if calls["zones"] < 45 || calls["list"] < 6 || calls["look"] < c.looks/2 {
				t.Errorf("MAAS was asked too rarely: %v", calls)
			}
		})
	}
}
