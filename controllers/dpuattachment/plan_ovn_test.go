// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// binding is the Port_Binding of the scene's port.
func (o *observation) binding() vpc.Binding {
	want := o.cards[0].want
	return vpc.Binding{
		LogicalPort: "dpf_si", Switch: vpc.Mark("dpf", want.VPCName) + "_" + want.Ports[0].Network + "Switch", Chassis: "dpu-d1", Up: true,
		MACs: []string{want.Ports[0].MAC}, Addresses: []netip.Addr{netip.MustParseAddr("10.64.0.7")},
	}
}

// says has OVN say so, to a fabric that asks for it.
func (o *observation) says(barrier bool, ovn vpc.OVN) *observation {
	o.fabric.Object.Spec.Backend.OVNVPC = &infrav1.OVNVPCBackend{OVN: &infrav1.OVNEndpoints{Southbound: "tcp:192.0.2.1:6642", Barrier: &barrier}}
	o.ovn = &ovn
	for i := range o.cards {
		o.cards[i].evidence.OVN = o.ovn
	}
	return o
}

// bound has OVN say that the scene's port is bound, beside one of a peer in the same VPC and one of a stranger.
func (o *observation) bound(barrier bool) *observation {
	return o.says(barrier, vpc.OVN{Bindings: append(o.others(), o.binding()), Chassis: chassis(7, 7, 1)})
}

func (o *observation) others() []vpc.Binding {
	mark := vpc.Mark("dpf", o.cards[0].want.VPCName)
	return []vpc.Binding{
		{LogicalPort: "dpf_peer", Switch: mark + "_storageSwitch", Chassis: "dpu-d2", Up: true},
		{LogicalPort: "dpf_theirs", Switch: "dpf_theirs_netSwitch", Chassis: "dpu-d9", Up: true},
	}
}

// chassis are the scene's own, the peer's and the stranger's.
func chassis(own, peer, stranger int64) []vpc.Chassis {
	return []vpc.Chassis{{Name: "dpu-d1", Config: own}, {Name: "dpu-d2", Config: peer}, {Name: "dpu-d9", Config: stranger}}
}

// leftInOVN is a scene whose DPU has left the VPC, in OVN's eyes, too.
func leftInOVN(t *testing.T, barrier bool) *observation {
	t.Helper()
	o := detaching(scene()).record(t, func(h *vpc.Holder) { h.Detached = true }, false, false)
	return o.says(barrier, vpc.OVN{Bindings: o.others(), Chassis: chassis(7, 7, 1)})
}

// passing is a scene whose chassis have passed both barriers.
func (o *observation) passing(state infrav1.AttachmentState) *observation {
	o.progress.barrier = vpc.Barrier{Purpose: o.purpose(state), Raises: 2, Value: 9, Raised: now, Then: map[string]int64{"dpu-d1": 8, "dpu-d2": 8}}
	o.ovn.Chassis = chassis(9, 9, 1)
	return o
}

func (o *observation) purpose(state infrav1.AttachmentState) vpc.BarrierPurpose {
	return vpc.BarrierPurpose{State: state, TokenHash: maas.TokenHash(token), Generation: o.attachment.Generation}
}

func ovnAway(o *observation) { *o.ovn = vpc.OVN{Err: errNoAnswer} }
func unbind(o *observation)  { o.ovn.Bindings = o.others() }
func hung(o *observation)    { o.ovn.Chassis[1].Config = 8 }

// TestBarrier goes through barriers pass by pass, at attach and at detach, and interrupts them.
func TestBarrier(t *testing.T) {
	for name, tc := range map[string]struct {
		state infrav1.AttachmentState
		scene func(*testing.T) *observation
	}{
		"on":  {infrav1.AttachmentStateAttached, func(t *testing.T) *observation { return scene().authorized().attached(t).bound(true).asked(yes) }},
		"off": {infrav1.AttachmentStateDetached, func(t *testing.T) *observation { return leftInOVN(t, true) }},
	} {
		pass := func(t *testing.T, o *observation, raises int, proven infrav1.AttachmentState) decision {
			t.Helper()
			d := decide(o)
			if d.proven != proven || d.write != nil || (d.raise != nil) != (raises > 0) {
				t.Fatalf("decided %+v", d)
			}
			if d.proven == "" && (d.pace != paceOVN || d.attached.reason != infrav1.WaitingForBarrierReason) {
				t.Fatalf("pace %d, said %+v", d.pace, d.attached)
			}
			if d.raise != nil {
				next, err := d.raise.Raised(int64(7+raises), o.now)
				if err != nil || next.Raises != raises {
					t.Fatalf("raised %+v, %v", next, err)
				}
				d.progress.barrier = next
			}
			o.progress = d.progress
			return d
		}
		t.Run(name, func(t *testing.T) {
			o := tc.scene(t)
			pass(t, o, 1, "")
			o.now = o.now.Add(time.Second)
			d := pass(t, o, 0, "")
			if got := d.attached.message; !strings.Contains(got, "since 2026-11-21T10:00:00Z for chassis dpu-d1, dpu-d2 ") || strings.Contains(got, "dpu-d9") {
				t.Errorf("says %q", got)
			}
			if !d.progress.since.Equal(now) {
				t.Errorf("waits since %s", d.progress.since)
			}
			o.ovn.Chassis = chassis(8, 8, 1)
			pass(t, o, 2, "")
			pass(t, o, 0, "")
			o.ovn.Chassis = chassis(9, 8, 1)
			pass(t, o, 0, "")
			o.ovn.Chassis = chassis(9, 10, 1)
			if d := pass(t, o, 0, tc.state); d.grade != infrav1.EvidenceBarrier {
				t.Errorf("proven by %s", d.grade)
			}
		})
		for what, interrupt := range map[string]func(*observation){
			"southbound away": ovnAway,
			"Node silent":     nodeSilent,
			"DPF away":        func(o *observation) { o.resolved = unreachable(errNoAnswer) },
			"counted back":    func(o *observation) { o.ovn.Chassis = chassis(3, 8, 1) },
			"chassis gone":    func(o *observation) { o.ovn.Chassis = o.ovn.Chassis[1:] },
			"new generation":  func(o *observation) { o.attachment.Generation++ },
			"port": func(o *observation) {
				if tc.state == infrav1.AttachmentStateAttached {
					unbind(o)
				} else {
					o.ovn.Bindings = append(o.ovn.Bindings, o.binding())
				}
			},
		} {
			t.Run(name+", interrupted: "+what, func(t *testing.T) {
				o := tc.scene(t)
				pass(t, o, 1, "")
				o.ovn.Chassis = chassis(8, 8, 1)
				pass(t, o, 2, "")
				interrupted := tc.scene(t)
				interrupted.progress, interrupted.ovn.Chassis = o.progress, chassis(9, 9, 1)
				interrupt(interrupted)
				d := decide(interrupted)
				if d.proven != "" || d.progress.barrier.Raises != 0 {
					t.Fatalf("decided %+v", d)
				}
				again := tc.scene(t)
				again.progress = d.progress
				pass(t, again, 1, "")
			})
		}
	}
}

// TestPeersThatAreSpared are named, and the server's own DPU is none.
func TestPeersThatAreSpared(t *testing.T) {
	o := scene().authorized().attached(t).bound(true).asked(yes).passing(infrav1.AttachmentStateAttached)
	hung(o)
	o.silent = map[string]string{"dpu-d2": "Node dpu-d2 is not Ready"}
	d := decide(o)
	if d.proven != infrav1.AttachmentStateAttached || !strings.Contains(d.attached.message, "dpu-d2 (Node dpu-d2 is not Ready)") {
		t.Fatalf("decided %+v", d)
	}
	report(o, d)
	o.progress, o.silent = progress{}, nil
	if again := decide(o); again.attached.message != d.attached.message || again.raise != nil {
		t.Errorf("renewed with %+v", again.attached)
	}
	o = scene().authorized().attached(t).bound(true).asked(yes).passing(infrav1.AttachmentStateAttached)
	o.ovn.Chassis[0].Config, o.silent = 8, map[string]string{"dpu-d1": "Node dpu-d1 is not Ready"}
	if d := decide(o); d.proven != "" {
		t.Errorf("its own DPU was not waited for: %+v", d)
	}
	o = leftInOVN(t, true).passing(infrav1.AttachmentStateDetached)
	hung(o)
	o.silent = map[string]string{"dpu-d2": "Node dpu-d2 is not Ready"}
	if d = decide(o); d.proven != infrav1.AttachmentStateDetached || !strings.Contains(d.attached.message, "not waited for") {
		t.Errorf("decided %+v", d)
	}
	report(o, d)
	if again := decide(o); again.attached.message != d.attached.message {
		t.Errorf("remembered as %+v", again.attached)
	}
}

// proven has the status say by what the running tenant's ports were proven.
func (o *observation) proven(grade infrav1.EvidenceGrade) *observation {
	o.attachment.Status.ObservedGeneration = o.attachment.Generation
	o.attachment.Status.ProvenAt = ptr.To(metav1.NewTime(now.Add(-time.Minute)))
	o.attachment.Status.Ports = []infrav1.AttachmentPortStatus{{Name: "p0", State: infrav1.AttachmentStateAttached, Evidence: grade}}
	return o
}

// TestGrades is the table of grades: by what a proof is given and renewed.
func TestGrades(t *testing.T) {
	const si, bound, barrier = infrav1.EvidenceServiceInterface, infrav1.EvidenceBound, infrav1.EvidenceBarrier
	withoutOVN := func(*observation) {}
	asksBound := func(o *observation) { o.bound(false) }
	asksBarrier := func(o *observation) { o.bound(true) }
	all := func(changes ...func(*observation)) func(*observation) {
		return func(o *observation) {
			for _, change := range changes {
				change(o)
			}
		}
	}
	for _, tc := range []struct {
		name   string
		before infrav1.EvidenceGrade
		change func(*observation)
		proven bool
		grade  infrav1.EvidenceGrade
		raises bool
		pace   pace
	}{
		{"no OVN", si, withoutOVN, true, si, false, paceSteady},
		{"Bound", bound, asksBound, true, bound, false, paceSteady},
		{"Barrier", barrier, asksBarrier, true, barrier, false, paceSteady},
		{"the fabric got OVN", si, asksBound, true, bound, false, paceSteady},
		{"the fabric got barriers", bound, asksBarrier, true, bound, true, paceOVN},
		{"the fabric got OVN with barriers", si, asksBarrier, true, bound, true, paceOVN},
		{"the fabric lost barriers", barrier, asksBound, true, bound, false, paceSteady},
		{"the fabric lost OVN", barrier, withoutOVN, true, si, false, paceSteady},
		{"passed meanwhile", bound, all(asksBarrier, func(o *observation) { o.passing(infrav1.AttachmentStateAttached) }), true, barrier, false, paceSteady},
		{"for long not passed meanwhile", bound, all(asksBarrier, func(o *observation) {
			o.passing(infrav1.AttachmentStateAttached)
			hung(o)
			o.progress.since = now.Add(-time.Hour)
		}), true, bound, false, paceSteady},
		{"another generation", barrier, all(asksBarrier, func(o *observation) { o.attachment.Generation++ }), false, bound, true, paceOVN},
		{"the proof was taken back", barrier, all(asksBarrier, func(o *observation) { o.attachment.Status.State = "" }), false, bound, true, paceOVN},
		{"the proof was taken back, and the status is not read yet", barrier, all(asksBarrier, func(o *observation) { o.progress.again = true }), false, bound, true, paceOVN},
		{"taken back and passed again", barrier, all(asksBarrier, func(o *observation) {
			o.attachment.Status.State = ""
			o.progress.again = true
			o.passing(infrav1.AttachmentStateAttached)
		}), true, barrier, false, paceSteady},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := scene().running(t).asked(unknown).proven(tc.before)
			tc.change(o)
			d := decide(o)
			if (d.proven == infrav1.AttachmentStateAttached) != tc.proven || d.grade != tc.grade || (d.raise != nil) != tc.raises || d.pace != tc.pace {
				t.Fatalf("decided %+v", d)
			}
			if tc.proven && d.progress.again || !tc.proven && d.attached.status != metav1.ConditionUnknown {
				t.Errorf("said %+v, remembers %+v", d.attached, d.progress)
			}
			report(o, d)
			status := o.attachment.Status
			if tc.proven && status.Ports[0].Evidence != tc.grade || !tc.proven && (status.Ports[0].Evidence != "" || status.ProvenAt == nil) {
				t.Errorf("status %+v", status)
			}
		})
	}
}

// TestRepairsBeginAgain: what was unplugged, by whomever, is taken for attached only once it has passed a barrier again.
func TestRepairsBeginAgain(t *testing.T) {
	o := scene().running(t).asked(yes).proven(infrav1.EvidenceBarrier).bound(true)
	unlabel(o)
	unbind(o)
	d := decide(o)
	if d.write == nil || d.write.step != vpc.StepRepair || !d.progress.again {
		t.Fatalf("decided %+v", d)
	}
	silent := scene().running(t).asked(yes).proven(infrav1.EvidenceBarrier).bound(true)
	silent.progress = d.progress
	nodeSilent(silent)
	healed := scene().running(t).asked(yes).proven(infrav1.EvidenceBarrier).bound(true)
	healed.progress = decide(silent).progress
	if d := decide(healed); d.proven != "" || d.raise == nil {
		t.Errorf("decided %+v", d)
	}
}

// TestAddressAndGradeInTheStatus says where the tenant's address comes from, and when it goes.
func TestAddressAndGradeInTheStatus(t *testing.T) {
	o := scene().authorized().attached(t).bound(false).asked(yes)
	report(o, decide(o))
	if port := o.attachment.Status.Ports[0]; port.Address != "10.64.0.7" || port.Evidence != infrav1.EvidenceBound {
		t.Errorf("attached: %+v", port)
	}
	own(o).Addresses = nil
	report(o, decide(o))
	if port := o.attachment.Status.Ports[0]; port.Address != "10.64.0.7" || port.Evidence != infrav1.EvidenceBound {
		t.Errorf("no address said: %+v", port)
	}
	unbind(o)
	report(o, decide(o))
	if port := o.attachment.Status.Ports[0]; port.Address != "10.64.0.7" || port.Evidence != "" {
		t.Errorf("in doubt: %+v", port)
	}
	left := leftInOVN(t, false)
	left.attachment.Status = o.attachment.Status
	report(left, decide(left))
	if port := left.attachment.Status.Ports[0]; port.Address != "" || port.Evidence != infrav1.EvidenceBound || port.State != infrav1.AttachmentStateDetached {
		t.Errorf("detached: %+v", port)
	}
}

// TestNamesAreRememberedBeforeTheyGo: once a port is unplugged nobody tells what OVN called it.
func TestNamesAreRememberedBeforeTheyGo(t *testing.T) {
	o := detaching(scene().running(t).bound(false))
	d := decide(o)
	if names := d.memory.Cards["d1"].LogicalPorts; d.write == nil || d.write.step != vpc.StepUnplug || !slices.Equal(names, []string{"dpf_si"}) {
		t.Fatalf("remembers %v for %+v", names, d.write)
	}
	left := leftInOVN(t, false)
	left.memory = d.memory
	left.cards[0].want = left.wantOf(left.cards[0])
	stays := left.binding()
	stays.Chassis, stays.MACs = "", nil
	left.ovn.Bindings = append(left.ovn.Bindings, stays)
	if d := decide(left); d.proven != "" || !strings.Contains(d.attached.message, "dpf_si") {
		t.Errorf("decided %+v", d)
	}
	if d := decide(detaching(scene().running(t))); d.memory.Cards["d1"].LogicalPorts != nil {
		t.Error("names are remembered where OVN is not asked")
	}
}

// TestDetachTimeoutWithOVN holds the server, and goes on asking.
func TestDetachTimeoutWithOVN(t *testing.T) {
	for name, change := range map[string]func(*observation){
		"away":  ovnAway,
		"hung":  hung,
		"bound": func(o *observation) { o.ovn.Bindings = append(o.ovn.Bindings, o.binding()) },
	} {
		o := leftInOVN(t, true).passing(infrav1.AttachmentStateDetached)
		o.memory.DetachingSince = ptr.To(metav1.NewTime(now.Add(-time.Hour)))
		change(o)
		if d := decide(o); d.proven != "" || d.attached.reason != infrav1.DetachUnprovenReason || d.attached.status != metav1.ConditionFalse || d.pace != paceOVN {
			t.Errorf("%s: decided %+v", name, d)
		}
	}
}

// TestOtherCardsAreUnclaimed: a DPU of the server without a port of ours is on no VPC in OVN's eyes either.
func TestOtherCardsAreUnclaimed(t *testing.T) {
	o := scene().authorized().attached(t).asked(yes)
	o.cards = append(o.cards, o.freeCard("d2", nil))
	o.bound(false)
	check(t, o, expected{attached: "False/NotStarted", resolved: "False/ForeignVPC"})
	o.ovn.Bindings = o.ovn.Bindings[1:] // The peer was that card.
	check(t, o, expected{proven: infrav1.AttachmentStateAttached, attached: "True/Attached", pace: paceSteady})
}

func TestOVNPause(t *testing.T) {
	for waited, want := range map[time.Duration]time.Duration{
		0: 200 * time.Millisecond, time.Second: 250 * time.Millisecond, 4 * time.Second: time.Second, 30 * time.Second: 2 * time.Second, time.Minute: 5 * time.Second,
	} {
		if got := ovnPause(waited, 5*time.Second); got != want {
			t.Errorf("after %s: %s, want %s", waited, got, want)
		}
	}
	if got := ovnPause(0, 50*time.Millisecond); got != 50*time.Millisecond {
		t.Errorf("slower than everything else: %s", got)
	}
}
