// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"context"
	"errors"
	"fmt"
	"slices"

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

// confirm asks MAAS, just before a change, whether the server is still held under the claim.
func (p *pass) confirm(ctx context.Context, systemID string) (maas.Machine, error) {
	if p.o.Server.Unannotated && p.o.Server.Held == maas.Yes {
		// Only the token can answer, and it was asked for in this very pass.
		return p.o.Server.Machine, nil
	}
	m, ownership, err := p.identity.MAAS.ConfirmClaim(ctx, p.identity.Account, p.token(), systemID)
	if err != nil {
		return m, err
	}
	if !ownership.Yes() {
		return m, fmt.Errorf("%w: %s", errNotConfirmed, ownership.Reason)
	}
	return m, nil
}

// notDone turns an error of MAAS into words and a pace. Nothing is retried here: the next pass reads what became of it.
func (p *pass) notDone(step Step, condition string, err error) Step {
	p.identity.Readings.Invalidate(p.o.SystemID)
	say := func(reason, message string) Saying { return saysUnknown(condition, reason, message) }
	var notSent *maas.PowerNotSentError
	p.log.Error(err, "MAAS did not do what was asked", "step", step.Action, "systemID", p.o.SystemID)
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

// allocate asks MAAS for a server. That it may be asked is stored first, so that a lost answer is looked for.
func (p *pass) allocate(ctx context.Context, step Step) (Step, error) {
	grant, _ := p.identity.Allocations.Take(p.turn(), nil)
	if grant == nil {
		return wait(PaceSoon, step.Say...), nil
	}
	outcome := scope.OutcomeFailed
	defer func() { grant.Done(outcome) }()
	bound := secondsOr(p.identity.Object.Spec.Deadlines.AllocateSeconds, maas.DefaultAllocateTimeout)
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()

	constraints, err := p.choose(ctx, p.constraints())
	if err != nil {
		return p.notAllocated(err), nil
	}
	now := p.now()
	if err := p.persistStatus(ctx, func(s *infrav1.MaasMachineStatus) { s.LastAllocateTime = &now }); err != nil {
		return step, err
	}
	m, err := p.identity.MAAS.Allocate(ctx, p.token(), constraints, p.comment())
	if err != nil {
		if !maas.IsUnknownOutcome(err) {
			// Nothing was taken: the next pass need not look for it.
			p.machine.Status.LastAllocateTime = nil
		}
		if maas.IsNoMatch(err) {
			outcome = scope.OutcomeRefused
		}
		return p.notAllocated(err), nil
	}
	outcome = scope.OutcomeTaken
	p.identity.Readings.Invalidate(m.SystemID)
	p.log.Info("Allocated a server", "systemID", m.SystemID, "claim", maas.TokenHash(p.token()))
	return p.recordServer(ctx, Step{Action: ActionRecordServer, Pace: PaceNow, SystemID: m.SystemID})
}

func (p *pass) turn() scope.Turn {
	turn := scope.Turn{Machine: client.ObjectKeyFromObject(p.machine), Wants: p.wanted()}
	if p.cluster != nil {
		turn.Cluster = client.ObjectKeyFromObject(p.cluster)
	}
	return turn
}

func (p *pass) notAllocated(err error) Step {
	no := func(reason, message string) Saying { return saysNo(infrav1.ServerClaimedCondition, reason, message) }
	switch {
	case maas.IsUnknownOutcome(err):
		p.log.Error(err, "The answer to an allocation was lost")
		return wait(PacePoll, no(infrav1.AllocateOutcomeUnknownReason,
			"the answer to an allocation was lost: MAAS is searched for the server until it can no longer appear"))
	case maas.IsNoMatch(err):
		return wait(PaceScarce, no(infrav1.NoServerAvailableReason, "no server is free that "+p.wanted()))
	case maas.IsInvalidRequest(err):
		return wait(PaceRare, no(infrav1.ConstraintsNeverMatchReason, err.Error()))
	}
	p.log.Error(err, "No server was allocated")
	var fabric *fabricError
	if errors.As(err, &fabric) {
		return wait(PaceScarce, no(fabric.Reason, fabric.Message))
	}
	unusable := scope.UnusableMAAS(p.identity.Object.Name, err)
	return wait(PaceScarce, no(unusable.Reason, unusable.Message))
}

// wanted says what was asked for, in the words of the spec.
func (p *pass) wanted() string {
	c := p.constraints()
	text := "fits"
	add := func(format string, value any) { text += fmt.Sprintf(format, value) }
	if c.Zone != "" {
		add(", zone %s", c.Zone)
	}
	if c.Pool != "" {
		add(", pool %s", c.Pool)
	}
	if len(c.Tags) > 0 {
		add(", tags %v", c.Tags)
	}
	if len(c.NotTags) > 0 {
		add(", notTags %v", c.NotTags)
	}
	if c.Architecture != "" {
		add(", architecture %s", c.Architecture)
	}
	if n := len(p.machine.Spec.Ports); n > 0 {
		add(", %d DPU port(s)", n)
	}
	return text
}

// releaseSurplus gives back a server of our token that was never used.
func (p *pass) releaseSurplus(ctx context.Context, step Step) (Step, error) {
	found, err := p.identity.MAAS.MachinesByToken(ctx, p.token())
	if err != nil {
		return p.notDone(step, infrav1.ServerClaimedCondition, err), nil
	}
	if !slices.Contains(p.surplus(ctx, p.ours(found), p.o.SystemID), step.SystemID) {
		return step, nil // Somebody was faster; the next pass looks again.
	}
	if err := p.identity.MAAS.Release(ctx, step.SystemID, maas.ReleaseRequest{Erase: maas.EraseNone, Comment: p.comment()}); err != nil {
		return p.notDone(step, infrav1.ServerClaimedCondition, err), nil
	}
	p.log.Info("Released a surplus server", "systemID", step.SystemID)
	return step, nil
}

func (p *pass) annotate(ctx context.Context, step Step) (Step, error) {
	if _, err := p.confirm(ctx, p.o.SystemID); err != nil {
		return p.notDone(step, infrav1.ServerClaimedCondition, err), nil
	}
	cluster := ""
	if p.cluster != nil {
		cluster = p.cluster.Name
	}
	_, err := p.identity.MAAS.Annotate(ctx, p.o.SystemID, map[string]string{
		maas.AnnotationToken:     maas.TokenHash(p.token()),
		maas.AnnotationNamespace: p.machine.Namespace,
		maas.AnnotationName:      p.machine.Name,
		maas.AnnotationCluster:   cluster,
	})
	p.identity.Readings.Invalidate(p.o.SystemID)
	if err != nil {
		return p.notDone(step, infrav1.ServerClaimedCondition, err), nil
	}
	p.log.Info("Annotated the server", "systemID", p.o.SystemID)
	return step, nil
}

// deploy sends the user data. Attachment and claim are confirmed just before, past any cache.
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
	m, err := p.confirm(ctx, p.o.SystemID)
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
	_, err = p.identity.MAAS.Deploy(ctx, p.o.SystemID, maas.DeployRequest{
		Series: p.machine.Spec.Image, Kernel: p.machine.Spec.Kernel, InMemory: ptr.Deref(p.machine.Spec.DeployInMemory, false),
		UserData: data, Comment: p.comment(),
	})
	p.identity.Readings.Invalidate(p.o.SystemID)
	if err != nil {
		return p.notDeployed(step, err), nil
	}
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

func (p *pass) powerOff(ctx context.Context, step Step) (Step, error) {
	if _, err := p.confirm(ctx, p.o.SystemID); err != nil {
		return p.notDone(step, infrav1.ReleasedCondition, err), nil
	}
	err := p.identity.MAAS.PowerOff(ctx, p.o.SystemID, p.comment())
	p.identity.Readings.Invalidate(p.o.SystemID)
	if maas.IsUnknownOutcome(err) {
		p.settle() // It could take effect on the next claim.
	}
	if err != nil {
		return p.notDone(step, infrav1.ReleasedCondition, err), nil
	}
	p.r.memory.update(p.machine.UID, func(s *sent) { s.powerOffUntil = p.r.Clock.Now().Add(powerOffPolls * p.r.PollInterval) })
	p.log.Info("Powered off", "systemID", p.o.SystemID)
	p.event(corev1.EventTypeNormal, infrav1.PoweringOffReason, "PowerOff", "Asked MAAS to power off server %s", p.o.SystemID)
	return step, nil
}

func (p *pass) hold(ctx context.Context, step Step) (Step, error) {
	if _, err := p.confirm(ctx, p.o.SystemID); err != nil {
		return p.notDone(step, infrav1.ReleasedCondition, err), nil
	}
	_, err := p.identity.MAAS.Annotate(ctx, p.o.SystemID, map[string]string{maas.AnnotationHold: step.Reason})
	p.identity.Readings.Invalidate(p.o.SystemID)
	if err != nil {
		return p.notDone(step, infrav1.ReleasedCondition, err), nil
	}
	p.log.Info("Held the server", "systemID", p.o.SystemID, "reason", step.Reason)
	p.event(corev1.EventTypeWarning, infrav1.HeldReason, "Hold", "Server %s is held: %s", p.o.SystemID, step.Reason)
	return step, nil
}

func (p *pass) release(ctx context.Context, step Step) (Step, error) {
	m, err := p.confirm(ctx, p.o.SystemID)
	if err != nil {
		return p.notDone(step, infrav1.ReleasedCondition, err), nil
	}
	if !m.Status.CanRelease() || m.Status != p.o.Server.Machine.Status {
		p.identity.Readings.Invalidate(p.o.SystemID)
		return wait(PaceNow, step.Say...), nil // It changed since the decision.
	}
	erase, request := infrav1.ReleaseEraseNone, maas.ReleaseRequest{Erase: maas.EraseNone, Comment: p.comment()}
	if step.Erase {
		erase = p.erase()
		request.Erase, request.Scripts = maas.Erase(erase), p.identity.Object.Spec.Release.Scripts
	}
	err = p.identity.MAAS.Release(ctx, p.o.SystemID, request)
	p.identity.Readings.Invalidate(p.o.SystemID)
	if maas.IsUnknownOutcome(err) {
		p.settle() // Repeated too early, the first could take effect on the next claim.
	}
	if err != nil {
		return p.notDone(step, infrav1.ReleasedCondition, err), nil
	}
	p.log.Info("Released the server", "systemID", p.o.SystemID, "erase", erase)
	p.event(corev1.EventTypeNormal, infrav1.ReleasingReason, "Release", "MAAS releases server %s, erase %s", p.o.SystemID, erase)
	return step, p.storeRelease(ctx, erase)
}

// erase is what the tenant asks for, never less than the identity's minimum.
func (p *pass) erase() infrav1.ReleaseErase {
	policy := p.identity.Object.Spec.Release
	return strongest(orElse(p.machine.Spec.Release.Erase, orElse(policy.EraseDefault, infrav1.ReleaseEraseQuick)), orElse(policy.EraseMinimum, infrav1.ReleaseEraseQuick))
}

var eraseOrder = []infrav1.ReleaseErase{infrav1.ReleaseEraseNone, infrav1.ReleaseEraseQuick, infrav1.ReleaseEraseSecure, infrav1.ReleaseEraseFull}

func strongest(a, b infrav1.ReleaseErase) infrav1.ReleaseErase {
	if slices.Index(eraseOrder, a) > slices.Index(eraseOrder, b) {
		return a
	}
	return b
}

func orElse(value, fallback infrav1.ReleaseErase) infrav1.ReleaseErase {
	if value == "" {
		return fallback
	}
	return value
}

// settle keeps the server from being released before a lost order can no longer take effect.
func (p *pass) settle() {
	p.r.memory.update(p.machine.UID, func(s *sent) { s.releaseUntil = p.r.Clock.Now().Add(p.r.OutcomeWindow) })
}

// powerOffPolls is after how many polls a power-off that was not seen to work is sent again.
const powerOffPolls = 12
