// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"slices"
	"testing"

	. "github.com/onsi/gomega"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// scene is a life in which an operation occurs.
type scene struct {
	name      string
	operation operation
	options   options
	// set sets the scene before the machine wing starts.
	set func(*world)
	// goingDown is true where the operation belongs to the way down.
	goingDown bool
}

func withPorts() options  { return options{servers: 3, ports: true} }
func withoutDPU() options { return options{servers: 3, plain: true} }

// scenes are all calls of a machine's life.
var scenes = []scene{
	{name: "whoami", operation: opWhoAmI, options: withPorts()},
	{name: "list zones", operation: opZones, options: withPorts()},
	{name: "list by token", operation: opByToken, options: withPorts()},
	{name: "list by ID", operation: opByID, options: withPorts()},
	{name: "read machine", operation: opRead, options: withPorts(), goingDown: true},
	{name: "list by owner", operation: opByOwner, options: withPorts()},
	{name: "list matching", operation: opMatching, options: withoutDPU()},
	{name: "list devices", operation: opDevices, options: withoutDPU()},
	{name: "query events", operation: opEvents, options: withPorts()},
	{name: "allocate", operation: opAllocate, options: withPorts()},
	{name: "annotate", operation: opAnnotate, options: withPorts()},
	{name: "deploy", operation: opDeploy, options: withPorts()},
	{name: "power off", operation: opPowerOff, options: withPorts(), goingDown: true},
	{name: "release with erase", operation: opRelease, options: withPorts(), goingDown: true},
	{name: "release without erase", operation: opRelease, options: withPorts(), set: func(w *world) {
		w.fabric.tell(func(f *fabric) {
			f.refuse[serverID(0)], f.refuse[serverID(1)] = infrav1.ForeignVPCReason, infrav1.ForeignVPCReason
		})
	}},
}

// TestMatrix lets every call of a machine's life fail in every way.
func TestMatrix(t *testing.T) {
	for _, s := range scenes {
		for _, trouble := range troubles {
			t.Run(s.name+"/"+trouble.name, func(t *testing.T) {
				t.Parallel()
				s.play(t, trouble)
			})
		}
	}
}

// play lives the scene's life with the trouble in it: people see what the table says, it converges, and the checker holds. A
// trouble that passes hits once on the way up and, where the call occurs there, once on the way down.
func (s scene) play(t *testing.T, trouble trouble) {
	row, listed := rowOf(s.name, trouble.name)
	if !listed {
		t.Fatal("no row of the table says what happens")
	}
	w := newStoppedWorld(t, s.options)
	if s.set != nil {
		s.set(w)
	}
	f := &fault{name: trouble.name, hits: on(s.operation), happen: trouble.happen, count: 1}
	if trouble.stays {
		f.count = 0
	}
	stuck := trouble.stays && !row.goesOn
	if s.goingDown {
		w.supervise()
		w.until(w.provisioned, "up")
	}
	lift := w.gate.add(f)
	defer lift()
	w.supervise()
	if stuck && !s.goingDown {
		w.expectStuck(f, row, lift)
	}
	w.until(w.provisioned, "up")
	w.expectUp()
	w.gate.again(f)
	w.remove()
	if stuck && s.goingDown {
		w.expectStuck(f, row, lift)
	}
	w.until(w.gone, "down")
	w.expectDown()
	w.gate.late.Wait()
	w.expectDown() // Nothing that came late has taken a server.
	w.Expect(w.gate.hitCount(f)).To(BeNumerically(">", 0), "the life has no such call")
	for _, what := range row.sees {
		// A machine whose own calls go on may be faster than the identity's deadline.
		w.until(func() bool { return w.showed(what) }, "somebody sees "+what)
	}
	w.expectPatience(f, trouble)
}

// expectStuck expects that a trouble that stays shows, and stops everything until it is lifted.
func (w *world) expectStuck(f *fault, row row, lift func()) {
	w.Helper()
	w.until(func() bool {
		return w.gate.hitCount(f) > 0 && !slices.ContainsFunc(row.sees, func(what string) bool { return !w.showed(what) })
	}, "shown")
	w.quiet()
	lift()
}

// expectPatience holds that MAAS is not asked again sooner than it wants, and that an order whose answer was lost is not repeated
// while it can still take effect.
func (w *world) expectPatience(f *fault, trouble trouble) {
	w.Helper()
	var hit call
	for _, c := range w.gate.history() {
		waits := trouble.waits
		if trouble.unanswered && slices.Contains([]operation{opAllocate, opDeploy, opRelease}, hit.operation) {
			waits = max(waits, window)
		}
		switch {
		case c.fault == f.name:
			hit = c
		case !hit.at.IsZero() && c.operation == hit.operation && c.systemID == hit.systemID && c.process != "":
			w.Expect(c.at.Sub(hit.at)).To(BeNumerically(">=", waits), "from %s to the next", hit.operation)
			return
		}
	}
}
