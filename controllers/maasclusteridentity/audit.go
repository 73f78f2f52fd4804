// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasclusteridentity

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

const (
	// defaultOrphanGrace is for how long MAAS and the machines must disagree before it is told.
	defaultOrphanGrace = 2 * time.Minute
	// allocationBound is after how long an allocation is not under way any more, whatever its machine says.
	allocationBound = 10 * time.Minute
)

// account is what is remembered of one identity's MAAS account. It may be lost: then questions are asked again, and what is no
// orphan yet waits for another grace. Only left is shared with others than the worker of the identity.
type account struct {
	mu sync.Mutex
	// left are the servers that machines let go since the last pass, and whether they may be held without being listed.
	left map[string]bool

	tried  tried
	looks  map[string]look
	doubts map[string]*doubt
}

// tried is when the account answered last, and to what question.
type tried struct {
	at          time.Time
	maas        scope.MAAS
	generation  int64
	annotations map[string]string
	zones       []string
}

// doubt is a disagreement that is to be seen twice.
type doubt struct {
	orphan infrav1.OrphanServer
	first  time.Time
	// cleared is when a look found nothing wrong although the list, which may be older, says so.
	cleared time.Time
}

// leave notes that a machine let a server go, which may be held: what is known of it no longer counts.
func (a *account) leave(systemID string, maybeHeld bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.left == nil {
		a.left = map[string]bool{}
	}
	a.left[systemID] = a.left[systemID] || maybeHeld
}

func (a *account) takeLeft() map[string]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	left := a.left
	a.left = nil
	return left
}

// audit compares what MAAS says of the account's servers with the machines, and asks MAAS once more about those in doubt.
func (r *Reconciler) audit(ctx context.Context, object *infrav1.MaasClusterIdentity, identity *scope.Identity, f *fleet, o *Observation) {
	kept := r.account(object.Name)
	v := r.read(ctx, identity, f, kept, o.Now)
	o.Audited, o.Servers = v.listed != nil, len(v.listed)
	known := object.Status.Orphans

	left := kept.takeLeft()
	wanted := kept.doubtsOfHeld(left, object.Status.Held, f, v)
	listed := disagreements(v.withoutLooks(), f)
	if o.Audited {
		wanted = append(wanted, kept.ripe(listed, known, o.Now, r.OrphanGrace, r.AuditInterval)...)
	}
	if err := kept.look(ctx, identity.MAAS, wanted, o.Now); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Cannot look at servers in doubt")
		o.Unanswered = true
		for id, maybeHeld := range left {
			kept.leave(id, maybeHeld)
		}
	}
	o.Held, o.Freed = heldServers(object.Status.Held, f, v, metav1.NewTime(o.Now))
	if !o.Audited {
		return
	}
	looked := disagreements(v, f)
	if err := kept.excuse(ctx, identity.MAAS, looked, f, r.OrphanGrace); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Cannot look for servers by the tokens of their machines")
		o.Unanswered = true
	}
	verdict := kept.confirm(listed, looked, known, f, o.Now, r.OrphanGrace)
	o.Orphans, o.Doubtful, o.Due = verdict.orphans, verdict.pending, verdict.due
}

// doubtsOfHeld are the servers to be looked at because they are held, or may be, and no machine says so. What was read of those
// that machines let go since no longer counts.
func (a *account) doubtsOfHeld(left map[string]bool, known []infrav1.HeldServer, f *fleet, v *view) []string {
	for id := range left {
		delete(a.looks, id)
	}
	ids := heldDoubts(known, f, v)
	for id, maybeHeld := range left {
		if server, _ := v.server(id); maybeHeld && f.holder(id, server) == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// read returns what MAAS said so far, looks of this round only: the next looks anew. Servers that are newer than the list, or held since, were read for their machines.
func (r *Reconciler) read(ctx context.Context, identity *scope.Identity, f *fleet, kept *account, now time.Time) *view {
	maps.DeleteFunc(kept.looks, func(_ string, l look) bool { return now.Sub(l.at) >= r.round()*9/10 })
	v := &view{account: identity.Account, looks: kept.looks, recent: map[string]maas.Machine{}}
	listed, err := identity.Readings.Owned(ctx, identity.Account, r.AuditInterval)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Cannot list the account's servers")
		listed = nil // What is known stays.
	}
	v.listed = listed
	for _, machine := range f.own {
		id := machine.Status.SystemID
		if _, ok := v.listed[id]; id == "" || ok && heldBy(machine) == "" {
			continue
		}
		if m, ok := identity.Readings.Recent(id, r.OrphanGrace); ok {
			v.recent[id] = m
		}
	}
	return v
}

// look reads servers by their IDs, in one question.
func (a *account) look(ctx context.Context, client scope.MAAS, ids []string, now time.Time) error {
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if len(ids) == 0 {
		return nil
	}
	machines, err := client.MachinesByID(ctx, ids...)
	if err != nil {
		return err
	}
	for _, id := range ids {
		a.looks[id] = look{at: now}
	}
	for i := range machines {
		a.looks[machines[i].SystemID] = look{machine: machines[i], found: true, at: now}
	}
	return nil
}

// ripe notes what the list disagrees about and returns the servers to be looked at: what disagrees since the grace, and what was
// reported, lest it be reported when it is over.
func (a *account) ripe(listed map[string]infrav1.OrphanServer, known []infrav1.OrphanServer, now time.Time, grace, interval time.Duration) []string {
	for _, orphan := range listed {
		a.note(orphan, now)
	}
	for _, orphan := range known {
		if d := a.note(orphan, now); orphan.Since.Time.Before(d.first) {
			d.first = orphan.Since.Time
		}
	}
	var ids []string
	for id, d := range a.doubts {
		seenTwice := d.first.Add(grace)
		if l, ok := a.looks[id]; ok && !l.at.Before(seenTwice) || now.Before(seenTwice) || now.Sub(d.cleared) < interval {
			continue
		}
		ids = append(ids, id)
	}
	return ids
}

// note returns the doubt about a server, a new one if another was had so far.
func (a *account) note(orphan infrav1.OrphanServer, now time.Time) *doubt {
	d, ok := a.doubts[orphan.SystemID]
	if !ok || !same(d.orphan, orphan) {
		d = &doubt{orphan: orphan, first: now}
		a.doubts[orphan.SystemID] = d
	}
	return d
}

func same(a, b infrav1.OrphanServer) bool { return a.Reason == b.Reason && a.Machine == b.Machine }

// verdict is what an audit found.
type verdict struct {
	orphans []infrav1.OrphanServer
	// pending says that something disagrees which was not seen twice, and due when it is to be looked at; zero: at the recheck.
	pending bool
	due     time.Time
}

// confirm returns the orphans: what was seen twice, the grace apart and the second time by a look at the server itself. What was
// reported stays until such a look.
func (a *account) confirm(listed, looked map[string]infrav1.OrphanServer, known []infrav1.OrphanServer, f *fleet, now time.Time, grace time.Duration) verdict {
	before := map[string]infrav1.OrphanServer{}
	for _, orphan := range known {
		before[orphan.SystemID] = orphan
	}
	for id, orphan := range looked {
		if _, reported := before[id]; !reported || a.looked(id) {
			a.note(orphan, now)
		}
	}
	result := verdict{}
	for id, d := range a.doubts {
		was, reported := before[id]
		_, still := looked[id]
		_, inList := listed[id]
		seenTwice := d.first.Add(grace)
		switch {
		case reported && (!a.looked(id) || still && same(was, d.orphan)):
			result.orphans = append(result.orphans, was)
		case still && a.looked(id) && !a.looks[id].at.Before(seenTwice) && !f.mayBeTaking(d.orphan, d.first, now):
			d.orphan.Since = metav1.NewTime(d.first)
			result.orphans = append(result.orphans, d.orphan)
		case still:
			result.pending = true
			if seenTwice.After(now) && (result.due.IsZero() || seenTwice.Before(result.due)) {
				result.due = seenTwice
			}
		case inList:
			d.cleared = a.looks[id].at
		default:
			delete(a.doubts, id)
		}
	}
	slices.SortFunc(result.orphans, func(a, b infrav1.OrphanServer) int { return cmp.Compare(a.SystemID, b.SystemID) })
	return result
}

func (a *account) looked(systemID string) bool {
	_, ok := a.looks[systemID]
	return ok
}

// mayBeTaking says that an unclaimed server may come from an allocation that was under way when it was seen first, and whose
// answer its machine still waits for.
func (f *fleet) mayBeTaking(orphan infrav1.OrphanServer, first, now time.Time) bool {
	return orphan.Reason == infrav1.OrphanUnclaimed && orphan.Machine == "" && slices.ContainsFunc(f.allocating, func(at time.Time) bool {
		return !at.After(first) && now.Sub(at) < allocationBound
	})
}

// excuse takes servers out of looked that carry no annotation and were allocated under the token of the machine that records
// them: it is about to annotate them. Only MAAS knows the token, and is asked for it only once they were seen twice. Without its
// answer they count as not looked at.
func (a *account) excuse(ctx context.Context, client scope.MAAS, looked map[string]infrav1.OrphanServer, f *fleet, grace time.Duration) error {
	var tokens, ids []string
	for id, orphan := range looked {
		d, l := a.doubts[id], a.looks[id]
		if orphan.Reason != infrav1.OrphanUnclaimed || orphan.Machine == "" || d == nil || l.at.Before(d.first.Add(grace)) {
			continue
		}
		ids = append(ids, id)
		for _, machine := range f.byServer[id] {
			tokens = append(tokens, machine.Spec.Claim.Token)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	found, err := client.MachinesByTokens(ctx, tokens...)
	for _, id := range ids {
		switch {
		case err != nil:
			delete(a.looks, id)
		case slices.ContainsFunc(found, func(m maas.Machine) bool { return m.SystemID == id }):
			delete(looked, id)
		}
	}
	return err
}
