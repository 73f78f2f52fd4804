// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// TestReadingsSince lets nobody but who renews a proof use a reading from before its pass.
func TestReadingsSince(t *testing.T) {
	now := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	const token = "v1.a.b"
	steady := func() *observation {
		attachment := &infrav1.DPUAttachment{
			Spec: infrav1.DPUAttachmentSpec{State: infrav1.AttachmentStateAttached, Server: infrav1.AttachmentServer{Token: token}},
			Status: infrav1.DPUAttachmentStatus{
				State: infrav1.AttachmentStateAttached, TokenHash: maas.TokenHash(token), ProvenAt: ptr.To(metav1.NewTime(now.Add(-time.Minute))),
			},
		}
		return &observation{now: now, attachment: attachment, stateBefore: infrav1.AttachmentStateAttached, fabric: &scope.Fabric{Object: &infrav1.DPUFabric{}}}
	}
	for name, tc := range map[string]struct {
		change func(*observation)
		want   time.Time
	}{
		"steady":                   {func(*observation) {}, now.Add(-dpfzt.UnwatchedMaxAge)},
		"not older than the proof": {func(o *observation) { o.attachment.Status.ProvenAt = ptr.To(metav1.NewTime(now.Add(-time.Second))) }, now.Add(-time.Second)},
		"not proven":               {func(o *observation) { o.stateBefore = "" }, now},
		"proven for another claim": {func(o *observation) { o.attachment.Status.TokenHash = "other" }, now},
		"to be detached":           {func(o *observation) { o.attachment.Spec.State = infrav1.AttachmentStateDetached }, now},
		"detaching":                {func(o *observation) { o.memory.DetachingSince = ptr.To(metav1.NewTime(now)) }, now},
		"about to write":           {func(o *observation) { o.fresh = true }, now},
	} {
		t.Run(name, func(t *testing.T) {
			o := steady()
			tc.change(o)
			if got := (&Reconciler{}).readingsSince(o); !got.Equal(tc.want) {
				t.Errorf("readings count that started %s before the pass, want %s", now.Sub(got), now.Sub(tc.want))
			}
		})
	}
}

// TestProofCountsFromReading dates a proof by the oldest reading it was made from.
func TestProofCountsFromReading(t *testing.T) {
	now := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	o := &observation{now: now}
	o.readAt(now.Add(time.Second))
	if !o.now.Equal(now) || o.shared {
		t.Errorf("a reading of this pass moved it to %s, shared: %v", o.now, o.shared)
	}
	o.readAt(now.Add(-3 * time.Second))
	o.readAt(now.Add(-9 * time.Second))
	o.readAt(now.Add(-5 * time.Second))
	if want := now.Add(-9 * time.Second); !o.now.Equal(want) || !o.shared {
		t.Errorf("the pass speaks of %s, shared: %v; want %s", o.now, o.shared, want)
	}
}

// TestPaceWithoutWatches polls as if there were none.
func TestPaceWithoutWatches(t *testing.T) {
	r := &Reconciler{PollInterval: 5 * time.Second}
	o := &observation{
		fabric:    &scope.Fabric{Object: &infrav1.DPUFabric{}},
		admission: vpc.Finding{Answer: vpc.Yes}, resolved: vpc.Finding{Answer: vpc.Yes},
	}
	for p, want := range map[pace]time.Duration{
		paceTransition: 5 * time.Second, paceSteady: 45 * time.Second, paceRefused: 30 * time.Second, paceDone: 0,
	} {
		if got := r.interval(o, p); got != want {
			t.Errorf("pace %d: the next pass follows after %s, want %s", p, got, want)
		}
	}
}
