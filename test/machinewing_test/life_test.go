// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

var lives = map[string]options{
	"ports": withPorts(),
	"plain": withoutDPU(),
}

// shared are the calls that one asks for all: they grow with the machines in transition at a time, not with each machine.
var shared = []operation{opWhoAmI, opZones, opByID, opByOwner, opEvents}

// budgets are how many calls of its own a machine's life may take, look-ups by token included. A machine without ports needs two
// more, to find a server without DPUs.
var budgets = map[string]int{"ports": 8, "plain": 10}

// TestLife takes a machine up and down and counts what that cost.
func TestLife(t *testing.T) {
	for name, o := range lives {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, o)
			w.live()
			direct, spent := 0, w.spent()
			for operation, n := range spent {
				if !slices.Contains(shared, operation) {
					direct += n
				}
			}
			t.Logf("%d direct calls: %s", direct, tally(spent))
			w.Expect(direct).To(BeNumerically("<=", budgets[name]), "direct calls of one life: %s", tally(spent))
			w.Expect(spent[opUnexpected]).To(BeZero(), "calls the matrix does not know")
		})
	}
}

// TestWaitingCostsNoCalls lets a deployment take long: meanwhile MAAS is asked only what is shared.
func TestWaitingCostsNoCalls(t *testing.T) {
	t.Parallel()
	o := withPorts()
	o.timing = func(timing *maassim.Timing) { timing.Deploy = 2 * time.Second }
	w := newWorld(t, o)
	w.until(func() bool { return len(w.calls(opDeploy)) == 1 }, "deploying")
	polls := w.spent()[opEvents]
	w.until(func() bool { return w.spent()[opEvents] > polls+2 }, "polled on")
	before := w.spent()
	w.until(w.provisioned, "up")
	for operation, n := range w.spent() {
		if !slices.Contains(shared, operation) {
			w.Expect(n).To(Equal(before[operation]), "%s while it deploys", operation)
		}
	}
	w.live()
}

// spent counts the calls of the machine wing.
func (w *world) spent() map[operation]int {
	spent := map[operation]int{}
	for _, c := range w.gate.history() {
		if c.process != "" {
			spent[c.operation]++
		}
	}
	return spent
}

func tally(spent map[operation]int) string {
	var parts []string
	for operation, n := range spent {
		parts = append(parts, fmt.Sprintf("%s %d", operation, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
