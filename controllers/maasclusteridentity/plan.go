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
	DropFinalizer                           bool
	Credentials, Admitted, Accounted, Ready Saying
	// Breaker is the state of the circuit breaker; nil if it was never open.
	Breaker *infrav1.BreakerStatus
}

// Saying is the state of one condition.
type Saying struct {
	Status          metav1.ConditionStatus
	Reason, Message string
}

// decide is the whole policy; it is pure. Of the object it reads the policy of the breaker and what was said before.
func decide(object *infrav1.MaasClusterIdentity, o Observation) Step {
	step := Step{
		Credentials: Saying{Status: metav1.ConditionTrue, Reason: infrav1.ReadyReason},
		Ready:       Saying{Status: metav1.ConditionTrue, Reason: infrav1.ReadyReason},
		Breaker:     breaker(object.Status.Breaker, object.Spec.CircuitBreaker, o),
		Accounted:   accounted(object, o),
	}
	step.Admitted = admitted(step.Breaker, object.Spec.CircuitBreaker, o)
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

// admitted says whether new claims are taken, as far as the circuit breaker goes.
func admitted(breaker *infrav1.BreakerStatus, policy infrav1.CircuitBreaker, o Observation) Saying {
	if !isOpen(breaker) {
		return Saying{Status: metav1.ConditionTrue, Reason: infrav1.ClaimsAdmittedReason}
	}
	lately, _ := heldLately(policy, o.Held, o.Now)
	return Saying{Status: metav1.ConditionFalse, Reason: infrav1.CircuitBreakerOpenReason, Message: fmt.Sprintf(
		"no new claims are taken: of the account's servers %d were held within %s (%s); look at them and release them with erase in MAAS, or wait until that is longer ago",
		len(lately), breakerWindow(policy), several(lately))}
}

// accounted says what the audit found. What was found out before stays where MAAS does not answer.
func accounted(object *infrav1.MaasClusterIdentity, o Observation) Saying {
	pending := Saying{Status: metav1.ConditionUnknown, Reason: infrav1.AuditPendingReason, Message: "the servers of the account were not compared with the MaasMachines yet"}
	was := conditions.Get(object, infrav1.AccountedCondition)
	switch {
	case !o.Audited && was == nil:
		return pending
	case !o.Audited:
		return Saying{Status: was.Status, Reason: was.Reason, Message: was.Message}
	case len(o.Orphans) > 0:
		servers := make([]string, 0, len(o.Orphans))
		for _, orphan := range o.Orphans {
			servers = append(servers, orphan.SystemID+" "+orphan.Reason)
		}
		return Saying{Status: metav1.ConditionFalse, Reason: infrav1.OrphansFoundReason, Message: fmt.Sprintf(
			"MAAS and the MaasMachines do not agree about %d servers (%s): see status.orphans, nothing is done about them", len(servers), several(servers))}
	case o.Doubtful && (was == nil || was.Status != metav1.ConditionTrue):
		return pending
	}
	return Saying{Status: metav1.ConditionTrue, Reason: infrav1.AccountedReason}
}

// several joins names for a sentence; beyond ten only their number is told.
func several(names []string) string {
	const most = 10
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
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
	object.Status.Suspects = o.Suspects
	if o.Audited {
		object.Status.Orphans = o.Orphans
	}
	object.Status.Breaker = step.Breaker
	set := func(condition string, said Saying) {
		conditions.Set(object, metav1.Condition{Type: condition, Status: said.Status, Reason: said.Reason, Message: said.Message})
	}
	set(infrav1.CredentialsValidCondition, step.Credentials)
	set(infrav1.ClaimsAdmittedCondition, step.Admitted)
	set(infrav1.AccountedCondition, step.Accounted)
	set(infrav1.ReadyCondition, step.Ready)
}
