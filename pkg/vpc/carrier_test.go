// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"testing"
)

func carrying(t *testing.T, kind string, holder *Holder, labels map[string]string) Carrier {
	t.Helper()
	carrier := Carrier{Kind: kind, Labels: labels}
	if holder != nil {
		value, err := holder.Encode()
		if err != nil {
			t.Fatal(err)
		}
		carrier.Annotations = map[string]string{HolderAnnotation: value}
	}
	return carrier
}

// TestTwoCarriers has records in both places of a DPU, as an upgrade of DPF in the middle of a race could leave them: there is
// one holder, and nobody writes on another's carrier.
func TestTwoCarriers(t *testing.T) {
	mine := Holder{Installation: "i", Namespace: "red", Attachment: "a", TokenHash: "h", Plugged: true}
	theirs := Holder{Installation: "i", Namespace: "blue", Attachment: "b", TokenHash: "g", Plugged: true}
	past := mine
	past.Detached = true
	labels := func(network string) map[string]string { return map[string]string{VPCKey: "v", PortKey(0): network} }
	for _, tc := range []struct {
		name     string
		carriers []Carrier
		carrier  string
		free     Answer
	}{
		{"mine where DPF was earlier", []Carrier{carrying(t, "DPUDevice", nil, nil), carrying(t, "DPU", &mine, labels("n"))}, "DPU", Yes},
		{"mine in both places", []Carrier{carrying(t, "DPUDevice", &mine, labels("n")), carrying(t, "DPU", &mine, labels("n"))}, "DPUDevice", Yes},
		{"mine in the later place", []Carrier{carrying(t, "DPUDevice", &mine, labels("n")), carrying(t, "DPU", &past, nil)}, "DPUDevice", Yes},
		{"theirs beside mine", []Carrier{carrying(t, "DPUDevice", &theirs, labels("x")), carrying(t, "DPU", &mine, labels("n"))}, "DPU", No},
		{"mine beside theirs", []Carrier{carrying(t, "DPUDevice", &mine, labels("n")), carrying(t, "DPU", &theirs, labels("x"))}, "DPUDevice", No},
		{"theirs, mine only remembered", []Carrier{carrying(t, "DPUDevice", &past, nil), carrying(t, "DPU", &theirs, labels("x"))}, "DPU", No},
		{"labels without a record in the earlier place", []Carrier{carrying(t, "DPUDevice", nil, nil), carrying(t, "DPU", nil, labels("x"))}, "DPU", No},
		{"nothing", []Carrier{carrying(t, "DPUDevice", nil, nil), carrying(t, "DPU", &past, nil)}, "DPUDevice", Yes},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := Evidence{Carriers: tc.carriers}.For(mine)
			if got := e.Carrier().Kind; got != tc.carrier {
				t.Errorf("written on the %s, want the %s", got, tc.carrier)
			}
			if got := CheckFree(e, mine); got.Answer != tc.free {
				t.Errorf("free for the claim: %+v, want %v", got, tc.free)
			}
		})
	}
	// What the claim takes away is its own.
	e := Evidence{Carriers: []Carrier{carrying(t, "DPUDevice", &theirs, labels("x")), carrying(t, "DPU", &mine, labels("n"))}}.For(mine)
	plan, written := PlanDetach(Want{Claim: mine}, e, now, DetachOptions{Urgent: true})
	if !written || plan.Step != StepUnplug || plan.Change.Remove[PortKey(0)] != "n" {
		t.Errorf("got %+v, written %t", plan, written)
	}
}
