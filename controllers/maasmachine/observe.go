// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// observe asks everybody and fills the pass. Its errors are the management cluster's API server's only: what MAAS and the fabric
// do not answer is an observation.
func (p *pass) observe(ctx context.Context) (Observation, error) {
	machine := p.machine
	o := Observation{
		Now:           p.r.Clock.Now(),
		Deleting:      !machine.DeletionTimestamp.IsZero(),
		Abandon:       machine.Spec.Override != nil && machine.Spec.Override.Action == infrav1.OverrideAbandon,
		Provisioned:   ptr.Deref(machine.Status.Initialization.Provisioned, false),
		Intact:        conditions.Has(machine, infrav1.ServerClaimedCondition),
		Owned:         p.owner != nil,
		OwnerGoing:    p.owner != nil && !p.owner.DeletionTimestamp.IsZero(),
		ClusterReady:  p.cluster != nil && ptr.Deref(p.cluster.Status.Initialization.InfrastructureProvisioned, false),
		BootstrapData: p.owner != nil && p.owner.Spec.Bootstrap.DataSecretName != nil,
		Ports:         len(machine.Spec.Ports) > 0,
		SystemID:      serverOf(machine),
	}
	if claim := machine.Spec.Claim; claim != nil {
		o.Claim = ClaimView{Present: true, Fits: maas.Token(claim.Token).Fits(machine.Namespace, machine.Name)}
	}
	p.observeHistory(&o)
	if err := p.observeIdentity(ctx, &o); err != nil {
		return o, err
	}
	p.observeTimes(&o)
	o.Attachment = AttachmentView{Exists: maas.Unknown}
	o.Server = ServerView{Held: maas.Unknown}
	if !o.Claim.Fits {
		// Without a claim of its own the object holds nothing.
		o.Server = ServerView{Held: maas.No, Why: "there is no claim"}
		o.Attachment.Exists = maas.No
	}
	if p.identity == nil {
		if o.Claim.Fits && p.account != nil {
			// The fabric's proof is to be had without MAAS.
			p.observeAttachment(ctx, &o)
		}
		return o, nil
	}
	p.observeSuspicion(&o)
	if o.Claim.Fits {
		p.observeAttachment(ctx, &o)
		if err := p.observeServer(ctx, &o); err != nil {
			return o, err
		}
	}
	if !o.Deleting && o.SystemID == "" {
		p.observePlacement(ctx, &o)
	}
	return o, nil
}

// serverOf returns the server of the status, or of the provider ID where the status was lost.
func serverOf(machine *infrav1.MaasMachine) string {
	if machine.Status.SystemID != "" {
		return machine.Status.SystemID
	}
	return machine.Spec.ProviderID[strings.LastIndexByte(machine.Spec.ProviderID, '/')+1:]
}

func (p *pass) observeHistory(o *Observation) {
	for _, avoided := range p.machine.Status.AvoidedServers {
		if avoided.SystemID == o.SystemID {
			o.Avoided = avoided.Reason
		}
		switch avoided.Reason {
		case infrav1.DeployFailedReason, infrav1.DeployTimedOutReason:
			o.DeployFailures++
		case infrav1.ServerIsDPUReason:
			// Nobody refused it: MAAS was asked too openly.
		default:
			o.Refusals++
		}
	}
	if release := p.machine.Status.Release; release != nil && release.SystemID == o.SystemID {
		o.ReleaseRecorded = true
	}
	o.ReleaseRetry = !o.ReleaseRecorded || o.Now.Sub(p.machine.Status.Release.AcceptedAt.Time) >= p.r.AuditInterval
	known := p.r.memory.of(p.machine.UID)
	o.PowerOffUntil, o.NotBefore = known.powerOffUntil, known.notBefore
}

// observeTimes needs the identity's deadlines; without an identity the longest ones count.
func (p *pass) observeTimes(o *Observation) {
	deadlines := infrav1.Deadlines{}
	if p.identity != nil {
		deadlines = p.identity.Object.Spec.Deadlines
	}
	// The API server keeps whole seconds.
	if at := p.machine.Status.LastAllocateTime; at != nil && !p.r.memory.of(p.machine.UID).allocateAnswered(at) {
		o.AllocateUntil = at.Add(time.Second + secondsOr(deadlines.AllocateSeconds, maas.DefaultAllocateTimeout) + p.r.OutcomeWindow)
	}
	if at := p.machine.Status.DeployStartTime; at != nil {
		o.DeployUntil = at.Add(time.Second + secondsOr(deadlines.CallSeconds, maas.DefaultTimeout) + p.r.OutcomeWindow)
		o.DeployDeadline = at.Add(secondsOr(deadlines.DeploySeconds, defaultDeployDeadline))
	}
	if order := p.machine.Status.OpenOrder; order != nil {
		o.Order = OrderView{Operation: order.Operation, SystemID: order.SystemID,
			Until: order.SentAt.Add(time.Second + secondsOr(deadlines.CallSeconds, maas.DefaultTimeout) + p.r.OutcomeWindow)}
	}
	// A full overwrite takes hours, as long as the disks are large.
	if release := p.machine.Status.Release; o.ReleaseRecorded && release.Erase != infrav1.ReleaseEraseFull {
		o.ReleaseDeadline = release.AcceptedAt.Add(secondsOr(deadlines.ReleaseSeconds, defaultReleaseDeadline))
	}
}

// observeSuspicion reads what the identity remembers of the server.
func (p *pass) observeSuspicion(o *Observation) {
	if o.SystemID == "" {
		return
	}
	o.Suspicion.Held = p.listedHeld(o.SystemID)
	for _, suspect := range p.identity.Object.Status.Suspects {
		if suspect.SystemID == o.SystemID {
			o.Suspicion.Machines = len(suspect.Machines)
			o.Suspicion.Recorded = slices.Contains(suspect.Machines, client.ObjectKeyFromObject(p.machine).String())
		}
	}
}

func (p *pass) listedHeld(systemID string) bool {
	return slices.ContainsFunc(p.identity.Object.Status.Held, func(s infrav1.HeldServer) bool { return s.SystemID == systemID })
}

func secondsOr(value *int32, fallback time.Duration) time.Duration {
	if value == nil || *value <= 0 {
		return fallback
	}
	return time.Duration(*value) * time.Second
}

func (p *pass) observeCluster(ctx context.Context) error {
	if p.cluster == nil || !p.cluster.Spec.InfrastructureRef.IsDefined() {
		return nil
	}
	maasCluster := &infrav1.MaasCluster{}
	key := client.ObjectKey{Namespace: p.machine.Namespace, Name: p.cluster.Spec.InfrastructureRef.Name}
	if err := p.r.Client.Get(ctx, key, maasCluster); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("read MaasCluster %s: %w", key, err)
	}
	p.maasCluster = maasCluster
	return nil
}

func (p *pass) observeIdentity(ctx context.Context, o *Observation) error {
	name := p.identityName()
	if name == "" {
		o.Identity.Unusable = &Problem{Reason: infrav1.MaasClusterNotFoundReason, Message: "the Cluster's MaasCluster does not exist yet"}
		return nil
	}
	object := &infrav1.MaasClusterIdentity{}
	switch err := p.r.Client.Get(ctx, client.ObjectKey{Name: name}, object); {
	case err == nil:
		p.account = object
	case !apierrors.IsNotFound(err):
		return fmt.Errorf("read MaasClusterIdentity %s: %w", name, err)
	}
	identity, err := p.r.Scope.Get(ctx, name)
	if unusable, ok := scope.AsUnusable(err); ok {
		o.Identity.Unusable, o.Identity.RetryAfter = &Problem{Reason: unusable.Reason, Message: unusable.Error()}, maas.RetryAfter(err)
		o.Identity.PortIsolationRequired = object.Spec.PortIsolation != infrav1.PortIsolationRequirementNotAssertedAccepted
		return nil
	}
	if err != nil {
		return err
	}
	p.identity, p.account = identity, identity.Object
	spec := identity.Object.Spec
	o.Identity.IsolationRequired = spec.Isolation != infrav1.IsolationOptional
	o.Identity.PortIsolationRequired = spec.PortIsolation != infrav1.PortIsolationRequirementNotAssertedAccepted
	o.Identity.BreakerOpen = breakerOpen(identity.Object)
	if !identity.Object.DeletionTimestamp.IsZero() && p.machine.Spec.Claim == nil {
		o.Identity.Unusable = &Problem{Reason: infrav1.DeletingReason, Message: fmt.Sprintf("MaasClusterIdentity %s is being deleted", name)}
	}
	allowed, err := scope.NamespaceAllowed(ctx, p.r.Client, spec.AllowedNamespaces, p.machine.Namespace)
	switch {
	case err != nil:
		p.log.Error(err, "Cannot tell whether the identity admits the namespace", "MaasClusterIdentity", name)
		o.Identity.Allowed = maas.Unknown
	case allowed:
		o.Identity.Allowed = maas.Yes
	default:
		o.Identity.Allowed = maas.No
	}
	return nil
}
