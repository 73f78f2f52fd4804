// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// comment is what MAAS' event log shows of our orders; the machine's name makes them readable for operators.
func (p *pass) comment() string {
	return fmt.Sprintf("cluster-api: MaasMachine %s/%s", p.machine.Namespace, p.machine.Name)
}

// confirm returns the server as it was at most one interval ago and since its last transition, if it was held under the claim.
func (p *pass) confirm(ctx context.Context) (maas.Machine, error) {
	if p.o.Server.Unannotated && p.o.Server.Held == maas.Yes {
		// Only the token can answer, and it did so in this very pass or with the allocation.
		return p.o.Server.Machine, nil
	}
	m, err := p.identity.Readings.Machine(ctx, p.o.SystemID, 0)
	if err != nil {
		return m, err
	}
	return m, notConfirmed(m.ClaimedBy(p.identity.Account, p.token()))
}

// confirmNow asks MAAS itself, for what cannot be taken back.
func (p *pass) confirmNow(ctx context.Context) (maas.Machine, error) {
	m, ownership, err := p.identity.MAAS.ConfirmClaim(ctx, p.identity.Account, p.token(), p.o.SystemID)
	if err != nil {
		return m, err
	}
	return m, notConfirmed(ownership)
}

func notConfirmed(ownership maas.Ownership) error {
	if ownership.Yes() {
		return nil
	}
	return fmt.Errorf("%w: %s", errNotConfirmed, ownership.Reason)
}

// learn takes MAAS' answer to a change that was sent then for a reading.
func (p *pass) learn(m maas.Machine, sent time.Time) {
	if m.SystemID == "" {
		p.identity.Readings.Invalidate(p.o.SystemID)
		return
	}
	p.identity.Readings.Watch(m.SystemID, client.ObjectKeyFromObject(p.machine))
	p.identity.Readings.Learn(m, sent)
}

// notDone turns an error of MAAS into words and a pace. Nothing is retried here: the next pass reads what became of it.
func (p *pass) notDone(step Step, condition string, err error) Step {
	p.identity.Readings.Invalidate(p.o.SystemID)
	p.r.memory.used(p.identity.Object.UID, p.o.SystemID)
	p.log.Error(err, "MAAS did not do what was asked", "step", step.Action, "systemID", p.o.SystemID)
	return p.putOff(err, p.refused(step, condition, err))
}

func (p *pass) refused(step Step, condition string, err error) Step {
	say := func(reason, message string) Saying { return saysUnknown(condition, reason, message) }
	var notSent *maas.PowerNotSentError
	switch {
	case errors.Is(err, errNotConfirmed):
		return wait(PacePoll, say(infrav1.OwnershipUnclearReason, fmt.Sprintf("server %s is not touched: %v", p.o.SystemID, err)))
	case maas.IsUnknownOutcome(err):
		return wait(PacePoll, step.Say...)
	case maas.IsStateConflict(err):
		return wait(PacePoll, step.Say...) // The state changed since it was read.
	case maas.IsForbidden(err), maas.IsNotFound(err):
		return wait(PacePoll, say(infrav1.OwnershipUnclearReason, fmt.Sprintf("MAAS refuses changes of server %s: it is locked or no longer ours", p.o.SystemID)))
	case errors.As(err, &notSent):
		return wait(PacePoll, saysNo(condition, infrav1.PoweringOffReason, fmt.Sprintf("MAAS cannot switch server %s off: switch it off by hand", p.o.SystemID)))
	}
	unusable := scope.UnusableMAAS(p.identity.Object.Name, err)
	return wait(PacePoll, say(unusable.Reason, unusable.Message))
}

// putOff keeps this machine from troubling MAAS for as long as MAAS asks, but not for ever.
func (p *pass) putOff(err error, step Step) Step {
	after := min(maas.RetryAfter(err), p.r.AuditInterval)
	if after <= 0 {
		return step
	}
	p.r.memory.update(p.machine.UID, func(m *memo) { m.notBefore = p.r.Clock.Now().Add(after) })
	return later(after, step)
}

func (p *pass) annotate(ctx context.Context, step Step) (Step, error) {
	if _, err := p.confirm(ctx); err != nil {
		return p.notDone(step, infrav1.ServerClaimedCondition, err), nil
	}
	cluster := ""
	if p.cluster != nil {
		cluster = p.cluster.Name
	}
	sent := p.r.Clock.Now()
	m, err := p.identity.MAAS.Annotate(ctx, p.o.SystemID, map[string]string{
		maas.AnnotationToken:     maas.TokenHash(p.token()),
		maas.AnnotationNamespace: p.machine.Namespace,
		maas.AnnotationName:      p.machine.Name,
		maas.AnnotationCluster:   cluster,
	})
	if err != nil {
		return p.notDone(step, infrav1.ServerClaimedCondition, err), nil
	}
	p.r.memory.used(p.identity.Object.UID, p.o.SystemID) // From here on the annotations say whose it is.
	p.learn(m, sent)
	p.log.Info("Annotated the server", "systemID", p.o.SystemID)
	return step, nil
}

// deploy sends the user data. Attachment and claim are confirmed just before.
func (p *pass) deploy(ctx context.Context, step Step) (Step, error) {
	data, problem := p.bootstrapData(ctx)
	if problem != nil {
		return wait(PaceScarce, saysNo(infrav1.DeployedCondition, problem.Reason, problem.Message)), nil
	}
	if p.o.Ports {
		live := &infrav1.DPUAttachment{}
		if err := p.fabric.Live.Get(ctx, p.attachmentKey(p.o.SystemID), live); err != nil {
			return p.fabricRefused(step, infrav1.DPUAttachedCondition, err), nil
		}
		fresh := p.o
		fresh.Now = p.r.Clock.Now()
		if view := p.viewAttachment(live, &fresh); !view.ready() {
			return wait(PacePoll, saysNo(infrav1.DPUAttachedCondition, infrav1.AttachingReason, "the proof of attachment went stale: waiting for a new one")), nil
		}
	}
	m, err := p.confirm(ctx)
	if err != nil {
		return p.notDone(step, infrav1.ServerClaimedCondition, err), nil
	}
	if !m.Status.CanDeploy() {
		p.identity.Readings.Invalidate(p.o.SystemID)
		return wait(PaceNow, step.Say...), nil
	}
	now := p.now()
	if err := p.persistStatus(ctx, func(s *infrav1.MaasMachineStatus) { s.DeployStartTime = &now }); err != nil {
		return step, err
	}
	sent := p.r.Clock.Now()
	m, err = p.identity.MAAS.Deploy(ctx, p.o.SystemID, maas.DeployRequest{
		Series: p.machine.Spec.Image, Kernel: p.machine.Spec.Kernel, InMemory: ptr.Deref(p.machine.Spec.DeployInMemory, false),
		// MAAS deploys a Ready server too: one that somebody released since it was read is found by the token at least.
		UserData: data, Token: p.token(), Comment: p.comment(),
	})
	if err != nil {
		p.identity.Readings.Invalidate(p.o.SystemID)
		return p.notDeployed(step, err), nil
	}
	if m.Status != maas.StatusDeploying {
		m = maas.Machine{} // As it was before MAAS acted.
	}
	p.learn(m, sent)
	p.log.Info("Deploying", "systemID", p.o.SystemID, "image", p.machine.Spec.Image)
	p.event(corev1.EventTypeNormal, infrav1.DeployingReason, "Deploy", "MAAS deploys server %s", p.o.SystemID)
	return step, nil
}

func (p *pass) notDeployed(step Step, err error) Step {
	if !maas.IsUnknownOutcome(err) && !maas.IsStateConflict(err) {
		p.machine.Status.DeployStartTime = nil // Nothing was started.
	}
	if maas.IsInvalidRequest(err) {
		p.log.Error(err, "MAAS refuses to deploy", "systemID", p.o.SystemID)
		return wait(PaceRare, saysNo(infrav1.DeployedCondition, infrav1.DeployRefusedReason,
			fmt.Sprintf("MAAS refuses to deploy image %s: %v", p.machine.Spec.Image, err)))
	}
	return p.notDone(step, infrav1.DeployedCondition, err)
}
