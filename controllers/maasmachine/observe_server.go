// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// observeServer asks MAAS whether a server is held under the claim.
func (p *pass) observeServer(ctx context.Context, o *Observation) error {
	if o.SystemID == "" {
		p.lookUp(ctx, o)
		return nil
	}
	m, err := p.read(ctx, o)
	switch {
	case maas.IsNotFound(err):
		o.Server = ServerView{Held: maas.No, Why: "MAAS does not know the server"}
		return nil
	case maas.IsForbidden(err):
		o.Server = ServerView{Held: maas.No, Why: "the server belongs to another MAAS account"}
		return nil
	case err != nil:
		o.Server = p.unanswered(err)
		return nil
	}
	ownership := m.ClaimedBy(p.identity.Account, p.token())
	o.Server = ServerView{Held: ownership.Answer, Why: ownership.Reason, Machine: m}
	if ownership.Unannotated {
		p.observeUnannotated(ctx, o)
	}
	if o.Server.Held == maas.Yes && !o.Provisioned && !o.Deleting {
		return p.observeCollision(ctx, o)
	}
	return nil
}

// read returns the server as last read for everybody: a machine that is settled needs no reading of its own.
func (p *pass) read(ctx context.Context, o *Observation) (maas.Machine, error) {
	settled := o.Provisioned && !o.Deleting && o.Avoided == "" && !o.Attachment.PowerOff
	if settled {
		if m, ok := p.identity.Readings.Recent(o.SystemID, p.r.AuditInterval); ok && m.Status == maas.StatusDeployed {
			return m, nil
		}
		owned, err := p.identity.Readings.Owned(ctx, p.identity.Account, p.r.AuditInterval)
		if err != nil {
			return maas.Machine{}, err
		}
		if m, ok := owned[o.SystemID]; ok && m.Status == maas.StatusDeployed {
			return m, nil
		}
	}
	return p.identity.Readings.Machine(ctx, o.SystemID, 0)
}

func (p *pass) unanswered(err error) ServerView {
	unusable := scope.UnusableMAAS(p.identity.Object.Name, err)
	return ServerView{Held: maas.Unknown, Why: unusable.Error(), Problem: &Problem{Reason: unusable.Reason, Message: unusable.Error()}}
}

// observeUnannotated judges a server that carries none of our annotations: the token alone decides.
func (p *pass) observeUnannotated(ctx context.Context, o *Observation) {
	found, err := p.identity.MAAS.MachinesByToken(ctx, p.token())
	if err != nil {
		o.Server = p.unanswered(err)
		return
	}
	ours := p.ours(found)
	i := slices.IndexFunc(ours, func(m maas.Machine) bool { return m.SystemID == o.SystemID })
	if i < 0 {
		o.Server = ServerView{Held: maas.No, Why: "the server was not allocated under the claim's token", Machine: o.Server.Machine}
		return
	}
	o.Server = ServerView{Held: maas.Yes, Machine: ours[i], Why: "owner and token agree with the claim"}
	o.Server.Unannotated = ours[i].ClaimedBy(p.identity.Account, p.token()).Unannotated
	o.Server.Surplus = p.surplus(ctx, ours, o.SystemID)
}

// lookUp searches MAAS for a server nobody recorded: by token, else, where an allocation or the status was lost, by annotation.
func (p *pass) lookUp(ctx context.Context, o *Observation) {
	settled := o.Intact && o.AllocateUntil.IsZero()
	if settled && (o.Deleting || p.r.memory.searched(p.machine.UID)) {
		o.Server = ServerView{Held: maas.No, Why: "no allocation is open"}
		return
	}
	found, err := p.identity.MAAS.MachinesByToken(ctx, p.token())
	if err != nil {
		o.Server = p.unanswered(err)
		return
	}
	ours := p.ours(found)
	if len(ours) == 0 && !o.AllocateUntil.IsZero() {
		owned, err := p.identity.Readings.Owned(ctx, p.identity.Account, ownedMaxAge)
		if err != nil {
			o.Server = p.unanswered(err)
			return
		}
		for _, m := range owned {
			if m.ClaimedBy(p.identity.Account, p.token()).Yes() {
				ours = append(ours, m)
			}
		}
	}
	if len(ours) == 0 {
		p.r.memory.update(p.machine.UID, func(s *sent) { s.searched = settled })
		o.Server = ServerView{Held: maas.No, Why: "MAAS has no server under the claim's token"}
		return
	}
	o.Server = ServerView{Held: maas.Yes, Machine: keep(ours), Why: "MAAS has the server under the claim's token"}
}

// ours are those of the machines of our token that belong to the account and carry no other claim.
func (p *pass) ours(found []maas.Machine) []maas.Machine {
	return slices.DeleteFunc(slices.Clone(found), func(m maas.Machine) bool {
		ownership := m.ClaimedBy(p.identity.Account, p.token())
		return !ownership.Yes() && !ownership.Unannotated
	})
}

// keep picks the one of several servers under one token to go on with: the furthest along, else the lowest system ID.
func keep(ours []maas.Machine) maas.Machine {
	along := func(m maas.Machine) int {
		switch {
		case m.Status == maas.StatusDeployed:
			return 3
		case m.Status == maas.StatusDeploying:
			return 2
		case m.Status != maas.StatusAllocated || len(m.Annotations) > 0:
			return 1
		}
		return 0
	}
	return slices.MinFunc(ours, func(a, b maas.Machine) int {
		return cmp.Or(cmp.Compare(along(b), along(a)), cmp.Compare(a.SystemID, b.SystemID))
	})
}

// surplus are the servers besides the kept one that are neither attached, deploying nor deployed.
func (p *pass) surplus(ctx context.Context, ours []maas.Machine, kept string) []string {
	var ids []string
	for i := range ours {
		m := &ours[i]
		if m.SystemID == kept || m.Status != maas.StatusAllocated || m.OSystem != "" || m.Locked {
			continue
		}
		if p.attachmentExists(ctx, m.SystemID) == maas.No {
			ids = append(ids, m.SystemID)
		}
	}
	slices.Sort(ids)
	return ids
}

func (p *pass) attachmentExists(ctx context.Context, systemID string) maas.Answer {
	if len(p.machine.Spec.Ports) == 0 {
		return maas.No
	}
	if p.fabric == nil {
		return maas.Unknown
	}
	err := p.fabric.Live.Get(ctx, p.attachmentKey(systemID), &infrav1.DPUAttachment{})
	switch {
	case apierrors.IsNotFound(err):
		return maas.No
	case err != nil:
		return maas.Unknown
	}
	return maas.Yes
}

// observeCollision looks for another machine with a server of the same system ID of another MAAS: their provider IDs would be
// the same. The one that is further, else older, stays.
func (p *pass) observeCollision(ctx context.Context, o *Observation) error {
	list := &infrav1.MaasMachineList{}
	if err := p.r.Client.List(ctx, list, client.MatchingFields{systemIDIndex: o.SystemID}); err != nil {
		return fmt.Errorf("list MaasMachines of server %s: %w", o.SystemID, err)
	}
	for i := range list.Items {
		other := &list.Items[i]
		if other.UID == p.machine.UID || other.Spec.Claim == nil || other.Spec.Claim.IdentityName == p.machine.Spec.Claim.IdentityName {
			continue
		}
		if other.Spec.ProviderID != "" || older(other, p.machine) {
			o.Server.Collision = client.ObjectKeyFromObject(other).String()
			return nil
		}
	}
	return nil
}

func older(a, b *infrav1.MaasMachine) bool {
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.CreationTimestamp.Before(&b.CreationTimestamp)
	}
	return client.ObjectKeyFromObject(a).String() < client.ObjectKeyFromObject(b).String()
}
