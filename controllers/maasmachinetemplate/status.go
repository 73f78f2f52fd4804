// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachinetemplate

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

var ownedConditions = []string{infrav1.ReadyCondition}

// report writes the status.
func report(template *infrav1.MaasMachineTemplate, step *Step) {
	said := step.Ready
	conditions.Set(template, metav1.Condition{Type: infrav1.ReadyCondition, Status: said.Status, Reason: said.Reason, Message: said.Message})
	if !step.Keep {
		template.Status.Capacity, template.Status.NodeInfo = step.Capacity, step.NodeInfo
	}
}
