// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"context"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// unasked says why the MAC addresses of a server that may be mapped by them are not known; its zero value that they are, or
// that they do not count.
type unasked struct{ finding vpc.Finding }

// unless is the finding, but for a server that was not found only because its MAC addresses are not known: then whether it is
// mapped is not known either.
func (u unasked) unless(finding vpc.Finding) vpc.Finding {
	if finding.Answer == vpc.No && finding.Reason == infrav1.ServerNotMappedReason && u.finding.Reason != "" {
		return u.finding
	}
	return finding
}

// macsOf adds to the query the MAC addresses that may lead to the server, where the fabric allows that. Those the binding was
// pinned with come first, so that a running tenant's proof neither costs a call to MAAS nor hangs on its answer.
func (r *Reconciler) macsOf(ctx context.Context, o *observation, pinned []infrav1.BoundDPU, query *dpfzt.Query) unasked {
	if o.fabric.Object.Spec.ServerMapping != infrav1.ServerMappingExplicitOrMAC || o.askedToDetach() {
		return unasked{}
	}
	for i := range pinned {
		for _, port := range pinned[i].Ports {
			if port.MAC != "" {
				query.MACs = append(query.MACs, port.MAC)
			}
		}
	}
	if len(query.MACs) > 0 {
		return unasked{}
	}
	r.observeClaim(ctx, o)
	if o.claim.machine == nil {
		return unasked{o.claim.finding}
	}
	for _, nic := range o.claim.machine.Interfaces {
		query.MACs = append(query.MACs, nic.MAC)
	}
	return unasked{}
}
