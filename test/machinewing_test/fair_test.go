// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// fairPoll is so long that a busy machine does not make one who waits look as if it no longer did.
const fairPoll = 400 * time.Millisecond

// fairClusters are the clusters that wait for servers, by namespace, with how many machines each wants.
var fairClusters = []struct {
	namespace string
	machines  int
}{{"red", 6}, {"blue", 4}, {"green", 2}}

// TestFairness lets three clusters wait for servers that are freed one at a time: none gets its k+1st before the others that still
// wait got k. A machine that asks for what does not exist blocks nobody.
func TestFairness(t *testing.T) {
	t.Parallel()
	const servers = 12
	w := newStoppedWorld(t, options{servers: servers, ports: true, empty: true, poll: fairPoll})
	w.region.AddTag("gold")
	for i := range servers {
		w.take(serverID(i))
	}
	for _, c := range fairClusters {
		w.addCluster(c.namespace, c.namespace, "identity")
		for i := range c.machines {
			w.addMachine(c.namespace, c.namespace, fmt.Sprintf("%s-%d", c.namespace, i))
		}
	}
	// It waits first, and has fewer servers than anybody else for ever.
	w.addCluster("blue", "greedy", "identity")
	w.addMachine("blue", "greedy", "greedy-0", func(m *infrav1.MaasMachine) { m.Spec.Tags = []string{"gold"} })
	w.supervise()
	w.until(func() bool { return w.waiting() == servers+1 }, "everybody waits")
	for freed := range servers {
		w.free(serverID(freed))
		w.until(func() bool { return w.served() == freed+1 }, fmt.Sprintf("server %d of %d is given out", freed+1, servers))
		w.expectFair()
	}
	w.until(func() bool { return w.ready(infrav1.ReadyReason) == servers }, "all are up")
	w.Expect(conditions.GetReason(w.get("blue", "greedy-0"), infrav1.ReadyCondition)).To(Equal(infrav1.NoServerAvailableReason))
	for _, m := range w.machines() {
		w.removeMachine(&m)
	}
	w.until(func() bool { return len(w.machines()) == 0 }, "down")
	w.expectDown()
}

// waiting counts the machines that say that they wait for a server.
func (w *world) waiting() int {
	n := 0
	for _, m := range w.machines() {
		reason := conditions.GetReason(&m, infrav1.ServerClaimedCondition)
		if slices.Contains([]string{infrav1.NoServerAvailableReason, infrav1.WaitingForTurnReason}, reason) {
			n++
		}
	}
	return n
}

// held counts the servers each cluster has.
func (w *world) held() map[string]int {
	held := map[string]int{}
	for _, m := range w.machines() {
		if m.Status.SystemID != "" {
			held[m.Namespace]++
		}
	}
	return held
}

func (w *world) served() int {
	n := 0
	for _, of := range w.held() {
		n += of
	}
	return n
}

// expectFair expects that no cluster has more than one server more than another that still waits.
func (w *world) expectFair() {
	w.Helper()
	held := w.held()
	for _, poor := range fairClusters {
		if held[poor.namespace] == poor.machines {
			continue // It has all it wants.
		}
		for _, rich := range fairClusters {
			w.Expect(held[rich.namespace]).To(BeNumerically("<=", held[poor.namespace]+1),
				"%s has %d while %s waits with %d", rich.namespace, held[rich.namespace], poor.namespace, held[poor.namespace])
		}
	}
}

// TestFairnessAtOnce frees as many servers at once as clusters wait: each gets one.
func TestFairnessAtOnce(t *testing.T) {
	t.Parallel()
	w := newStoppedWorld(t, options{servers: 6, ports: true, empty: true, poll: fairPoll})
	for i := range 6 {
		w.take(serverID(i))
	}
	for _, c := range fairClusters {
		w.addCluster(c.namespace, c.namespace, "identity")
		for i := range 4 {
			w.addMachine(c.namespace, c.namespace, fmt.Sprintf("%s-%d", c.namespace, i))
		}
	}
	w.supervise()
	w.until(func() bool { return w.waiting() == 12 }, "everybody waits")
	for round := range 2 {
		for i := range fairClusters {
			w.free(serverID(round*len(fairClusters) + i))
		}
		w.until(func() bool { return w.served() == (round+1)*len(fairClusters) }, "all are given out")
		for _, c := range fairClusters {
			w.Expect(w.held()).To(HaveKeyWithValue(c.namespace, round+1))
		}
	}
	w.until(func() bool { return w.ready(infrav1.ReadyReason) == 6 }, "up")
	for _, m := range w.machines() {
		w.removeMachine(&m)
	}
	w.until(func() bool { return len(w.machines()) == 0 }, "down")
	w.expectDown()
}
