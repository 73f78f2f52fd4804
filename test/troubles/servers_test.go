// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package troubles

import (
	"context"
	"crypto/rand"
	"slices"
	"testing"
	"time"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const (
	nsBadServers = "bad-servers"
	nsPlain      = "plain"

	stranger    = "stranger"
	strangerKey = "strangeconsumer:strangetoken:strangesecret"
)

// TestBadServers leaves only the servers free that nobody must use: a machine with ports waits, one without takes the server
// without DPU and no other.
func TestBadServers(t *testing.T) {
	begin(t)
	giveBack := occupyGoodServers(t)
	n := newReadyTenant(t, nsBadServers)
	m := n.createMachine("m", port(subnet))
	expect(t, m.object(), no(infrav1.ServerClaimedCondition, infrav1.NoServerAvailableReason, "no server is free that fits", "1 DPU port(s)"))

	identity := newIdentity("plain")
	identity.Spec.Isolation = infrav1.IsolationOptional
	identity.Spec.AllowedNamespaces = &infrav1.AllowedNamespaces{Names: []string{nsPlain}}
	create(t, identity)
	plain := newTenant(t, nsPlain)
	plain.createCluster("plain", "")
	first := plain.createMachine("first")
	expectWithin(t, upWithin, first.object(), yes(infrav1.ReadyCondition))
	expect(t, first.object(), no(infrav1.IsolatedCondition, infrav1.AttachmentNotRequestedReason, "nothing isolates it"))
	for _, s := range world.Servers {
		taken := slices.Contains(first.holding(), s.SystemID)
		if without := s.DPU.Name == ""; taken != without {
			t.Errorf("server %s (%s): taken by a machine without ports = %t, want %t", s.SystemID, s.Trouble, taken, without)
		}
	}
	second := plain.createMachine("second")
	expect(t, second.object(), no(infrav1.ServerClaimedCondition, infrav1.NoServerAvailableReason, "no server is free"))
	holds(t, 3*time.Second, "bad servers are left alone", func(context.Context) string {
		for _, bad := range []*machine{m, second} {
			if taken := effects(bad.tenant.name, bad.name, "allocate"); len(taken) > 0 {
				return "server " + taken[0].SystemID + " was taken for " + bad.name
			}
		}
		return ""
	})
	second.down()
	first.down()

	giveBack()
	m.waitUp()
	m.down()
}

// occupyGoodServers lets another account of MAAS take every good server.
func occupyGoodServers(t *testing.T) (giveBack func()) {
	t.Helper()
	other := maasClient(t, strangerKey)
	token, err := maas.NewToken(rand.Reader, "elsewhere", "else")
	if err != nil {
		t.Fatal(err)
	}
	var taken []string
	giveBack = func() {
		for _, systemID := range taken {
			if err := other.Release(suite, systemID, maas.ReleaseRequest{Erase: maas.EraseNone}); err != nil {
				t.Errorf("give back %s: %v", systemID, err)
			}
		}
		taken = nil
	}
	t.Cleanup(func() { giveBack() })
	eventually(t, soon, "every good server is taken by somebody else", func(ctx context.Context) string {
		for _, s := range world.Servers {
			if !s.Good() || slices.Contains(taken, s.SystemID) {
				continue
			}
			if _, err := other.Allocate(ctx, token, maas.Constraints{SystemIDs: []string{s.SystemID}}, ""); err != nil {
				return s.SystemID + ": " + err.Error()
			}
			taken = append(taken, s.SystemID)
		}
		return ""
	})
	for _, s := range world.MAAS.Machines() {
		if s.Status == maassim.StatusReady && slices.Contains(taken, s.SystemID) {
			t.Fatalf("server %s is still free", s.SystemID)
		}
	}
	return giveBack
}
