// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
)

func TestPlanAttach(t *testing.T) {
	for _, tc := range []struct {
		name   string
		e      Evidence
		step   Step
		reason string
		change Change
	}{
		{"free", idle(), StepJoin, infrav1.AttachingVPCReason, Change{Set: map[string]string{VPCKey: vpcName}, Holder: claim}},
		{"detached before under the same claim", held(t, idle(), tombstone, nil), StepJoin, infrav1.AttachingVPCReason, Change{Set: map[string]string{VPCKey: vpcName}, Holder: claim}},
		{"joined, not marked", joined(t), StepWait, infrav1.AttachingVPCReason, Change{}},
		{"joined, marked with another VPC", marked(joined(t), "x_y"), StepWait, infrav1.ForeignVPCReason, Change{}},
		{"joined and marked", marked(joined(t), ourMark), StepPlug, infrav1.AttachingPortReason, Change{Set: map[string]string{PortKey(0): network}, Holder: plugged}},
		{"plugged, not proven", marked(held(t, idle(), plugged, portKeys), ourMark), StepWait, infrav1.EvidenceMissingReason, Change{}},
		{"attached", attached(t), StepDone, "", Change{}},
		{"the VPC label was taken away", marked(held(t, idle(), plugged, map[string]string{PortKey(0): network}), ourMark), StepWait, infrav1.EvidenceMissingReason, Change{}},
		{"the VPC label was changed", marked(held(t, idle(), claim, map[string]string{VPCKey: "other"}), ourMark), StepWait, infrav1.EvidenceMissingReason, Change{}},
		{"the port label was taken away", marked(held(t, idle(), plugged, map[string]string{VPCKey: vpcName}), ourMark), StepWait, infrav1.EvidenceMissingReason, Change{}},
		{"the port label was changed", marked(held(t, idle(), plugged, map[string]string{VPCKey: vpcName, PortKey(0): "other"}), ourMark), StepWait, infrav1.EvidenceMissingReason, Change{}},
		{"another port was labelled", marked(held(t, idle(), plugged, map[string]string{VPCKey: vpcName, PortKey(0): network, PortKey(1): network}), ourMark), StepWait, infrav1.EvidenceMissingReason, Change{}},
		{"held by another", held(t, idle(), other, nil), StepWait, infrav1.ServerHeldByOtherReason, Change{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := PlanAttach(wanted(), tc.e, now)
			if got.Step != tc.step || got.Finding.Reason != tc.reason || !reflect.DeepEqual(got.Change, tc.change) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestPlanAttachDoesNotPlugADPUThatIsNotFit(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Evidence)
	}{
		{"Node not Ready", func(e *Evidence) { e.Node.Status.Conditions[0].Status = corev1.ConditionFalse }},
		{"DPU in Error", func(e *Evidence) { e.DPU.Status.Phase = provisioningv1alpha1.DPUPhaseError }},
		{"DPU reinstalling", func(e *Evidence) { e.DPU.Status.Phase = provisioningv1alpha1.DPUPhasePrepareBFB }},
		{"a port is on a network", func(e *Evidence) { e.Interfaces = []svcv1alpha1.ServiceInterface{serviceInterface()} }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := marked(joined(t), ourMark)
			tc.change(&e)
			if got := PlanAttach(wanted(), e, now); got.Step != StepWait {
				t.Errorf("planned %+v", got)
			}
		})
	}
}

func TestPlanDetach(t *testing.T) {
	gone := func(holder Holder, labels map[string]string) Evidence {
		return marked(held(t, idle(), holder, labels), ourMark)
	}
	inVPC := map[string]string{VPCKey: vpcName}
	booted := func(e Evidence) Evidence {
		e.Node.Status.NodeInfo.BootID = "boot-2"
		return e
	}
	silent := func(e Evidence) Evidence {
		e.Node.Status.Conditions[0].Status = corev1.ConditionUnknown
		return e
	}
	with := func(h Holder, change func(*Holder)) Holder {
		change(&h)
		return h
	}
	empty := Continuity{}
	newStretch := Continuity{NodeUID: "node-uid", BootID: "boot-2", ReadySince: readySince}
	repeating := with(plugged, func(h *Holder) { h.Repeat = true })
	removePort, removeVPC := map[string]string{PortKey(0): network}, map[string]string{VPCKey: vpcName}
	for _, tc := range []struct {
		name    string
		e       Evidence
		options DetachOptions
		step    Step
		reason  string
		change  Change
	}{
		{"attached", attached(t), DetachOptions{}, StepUnplug, infrav1.DetachingPortReason, Change{Remove: removePort, Holder: unplugged}},
		{"attached, silent", silent(attached(t)), DetachOptions{}, StepWait, infrav1.DPUNotReadyReason, Change{}},
		{
			"attached, silent, urgent", silent(attached(t)), DetachOptions{Urgent: true}, StepUnplug, infrav1.DetachingPortReason,
			Change{Remove: removePort, Holder: with(plugged, func(h *Holder) { h.Unplugged = &empty })},
		},
		{"joined only", gone(claim, inVPC), DetachOptions{}, StepLeave, infrav1.DetachingVPCReason, Change{Remove: removeVPC, Holder: tombstone}},
		{"unplugging", func() Evidence {
			e := gone(unplugged, inVPC)
			e.Interfaces = []svcv1alpha1.ServiceInterface{serviceInterface()}
			return e
		}(), DetachOptions{}, StepWait, infrav1.DetachingPortReason, Change{}},
		{"unplugged", gone(unplugged, inVPC), DetachOptions{}, StepLeave, infrav1.DetachingVPCReason, Change{Remove: removeVPC, Holder: tombstone}},
		{"unplugged, silent now", silent(gone(unplugged, inVPC)), DetachOptions{Repeat: Yes}, StepWait, infrav1.DPUNotReadyReason, Change{}},
		{"unplugged, booted in between, not confirmed", booted(gone(unplugged, inVPC)), DetachOptions{}, StepWait, infrav1.DetachUnprovenReason, Change{}},
		{
			"unplugged, booted in between", booted(gone(unplugged, inVPC)), DetachOptions{Repeat: Yes}, StepPlug, infrav1.DetachingPortReason,
			Change{Set: removePort, Holder: repeating},
		},
		{"repeating, not attached again yet", gone(repeating, portKeys), DetachOptions{Repeat: Yes}, StepWait, infrav1.EvidenceMissingReason, Change{}},
		{"repeating, attached again", booted(func() Evidence {
			e := attached(t)
			e.Carriers = held(t, e, repeating, portKeys).Carriers
			return e
		}()), DetachOptions{Repeat: Yes}, StepUnplug, infrav1.DetachingPortReason, Change{
			Remove: removePort, Holder: with(plugged, func(h *Holder) { h.Unplugged = &newStretch }),
		}},
		{"repeating, not known whether confirmed", gone(repeating, portKeys), DetachOptions{}, StepWait, infrav1.DetachUnprovenReason, Change{}},
		{"repeating, no longer confirmed", gone(repeating, portKeys), DetachOptions{Repeat: No}, StepUnplug, infrav1.DetachingPortReason, Change{
			Remove: removePort, Holder: with(unplugged, func(h *Holder) { h.Repeat = true }),
		}},
		{"unplugged without proof of the repetition", gone(with(unplugged, func(h *Holder) { h.Repeat = true }), inVPC), DetachOptions{}, StepWait, infrav1.DetachUnprovenReason, Change{}},
		{"unplugged without proof of the repetition, confirmed again", gone(with(unplugged, func(h *Holder) { h.Repeat = true }), inVPC), DetachOptions{Repeat: Yes}, StepPlug, infrav1.DetachingPortReason, Change{
			Set: removePort, Holder: repeating,
		}},
		{"the port label was taken away by somebody else", gone(plugged, inVPC), DetachOptions{}, StepWait, infrav1.DetachUnprovenReason, Change{}},
		{"left, marked", marked(held(t, idle(), tombstone, nil), ourMark), DetachOptions{}, StepWait, infrav1.DetachingVPCReason, Change{}},
		{"left", held(t, idle(), tombstone, nil), DetachOptions{}, StepDone, "", Change{}},
		{"left, silent", silent(held(t, idle(), tombstone, nil)), DetachOptions{}, StepWait, infrav1.DPUNotReadyReason, Change{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, written := PlanDetach(wanted(), tc.e, now, tc.options)
			if !written {
				t.Fatal("the record was not seen")
			}
			if got.Step != tc.step || got.Finding.Reason != tc.reason || !reflect.DeepEqual(got.Change, tc.change) {
				t.Errorf("got %+v, want %s %s %+v", got, tc.step, tc.reason, tc.change)
			}
		})
	}
	for name, e := range map[string]Evidence{"free": idle(), "held by another": held(t, idle(), other, portKeys)} {
		if _, written := PlanDetach(wanted(), e, now, DetachOptions{}); written {
			t.Errorf("%s: a record was seen", name)
		}
	}
}

func TestPlanRejoin(t *testing.T) {
	recreated := idle()
	recreated.Node.UID = types.UID("other")
	for _, tc := range []struct {
		name   string
		e      Evidence
		before Continuity
		repeat Answer
		step   Step
	}{
		{"one stretch since before the first write", idle(), stretch, Unknown, StepDone},
		{"one stretch, still marked", marked(idle(), ourMark), stretch, Unknown, StepWait},
		{"the Node was recreated", recreated, stretch, Unknown, StepWait},
		{"the Node was recreated, confirmed", recreated, stretch, Yes, StepJoin},
		{"nothing remembered, confirmed", idle(), Continuity{}, Yes, StepJoin},
		{"held by another", held(t, idle(), other, portKeys), stretch, Yes, StepWait},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := PlanRejoin(wanted(), tc.before, tc.e, now, DetachOptions{Repeat: tc.repeat})
			if got.Step != tc.step {
				t.Errorf("got %+v", got)
			}
			if got.Step == StepJoin && !got.Change.Holder.Repeat {
				t.Error("a repetition that is not recorded as one")
			}
			if got.Step == StepWait && got.Finding.Reason != infrav1.DetachUnprovenReason {
				t.Errorf("reason %s", got.Finding.Reason)
			}
		})
	}
}

// TestWritesPerDirection walks a DPU on and off, changing what DPF and the DPU would change, and counts the writes.
func TestWritesPerDirection(t *testing.T) {
	e, writes := idle(), map[string]int{}
	apply := func(direction string, plan Plan) {
		t.Helper()
		writes[direction]++
		labels := map[string]string{}
		for key, value := range e.Carrier().Labels {
			labels[key] = value
		}
		for key, value := range plan.Change.Set {
			labels[key] = value
		}
		for key := range plan.Change.Remove {
			delete(labels, key)
		}
		e = held(t, e, plan.Change.Holder, labels)
	}
	apply("on", PlanAttach(wanted(), e, now))
	e = marked(e, ourMark)
	apply("on", PlanAttach(wanted(), e, now))
	e.Interfaces = []svcv1alpha1.ServiceInterface{serviceInterface()}
	if got := PlanAttach(wanted(), e, now); got.Step != StepDone {
		t.Fatalf("not attached: %+v", got)
	}
	plan, _ := PlanDetach(wanted(), e, now, DetachOptions{})
	apply("off", plan)
	e.Interfaces = nil
	plan, _ = PlanDetach(wanted(), e, now, DetachOptions{})
	apply("off", plan)
	e = marked(e, "")
	if got, _ := PlanDetach(wanted(), e, now, DetachOptions{}); got.Step != StepDone {
		t.Fatalf("not detached: %+v", got)
	}
	if writes["on"] != 2 || writes["off"] != 2 {
		t.Errorf("writes %v", writes)
	}
	if got := Preflight(e, other, now); got.Answer != Yes {
		t.Errorf("the next claim is refused: %+v", got)
	}
}

func TestContinuity(t *testing.T) {
	if same := stretch; !stretch.Equal(same) {
		t.Error("a stretch is not itself")
	}
	for name, c := range map[string]Continuity{
		"other Node": {NodeUID: "x", BootID: "boot-1", ReadySince: readySince},
		"other boot": {NodeUID: "node-uid", BootID: "x", ReadySince: readySince},
		"other time": {NodeUID: "node-uid", BootID: "boot-1", ReadySince: metav1.NewTime(now)},
		"none":       {},
	} {
		if stretch.Equal(c) || c.Equal(stretch) {
			t.Errorf("%s: equal", name)
		}
	}
	if (Continuity{}).Equal(Continuity{}) {
		t.Error("nothing equals nothing")
	}
}
