// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuserver

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// TestRebind goes through a swap of a card: refused, followed while the override is there and remembered, pinned anew after it.
func TestRebind(t *testing.T) {
	s := &server{source: "s", systemID: "abc", resolved: vpc.Finding{Answer: vpc.Yes}, cards: []card{goodCard()}}
	s.object = pinned(func(o *infrav1.DPUServer) { o.Status.DPUs[0].DPUDevice = "d0" })
	pass := func(at time.Time) judgement {
		j := judge(s, "i", at)
		describeServer(s.object, j)
		return j
	}
	if j := pass(now); j.ready.Reason != infrav1.BindingChangedReason || !strings.Contains(j.ready.Message, "DPUDevice d0 is gone, DPUDevice d1 is new") {
		t.Fatalf("got %+v", j.ready)
	}
	s.object.Spec.Override = &infrav1.DPUServerOverride{Override: infrav1.Override{Action: infrav1.OverrideRebind, By: "olga", Reason: "It burnt."}}
	pass(now.Add(time.Second))
	for _, at := range []time.Duration{2 * time.Second, 3 * time.Second} {
		j := pass(now.Add(at))
		if j.ready.Reason != infrav1.OverriddenReason || s.object.Status.Eligibility != infrav1.Ineligible || j.binding[0].DPUDevice != "d1" {
			t.Fatalf("got %+v, bound to %+v", j.ready, j.binding)
		}
		if r := s.object.Status.Rebound; r == nil || r.By != "olga" || !r.Since.Time.Equal(now.Add(time.Second)) || !slices.Equal(r.Before, []string{"d0"}) {
			t.Fatalf("remembered %+v", r)
		}
	}
	s.object.Spec.Override = nil
	if j := pass(now.Add(4 * time.Second)); j.ready.Answer != vpc.Yes || s.object.Status.Rebound == nil {
		t.Errorf("got %+v, remembered %+v", j.ready, s.object.Status.Rebound)
	}
	// Another swap is another decision, even by the same words.
	s.object.Status.DPUs[0].DPUDevice = "d9"
	s.object.Spec.Override = &infrav1.DPUServerOverride{Override: infrav1.Override{Action: infrav1.OverrideRebind, By: "olga", Reason: "It burnt."}}
	if pass(now.Add(5 * time.Second)); !slices.Equal(s.object.Status.Rebound.Before, []string{"d9"}) {
		t.Errorf("remembered %+v", s.object.Status.Rebound)
	}
}

func TestHolderSaid(t *testing.T) {
	ours := vpc.Holder{Installation: "i", Namespace: "red", Attachment: "a", TokenHash: "h"}
	theirs := vpc.Holder{Installation: "j", Namespace: "red", Attachment: "b", TokenHash: "g"}
	s := &server{source: "s", systemID: "abc", resolved: vpc.Finding{Answer: vpc.Yes}, attachments: []string{"red/a"}, cards: []card{goodCard(), goodCard()}}
	s.cards[1].member.Device = s.cards[1].member.Device.DeepCopy()
	s.cards[1].member.Device.Name = "d2"

	s.cards[0].recorded(t, ours)
	if j := judge(s, "i", now); j.holder.Name != "a" || j.holder.Installation != "" {
		t.Errorf("got %+v", j.holder)
	}
	s.cards[1].recorded(t, theirs)
	j := judge(s, "i", now)
	if j.holder.Name != "b" || j.holder.Installation != "j" || !strings.Contains(j.free.Message, "of installation j") || !strings.Contains(j.free.Message, "red/a of installation i") {
		t.Errorf("got %+v, %s", j.holder, j.free.Message)
	}
	// What cannot be read takes the holder back no more than the binding.
	s.object = pinned(func(*infrav1.DPUServer) {})
	s.object.Status.Holder = j.holder
	s.resolved, s.cards = unreachable(errors.New("x")), nil
	if j := judge(s, "i", now); j.holder == nil || j.ready.Answer != vpc.Unknown {
		t.Errorf("got %+v, %+v", j.holder, j.ready)
	}
}
