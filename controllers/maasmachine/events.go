// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// event tells people of a transition. Action is what was done, in one CamelCase word.
func (p *pass) event(kind, reason, action, format string, args ...any) {
	if p.r.Recorder == nil {
		return
	}
	p.r.Recorder.Eventf(p.machine, nil, kind, reason, action, format, args...)
}

// telling are the states of conditions that people are told of when they begin, by condition and reason.
var telling = map[[2]string]string{
	{infrav1.ServerClaimedCondition, infrav1.ServerLostReason}:        corev1.EventTypeWarning,
	{infrav1.ServerClaimedCondition, infrav1.AttachmentRefusedReason}: corev1.EventTypeWarning,
	{infrav1.ServerClaimedCondition, infrav1.NoServerAvailableReason}: corev1.EventTypeNormal,
	{infrav1.DeployedCondition, infrav1.DeployFailedReason}:           corev1.EventTypeWarning,
	{infrav1.IsolatedCondition, infrav1.IsolationBrokenReason}:        corev1.EventTypeWarning,
	{infrav1.ReleasedCondition, infrav1.HeldReason}:                   corev1.EventTypeWarning,
	{infrav1.ReleasedCondition, infrav1.ServerSuspectReason}:          corev1.EventTypeWarning,
}

// tell tells people of the conditions that are no longer as they were before the pass.
func (p *pass) tell(before []metav1.Condition) {
	for _, now := range p.machine.Status.Conditions {
		was := meta.FindStatusCondition(before, now.Type)
		kind, telling := telling[[2]string{now.Type, now.Reason}]
		switch {
		case now.Status != metav1.ConditionFalse:
		case now.Type == infrav1.ReleasedCondition && now.Message == overdue(p.o).Message && (was == nil || was.Message != now.Message):
			p.event(corev1.EventTypeWarning, now.Reason, "Watch", "%s", now.Message)
		case !telling || was != nil && was.Status == now.Status && was.Reason == now.Reason:
		case now.Reason == infrav1.NoServerAvailableReason && p.toldScarce():
		default:
			p.event(kind, now.Reason, "Watch", "%s", now.Message)
		}
	}
}

// toldScarce reports whether people know already that no server is free: other reasons to wait may come in between.
func (p *pass) toldScarce() bool {
	told := p.r.memory.of(p.machine.UID).toldScarce
	p.r.memory.update(p.machine.UID, func(m *memo) { m.toldScarce = true })
	return told
}
