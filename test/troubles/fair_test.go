// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package troubles

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const (
	nsFairRed  = "fair-red"
	nsFairBlue = "fair-blue"

	// noticed is how long a freed server may stay free while machines wait: two poll intervals, and what a busy machine adds.
	noticed = 2*time.Second + 3*time.Second
)

var fairYard = yard{name: "fair", servers: 6}

// testFair lets a tenant who has two servers and wants six meet one who has none and wants three, while nothing is free. Then
// servers come back one by one: the second catches up before the first gets more, after that nobody gets ahead; those who wait say
// so, and nobody notices late.
func testFair(t *testing.T) {
	tenants := fairYard.open(t, nil, nsFairRed, nsFairBlue)
	red, blue, ids := tenants[0], tenants[1], fairYard.systemIDs()
	thief := maasClient(t, strangerKey)
	for _, id := range ids[2:] {
		if _, err := thief.Allocate(suite, "elsewhere", maas.Constraints{SystemIDs: []string{id}}, ""); err != nil {
			t.Fatal(err)
		}
	}
	red.createDeployment("workers", 6)
	red.waitReadyOf(2, 6)
	red.waitWaiting(4)
	workers := blue.createDeployment("workers", 3)
	blue.waitWaiting(3)
	for i, want := range []struct{ atLeast, atMost int }{{2, 2}, {2, 2}, {2, 3}, {3, 3}} {
		id := ids[2+i]
		if err := thief.Release(suite, id, maas.ReleaseRequest{Erase: maas.EraseNone}); err != nil {
			t.Fatal(err)
		}
		eventually(t, soon, "server "+id+" is taken", func(context.Context) string {
			if s := server(t, id); s.Owner != fairYard.name {
				return "it is " + s.StatusName
			}
			return ""
		})
		if has := red.servers(); has < want.atLeast || has > want.atMost {
			t.Errorf("with %d servers back, red has %d and blue %d", i+1, has, blue.servers())
		}
	}
	red.waitReadyOf(3, 6)
	blue.waitReady(3)
	red.waitWaiting(3)

	// What one tenant gives back is taken by the other, who still waits.
	scale(t, workers, 1)
	blue.waitReady(1)
	red.waitReadyOf(5, 6)
	takenInTime(t)
}

// servers is how many the tenant's machines hold in MAAS.
func (n *tenant) servers() int {
	n.Helper()
	count, machines := 0, n.machines(suite)
	for _, s := range world.MAAS.Machines() {
		if slices.ContainsFunc(machines, func(m infrav1.MaasMachine) bool { return maas.Token(s.Claim).Fits(m.Namespace, m.Name) }) {
			count++
		}
	}
	return count
}

func (n *tenant) waitReadyOf(ready, all int) {
	n.Helper()
	eventually(n.T, upWithin, fmt.Sprintf("%d of %d machines of %s are Ready", ready, all, n.name), func(ctx context.Context) string {
		list := &infrav1.MaasMachineList{Items: n.machines(ctx)}
		if got := len(n.ready(ctx)); got != ready || len(list.Items) != all {
			return fmt.Sprintf("%d of %d are: %s", got, len(list.Items), say(list))
		}
		return ""
	})
}

// waitWaiting waits until so many machines say that they wait for a server, in a way that no MachineHealthCheck takes for broken.
func (n *tenant) waitWaiting(count int) {
	n.Helper()
	eventually(n.T, soon, fmt.Sprintf("%d machines of %s wait", count, n.name), func(ctx context.Context) string {
		list, waiting := &infrav1.MaasMachineList{Items: n.machines(ctx)}, 0
		for i := range list.Items {
			m := &list.Items[i]
			switch conditions.GetReason(m, infrav1.ServerClaimedCondition) {
			case infrav1.NoServerAvailableReason, infrav1.WaitingForTurnReason:
				if conditions.IsUnknown(m, infrav1.ReadyCondition) {
					waiting++
				}
			}
		}
		if waiting != count {
			return fmt.Sprintf("%d do: %s", waiting, say(list))
		}
		return ""
	})
}

// takenInTime holds that no server of the yard stayed free for long while machines waited.
func takenInTime(t *testing.T) {
	t.Helper()
	freed := map[string]time.Time{}
	for _, e := range world.MAAS.Journal() {
		if e.To == maassim.StatusReady && e.From != maassim.StatusReady {
			freed[e.SystemID] = e.Time
		}
		since, known := freed[e.SystemID]
		if e.Operation != "allocate" || e.User != fairYard.name || !known {
			continue
		}
		if took := e.Time.Sub(since); took > noticed {
			t.Errorf("server %s was free for %s while machines waited", e.SystemID, took)
		} else {
			t.Logf("server %s was free for %s", e.SystemID, took)
		}
	}
}
