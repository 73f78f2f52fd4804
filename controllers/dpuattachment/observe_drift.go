// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"context"
)

// observeAround reads who else reaches for the server's DPUs. What is on its way off does not hang on it.
func (r *Reconciler) observeAround(ctx context.Context, o *observation) {
	if o.askedToDetach() || len(o.cards) == 0 {
		return
	}
	o.around = r.Readings.Surroundings(ctx, o.fabric.Object.Name, o.fabric.DPF, o.fabric.Namespace(), o.notBefore)
	o.readAt(o.around.Started())
	for i := range o.cards {
		o.cards[i].evidence.Around = o.around.Surroundings
	}
}
