// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricwing_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
)

// moment is how far an attachment has come when something goes away.
type moment string

const (
	beforeJoin moment = "before the way on"
	joined     moment = "joined"
	pluggedIn  moment = "plugged"
	asked      moment = "before the way off"
	unplugged  moment = "unplugged"
	left       moment = "left"
)

// trouble is something that keeps proof from coming.
type trouble struct {
	name string
	// begin makes it go away and returns what brings it back.
	begin func(*tenancy) (undo func())
	// alone: it concerns every DPU, or what is asked of MAAS for all silent ones, so that it is played alone.
	alone bool
}

func away(flag func(*hooks) interface{ Store(bool) }) func(*tenancy) func() {
	return func(y *tenancy) func() {
		flag(y.hooks).Store(true)
		return func() { flag(y.hooks).Store(false) }
	}
}

var (
	dpuDead    = trouble{name: "DPU dead", begin: fault(dpfsim.DPUReboot, "")}
	agentHung  = trouble{name: "agent hung", begin: fault(dpfsim.AgentDown, "")}
	nodeSilent = trouble{name: "Node silent", begin: fault(dpfsim.NodeNotReady, "")}
	dpfIsAway  = trouble{name: "DPF away", alone: true, begin: away(func(h *hooks) interface{ Store(bool) } { return &h.dpfAway })}
	clusterOff = trouble{name: "DPU cluster away", alone: true, begin: away(func(h *hooks) interface{ Store(bool) } { return &h.clusterAway })}
	maasIsAway = trouble{name: "MAAS away", alone: true, begin: func(y *tenancy) func() {
		y.maas.setDown(true)
		return func() { y.maas.setDown(false) }
	}}
	noStandby = trouble{name: "no standby power, host off", alone: true, begin: func(y *tenancy) func() {
		y.maas.setOff(y.d.SystemID)
		world.DPF.SetHostPower(y.d.SystemID, false)
		return func() {
			y.maas.setOn(y.d.SystemID)
			world.DPF.SetHostPower(y.d.SystemID, true)
		}
	}}
)

// noProofRow is one row of the table: something goes away at some moment of the way on or off.
type noProofRow struct {
	trouble trouble
	at      moment
	// sees is the condition that stays until it is back.
	sees    string
	happens string
	// writes are all on the DPU by the end of that way.
	writes dpfsim.WriteCount
	// held: it lasts longer than detachTimeoutSeconds, which is said.
	held bool
}

const (
	notReady    = "DPUResolved=False/" + infrav1.DPUNotReadyReason
	unreachable = "DPUResolved=Unknown/" + infrav1.FabricUnreachableReason
	nothingYet  = "Nothing is written until it is back; then it is attached."
	goesOn      = "No port is deployed on; it goes on when it is back."
	thenHeld    = "Nothing more is written. After `detachTimeoutSeconds`: `DetachUnproven`, and the server is held. It goes on by itself when it is back."
)

var (
	wayOn     = dpfsim.WriteCount{Attach: 2}
	wayOff    = dpfsim.WriteCount{Attach: 2, Detach: 2}
	onceMore  = dpfsim.WriteCount{Attach: 3, Detach: 3}
	noProofOf = []noProofRow{
		{trouble: dpuDead, at: beforeJoin, sees: notReady, happens: nothingYet, writes: wayOn},
		{trouble: nodeSilent, at: beforeJoin, sees: notReady, happens: nothingYet, writes: wayOn},
		{trouble: clusterOff, at: beforeJoin, sees: unreachable, happens: nothingYet, writes: wayOn},
		{trouble: dpfIsAway, at: beforeJoin, sees: unreachable, happens: nothingYet, writes: wayOn},
		{trouble: agentHung, at: beforeJoin, sees: "Attached=False/AttachingPort", happens: "Nobody sees it before the port is to be plugged. " + goesOn, writes: wayOn},
		{trouble: clusterOff, at: joined, sees: "Attached=Unknown/FabricUnreachable", happens: "No port is plugged; it goes on when it is back.", writes: wayOn},
		{trouble: dpfIsAway, at: joined, sees: unreachable, happens: "No port is plugged; it goes on when it is back.", writes: wayOn},
		{trouble: maasIsAway, at: joined, sees: "Authorized=Unknown/MaasUnreachable", happens: "No port is plugged; it goes on when it is back.", writes: wayOn},
		{trouble: dpuDead, at: pluggedIn, sees: "Attached=Unknown/DPUNotReady", happens: "No machine is deployed; it goes on when it is back, 30 s after the DPU has booted.", writes: wayOn},
		{trouble: clusterOff, at: pluggedIn, sees: "Attached=Unknown/FabricUnreachable", happens: "No machine is deployed; it goes on when it is back.", writes: wayOn},
		{trouble: dpfIsAway, at: pluggedIn, sees: unreachable, happens: "No machine is deployed; it goes on when it is back.", writes: wayOn},
		{trouble: maasIsAway, at: pluggedIn, sees: "Attached=Unknown/MaasUnreachable", happens: "No machine is deployed; it goes on when it is back.", writes: wayOn},
		{trouble: dpuDead, at: asked, sees: "Attached=False/DPUNotReady", happens: thenHeld, writes: wayOff, held: true},
		{trouble: nodeSilent, at: asked, sees: "Attached=False/DPUNotReady", happens: thenHeld, writes: wayOff, held: true},
		{trouble: noStandby, at: asked, sees: "Attached=False/DPUUnpoweredWithHost", happens: "As above; the operator powers the server on.", writes: wayOff},
		{trouble: agentHung, at: asked, sees: "Attached=False/DetachingPort", happens: "The labels are taken off, and the DPU does not let go. After `detachTimeoutSeconds`: `DetachUnproven`, and the server is held. It goes on by itself when it is back.", writes: wayOff, held: true},
		{trouble: clusterOff, at: asked, sees: "Attached=Unknown/FabricUnreachable", happens: "Nothing is written; it goes on when it is back.", writes: wayOff},
		{trouble: dpfIsAway, at: asked, sees: "Attached=Unknown/FabricUnreachable", happens: "Nothing is written; it goes on when it is back.", writes: wayOff},
		{trouble: maasIsAway, at: asked, sees: "Attached=False/Detached", happens: "Nobody needs leave to go: detached without MAAS.", writes: wayOff},
		{trouble: dpuDead, at: unplugged, sees: "Attached=False/DetachingPort", happens: "What went while the DPU was dead proves nothing: attached and detached once more, when MAAS confirms the claim.", writes: onceMore},
		{trouble: clusterOff, at: unplugged, sees: "Attached=Unknown/FabricUnreachable", happens: "Waited for; it goes on when it is back.", writes: wayOff},
		{trouble: dpfIsAway, at: unplugged, sees: "Attached=Unknown/FabricUnreachable", happens: "Waited for; it goes on when it is back.", writes: wayOff},
		{trouble: clusterOff, at: left, sees: "Attached=Unknown/FabricUnreachable", happens: "Waited for; it goes on when it is back.", writes: wayOff},
		{trouble: dpfIsAway, at: left, sees: "Attached=Unknown/FabricUnreachable", happens: "Waited for; it goes on when it is back.", writes: wayOff},
	}
)

func (r noProofRow) name() string { return r.trouble.name + ", " + string(r.at) }

// atWrite calls what begins the trouble right after the n-th write to the DPU, before the wing gets its answer.
func (y *tenancy) atWrite(n int, begin func()) {
	count := 0
	told := func() {
		if count++; count == n {
			begin()
		}
	}
	y.hooks.onWrite.Store(y.d.Name, told)
	y.hooks.onWrite.Store(y.d.Device, told)
	y.t.Cleanup(func() { y.hooks.onWrite.Delete(y.d.Name); y.hooks.onWrite.Delete(y.d.Device) })
}

// run plays the row on a machine of its own, and says how long after its end it went on.
func (r noProofRow) run(w *wing, f *facts, n int) (seenAfter, resumed time.Duration) {
	name := fmt.Sprintf("noproof-%02d", n)
	y := &tenancy{wing: w, name: name, facts: f, d: w.newServer(func(d *dpfsim.DPU) { d.StandbyPower = r.trouble.name != noStandby.name })}
	f.add(y.d)
	w.newTenant("red", name)
	tenant := &infrav1.TenantVPC{}
	tenant.Namespace, tenant.Name = "red", name
	w.Eventually(w.reason(tenant, infrav1.ReadyCondition)).Should(HavePrefix("True/"))
	w.Eventually(w.eligibility(y.d)).Should(Equal(infrav1.Eligible))
	y.token = w.machine(f, "red", name, y.d.SystemID)

	var undo func()
	var began time.Time
	begin := func() { began = time.Now(); undo = r.trouble.begin(y) }
	goal, off := attachedState, slices.Contains([]moment{asked, unplugged, left}, r.at)
	ready := make(chan struct{})
	switch r.at {
	case beforeJoin:
		begin()
		if r.sees == notReady {
			w.Eventually(w.eligibility(y.d)).Should(Equal(infrav1.Ineligible))
		}
		close(ready)
	case joined, pluggedIn:
		at := map[moment]int{joined: 1, pluggedIn: 2}[r.at]
		y.atWrite(at, func() { begin(); close(ready) })
	}
	y.attachment = w.attach("red", name, name, name, y.d.SystemID, y.token)
	y.history = follow(w.t, y.attachment)
	if off {
		goal = detachedState
		w.Eventually(w.proven(y.attachment)).Should(Equal(attachedState), y.last())
		switch r.at {
		case asked:
			begin()
			if r.sees == "Attached=False/DPUNotReady" || r.trouble.name == noStandby.name {
				w.Eventually(w.eligibilityReason(y.d)).Should(HavePrefix("False/"), "not what an earlier row left")
			}
			close(ready)
		default:
			at := map[moment]int{unplugged: 1, left: 2}[r.at]
			y.atWrite(at, func() { begin(); close(ready) })
		}
		w.detach(y.attachment)
	}
	w.Eventually(ready).Should(BeClosed(), y.last())
	if r.trouble.name == dpuDead.name && r.at == unplugged {
		w.Eventually(y.nodeReady()).Should(BeFalse())
	}
	var seen said
	w.Eventually(func() bool {
		var found bool
		seen, found = y.history.find(began, r.sees, nil)
		return found
	}).Should(BeTrue(), func() string {
		return fmt.Sprintf("never saw %s; the server is Healthy=%s; %s", r.sees, w.eligibilityReason(y.d)(), y.last()())
	})
	seenAfter = seen.at.Sub(began)
	if goal != detachedState || r.sees != "Attached=False/Detached" {
		w.Expect(w.proven(y.attachment)()).NotTo(Equal(goal), "proven without proof")
	}
	if r.held {
		w.Eventually(w.reason(y.attachment, infrav1.AttachedCondition)).Should(Equal("False/"+infrav1.DetachUnprovenReason), y.last())
		w.Expect(w.eligibility(y.d)()).To(Equal(infrav1.Ineligible))
	}
	back := time.Now()
	undo()
	w.Eventually(w.proven(y.attachment)).Should(Equal(goal), y.last())
	resumed = time.Since(back)
	w.Expect(writes(y.d)).To(Equal(r.writes), "writes on the DPU")
	w.Expect(plugged(y.d)).To(Equal(!off))
	if !off {
		w.detach(y.attachment)
		w.Eventually(w.proven(y.attachment)).Should(Equal(detachedState), y.last())
	}
	return seenAfter, resumed
}

// TestNoProofTable lets one thing after another go away at every moment of a life. What concerns one DPU goes away side by side.
func TestNoProofTable(t *testing.T) {
	w := newWing(t)
	f := w.watched()
	type measured struct{ seen, resumed time.Duration }
	figures := make([]measured, len(noProofOf))
	play := func(t *testing.T, n int) {
		figures[n].seen, figures[n].resumed = noProofOf[n].run(w.on(t), f, n)
	}
	t.Run("side by side", func(t *testing.T) {
		for n, row := range noProofOf {
			if !row.trouble.alone {
				t.Run(row.name(), func(t *testing.T) {
					t.Parallel()
					play(t, n)
				})
			}
		}
	})
	t.Run("alone", func(t *testing.T) {
		for n, row := range noProofOf {
			if row.trouble.alone {
				t.Run(row.name(), func(t *testing.T) { play(t, n) })
			}
		}
	})
	for n, row := range noProofOf {
		t.Logf("%-45s said after %6d ms, went on %6d ms after it was back, writes %+v", row.name(), figures[n].seen.Milliseconds(), figures[n].resumed.Milliseconds(), row.writes)
	}
}

// TestRestartWhileHeld ends the wing while a detachment cannot be proven, and starts it again: what it knows, it knows from the DPU.
func TestRestartWhileHeld(t *testing.T) {
	w := newWing(t)
	y := w.newTenancy(w.watched(), "restarted", nil)
	heal := world.DPF.Inject(dpfsim.Fault{Kind: dpfsim.AgentDown, Target: y.d.Name})
	t.Cleanup(heal)
	w.detach(y.attachment)
	w.Eventually(func() dpfsim.WriteCount { return writes(y.d) }).Should(Equal(dpfsim.WriteCount{Attach: 2, Detach: 1}))
	w.stop()
	w.start()
	w.Consistently(w.proven(y.attachment)).ShouldNot(Equal(detachedState))
	heal()
	w.Eventually(w.proven(y.attachment)).Should(Equal(detachedState), y.last())
	w.Expect(writes(y.d)).To(Equal(wayOff), "the Node lived through it: nothing is repeated")
}

// TestRebootWhileTheWingIsAway has the DPU boot while nobody looks: its ports are gone, which proves nothing.
func TestRebootWhileTheWingIsAway(t *testing.T) {
	w := newWing(t)
	y := w.newTenancy(w.watched(), "booted", nil)
	heal := world.DPF.Inject(dpfsim.Fault{Kind: dpfsim.AgentDown, Target: y.d.Name})
	t.Cleanup(heal)
	w.detach(y.attachment)
	w.Eventually(func() dpfsim.WriteCount { return writes(y.d) }).Should(Equal(dpfsim.WriteCount{Attach: 2, Detach: 1}))
	w.stop()
	boots := world.DPF.Inject(dpfsim.Fault{Kind: dpfsim.DPUReboot, Target: y.d.Name})
	w.Eventually(y.nodeReady()).Should(BeFalse())
	boots()
	heal()
	w.Eventually(y.nodeReady()).Should(BeTrue())
	w.start()
	w.Eventually(w.proven(y.attachment)).Should(Equal(detachedState), y.last())
	w.Expect(writes(y.d)).To(Equal(onceMore), "one repetition")
}
