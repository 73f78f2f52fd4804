// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

// racePoll is long enough to tell a poll from a busy machine.
const racePoll = 500 * time.Millisecond

// longWindow is longer than a busy machine lets one replica stand still between what it stores and what it sends.
const longWindow = 5 * time.Second

// racer is one MaasMachine of one world.
type racer struct {
	world           *world
	namespace, name string
}

func (r racer) machine() *infrav1.MaasMachine { return r.world.get(r.namespace, r.name) }

// waits says that the racer has no server and says so. Two replicas tell each other's questions from lost ones only in time, and
// one that starts while the other's machine has a server first waits for all others to ask.
func (r racer) waits() bool {
	m := r.machine()
	if m == nil || m.Status.SystemID != "" {
		return false
	}
	reason := conditions.GetReason(m, infrav1.ReadyCondition)
	return reason == infrav1.NoServerAvailableReason || r.world.options.replicas > 1 && r.world.showed("ServerClaimed="+infrav1.NoServerAvailableReason) &&
		slices.Contains([]string{infrav1.AllocateOutcomeUnknownReason, infrav1.ClaimingReason, infrav1.WaitingForTurnReason}, reason)
}

// races are who races for the last server: each makes its worlds and racers, and starts nothing.
var races = map[string]func(*testing.T) []racer{
	"two providers": func(t *testing.T) []racer {
		a := newStoppedWorld(t, options{servers: 1, ports: true, poll: racePoll})
		b := newStoppedWorld(t, options{servers: 1, ports: true, poll: racePoll, at: a.site, account: other})
		return []racer{{a, tenant, machineName}, {b, tenant, machineName}}
	},
	"two replicas": func(t *testing.T) []racer {
		w := newStoppedWorld(t, options{servers: 1, ports: true, poll: racePoll, replicas: 2, window: longWindow})
		w.addMachine(tenant, tenant, "second")
		return []racer{{w, tenant, machineName}, {w, tenant, "second"}}
	},
	"two namespaces": func(t *testing.T) []racer {
		w := newStoppedWorld(t, options{servers: 1, ports: true, poll: racePoll})
		w.addCluster("blue", "blue", "identity")
		w.addMachine("blue", "blue", "second")
		return []racer{{w, tenant, machineName}, {w, "blue", "second"}}
	},
}

// TestRaceForTheLastServer lets one win; the other waits, says so, and notices within a poll that the server is free again.
func TestRaceForTheLastServer(t *testing.T) {
	for name, prepare := range races {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			racers := prepare(t)
			for _, r := range racers {
				r.world.supervise()
			}
			everybody := func(so func() bool, what string) {
				racers[0].world.until(func() bool {
					racers[1].world.supervise()
					return so()
				}, what)
			}
			first, second := racers[0], racers[1]
			everybody(func() bool {
				if provisioned(second.machine()) {
					first, second = second, first
				}
				return provisioned(first.machine()) && second.waits()
			}, "one wins, the other waits")
			NewWithT(t).Consistently(second.waits).
				WithTimeout(4*racePoll).WithPolling(racePoll/10).Should(BeTrue(), "the other goes on waiting")

			first.world.removeMachine(first.machine())
			everybody(func() bool { return provisioned(second.machine()) }, "the other gets it")
			second.expectNoticed()
			second.world.removeMachine(second.machine())
			everybody(func() bool { return first.machine() == nil && second.machine() == nil }, "down")
			first.world.expectDown()
			second.world.expectDown()
		})
	}
}

// expectNoticed expects that the server was allocated again within a poll after it was free.
func (r racer) expectNoticed() {
	r.world.Helper()
	var freed, taken time.Time
	for _, effect := range r.world.region.Journal() {
		switch {
		case effect.To == maassim.StatusReady && freed.IsZero():
			freed = effect.Time
		case effect.Operation == "allocate" && !freed.IsZero():
			taken = effect.Time
		}
	}
	// Some more than the interval for its jitter and for the machine this runs on; the waiting before took several intervals.
	r.world.Expect(taken.Sub(freed)).To(And(BeNumerically(">", 0), BeNumerically("<", racePoll+time.Second)), "from free to taken")
}

// TestReplicas runs two replicas without leader election over the same machines: each machine gets one server, and every server
// is given back.
func TestReplicas(t *testing.T) {
	t.Parallel()
	w := newStoppedWorld(t, options{servers: 6, ports: true, replicas: 2, empty: true, window: longWindow})
	w.addCluster(tenant, tenant, "identity")
	const machines = 4
	for i := range machines {
		w.addMachine(tenant, tenant, fmt.Sprintf("m%d", i))
	}
	w.supervise()
	w.until(func() bool { return w.ready(infrav1.ReadyReason) == machines }, "all are up")
	// One replica dies while all go down.
	for _, m := range w.machines() {
		w.removeMachine(&m)
	}
	w.living()[0].die()
	w.until(func() bool { return len(w.machines()) == 0 }, "all are down")
	w.expectDown()
	w.Expect(w.count(account, "deploy")).To(Equal(machines), "one deployment a machine")
}
