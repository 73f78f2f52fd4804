// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package webhooks

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

func dpuServerValidator(refs references) *validator[*infrav1.DPUServer] {
	w := dpuServerWebhook{references: refs}
	return &validator[*infrav1.DPUServer]{kind: "DPUServer", check: w.check, remove: w.remove}
}

type dpuServerWebhook struct {
	references
}

func (w dpuServerWebhook) check(ctx context.Context, old, server *infrav1.DPUServer, v *verdict) error {
	if old != nil {
		return nil
	}
	fabric, err := w.fabric(ctx, server.Spec.FabricName)
	if err != nil {
		return err
	}
	spec := field.NewPath("spec")
	if fabric == nil {
		v.warn(spec.Child("fabricName"), "DPUFabric %q does not exist yet", server.Spec.FabricName)
		return nil
	}
	if !slices.ContainsFunc(fabric.Spec.ClaimSources, func(s infrav1.ClaimSource) bool { return s.Name == server.Spec.Source }) {
		v.warn(spec.Child("source"), "DPUFabric %q has no claim source %q yet", fabric.Name, server.Spec.Source)
	}
	return nil
}

// remove refuses to forget who holds a server: while its ports are not proven detached, this object alone keeps others off it.
// What another installation holds is kept by its own record on the DPU.
func (w dpuServerWebhook) remove(_ context.Context, server *infrav1.DPUServer, v *verdict) error {
	if holder := server.Status.Holder; holder != nil && holder.Installation == "" {
		v.refuse(field.Forbidden(field.NewPath("status", "holder"), fmt.Sprintf(
			"DPUServer %q is held by DPUAttachment %s/%s, whose ports are not proven detached: delete its machine and wait for the proof",
			server.Name, holder.Namespace, holder.Name)))
	}
	return nil
}
