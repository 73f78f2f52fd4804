// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/event"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

func TestAttachmentChanged(t *testing.T) {
	at := func(second int64) *metav1.Time { return ptr.To(metav1.NewTime(time.Unix(second, 0))) }
	attachment := func(change func(*infrav1.DPUAttachment)) *infrav1.DPUAttachment {
		a := &infrav1.DPUAttachment{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "1"}}
		a.Status.State, a.Status.ProvenAt, a.Status.ValidUntil = infrav1.AttachmentStateAttached, at(100), at(400)
		a.Status.Ports = []infrav1.AttachmentPortStatus{{Name: "p0", Since: at(1), Observed: at(100)}}
		change(a)
		return a
	}
	for name, tc := range map[string]struct {
		change func(*infrav1.DPUAttachment)
		want   bool
	}{
		"renewed": {func(a *infrav1.DPUAttachment) {
			a.ResourceVersion, a.Status.ProvenAt, a.Status.ValidUntil, a.Status.Ports[0].Observed = "2", at(160), at(460), at(160)
		}, false},
		"no longer attached": {func(a *infrav1.DPUAttachment) { a.Status.State = "" }, true},
		"moved":              {func(a *infrav1.DPUAttachment) { a.Status.Ports[0].DPU = "other" }, true},
		"condition": {func(a *infrav1.DPUAttachment) {
			a.Status.Conditions = []metav1.Condition{{Type: infrav1.AuthorizedCondition, Status: metav1.ConditionFalse}}
		}, true},
		"memory": {func(a *infrav1.DPUAttachment) {
			a.Annotations = map[string]string{infrav1.DPUAttachmentMemoryAnnotation: "{}"}
		}, true},
		"asked for more": {func(a *infrav1.DPUAttachment) { a.Generation++ }, true},
		"being deleted":  {func(a *infrav1.DPUAttachment) { a.DeletionTimestamp = at(1) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			got := AttachmentChanged().Update(event.UpdateEvent{ObjectOld: attachment(func(*infrav1.DPUAttachment) {}), ObjectNew: attachment(tc.change)})
			if got != tc.want {
				t.Errorf("passes: %v, want %v", got, tc.want)
			}
		})
	}
}
