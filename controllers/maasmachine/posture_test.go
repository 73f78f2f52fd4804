// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// TestPostureRefusal: a server is given back for what the fabric enforces, never for what it only warns of or is still asking.
func TestPostureRefusal(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	p := &pass{r: &Reconciler{RefusalGrace: time.Minute}}
	for name, c := range map[string]struct {
		status metav1.ConditionStatus
		reason string
		since  time.Duration
		want   bool
	}{
		"failed":           {metav1.ConditionFalse, infrav1.PostureFailedReason, 2 * time.Minute, true},
		"failed just now":  {metav1.ConditionFalse, infrav1.PostureFailedReason, time.Second, false},
		"unknown for long": {metav1.ConditionUnknown, infrav1.PostureUnknownReason, time.Hour, true},
		"unknown":          {metav1.ConditionUnknown, infrav1.PostureUnknownReason, 2 * time.Minute, false},
		"being asked":      {metav1.ConditionUnknown, infrav1.PostureCheckingReason, time.Hour, false},
		"warned, no":       {metav1.ConditionFalse, infrav1.PostureWarningReason, time.Hour, false},
		"warned, unknown":  {metav1.ConditionUnknown, infrav1.PostureWarningReason, time.Hour, false},
		"off":              {metav1.ConditionTrue, infrav1.PostureOffReason, time.Hour, false},
	} {
		attachment := &infrav1.DPUAttachment{}
		attachment.Status.Conditions = []metav1.Condition{{
			Type: infrav1.PostureVerifiedCondition, Status: c.status, Reason: c.reason, LastTransitionTime: metav1.NewTime(now.Add(-c.since)),
		}}
		if got := p.refusal(attachment, &Observation{Now: now}); (got != nil) != c.want {
			t.Errorf("%s: refused %t, want %t", name, got != nil, c.want)
		}
	}
}
