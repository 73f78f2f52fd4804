// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

const (
	logicalPort = dpf + "_si-x"
	ourSwitch   = dpf + "_" + vpcName + "_" + network + "Switch"
	blueSwitch  = dpf + "_blue-net-cccccccccccccccc_" + network + "Switch"
)

// boundPort is the Port_Binding of the attached port.
func boundPort() Binding {
	return Binding{LogicalPort: logicalPort, Switch: ourSwitch, Chassis: "dpu-1", Up: true, MACs: []string{"AA:BB:CC:00:00:01"}}
}

// peerPort is a port of another DPU in the same VPC, on another of its networks.
func peerPort(chassis string) Binding {
	return Binding{LogicalPort: dpf + "_si-of-" + chassis, Switch: dpf + "_" + vpcName + "_storageSwitch", Chassis: chassis, Up: true, MACs: []string{"aa:bb:cc:00:00:09"}}
}

// southbound is what OVN says of the attached port, a peer, and a stranger.
func southbound() *OVN {
	stranger := Binding{LogicalPort: dpf + "_theirs", Switch: blueSwitch, Chassis: "dpu-9", Up: true, MACs: []string{"aa:bb:cc:00:00:0a"}}
	return &OVN{
		Started: now, Bindings: []Binding{peerPort("dpu-2"), boundPort(), stranger},
		Chassis: []Chassis{{Name: "dpu-1", Config: 7}, {Name: "dpu-2", Config: 7}, {Name: "dpu-9", Config: 7}},
	}
}

// boundCases each change one thing of what OVN says of an attached port.
var boundCases = []struct {
	name         string
	change       func(*OVN)
	answer       Answer
	reason, says string
	kind         DriftKind
	exposed      bool
}{
	{"bound", func(*OVN) {}, Yes, "", "", "", false},
	{"away", func(o *OVN) { *o = OVN{Err: errors.New("no route")} }, Unknown, reasonFabricUnreachable, "southbound database cannot be read: no route; the operator looks", DriftOVNUnreadable, false},
	{"no row", func(o *OVN) { o.Bindings = o.Bindings[:1] }, No, reasonEvidenceMissing, "has no Port_Binding " + logicalPort, DriftUnbound, false},
	{"two rows", func(o *OVN) { o.Bindings = append(o.Bindings, boundPort()) }, No, reasonEvidenceMissing, "has 2 Port_Bindings", DriftUnbound, false},
	{"not claimed", func(o *OVN) { o.Bindings[1].Chassis = "" }, No, reasonEvidenceMissing, "claimed by no chassis", DriftUnbound, false},
	{"not claimed, and still up", func(o *OVN) { o.Bindings[1].Chassis, o.Bindings[1].Up = "", true }, No, reasonEvidenceMissing, "claimed by no chassis", DriftUnbound, false},
	{"not up", func(o *OVN) { o.Bindings[1].Up = false }, No, reasonEvidenceMissing, "has not programmed it", DriftUnbound, false},
	{"other MAC", func(o *OVN) { o.Bindings[1].MACs = []string{"aa:bb:cc:00:00:02"} }, No, reasonEvidenceMissing, "does not have the MAC address " + mac, DriftUnbound, false},
	{"no MAC", func(o *OVN) { o.Bindings[1].MACs = nil }, No, reasonEvidenceMissing, "does not have the MAC address", DriftUnbound, false},
	{"any MAC", func(o *OVN) { o.Bindings[1].MACs = []string{"unknown", mac} }, No, reasonEvidenceMissing, "any MAC address", DriftUnbound, false},
	{"one MAC more", func(o *OVN) { o.Bindings[1].MACs = []string{"aa:bb:cc:00:00:02", mac} }, Yes, "", "", "", false},
	{"switch not said", func(o *OVN) { o.Bindings[1].Switch = "" }, Yes, "", "", "", false},
	{"other chassis", func(o *OVN) { o.Bindings[1].Chassis = "dpu-2" }, No, reasonForeignVPC, "claimed by chassis dpu-2 instead of dpu-1", DriftOtherBinding, true},
	{"other network of the VPC", func(o *OVN) { o.Bindings[1].Switch = peerPort("").Switch }, No, reasonForeignVPC, "another switch", DriftOtherBinding, true},
	{"other VPC", func(o *OVN) { o.Bindings[1].Switch = blueSwitch }, No, reasonForeignVPC, "another switch", DriftOtherBinding, true},
	{"a port of another VPC on the chassis", func(o *OVN) { o.Bindings[2].Chassis = "dpu-1" }, No, reasonForeignVPC, "claims a port nobody asked for", DriftOtherBinding, true},
	{"a port of another network on the chassis", func(o *OVN) { o.Bindings[0].Chassis = "dpu-1" }, No, reasonForeignVPC, "claims a port nobody asked for", DriftOtherBinding, true},
	{"a row of an earlier ServiceInterface", func(o *OVN) {
		earlier := boundPort()
		earlier.LogicalPort = dpf + "_si-earlier"
		o.Bindings = append(o.Bindings, earlier)
	}, No, reasonEvidenceMissing, "of an earlier life", DriftUnbound, false},
}

func TestProveBound(t *testing.T) {
	for _, tc := range boundCases {
		t.Run(tc.name, func(t *testing.T) {
			e := attached(t)
			e.OVN = southbound()
			tc.change(e.OVN)
			got := ProveBound(wanted(), e)
			if got.Answer != tc.answer || got.Reason != tc.reason || !strings.Contains(got.Message, tc.says) || strings.Contains(got.Message, "theirs") {
				t.Errorf("got %+v", got)
			}
			plan := PlanAttach(wanted(), e, now)
			if done := plan.Step == StepDone; done != (tc.answer == Yes) || plan.OVN == done {
				t.Errorf("planned %+v", plan)
			}
			drifts := FindDrift(wanted(), e, now)
			sum := Worst(drifts)
			if sum.Finding.Answer != tc.answer || sum.Kind != tc.kind || sum.Exposed != tc.exposed || sum.Seen != (tc.answer == No) {
				t.Errorf("drifts %+v", drifts)
			}
		})
	}
}

// TestBoundAddsToAttached: what OVN says makes up for nothing that DPF does not say.
func TestBoundAddsToAttached(t *testing.T) {
	e := attached(t)
	e.OVN = southbound()
	e.Interfaces = nil
	if got := PlanAttach(wanted(), e, now); got.Step != StepWait || got.OVN {
		t.Errorf("planned %+v", got)
	}
	sum := Worst(FindDrift(wanted(), e, now))
	if sum.Kind != DriftPort || sum.Exposed {
		t.Errorf("a row that outlives its ServiceInterface counts as %+v", sum)
	}
	e = attached(t)
	if got := PlanAttach(wanted(), e, now); got.Step != StepDone {
		t.Errorf("without OVN: planned %+v", got)
	}
}

func TestProveUnbound(t *testing.T) {
	gone := func(o *OVN) { o.Bindings = slices.Delete(o.Bindings, 1, 2) }
	for _, tc := range []struct {
		name   string
		known  []string
		change func(*OVN)
		answer Answer
		says   string
	}{
		{"gone", []string{logicalPort}, gone, Yes, ""},
		{"away", nil, func(o *OVN) { *o = OVN{Err: errors.New("no route")} }, Unknown, "southbound database"},
		{"still claimed", nil, func(*OVN) {}, No, "still claimed by chassis dpu-1"},
		{"any port claimed", nil, func(o *OVN) { gone(o); o.Bindings[1].Chassis = "dpu-1" }, No, "still claimed"},
		{"not claimed, known by name", []string{logicalPort}, func(o *OVN) { o.Bindings[1].Chassis, o.Bindings[1].MACs = "", nil }, No, "is still there"},
		{"not claimed, known by MAC", nil, func(o *OVN) { o.Bindings[1].Chassis = "" }, No, "is still there"},
		{"not claimed, switch not said", nil, func(o *OVN) { o.Bindings[1].Chassis, o.Bindings[1].Switch = "", "" }, No, "is still there"},
		{"the MAC in another VPC", nil, func(o *OVN) { o.Bindings[1].Chassis, o.Bindings[1].Switch = "", blueSwitch }, Yes, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := wanted()
			want.LogicalPorts = tc.known
			e := held(t, idle(), tombstone, nil)
			if plan, _ := PlanDetach(want, e, now, DetachOptions{}); plan.Step != StepDone {
				t.Fatalf("without OVN: planned %+v", plan)
			}
			e.OVN = southbound()
			tc.change(e.OVN)
			if got := ProveUnbound(want, e); got.Answer != tc.answer || !strings.Contains(got.Message, tc.says) || strings.Contains(got.Message, "theirs") {
				t.Errorf("got %+v", got)
			}
			plan, _ := PlanDetach(want, e, now, DetachOptions{})
			if done := plan.Step == StepDone; done != (tc.answer == Yes) || plan.OVN == done {
				t.Errorf("planned %+v", plan)
			}
			again := PlanRejoin(want, stretch, e, now, DetachOptions{Repeat: Yes})
			if again.Step != plan.Step {
				t.Errorf("without a record: planned %+v", again)
			}
		})
	}
}

// TestFreeMeansUnclaimed: a DPU whose chassis claims a port is taken by nobody.
func TestFreeMeansUnclaimed(t *testing.T) {
	e := idle()
	e.OVN = &OVN{Bindings: []Binding{boundPort()}}
	if got := PlanAttach(wanted(), e, now); got.Step != StepWait || got.Finding.Reason != infrav1.ForeignVPCReason {
		t.Errorf("planned %+v", got)
	}
	e.OVN = &OVN{Err: errors.New("no route")}
	if got := PlanAttach(wanted(), e, now); got.Step != StepWait || got.Finding.Answer != Unknown {
		t.Errorf("planned %+v", got)
	}
	e.OVN = &OVN{Bindings: []Binding{peerPort("dpu-2")}}
	if got := PlanAttach(wanted(), e, now); got.Step != StepJoin {
		t.Errorf("planned %+v", got)
	}
}

// TestRepairIsNotKeptByOVN: what OVN lost because of a label that is gone does not keep the label from being put back.
func TestRepairIsNotKeptByOVN(t *testing.T) {
	unlabelled := func() Evidence {
		e := attached(t)
		relabel(t, &e, map[string]string{VPCKey: vpcName})
		e.OVN = southbound()
		return e
	}
	e := unlabelled()
	e.OVN.Bindings[1].Chassis, e.OVN.Bindings[1].Up = "", false
	if sum := Worst(FindDrift(wanted(), e, now)); !sum.Ours {
		t.Errorf("not ours: %+v", sum)
	}
	if got := PlanRepair(wanted(), e, now); got.Step != StepRepair {
		t.Errorf("planned %+v", got)
	}
	for name, ovn := range map[string]*OVN{"away": {Err: errors.New("x")}, "foreign": {Bindings: []Binding{{Switch: blueSwitch, Chassis: "dpu-1"}}}} {
		e := unlabelled()
		e.OVN = ovn
		if got := PlanRepair(wanted(), e, now); got.Step != StepWait {
			t.Errorf("%s: planned %+v", name, got)
		}
	}
}

func TestPortAddress(t *testing.T) {
	parse := netip.MustParseAddr
	for want, addresses := range map[string][]netip.Addr{
		"":            nil,
		"10.64.0.7":   {parse("fd00::7"), parse("10.64.0.7"), parse("10.64.0.8")},
		"10.64.0.9":   {parse("::ffff:10.64.0.9")},
		"fd00::7":     {parse("fd00::7")},
		"fe80::1":     {parse("fe80::1%eth0")},
		"192.0.2.200": {{}, parse("192.0.2.200")},
	} {
		e := attached(t)
		e.OVN = southbound()
		e.OVN.Bindings[1].Addresses = addresses
		if got := PortAddress(wanted(), e, 0); got != want {
			t.Errorf("got %q of %v, want %q", got, addresses, want)
		}
		if got := PortAddress(wanted(), e, 1); got != "" {
			t.Errorf("another port has %q", got)
		}
	}
	if got := PortAddress(wanted(), attached(t), 0); got != "" {
		t.Errorf("without OVN: %q", got)
	}
}
