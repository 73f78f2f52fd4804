// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// AttachmentChanged lets pass what happens to a DPUAttachment, but not the renewal of a proof: of those there are hundreds a
// minute, and they change nothing.
func AttachmentChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(*infrav1.DPUAttachment)
		after, okToo := e.ObjectNew.(*infrav1.DPUAttachment)
		return !ok || !okToo || !equality.Semantic.DeepEqual(undated(before), undated(after))
	}}
}

func undated(attachment *infrav1.DPUAttachment) *infrav1.DPUAttachment {
	c := attachment.DeepCopy()
	c.ResourceVersion, c.ManagedFields = "", nil
	c.Status.ProvenAt, c.Status.ValidUntil = nil, nil
	for i := range c.Status.Ports {
		c.Status.Ports[i].Observed = nil
	}
	return c
}
