// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuserver

import (
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// describeServer writes a judgement into a status.
func describeServer(object *infrav1.DPUServer, j judgement) {
	status := &object.Status
	status.DPUs, status.Holder, status.Rebound = j.binding, j.holder, j.rebound
	status.Posture = j.posture
	switch j.ready.Answer {
	case vpc.Yes:
		status.Eligibility = infrav1.Eligible
	case vpc.No:
		status.Eligibility = infrav1.Ineligible
	default:
		status.Eligibility = infrav1.EligibilityUnknown
	}
	for _, c := range []struct {
		kind    string
		finding vpc.Finding
	}{
		{infrav1.HealthyCondition, j.healthy}, {infrav1.FreeCondition, j.free}, {infrav1.ReadyCondition, j.ready},
	} {
		condition := metav1.Condition{Type: c.kind, Status: metav1.ConditionUnknown, Reason: c.finding.Reason, Message: c.finding.Message}
		switch c.finding.Answer {
		case vpc.Yes:
			condition.Status, condition.Reason, condition.Message = metav1.ConditionTrue, infrav1.ReadyReason, ""
		case vpc.No:
			condition.Status = metav1.ConditionFalse
		}
		if condition.Reason == "" {
			condition.Reason = infrav1.NotStartedReason
		}
		conditions.Set(object, condition)
	}
}

// refresh says whether the status is to be written, and if so sets when the fabric was read. What did not change is written
// again only often enough to show that it was looked at. What could not be read was not observed.
func refresh(before, next *infrav1.DPUServer, o *observation) bool {
	changed := !equality.Semantic.DeepEqual(before.Status, next.Status)
	if next.Status.Eligibility == infrav1.EligibilityUnknown {
		return changed
	}
	now := metav1.NewTime(o.now.Truncate(time.Second))
	maxAge := time.Duration(ptr.Deref(o.fabric.Spec.ProofMaxAgeSeconds, 300)) * time.Second / 3
	if changed || before.Status.ObservedAt == nil || o.now.Sub(before.Status.ObservedAt.Time) >= maxAge {
		next.Status.ObservedAt = &now
		return true
	}
	return false
}
