// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

var (
	attaching = BarrierPurpose{State: infrav1.AttachmentStateAttached, TokenHash: "h1", Generation: 1}
	party     = BarrierParty{Own: []string{"dpu-1"}, Peers: []string{"dpu-2", "dpu-3"}}
)

// saying is what the chassis say to have programmed: dpu-1 first.
func saying(configs ...int64) OVN {
	var o OVN
	for i, name := range []string{"dpu-1", "dpu-2", "dpu-3"} {
		if i < len(configs) {
			o.Chassis = append(o.Chassis, Chassis{Name: name, Config: configs[i]})
		}
	}
	// Somebody else's hangs, as ever.
	o.Chassis = append(o.Chassis, Chassis{Name: "dpu-9", Config: 1})
	return o
}

// raised is a barrier that was raised once more, to the value, while the chassis said to be at then.
func raised(t *testing.T, b Barrier, value, then int64) Barrier {
	t.Helper()
	plan := PlanBarrier(b, attaching, party, saying(then, then, then), now)
	if plan.Step != BarrierRaise {
		t.Fatalf("planned %+v", plan)
	}
	next, err := plan.Raised(value, now)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// TestPlanBarrier is the table of what is done about a barrier.
func TestPlanBarrier(t *testing.T) {
	once := raised(t, Barrier{}, 8, 7)
	twice := raised(t, once, 9, 8)
	silent := party
	silent.Silent = map[string]string{"dpu-3": "Node dpu-3 is not Ready"}
	ownSilent := party
	ownSilent.Silent = map[string]string{"dpu-1": "Node dpu-1 is not Ready"}
	joined := party
	joined.Peers = []string{"dpu-2"}
	other := attaching
	other.Generation++
	passed := twice
	passed.Passed = now
	unregistered := once
	unregistered.Then = map[string]int64{"dpu-2": 7}
	for _, tc := range []struct {
		name    string
		barrier Barrier
		purpose BarrierPurpose
		party   BarrierParty
		ovn     OVN
		later   time.Duration
		step    BarrierStep
		raises  int
		says    string
	}{
		{"not begun", Barrier{}, attaching, party, saying(7, 7, 7), 0, BarrierRaise, 0, "raising barrier 1 of 2"},
		{"nobody passed the first", once, attaching, party, saying(7, 7, 7), 0, BarrierWait, 1, "since 2026-11-21T10:00:00Z for chassis dpu-1, dpu-2, dpu-3"},
		{"own hangs", once, attaching, party, saying(7, 8, 8), time.Hour, BarrierWait, 1, "for chassis dpu-1 "},
		{"own hangs, and its Node is silent", once, attaching, ownSilent, saying(7, 8, 8), time.Hour, BarrierWait, 1, "for chassis dpu-1 "},
		{"a peer hangs", once, attaching, party, saying(8, 8, 7), time.Hour, BarrierWait, 1, "for chassis dpu-3 "},
		{"a peer hangs, and its Node is silent", once, attaching, silent, saying(8, 8, 7), 0, BarrierRaise, 1, "raising barrier 2 of 2"},
		{"another peer hangs too", once, attaching, silent, saying(8, 7, 7), 0, BarrierWait, 1, "for chassis dpu-2 to program what OVN's northbound database said (barrier 1 of 2); not waited for: chassis dpu-3 (Node dpu-3 is not Ready)"},
		{"a peer that hangs let go of its port", once, attaching, joined, saying(8, 8, 7), 0, BarrierWait, 1, "for chassis dpu-3 "},
		{"a peer's chassis is gone", once, attaching, party, saying(8, 8), 0, BarrierRaise, 1, "raising barrier 2"},
		{"all passed the first", once, attaching, party, saying(8, 9, 8), 0, BarrierRaise, 1, "raising barrier 2 of 2"},
		{"the first, of the second", twice, attaching, party, saying(8, 8, 8), 0, BarrierWait, 2, "barrier 2 of 2"},
		{"passed", twice, attaching, party, saying(9, 9, 12), 0, BarrierPassed, 2, ""},
		{"passed without a silent peer", twice, attaching, silent, saying(9, 9, 8), 0, BarrierPassed, 2, ""},
		{"still passed", passed, attaching, party, saying(9, 9, 9), 29 * time.Second, BarrierPassed, 2, ""},
		{"passed too long ago", passed, attaching, party, saying(9, 9, 9), 30 * time.Second, BarrierRaise, 0, "raising barrier 1"},
		{"for another generation", twice, other, party, saying(9, 9, 9), 0, BarrierRaise, 0, "raising barrier 1"},
		{"own counts back", twice, attaching, party, saying(0, 9, 9), 0, BarrierRaise, 0, "raising barrier 1"},
		{"a peer counts back", twice, attaching, party, saying(9, 9, 0), 0, BarrierRaise, 0, "raising barrier 1"},
		{"own chassis is gone", twice, attaching, party, OVN{}, 0, BarrierRaise, 0, "raising barrier 1"},
		{"own chassis was never there", unregistered, attaching, party, OVN{Chassis: saying(8, 8, 8).Chassis[1:]}, 0, BarrierWait, 1, "for chassis dpu-1 "},
		{"OVN is away", twice, attaching, party, OVN{Err: errors.New("no route")}, 0, BarrierWait, 0, "cannot be read: no route"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := PlanBarrier(tc.barrier, tc.purpose, tc.party, tc.ovn, now.Add(tc.later))
			if got.Step != tc.step || got.Next.Raises != tc.raises || !strings.Contains(got.Finding.Message, tc.says) {
				t.Errorf("planned %s after %d raises: %+v", got.Step, got.Next.Raises, got.Finding)
			}
			if passed := got.Finding.Answer == Yes; passed != (got.Step == BarrierPassed) || passed == got.Next.Passed.IsZero() {
				t.Errorf("%s: %+v, %+v", got.Step, got.Finding, got.Next)
			}
		})
	}
	if got := PlanBarrier(twice, attaching, silent, saying(9, 9, 8), now).Spared; !strings.Contains(got, "dpu-3 (Node dpu-3 is not Ready)") || strings.Contains(got, "dpu-2") {
		t.Errorf("spared %q", got)
	}
}

// TestRaised takes no value for a barrier that somebody has passed before it was made.
func TestRaised(t *testing.T) {
	first := PlanBarrier(Barrier{}, attaching, party, saying(7, 7, 7), now)
	for _, value := range []int64{1, 7} {
		if got, err := first.Raised(value, now); err == nil {
			t.Errorf("raised to %d while all are at 7: %+v", value, got)
		}
	}
	second := PlanBarrier(raised(t, Barrier{}, 20, 7), attaching, party, saying(20, 20, 20), now)
	if got, err := second.Raised(20, now); err == nil {
		t.Errorf("raised from 20 to 20: %+v", got)
	}
	got, err := second.Raised(23, now.Add(time.Second))
	if err != nil || got.Raises != 2 || got.Value != 23 || !got.Raised.Equal(now.Add(time.Second)) || got.Then["dpu-2"] != 20 || len(got.Then) != 3 {
		t.Errorf("raised: %+v, %v", got, err)
	}
}

func TestPeers(t *testing.T) {
	o := southbound()
	unsaid := Binding{LogicalPort: "x", Chassis: "dpu-7"}
	o.Bindings = append(o.Bindings, peerPort("dpu-2"), peerPort(""), unsaid,
		// A VPC whose name begins like ours.
		Binding{LogicalPort: "y", Switch: dpf + "_" + vpcName + "2_" + network + "Switch", Chassis: "dpu-8"})
	if got, want := wanted().Peers(*o, []string{"dpu-1"}), []string{"dpu-2", "dpu-7"}; !slices.Equal(got, want) {
		t.Errorf("peers %v, want %v", got, want)
	}
}
