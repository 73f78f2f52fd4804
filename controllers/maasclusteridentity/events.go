// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasclusteridentity

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// tell records events of what became different by a status that is stored: that the identity became usable or ceased to be, that
// new claims are stopped or taken again, and each new orphan.
func (r *Reconciler) tell(before, after *infrav1.MaasClusterIdentity) {
	if r.Recorder == nil {
		return
	}
	event := func(kind, reason, action, format string, args ...any) {
		r.Recorder.Eventf(after, nil, kind, reason, action, format, args...)
	}
	if was, is := conditions.Get(before, infrav1.ReadyCondition), conditions.Get(after, infrav1.ReadyCondition); was == nil || was.Status != is.Status || was.Reason != is.Reason {
		if is.Status == metav1.ConditionTrue {
			event(corev1.EventTypeNormal, is.Reason, "Try", "The MAAS account can be used")
		} else {
			event(corev1.EventTypeWarning, is.Reason, "Try", "%s", is.Message)
		}
	}
	if open := isOpen(after.Status.Breaker); open != isOpen(before.Status.Breaker) {
		if open {
			event(corev1.EventTypeWarning, infrav1.CircuitBreakerOpenReason, "Stop", "%s", conditions.GetMessage(after, infrav1.ClaimsAdmittedCondition))
		} else {
			event(corev1.EventTypeNormal, infrav1.ClaimsAdmittedReason, "Admit", "New claims are taken again")
		}
	}
	for _, orphan := range after.Status.Orphans {
		if slices.ContainsFunc(before.Status.Orphans, func(o infrav1.OrphanServer) bool { return o.SystemID == orphan.SystemID && same(o, orphan) }) {
			continue
		}
		event(corev1.EventTypeWarning, infrav1.OrphansFoundReason, "Audit", orphanNotes[orphan.Reason]+"; nothing is done about it",
			orphan.SystemID, orphan.Reason, cmp.Or(orphan.Machine, "unknown"))
	}
}

// orphanNotes are the sentences about orphans; they take the server, the reason and the machine.
var orphanNotes = map[string]string{
	infrav1.OrphanNoMachine:  "Server %s, %s: it is annotated with a claim that no MaasMachine has (machine named: %s)",
	infrav1.OrphanUnclaimed:  "Server %s, %s: it belongs to the account and carries no claim (machine that records it: %s)",
	infrav1.OrphanDisagrees:  "Server %s, %s: its annotations do not agree with MaasMachine %s",
	infrav1.OrphanServerGone: "Server %s, %s: the account does not hold it any more for MaasMachine %s",
}
