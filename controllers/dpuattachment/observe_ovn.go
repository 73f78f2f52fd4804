// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"context"
	"errors"
	"slices"

	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

var errNoDatabases = errors.New("there is no client for it")

// observeOVN reads what OVN says of the cards, where the fabric names its databases. One that cannot be read is no reason to do
// without: what was asked for is proven, or nothing is.
func (r *Reconciler) observeOVN(ctx context.Context, o *observation) {
	if o.endpoints() == nil || len(o.cards) == 0 {
		return
	}
	o.ovn = &vpc.OVN{Err: errNoDatabases}
	if o.fabric.OVN != nil {
		reading := o.fabric.OVN.Reading(ctx, o.notBefore)
		o.ovn = &reading
		o.readAt(reading.Started)
	}
	for i := range o.cards {
		o.cards[i].evidence.OVN = o.ovn
	}
	o.progress = r.progresses.of(o.attachment.UID)
	if o.barrierAsked() && o.ovn.Err == nil && o.gradeBefore() != infrav1.EvidenceBarrier {
		r.observePeers(ctx, o)
	}
}

// endpoints are OVN's databases, as the fabric names them; nil if it does not.
func (o *observation) endpoints() *infrav1.OVNEndpoints {
	if o.fabric == nil || o.fabric.Object.Spec.Backend.OVNVPC == nil {
		return nil
	}
	return o.fabric.Object.Spec.Backend.OVNVPC.OVN
}

// barrierAsked reports whether the fabric asks for barriers.
func (o *observation) barrierAsked() bool {
	endpoints := o.endpoints()
	return endpoints != nil && ptr.Deref(endpoints.Barrier, false)
}

// party is whose controllers have to pass a barrier: those of the server's own DPUs that have, or had, ports of the attachment, and
// those of all others in the VPC.
func (o *observation) party() vpc.BarrierParty {
	party := vpc.BarrierParty{Silent: o.silent}
	for i := range o.cards {
		c := &o.cards[i]
		if _, touched := o.memory.Cards[c.device]; (touched || len(c.ports) > 0 || o.holdsCard(c)) && c.evidence.DPU != nil {
			party.Own = append(party.Own, c.evidence.DPU.Name)
		}
	}
	for i := range o.cards {
		party.Peers = append(party.Peers, o.cards[i].want.Peers(*o.ovn, party.Own)...)
	}
	slices.Sort(party.Peers)
	party.Peers = slices.Compact(party.Peers)
	return party
}

// observePeers finds the peers whose DPUs are known not to live: waiting for them would hold everybody up for a DPU that is off. Of
// whom nothing is known is waited for.
func (r *Reconciler) observePeers(ctx context.Context, o *observation) {
	o.silent = map[string]string{}
	peers := o.party().Peers
	for name := range o.progress.barrier.Then {
		if !slices.Contains(peers, name) {
			peers = append(peers, name)
		}
	}
	for _, peer := range peers {
		if alive := r.peerAlive(ctx, o, peer); alive.Answer == vpc.No {
			o.silent[peer] = alive.Message
		}
	}
}

func (r *Reconciler) peerAlive(ctx context.Context, o *observation, peer string) vpc.Finding {
	for _, state := range o.states {
		if state.Has(peer) {
			return state.Alive(peer, o.now)
		}
	}
	fabric := o.fabric
	inventory, err := r.Readings.Inventory(ctx, fabric.Object.Name, fabric.DPF, fabric.Namespace(), o.notBefore)
	if err != nil {
		return unreachable(err)
	}
	key, joined := inventory.ClusterOf(peer)
	if !joined {
		return refused(infrav1.DPUNotReadyReason, "DPF has no such DPU in a DPU cluster")
	}
	return r.Readings.State(ctx, fabric.Object.Name, fabric.DPUCluster, key, o.notBefore).Alive(peer, o.now)
}
