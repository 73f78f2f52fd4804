// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// longWaits is how many polls old a reading may be while MAAS is at work for minutes: its events wake us before.
const longWaits = 12

// observeServer asks MAAS whether a server is held under the claim.
func (p *pass) observeServer(ctx context.Context, o *Observation) error {
	if o.SystemID == "" {
		p.lookUp(ctx, o)
		return nil
	}
	p.identity.Readings.Watch(o.SystemID, client.ObjectKeyFromObject(p.machine))
	m, err := p.read(ctx, o)
	switch {
	case maas.IsNotFound(err) && maas.IsAboutMachine(err):
		o.Server = ServerView{Held: maas.No, Why: "MAAS does not know the server"}
		return nil
	case maas.IsForbidden(err) && maas.IsAboutMachine(err):
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
	if order := o.Order; order.Operation == infrav1.MachineOrderRelease && order.SystemID == o.SystemID && m.Status.ReleaseUnderWay() {
		o.Order = OrderView{} // It came through.
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
	return p.identity.Readings.Machine(ctx, o.SystemID, p.maxAge(o))
}

// maxAge is how old a reading may be, by what was known last: as old as MAAS' events allow while MAAS or the fabric is at work,
// else at most one interval.
func (p *pass) maxAge(o *Observation) time.Duration {
	long := longWaits * p.r.PollInterval
	last, known := p.identity.Readings.Recent(o.SystemID, long)
	switch {
	case !known:
	case last.Status == maas.StatusDeploying, last.Status.ReleaseUnderWay():
		return long
	case o.Order.open(o.Now), pending(o.PowerOffUntil, o.Now):
	case o.Attachment.underWay():
		return long
	}
	return 0
}

func (p *pass) unanswered(err error) ServerView {
	unusable := scope.UnusableMAAS(p.identity.Object.Name, err)
	return ServerView{
		Held: maas.Unknown, Why: unusable.Error(), Problem: &Problem{Reason: unusable.Reason, Message: unusable.Error()},
		RetryAfter: maas.RetryAfter(err),
	}
}

// observeUnannotated judges a server that carries none of our annotations: the token alone decides. MAAS need not be asked for it
// again where it has just answered our one allocation with this server.
func (p *pass) observeUnannotated(ctx context.Context, o *Observation) {
	if p.r.memory.givenTo(p.identity.Object.UID, o.SystemID, p.machine.UID, o.Now) {
		o.Server.Held, o.Server.Unannotated = maas.Yes, true
		o.Server.Why = "MAAS gave out the server under the claim's token"
		return
	}
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
	if id := o.Order.SystemID; id != o.SystemID && !slices.ContainsFunc(found, func(m maas.Machine) bool { return m.SystemID == id }) {
		o.Order = OrderView{} // MAAS forgets the token when it releases: the surplus server is on its way.
	}
}

// lookUp searches MAAS for a server nobody recorded: by token, else, where an allocation or the status was lost, by annotation.
func (p *pass) lookUp(ctx context.Context, o *Observation) {
	settled := o.Intact && o.AllocateUntil.IsZero()
	if settled && (o.Deleting || p.r.memory.of(p.machine.UID).searched) {
		o.Server = ServerView{Held: maas.No, Why: "no allocation is open"}
		return
	}
	ours, err := p.search(ctx, o)
	if err != nil {
		o.Server = p.unanswered(err)
		return
	}
	if pending(o.AllocateUntil, o.Now) {
		// One that is held was there before the allocation that is looked for.
		ours = slices.DeleteFunc(ours, func(m maas.Machine) bool { return m.Annotations[maas.AnnotationHold] != "" })
	}
	if len(ours) == 0 {
		p.r.memory.update(p.machine.UID, func(m *memo) { m.searched = settled })
		o.Server = ServerView{Held: maas.No, Why: "MAAS has no server under the claim's token"}
		return
	}
	o.Server = ServerView{Held: maas.Yes, Machine: keep(ours), Why: "MAAS has the server under the claim's token"}
}

func (p *pass) search(ctx context.Context, o *Observation) ([]maas.Machine, error) {
	none, err := p.identity.Readings.NoneClaimed(ctx, p.token())
	if err != nil {
		return nil, err
	}
	var ours []maas.Machine
	if !none {
		found, err := p.identity.MAAS.MachinesByToken(ctx, p.token())
		if err != nil {
			return nil, err
		}
		ours = p.ours(found)
	}
	if len(ours) == 0 && !o.AllocateUntil.IsZero() {
		owned, err := p.identity.Readings.Owned(ctx, p.identity.Account, ownedMaxAge)
		if err != nil {
			return nil, err
		}
		for _, m := range owned {
			if m.ClaimedBy(p.identity.Account, p.token()).Yes() {
				ours = append(ours, m)
			}
		}
	}
	return slices.DeleteFunc(ours, func(m maas.Machine) bool { return p.letGo(&m) }), nil
}

// letGo reports that the machine gave the server up for good: it stays allocated under our token, listed as held.
func (p *pass) letGo(m *maas.Machine) bool {
	return m.Annotations[maas.AnnotationHold] == infrav1.ServerSuspectReason && p.listedHeld(m.SystemID)
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
