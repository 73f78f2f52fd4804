// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasclusteridentity

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// Step is a decision: what to say, and whether to let the object go.
type Step struct {
	DropFinalizer      bool
	Credentials, Ready Saying
}

// Saying is the state of one condition.
type Saying struct {
	Status          metav1.ConditionStatus
	Reason, Message string
}

var ownedConditions = []string{infrav1.ReadyCondition, infrav1.CredentialsValidCondition}

// decide is the whole policy; it is pure.
func decide(o Observation) Step {
	step := Step{
		Credentials: Saying{Status: metav1.ConditionTrue, Reason: infrav1.ReadyReason},
		Ready:       Saying{Status: metav1.ConditionTrue, Reason: infrav1.ReadyReason},
	}
	if o.Unusable != nil {
		step.Credentials = Saying{Status: credentialsStatus(o.Unusable.Reason), Reason: o.Unusable.Reason, Message: o.Unusable.Message}
		step.Ready = Saying{Status: metav1.ConditionFalse, Reason: o.Unusable.Reason, Message: o.Unusable.Message}
	} else if len(o.Zones) == 0 {
		step.Ready = Saying{Status: metav1.ConditionFalse, Reason: infrav1.NoZoneReason,
			Message: fmt.Sprintf("MAAS has none of the allowed zones %s", strings.Join(o.Unknown, ", "))}
	}
	if o.Deleting {
		if o.Machines == 0 && o.Clusters == 0 {
			return Step{DropFinalizer: true}
		}
		step.Ready = Saying{Status: metav1.ConditionFalse, Reason: infrav1.InUseReason,
			Message: "MaasMachines or MaasClusters still need the identity to give their servers back: delete them first"}
	}
	return step
}

// credentialsStatus tells refused credentials from a MAAS that does not answer.
func credentialsStatus(reason string) metav1.ConditionStatus {
	if reason == infrav1.MaasUnreachableReason || reason == infrav1.ClockSkewReason {
		return metav1.ConditionUnknown
	}
	return metav1.ConditionFalse
}

// report writes the status; what MAAS did not say stays as it was.
func report(object *infrav1.MaasClusterIdentity, o Observation, step Step) {
	switch {
	case o.Account != "":
		object.Status.Account = o.Account
	case o.Unusable != nil && o.Unusable.Reason == infrav1.AccountChangedReason && o.Machines == 0 && len(o.Held) == 0:
		object.Status.Account = "" // Nothing is held under the old account: the new one is as good.
	}
	if o.Zones != nil {
		object.Status.Zones = o.Zones
	}
	object.Status.Held = o.Held
	set := func(condition string, said Saying) {
		conditions.Set(object, metav1.Condition{Type: condition, Status: said.Status, Reason: said.Reason, Message: said.Message})
	}
	set(infrav1.CredentialsValidCondition, step.Credentials)
	set(infrav1.ReadyCondition, step.Ready)
}
