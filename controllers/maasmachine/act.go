// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/metrics"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

var errNotConfirmed = errors.New("the claim is not confirmed")

// act carries a step out. It returns the step as it turned out: other words and another pace if something was refused. Its
// errors are the management cluster's API server's.
func (p *pass) act(ctx context.Context, step Step) (Step, error) {
	action, ok := p.actions()[step.Action]
	if !ok {
		return step, nil
	}
	turned, err := action(ctx, step)
	result := metrics.ResultDone
	switch {
	case err != nil:
		result = metrics.ResultUnknown
	case turned.Action == ActionWait:
		result = metrics.ResultRefused
	}
	metrics.MachineTransition(string(step.Action), result)
	return turned, err
}

func (p *pass) actions() map[Action]func(context.Context, Step) (Step, error) {
	return map[Action]func(context.Context, Step) (Step, error){
		ActionInitialize:       p.initialize,
		ActionStoreClaim:       p.storeClaim,
		ActionAllocate:         p.allocate,
		ActionRecordServer:     p.recordServer,
		ActionReleaseSurplus:   p.releaseSurplus,
		ActionAnnotate:         p.annotate,
		ActionAttach:           p.attach,
		ActionDeploy:           p.deploy,
		ActionProvision:        p.provision,
		ActionAvoid:            p.avoid,
		ActionForget:           p.forget,
		ActionDetach:           p.detach,
		ActionPowerOff:         p.powerOff,
		ActionHold:             p.hold,
		ActionRelease:          p.release,
		ActionRecordRelease:    p.recordRelease,
		ActionDeleteAttachment: p.deleteAttachment,
		ActionDropFinalizer:    p.dropFinalizer,
	}
}

// persistStatus stores a change of the status, and what was changed before it in this pass, before the pass goes on, against the
// version the decision was made on: a stale cache ends in a conflict instead of a second effect.
func (p *pass) persistStatus(ctx context.Context, change func(*infrav1.MaasMachineStatus)) error {
	change(&p.machine.Status)
	if err := p.r.Client.Status().Patch(ctx, p.machine, client.MergeFromWithOptions(p.stored, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("store the status of MaasMachine: %w", err)
	}
	return p.renewPatcher()
}

func (p *pass) persist(ctx context.Context, change func(*infrav1.MaasMachine)) error {
	base := p.machine.DeepCopy()
	change(p.machine)
	if err := p.r.Client.Patch(ctx, p.machine, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("store MaasMachine: %w", err)
	}
	return p.renewPatcher()
}

// initialize makes the status ours. Where it was lost while there was a claim, an allocation may have been lost with it.
func (p *pass) initialize(ctx context.Context, step Step) (Step, error) {
	if p.machine.Spec.Claim != nil && serverOf(p.machine) == "" {
		now := p.now()
		if err := p.persistStatus(ctx, func(s *infrav1.MaasMachineStatus) { s.LastAllocateTime = &now }); err != nil {
			return step, err
		}
	}
	return step, nil
}

func (p *pass) now() metav1.Time { return metav1.NewTime(p.r.Clock.Now()) }

func (p *pass) storeClaim(ctx context.Context, step Step) (Step, error) {
	token, err := maas.NewToken(rand.Reader, p.machine.Namespace, p.machine.Name)
	if err != nil {
		return step, err
	}
	return step, p.persist(ctx, func(m *infrav1.MaasMachine) {
		m.Spec.Claim = &infrav1.MachineClaim{Token: token, IdentityName: p.identity.Object.Name, Source: p.identity.Object.Spec.Source}
	})
}

func (p *pass) recordServer(ctx context.Context, step Step) (Step, error) {
	if err := p.persistStatus(ctx, func(s *infrav1.MaasMachineStatus) {
		s.SystemID, s.LastAllocateTime = step.SystemID, nil
	}); err != nil {
		return step, err
	}
	p.event(corev1.EventTypeNormal, infrav1.ClaimedReason, "Allocate", "MAAS holds server %s for this machine", step.SystemID)
	return step, nil
}

func (p *pass) provision(ctx context.Context, step Step) (Step, error) {
	id := p.o.SystemID
	if p.machine.Spec.ProviderID == "" {
		if err := p.persist(ctx, func(m *infrav1.MaasMachine) { m.Spec.ProviderID = ProviderID(id) }); err != nil {
			return step, err
		}
	}
	if err := p.persistStatus(ctx, func(s *infrav1.MaasMachineStatus) {
		s.SystemID = id
		s.Initialization.Provisioned = ptr.To(true)
		p.describe(s)
	}); err != nil {
		return step, err
	}
	p.o.Provisioned = true
	p.event(corev1.EventTypeNormal, infrav1.DeployedReason, "Provision", "Server %s is deployed", id)
	return step, nil
}

// ProviderID is the provider ID of a server.
func ProviderID(systemID string) string { return "maas:///" + systemID }

func (p *pass) avoid(ctx context.Context, step Step) (Step, error) {
	if err := p.persistStatus(ctx, func(s *infrav1.MaasMachineStatus) {
		s.AvoidedServers = append(s.AvoidedServers, infrav1.AvoidedServer{SystemID: p.o.SystemID, Reason: step.Reason, Since: p.now()})
	}); err != nil {
		return step, err
	}
	if p.o.Server.Held == maas.Yes {
		p.event(corev1.EventTypeWarning, step.Reason, "Avoid", "Server %s is given back and not tried again: %s", p.o.SystemID, step.Reason)
	}
	return step, nil
}

// forget makes room for another server; the avoided ones are remembered.
func (p *pass) forget(ctx context.Context, step Step) (Step, error) {
	p.leave()
	return step, p.persistStatus(ctx, func(s *infrav1.MaasMachineStatus) {
		s.SystemID, s.Hostname, s.FailureDomain, s.AttachmentName = "", "", "", ""
		s.Addresses, s.LastAllocateTime, s.DeployStartTime, s.Release = nil, nil, nil, nil
		if s.OpenOrder != nil && s.OpenOrder.SystemID == p.o.SystemID {
			s.OpenOrder = nil
		}
	})
}

// leave ends what is remembered of the machine's server for others.
func (p *pass) leave() {
	p.r.memory.forget(p.machine.UID)
	if p.identity != nil && p.o.SystemID != "" {
		p.identity.Readings.Unwatch(p.o.SystemID, client.ObjectKeyFromObject(p.machine))
	}
}

func (p *pass) recordRelease(ctx context.Context, step Step) (Step, error) {
	return step, p.persistStatus(ctx, p.releaseRecord(p.erase()))
}

// releaseRecord writes down that MAAS releases the server.
func (p *pass) releaseRecord(erase infrav1.ReleaseErase) func(*infrav1.MaasMachineStatus) {
	return func(s *infrav1.MaasMachineStatus) {
		s.Release = &infrav1.MachineReleaseStatus{SystemID: p.o.SystemID, Erase: erase, AcceptedAt: p.now()}
	}
}

func (p *pass) dropFinalizer(ctx context.Context, step Step) (Step, error) {
	switch {
	case step.Reason == infrav1.AbandonedReason:
		p.event(corev1.EventTypeWarning, infrav1.AbandonedReason, "Abandon", "Server %s stays allocated and held: %s", p.o.SystemID, p.machine.Spec.Override.Reason)
	case step.Reason == infrav1.ServerSuspectReason:
		p.event(corev1.EventTypeWarning, infrav1.ServerSuspectReason, "LetGo", "Server %s stays allocated and held: release it with erase once it was looked at", p.o.SystemID)
	case p.o.SystemID != "":
		p.sayReleased()
	}
	if err := p.persist(ctx, func(m *infrav1.MaasMachine) {
		controllerutil.RemoveFinalizer(m, infrav1.MaasMachineFinalizer)
	}); client.IgnoreNotFound(err) != nil {
		return step, err
	}
	p.gone = true
	p.leave()
	return step, nil
}

// sayReleased tells a server we gave back from one that was lost.
func (p *pass) sayReleased() {
	if p.o.givenBack() {
		p.event(corev1.EventTypeNormal, infrav1.ReleasedReason, "Release", "Server %s is released", p.o.SystemID)
		return
	}
	p.event(corev1.EventTypeWarning, infrav1.ServerLostReason, "Release", "Server %s was no longer ours and was not touched: %s", p.o.SystemID, p.o.Server.Why)
}
