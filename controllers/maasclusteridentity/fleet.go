// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasclusteridentity

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// fleet are the MaasMachines that may hold servers of one MAAS account. Machines whose claim was made for another object hold
// nothing and are left out.
type fleet struct {
	// own have a claim of this identity, in the order of their names.
	own []*infrav1.MaasMachine
	// byServer are those of all identities of the account, by the server they record.
	byServer map[string][]*infrav1.MaasMachine
	// byClaim are the same by the hash of their token, which is what a server is annotated with.
	byClaim map[string]*infrav1.MaasMachine
	// allocating is when machines asked MAAS for a server and do not know the answer.
	allocating []time.Time
}

// newFleet sorts machines by what they hold. Several identities may name the same account; the servers of an account belong to
// the machines of all of them.
func newFleet(machines []infrav1.MaasMachine, identity string, sharing map[string]bool) *fleet {
	f := &fleet{byServer: map[string][]*infrav1.MaasMachine{}, byClaim: map[string]*infrav1.MaasMachine{}}
	for i := range machines {
		m := &machines[i]
		if m.Spec.Claim == nil || !sharing[m.Spec.Claim.IdentityName] || !maas.Token(m.Spec.Claim.Token).Fits(m.Namespace, m.Name) {
			continue
		}
		if m.Spec.Claim.IdentityName == identity {
			f.own = append(f.own, m)
		}
		f.byClaim[maas.TokenHash(m.Spec.Claim.Token)] = m
		if id := recorded(m); id != "" {
			f.byServer[id] = append(f.byServer[id], m)
		} else if at := m.Status.LastAllocateTime; at != nil {
			f.allocating = append(f.allocating, at.Time)
		}
	}
	slices.SortFunc(f.own, func(a, b *infrav1.MaasMachine) int { return cmp.Compare(key(a), key(b)) })
	return f
}

// sharing names the identities of the same MAAS and account as object. An identity whose account is not known may be one of
// them, so that no server is called an orphan for lack of knowledge. Endpoints are compared as they are written: operators who
// write one MAAS in two ways and give both the same account are told of orphans that are none, as are those whose managers are
// restricted to different namespaces and share an account.
func sharing(identities []infrav1.MaasClusterIdentity, object *infrav1.MaasClusterIdentity, account string) map[string]bool {
	names := map[string]bool{object.Name: true}
	for i := range identities {
		other := &identities[i]
		if other.Spec.Endpoint == object.Spec.Endpoint && (other.Status.Account == "" || account == "" || other.Status.Account == account) {
			names[other.Name] = true
		}
	}
	return names
}

// holder is the machine that records the server, unless MAAS says that another claim holds it.
func (f *fleet) holder(systemID string, server maas.Machine) *infrav1.MaasMachine {
	claim := server.Annotations[maas.AnnotationToken]
	for _, m := range f.byServer[systemID] {
		if !lostIts(m) && (claim == "" || claim == maas.TokenHash(m.Spec.Claim.Token)) {
			return m
		}
	}
	return nil
}

// lostIts says that a machine found its server to be no longer its own.
func lostIts(machine *infrav1.MaasMachine) bool {
	return conditions.GetReason(machine, infrav1.ServerClaimedCondition) == infrav1.ServerLostReason
}

// recorded is the server of a machine by its status, or by its provider ID where the status was lost. A provider ID may be
// written by anybody: what is no system ID is left out, because one of those would spoil a question about many.
func recorded(machine *infrav1.MaasMachine) string {
	id := machine.Status.SystemID
	if id == "" {
		id = machine.Spec.ProviderID[strings.LastIndexByte(machine.Spec.ProviderID, '/')+1:]
	}
	if !maas.ValidSystemID(id) {
		return ""
	}
	return id
}

// avoids says that a machine gives the server back, or has given it back, because it is no good.
func avoids(machine *infrav1.MaasMachine, systemID string) bool {
	return slices.ContainsFunc(machine.Status.AvoidedServers, func(s infrav1.AvoidedServer) bool { return s.SystemID == systemID })
}

// leaves says that a machine is giving the server up: what MAAS says of it meanwhile is the machine's business.
func leaves(machine *infrav1.MaasMachine, systemID string) bool {
	release := machine.Status.Release
	return !machine.DeletionTimestamp.IsZero() || avoids(machine, systemID) || release != nil && release.SystemID == systemID
}

func key(machine *infrav1.MaasMachine) string { return client.ObjectKeyFromObject(machine).String() }

// view is what MAAS said of the account's servers: one list that may be old, and later readings of single servers.
type view struct {
	account string
	// listed are all servers of the account; nil if MAAS did not say.
	listed map[string]maas.Machine
	// recent are readings made for machines that wait for their server; the list does not count where they are.
	recent map[string]maas.Machine
	// looks are readings of this controller's own.
	looks map[string]look
}

// look is what MAAS said of one server when it was asked for it; not found: the account does not see it.
type look struct {
	machine maas.Machine
	found   bool
	at      time.Time
}

// server is the newest reading of a server, and whether the account owns it.
func (v *view) server(systemID string) (machine maas.Machine, ours bool) {
	if l, ok := v.looks[systemID]; ok {
		return l.machine, l.found && l.machine.Owner == v.account
	}
	m, ok := v.recent[systemID]
	if !ok {
		m, ok = v.listed[systemID]
	}
	return m, ok && m.Owner == v.account
}

// withoutLooks is the view that the list alone gives.
func (v *view) withoutLooks() *view {
	return &view{account: v.account, listed: v.listed, recent: v.recent}
}

// ids are the servers of which anything was read, in order.
func (v *view) ids() []string {
	ids := make([]string, 0, len(v.listed))
	for id := range v.listed {
		ids = append(ids, id)
	}
	for id := range v.recent {
		ids = append(ids, id)
	}
	for id := range v.looks {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}
