// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package webhooks

import (
	"context"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

func maasMachineTemplateValidator(refs references) *validator[*infrav1.MaasMachineTemplate] {
	w := maasMachineTemplateWebhook{references: refs}
	return &validator[*infrav1.MaasMachineTemplate]{kind: "MaasMachineTemplate", check: w.check}
}

type maasMachineTemplateWebhook struct {
	references
}

func (w maasMachineTemplateWebhook) check(ctx context.Context, old, template *infrav1.MaasMachineTemplate, v *verdict) error {
	path := field.NewPath("spec", "template", "spec")
	if old == nil {
		return w.checkConstraints(ctx, path, template, &template.Spec.Template.Spec.MachineConstraints, v)
	}
	if !apiequality.Semantic.DeepEqual(old.Spec.Template.Spec, template.Spec.Template.Spec) {
		v.refuse(field.Invalid(path, field.OmitValueType{}, templateImmutable))
	}
	return nil
}
