// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

const (
	// hungMachines are more than the controller has workers, and hungFor is how long each of their calls takes to fail.
	hungMachines = workers + workers/2
	hungFor      = 60 * time.Second
)

// TestHungMAAS lets the MAAS of one identity hang under machines that come and go: a machine of another identity comes and goes
// meanwhile as if nothing was, and those that hang say so and go on when MAAS answers again.
func TestHungMAAS(t *testing.T) {
	t.Parallel()
	w := newStoppedWorld(t, options{servers: 2, ports: true, empty: true, identity: func(i *infrav1.MaasClusterIdentity) {
		if i.Name == "hung" {
			seconds := ptr.To(int32(hungFor / time.Second))
			i.Spec.Deadlines = infrav1.Deadlines{CallSeconds: seconds, AllocateSeconds: seconds}
		}
	}})
	hung := newSite(t, options{servers: hungMachines}, "hng")
	w.addSite("hung", hung, "maas-b")
	w.addCluster(tenant, tenant, "identity")
	w.addCluster("blue", "blue", "hung")
	name := func(i int) string { return fmt.Sprintf("blue-%d", i) }
	for i := range hungMachines {
		w.addMachine("blue", "blue", name(i))
	}
	w.supervise()
	// Some are up, some on their way, when it begins to hang.
	w.until(func() bool { return w.ready(infrav1.ReadyReason) >= hungMachines/3 }, "some are up")
	answers := make(chan struct{})
	hangs := &fault{name: "hangs", hits: func(call) bool { return true }, happen: func(x *exchange) {
		select {
		case <-answers:
		case <-x.request.Context().Done():
		}
		x.cut()
	}}
	lift := hung.gate.add(hangs)
	for i := range hungMachines / 2 {
		w.removeMachine(w.get("blue", name(i)))
	}
	w.until(func() bool { return hung.gate.hitCount(hangs) > 0 }, "it hangs")

	for range 3 {
		start := time.Now()
		w.addMachine(tenant, tenant, machineName)
		w.live()
		w.Expect(time.Since(start)).To(BeNumerically("<", hungFor/4), "a life beside a MAAS that hangs")
		w.removeOwner(tenant, machineName)
	}
	lift()
	close(answers)
	w.until(func() bool { return len(w.machines()) == hungMachines-hungMachines/2 }, "those deleted are gone")
	w.until(func() bool { return w.ready(infrav1.ReadyReason) == len(w.machines()) }, "the others are up")
	for _, m := range w.machines() {
		w.Expect(conditions.IsTrue(&m, infrav1.ReadyCondition)).To(BeTrue())
		w.removeMachine(&m)
	}
	w.until(func() bool { return len(w.machines()) == 0 }, "down")
	w.Expect(hung.owned(account)).To(BeEmpty())
}
