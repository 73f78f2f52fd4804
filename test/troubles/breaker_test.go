// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package troubles

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

var breakerYard = yard{name: "breaker", servers: 5}

// testBreaker has three servers held, which is as many as open the circuit breaker: new machines wait, running ones go on, and
// the operator who releases a held server closes it again.
func testBreaker(t *testing.T) {
	n := breakerYard.open(t, nil, breakerYard.name)[0]
	identity := breakerYard.identity()
	expect(t, identity, yes(infrav1.ClaimsAdmittedCondition))
	keep, bad := n.createMachine("keep"), []*machine{n.createMachine("bad-1"), n.createMachine("bad-2"), n.createMachine("bad-3")}
	keep.waitUpPlain()
	var held []string
	for _, m := range bad {
		m.waitUpPlain()
		systemID := m.now().Status.SystemID
		defer world.MAAS.Inject(maassim.Fault{Kind: maassim.FaultEraseFails, User: breakerYard.name, Operation: "release", SystemID: systemID})()
		held = append(held, systemID)
	}
	for i, m := range bad {
		m.ask()
		expectWithin(t, upWithin, m.object(), no(infrav1.ReleasedCondition, infrav1.HeldReason, "server "+held[i]+" is held", "failed to erase"))
		if i == 1 {
			eventually(t, soon, "two servers are held", func(context.Context) string { return listsHeld(identity, held[:2]...) })
			expect(t, identity, yes(infrav1.ClaimsAdmittedCondition))
		}
	}
	expect(t, identity, no(infrav1.ClaimsAdmittedCondition, infrav1.CircuitBreakerOpenReason))
	if why := listsHeld(identity, held...); why != "" {
		t.Error(why)
	}
	expect(t, identity, yes(infrav1.ReadyCondition))

	waiting := n.createMachine("waiting")
	expect(t, waiting.object(), no(infrav1.ServerClaimedCondition, infrav1.CircuitBreakerOpenReason))
	server := keep.now().Status.SystemID
	before := len(world.MAAS.Journal())
	holds(t, 3*time.Second, "nothing happens while the breaker is open", func(context.Context) string {
		for _, e := range world.MAAS.JournalSince(before) {
			if e.User == breakerYard.name && (e.SystemID == server || e.Operation == "allocate") {
				return e.Operation + " of server " + e.SystemID
			}
		}
		return ""
	})
	expect(t, keep.object(), yes(infrav1.ReadyCondition))

	// Of the three, one looked at is enough: two are fewer than open it.
	releaseErased(t, held[0])
	expect(t, identity, yes(infrav1.ClaimsAdmittedCondition))
	waiting.waitUpPlain()
	bad[0].waitDown(upWithin)
	if why := listsHeld(identity, held[1:]...); why != "" {
		t.Error(why)
	}
	for i := range bad[1:] {
		releaseErased(t, held[i+1])
		bad[i+1].waitDown(upWithin)
	}
	keep.once("allocate", "deploy")
	waiting.once("allocate", "deploy")
}

// releaseErased is what an operator does who has looked at a held server.
func releaseErased(t *testing.T, systemID string) {
	t.Helper()
	admin := maasClient(t, adminKey)
	eventually(t, soon, "an operator releases server "+systemID, func(ctx context.Context) string {
		// The wing may be trying it itself just then.
		if err := admin.Release(ctx, systemID, maas.ReleaseRequest{Erase: maas.EraseQuick, Comment: "looked at"}); err != nil {
			return err.Error()
		}
		return ""
	})
}

// listsHeld says what is wrong with the list of held servers; empty if it has these and no others.
func listsHeld(identity *infrav1.MaasClusterIdentity, want ...string) string {
	if err := world.Operator.Get(suite, client.ObjectKeyFromObject(identity), identity); err != nil {
		return err.Error()
	}
	var listed []string
	for _, server := range identity.Status.Held {
		listed = append(listed, server.SystemID)
	}
	slices.Sort(listed)
	if !slices.Equal(listed, slices.Sorted(slices.Values(want))) {
		return fmt.Sprintf("identity %s lists %v as held, want %v", identity.Name, listed, want)
	}
	return ""
}
