// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package troubles

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/demo"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const secondReplica = demo.MachineWing + "-2"

var replicaYard = yard{name: "replicas", servers: 6}

// TestReplicas runs the machine wing twice and pulls the plug of the leader in the middle of a scale-up, with the answer to an
// allocation lost: the other takes over, and every machine gets one server.
func TestReplicas(t *testing.T) {
	begin(t)
	n := replicaYard.open(t, nil, replicaYard.name)[0]
	before := leader(t)
	second, err := world.StartReplica(suite, demo.MachineWing, secondReplica)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if wings.stopped(demo.MachineWing) {
			wings.start(t, demo.MachineWing)
		}
		stopping, cancel := context.WithTimeout(context.WithoutCancel(suite), stopTimeout)
		defer cancel()
		if err := errors.Join(world.RouteWebhooks(stopping, demo.MachineWing, demo.MachineWing), second.Stop(stopping)); err != nil {
			t.Error(err)
		}
	})
	// Of a Service's Pods only the one that is left answers soon.
	if err := world.RouteWebhooks(suite, demo.MachineWing, secondReplica); err != nil {
		t.Fatal(err)
	}
	workers := n.createDeployment("workers", 1)
	n.waitReady(1)
	if now := leader(t); now != before {
		t.Fatalf("the lease went from %s to %s while both lived", before, now)
	}

	defer world.MAAS.Inject(maassim.Fault{Kind: maassim.FaultDropReply, User: replicaYard.name, Operation: "allocate", Skip: 1, Count: 1})()
	scale(t, workers, 5)
	when(t, "three servers are taken", func() bool { return len(effectsOf(replicaYard.name, "allocate")) >= 3 })
	wings.stop(t, demo.MachineWing)
	killed := time.Now()
	eventually(t, soon, "the other takes the lease", func(context.Context) string {
		if now := leader(t); now == before || now == "" {
			return "it is still of " + before
		}
		return ""
	})
	t.Logf("the lease was taken over after %s", time.Since(killed).Round(100*time.Millisecond))
	// An allocation that was under way may have been lost before MAAS took notice: it is not sent again before it can no longer appear.
	n.waitReadyWithin(orderWithin, 5)
	servers := map[string]bool{}
	for _, e := range effectsOf(replicaYard.name, "allocate") {
		servers[e.SystemID] = true
	}
	if allocated := len(effectsOf(replicaYard.name, "allocate")); allocated != 5 || len(servers) != 5 {
		t.Errorf("%d allocations took %d servers for 5 machines", allocated, len(servers))
	}
	if deployed := len(effectsOf(replicaYard.name, "deploy")); deployed != 5 {
		t.Errorf("5 machines were deployed %d times", deployed)
	}

	// The first comes back as the one that waits.
	after := leader(t)
	wings.start(t, demo.MachineWing)
	scale(t, workers, 0)
	n.waitReady(0)
	if now := leader(t); now != after {
		t.Errorf("the lease went from %s to %s while both lived", after, now)
	}
	if left := replicaYard.free(t); len(left) != replicaYard.servers {
		t.Errorf("of %d servers %v are free", replicaYard.servers, left)
	}
}

// leader is who holds the machine wing's lease.
func leader(t *testing.T) string {
	t.Helper()
	list := &coordinationv1.LeaseList{}
	if err := world.Operator.List(suite, list, client.InNamespace(demo.MachineNamespace)); err != nil {
		t.Fatal(err)
	}
	for _, lease := range list.Items {
		if strings.HasPrefix(lease.Name, "controller-leader-election-") {
			return ptr.Deref(lease.Spec.HolderIdentity, "")
		}
	}
	t.Fatalf("%s has no lease for leader election", demo.MachineNamespace)
	return ""
}
