// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package webhooks

import (
	"context"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

const templateImmutable = "is immutable: create a template with another name and refer to it, so that machines are rolled out"

func maasClusterTemplateValidator() *validator[*infrav1.MaasClusterTemplate] {
	return &validator[*infrav1.MaasClusterTemplate]{kind: "MaasClusterTemplate", check: checkMaasClusterTemplate}
}

func checkMaasClusterTemplate(_ context.Context, old, template *infrav1.MaasClusterTemplate, v *verdict) error {
	if old != nil && !apiequality.Semantic.DeepEqual(old.Spec.Template.Spec, template.Spec.Template.Spec) {
		v.refuse(field.Invalid(field.NewPath("spec", "template", "spec"), field.OmitValueType{}, templateImmutable))
	}
	return nil
}
