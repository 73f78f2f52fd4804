// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// observeAdopted completes what is asked of the cards by the labels that take a DPU into an adopted VPC. Those a card was taken in
// with are on its record; only for a card without any is the VPC itself asked.
func (r *Reconciler) observeAdopted(ctx context.Context, o *observation) {
	if o.tenant == nil || o.tenant.Spec.Adopt == nil {
		return
	}
	var adopted *vpcv1alpha1.DPUVPC
	for i := range o.cards {
		c := &o.cards[i]
		record := o.recordOn(c)
		if len(record.JoinedLabels()) == 0 && adopted == nil {
			found := &vpcv1alpha1.DPUVPC{}
			key := client.ObjectKey{Namespace: o.place.Namespace, Name: o.tenant.Spec.Adopt.Name}
			if err := o.fabric.DPF.Get(ctx, key, found); client.IgnoreNotFound(err) != nil {
				o.resolved = unreachable(err)
				return
			}
			adopted = found
			answer, _ := vpc.DecideAdoption(o.place.OwnerOf(o.tenant), found, o.place.AdoptionKeyPrefixes)
			o.ungranted = answer != vpc.AdoptionGranted
		}
		c.want.VPCLabels = vpc.VPCLabels(o.place, o.tenant, adopted, record)
	}
}

// recordOn is the attachment's own record on a card; the zero record where it has none.
func (o *observation) recordOn(c *card) vpc.Holder {
	if holder, found, err := c.evidence.Holder(); err == nil && found && holder.SameClaim(o.holder()) {
		return holder
	}
	return vpc.Holder{}
}
