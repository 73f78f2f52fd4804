// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maascluster

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

var ownedConditions = []string{infrav1.ReadyCondition, infrav1.IdentityReadyCondition, infrav1.VPCReadyCondition}

// maxFailureDomains is what Cluster API takes.
const maxFailureDomains = 100

// report writes the status. What was promised once stays promised.
func report(object *infrav1.MaasCluster, step Step) {
	for condition, said := range map[string]Saying{
		infrav1.IdentityReadyCondition: step.Identity, infrav1.VPCReadyCondition: step.VPC, infrav1.ReadyCondition: step.Ready,
	} {
		if said.Reason != "" {
			conditions.Set(object, metav1.Condition{Type: condition, Status: said.Status, Reason: said.Reason, Message: said.Message})
		}
	}
	if step.Provision {
		object.Status.Initialization.Provisioned = ptr.To(true)
	}
	if len(step.Zones) == 0 {
		return
	}
	object.Status.FailureDomains = make([]clusterv1.FailureDomain, 0, len(step.Zones))
	for _, zone := range step.Zones[:min(len(step.Zones), maxFailureDomains)] {
		object.Status.FailureDomains = append(object.Status.FailureDomains, clusterv1.FailureDomain{Name: zone, ControlPlane: ptr.To(true)})
	}
}
