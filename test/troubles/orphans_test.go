// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package troubles

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/checker"
)

// The account is used by hand, which the package's checker would take for the wing's doing.
var orphanYard = yard{name: "orphans", servers: 3, unchecked: true}

// testOrphans has people use the wing's account: one takes a server by hand, another releases a machine's server in MAAS, which
// somebody else then takes. Both are told of; nobody touches either server.
func testOrphans(t *testing.T) {
	n := orphanYard.open(t, nil, orphanYard.name)[0]
	identity := orphanYard.identity()
	kept, robbed := n.createMachine("kept"), n.createMachine("robbed")
	kept.waitUpPlain()
	robbed.waitUpPlain()
	expectWithin(t, auditWithin, identity, yes(infrav1.AccountedCondition))

	byHand, account := orphanYard.free(t)[0], maasClient(t, orphanYard.key())
	if _, err := account.Allocate(suite, "by-hand", maas.Constraints{SystemIDs: []string{byHand}}, ""); err != nil {
		t.Fatal(err)
	}
	taken := len(world.MAAS.Journal())
	unclaimed := infrav1.OrphanServer{SystemID: byHand, Reason: infrav1.OrphanUnclaimed}
	expectOrphans(t, identity, unclaimed)
	lost := robbed.now().Status.SystemID
	steal(t, lost)
	stolen := len(world.MAAS.Journal())
	expect(t, robbed.object(), no(infrav1.ServerClaimedCondition, infrav1.ServerLostReason))
	expect(t, robbed.object(), no(infrav1.ReadyCondition, infrav1.ServerLostReason))
	expectOrphans(t, identity, unclaimed, infrav1.OrphanServer{SystemID: lost, Reason: infrav1.OrphanServerGone, Machine: orphanYard.name + "/robbed"})
	expect(t, kept.object(), yes(infrav1.ReadyCondition))

	// What the machine lost is not its own to give back.
	robbed.ask()
	robbed.waitDown(upWithin)
	for id, since := range map[string]int{byHand: taken, lost: stolen} {
		for _, e := range world.MAAS.JournalSince(since) {
			if e.SystemID == id && e.User == orphanYard.name {
				t.Errorf("%s was sent to server %s, which is somebody else's", e.Operation, id)
			}
		}
	}
	if err := account.Release(suite, byHand, maas.ReleaseRequest{Erase: maas.EraseNone}); err != nil {
		t.Fatal(err)
	}
	expectWithin(t, auditWithin, identity, yes(infrav1.AccountedCondition))
	if why := listsOrphans(identity); why != "" {
		t.Error(why)
	}
	kept.down()
	orphanYard.check(t, byHand)
}

// steal releases a server behind its machine's back and lets somebody else have it until the test's end.
func steal(t *testing.T, systemID string) {
	t.Helper()
	if err := maasClient(t, adminKey).Release(suite, systemID, maas.ReleaseRequest{Erase: maas.EraseNone, Comment: "by mistake"}); err != nil {
		t.Fatal(err)
	}
	thief := maasClient(t, strangerKey)
	eventually(t, soon, "somebody else takes server "+systemID, func(ctx context.Context) string {
		if _, err := thief.Allocate(ctx, "elsewhere", maas.Constraints{SystemIDs: []string{systemID}}, ""); err != nil {
			return err.Error()
		}
		return ""
	})
	t.Cleanup(func() {
		if err := thief.Release(suite, systemID, maas.ReleaseRequest{Erase: maas.EraseNone}); err != nil {
			t.Error(err)
		}
	})
}

// expectOrphans waits until the identity lists these orphans, says so, and has told of each in an event.
func expectOrphans(t *testing.T, identity *infrav1.MaasClusterIdentity, want ...infrav1.OrphanServer) {
	t.Helper()
	eventually(t, auditWithin, "the audit finds what people did", func(context.Context) string { return listsOrphans(identity, want...) })
	expect(t, identity, no(infrav1.AccountedCondition, infrav1.OrphansFoundReason))
	for _, orphan := range want {
		expectEvent(t, "MaasClusterIdentity", identity.Name, infrav1.OrphansFoundReason, orphan.SystemID)
	}
}

// auditWithin is for the audit, which TestMain lets run often, to find what is wrong twice.
const auditWithin = 60 * time.Second

// listsOrphans says what is wrong with the list of orphans; empty if it has these and no others.
func listsOrphans(identity *infrav1.MaasClusterIdentity, want ...infrav1.OrphanServer) string {
	if err := world.Operator.Get(suite, client.ObjectKeyFromObject(identity), identity); err != nil {
		return err.Error()
	}
	listed := slices.Clone(identity.Status.Orphans)
	for i := range listed {
		listed[i].Since.Reset()
	}
	byID := func(a, b infrav1.OrphanServer) int { return strings.Compare(a.SystemID, b.SystemID) }
	slices.SortFunc(listed, byID)
	slices.SortFunc(want, byID)
	if !slices.Equal(listed, want) {
		return fmt.Sprintf("identity %s lists the orphans %v, want %v", identity.Name, listed, want)
	}
	return ""
}

// expectEvent waits for an event about an object that tells of something.
func expectEvent(t *testing.T, kind, name, reason string, tells ...string) {
	t.Helper()
	eventually(t, soon, fmt.Sprintf("an event %s tells of %q", reason, tells), func(ctx context.Context) string {
		list := &eventsv1.EventList{}
		if err := world.Operator.List(ctx, list); err != nil {
			return err.Error()
		}
		var told []string
		for _, e := range list.Items {
			if e.Regarding.Kind != kind || e.Regarding.Name != name {
				continue
			}
			if e.Reason == reason && !slices.ContainsFunc(tells, func(part string) bool { return !strings.Contains(e.Note, part) }) {
				return ""
			}
			told = append(told, e.Reason+": "+e.Note)
		}
		return fmt.Sprintf("its events are %q", told)
	})
}

// check holds this account too against the invariants, but for servers that people used by hand.
func (y yard) check(t *testing.T, byHand ...string) {
	t.Helper()
	also := *world.Checker
	also.MAAS, also.Inventory.Accounts = withoutServers{also.MAAS, byHand}, append(slices.Clone(also.Inventory.Accounts), y.name)
	without, with := world.Checker.Check(), also.Check()
	if !with.Holds() {
		t.Errorf("invariants are broken:\n%s", with)
	}
	if with.Observations["I5"] <= without.Observations["I5"] {
		t.Errorf("nothing of the account %s was held against the invariants", y.name)
	}
}

// withoutServers is a MAAS some of whose servers nobody looks at.
type withoutServers struct {
	checker.MAAS
	left []string
}

func (w withoutServers) Machines() []checker.Machine {
	return slices.DeleteFunc(w.MAAS.Machines(), func(m checker.Machine) bool { return slices.Contains(w.left, m.SystemID) })
}

func (w withoutServers) Effects() []checker.Effect {
	return slices.DeleteFunc(w.MAAS.Effects(), func(e checker.Effect) bool { return slices.Contains(w.left, e.SystemID) })
}
