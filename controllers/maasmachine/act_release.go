// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// powerOffPolls is after how many polls a power-off that was not seen to work is sent again.
const powerOffPolls = 12

// order stores what MAAS is about to be told, and tells it. With the answer the order is forgotten, and with a good one what
// accepted writes is stored; without one, or after a
// crash, it stays, because its effect may come late and hit whoever has the server then. An earlier one that may still come is
// remembered again: until when the new one can come covers it. The first error is MAAS', the second the API server's: then either
// MAAS was told nothing, or the order counts as not answered.
func (p *pass) order(
	ctx context.Context, operation infrav1.MachineOrderOperation, systemID string, tell func() error, accepted func(*infrav1.MaasMachineStatus),
) (refused, failed error) {
	earlier := p.machine.Status.OpenOrder
	if !p.o.Order.open(p.o.Now) {
		earlier = nil
	}
	if err := p.persistStatus(ctx, func(s *infrav1.MaasMachineStatus) {
		s.OpenOrder = &infrav1.MachineOrder{Operation: operation, SystemID: systemID, SentAt: p.now()}
	}); err != nil {
		return nil, err
	}
	p.r.memory.used(p.identity.Object.UID, systemID)
	refused = tell()
	p.identity.Readings.Invalidate(systemID)
	p.o.Order = OrderView{Operation: operation, SystemID: systemID, Until: p.o.Now.Add(p.r.OutcomeWindow)}
	if maas.IsUnknownOutcome(refused) {
		return refused, nil
	}
	// Against the version it was stored in: another process may have stored an order of its own meanwhile.
	return refused, p.persistStatus(ctx, func(s *infrav1.MaasMachineStatus) {
		s.OpenOrder = earlier
		if refused == nil && accepted != nil {
			accepted(s)
		}
	})
}

// powerOff reads the server itself before: MAAS lets an account switch off servers that nobody or another claim of its own holds.
func (p *pass) powerOff(ctx context.Context, step Step) (Step, error) {
	m, err := p.confirmNow(ctx)
	if err != nil {
		return p.notDone(step, infrav1.ReleasedCondition, err), nil
	}
	if m.Status != p.o.Server.Machine.Status {
		p.identity.Readings.Invalidate(p.o.SystemID)
		return wait(PaceNow, step.Say...), nil // It changed since the decision.
	}
	refused, err := p.order(ctx, infrav1.MachineOrderPowerOff, p.o.SystemID, func() error {
		return p.identity.MAAS.PowerOff(ctx, p.o.SystemID, p.comment())
	}, nil)
	if err != nil {
		return step, err
	}
	if refused != nil {
		return p.notDone(step, infrav1.ReleasedCondition, refused), nil
	}
	p.r.memory.update(p.machine.UID, func(m *memo) { m.powerOffUntil = p.r.Clock.Now().Add(powerOffPolls * p.r.PollInterval) })
	p.log.Info("Powered off", "systemID", p.o.SystemID)
	p.event(corev1.EventTypeNormal, infrav1.PoweringOffReason, "PowerOff", "Asked MAAS to power off server %s", p.o.SystemID)
	return step, nil
}

func (p *pass) hold(ctx context.Context, step Step) (Step, error) {
	if _, err := p.confirm(ctx); err != nil {
		return p.notDone(step, infrav1.ReleasedCondition, err), nil
	}
	sent := p.r.Clock.Now()
	m, err := p.identity.MAAS.Annotate(ctx, p.o.SystemID, map[string]string{maas.AnnotationHold: step.Reason})
	if err != nil {
		return p.notDone(step, infrav1.ReleasedCondition, err), nil
	}
	p.learn(m, sent)
	p.log.Info("Held the server", "systemID", p.o.SystemID, "reason", step.Reason)
	return step, nil
}

func (p *pass) release(ctx context.Context, step Step) (Step, error) {
	m, err := p.confirmNow(ctx)
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
	refused, err := p.order(ctx, infrav1.MachineOrderRelease, p.o.SystemID, func() error {
		return p.identity.MAAS.Release(ctx, p.o.SystemID, request)
	}, p.releaseRecord(erase))
	// Erasing switches the server on again.
	p.r.memory.update(p.machine.UID, func(m *memo) { m.powerOffUntil = time.Time{} })
	if err != nil {
		return step, err
	}
	if refused != nil {
		return p.notDone(step, infrav1.ReleasedCondition, refused), nil
	}
	p.log.Info("Released the server", "systemID", p.o.SystemID, "erase", erase)
	p.event(corev1.EventTypeNormal, infrav1.ReleasingReason, "Release", "MAAS releases server %s, erase %s", p.o.SystemID, erase)
	return step, nil
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
	refused, err := p.order(ctx, infrav1.MachineOrderRelease, step.SystemID, func() error {
		return p.identity.MAAS.Release(ctx, step.SystemID, maas.ReleaseRequest{Erase: maas.EraseNone, Comment: p.comment()})
	}, nil)
	if err != nil {
		return step, err
	}
	if refused != nil {
		return p.notDone(step, infrav1.ServerClaimedCondition, refused), nil
	}
	p.log.Info("Released a surplus server", "systemID", step.SystemID)
	return step, nil
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
