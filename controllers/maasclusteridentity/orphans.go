// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasclusteridentity

import (
	"cmp"

	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// disagreements are the servers about which MAAS and the machines do not agree, by system ID; Since is not set. MAAS and the
// API server were not read at the same moment: what is found may be a step half-way.
func disagreements(v *view, f *fleet) map[string]infrav1.OrphanServer {
	found := map[string]infrav1.OrphanServer{}
	if v.listed == nil {
		return found
	}
	for _, id := range v.ids() {
		server, ours := v.server(id)
		if !ours {
			continue
		}
		if reason, machine := f.disagrees(server); reason != "" {
			found[id] = infrav1.OrphanServer{SystemID: id, Reason: reason, Machine: machine}
		}
	}
	for _, machine := range f.own {
		id := machine.Status.SystemID // Not the provider ID, which anybody may write.
		if _, ok := found[id]; !ok && id != "" && !leaves(machine, id) && f.lost(machine, v) {
			found[id] = infrav1.OrphanServer{SystemID: id, Reason: infrav1.OrphanServerGone, Machine: key(machine)}
		}
	}
	return found
}

// disagrees judges a server of the account by its annotations: what is wrong with it, and the machine concerned.
func (f *fleet) disagrees(server maas.Machine) (reason, machine string) {
	id, claim := server.SystemID, server.Annotations[maas.AnnotationToken]
	if server.Status.Free() || server.Status.ReleaseUnderWay() || heldIn(server) {
		return "", ""
	}
	if claim == "" {
		return f.unclaimed(server)
	}
	m := f.byClaim[claim]
	switch {
	case m == nil:
		return infrav1.OrphanNoMachine, named(server)
	case leaves(m, id):
		return "", ""
	case recorded(m) == "" && (!conditions.Has(m, infrav1.ServerClaimedCondition) || m.Status.LastAllocateTime != nil):
		return "", "" // Its status was lost or its allocation is open: it looks for its server itself.
	case recorded(m) != id, named(server) != key(m):
		return infrav1.OrphanDisagrees, key(m)
	}
	return "", ""
}

// anyToken is the token of no claim: whatever carries a claim carries another.
const anyToken = "-"

// unclaimed judges a server without a claim. One that has other annotations of ours had a claim that somebody removed.
func (f *fleet) unclaimed(server maas.Machine) (reason, machine string) {
	for _, m := range f.byServer[server.SystemID] {
		if leaves(m, server.SystemID) {
			return "", ""
		}
		machine = key(m)
	}
	if server.ClaimedBy(server.Owner, anyToken).Unannotated {
		return infrav1.OrphanUnclaimed, machine
	}
	return infrav1.OrphanDisagrees, cmp.Or(machine, named(server))
}

// lost says that the account does not hold the machine's server, or holds it for another machine.
func (f *fleet) lost(machine *infrav1.MaasMachine, v *view) bool {
	server, ours := v.server(machine.Status.SystemID)
	if !ours {
		return true
	}
	holder := f.byClaim[server.Annotations[maas.AnnotationToken]]
	return holder != nil && holder != machine && recorded(holder) == machine.Status.SystemID
}
