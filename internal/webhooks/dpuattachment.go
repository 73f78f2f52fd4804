// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package webhooks

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

func dpuAttachmentValidator(refs references) *validator[*infrav1.DPUAttachment] {
	w := dpuAttachmentWebhook{references: refs}
	return &validator[*infrav1.DPUAttachment]{kind: "DPUAttachment", check: w.check}
}

type dpuAttachmentWebhook struct {
	references
}

// check refuses a copied token. Everything else about authorisation is the controller's to answer, in a condition the machine
// wing acts on: refused here, a claimed server would wait for somebody to read an event.
func (w dpuAttachmentWebhook) check(ctx context.Context, old, attachment *infrav1.DPUAttachment, v *verdict) error {
	if old != nil {
		return nil
	}
	spec := field.NewPath("spec")
	if !maas.Token(attachment.Spec.Server.Token).Fits(attachment.Namespace, attachment.Spec.MachineName) {
		v.refuse(field.Invalid(spec.Child("server", "token"), field.OmitValueType{}, fmt.Sprintf(
			"was not made for MaasMachine %s/%s: a claim's token fits the machine it was made for alone",
			attachment.Namespace, attachment.Spec.MachineName)))
		return nil
	}
	vpc, err := w.vpc(ctx, attachment.Namespace, attachment.Spec.VPCName)
	if err != nil {
		return err
	}
	if vpc == nil {
		v.warn(spec.Child("vpcName"), "TenantVPC %q does not exist yet in namespace %q", attachment.Spec.VPCName, attachment.Namespace)
		return nil
	}
	subnets := vpcSubnets(vpc)
	for i, port := range attachment.Spec.Ports {
		if !slices.ContainsFunc(subnets, func(s infrav1.VPCSubnet) bool { return s.Name == port.Subnet }) {
			v.warn(spec.Child("ports").Index(i).Child("subnet"), "TenantVPC %q has no subnet %q yet", vpc.Name, port.Subnet)
		}
	}
	return nil
}
