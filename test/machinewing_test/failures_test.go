// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

// failDeploys lets the next deployments fail, on any server or on one.
func (w *world) failDeploys(count int, systemID string) (mend func()) {
	return w.region.Inject(maassim.Fault{Kind: maassim.FaultDeployFails, Operation: "deploy", Count: count, SystemID: systemID})
}

// TestFailedDeployment tries another server, and avoids the first.
func TestFailedDeployment(t *testing.T) {
	t.Parallel()
	w := newStoppedWorld(t, withPorts())
	w.failDeploys(1, "")
	w.supervise()
	w.until(w.provisioned, "up")
	w.Expect(w.machine().Status.AvoidedServers).To(HaveLen(1))
	failed := w.machine().Status.AvoidedServers[0].SystemID
	w.Expect(w.machine().Status.SystemID).NotTo(Equal(failed))
	w.Expect(w.showed("Deployed="+infrav1.DeployRetryingReason)).To(BeTrue(), "it says that another is tried")
	w.Expect(w.server(failed).Dirty).To(BeFalse(), "a failed deployment is erased")
	w.until(func() bool {
		return slices.ContainsFunc(w.identity("identity").Status.Suspects, func(s infrav1.SuspectServer) bool {
			return s.SystemID == failed && slices.Equal(s.Machines, []string{tenant + "/" + machineName})
		})
	}, "the server is suspected")
	w.live()
}

// TestTwoFailedDeployments gives the machine up: nothing more is tried until somebody replaces it.
func TestTwoFailedDeployments(t *testing.T) {
	t.Parallel()
	w := newStoppedWorld(t, options{servers: 4, ports: true})
	w.failDeploys(2, "")
	w.supervise()
	w.until(w.says(infrav1.ReadyCondition, infrav1.DeployFailedReason), "given up")
	w.Expect(conditions.IsFalse(w.machine(), infrav1.ReadyCondition)).To(BeTrue(), "Ready is False, which a MachineHealthCheck is told to list")
	w.Expect(w.machine().Status.AvoidedServers).To(HaveLen(2))
	w.Expect(w.machine().Spec.ProviderID).To(BeEmpty())
	w.quiet()
	w.Expect(w.count(account, "deploy")).To(Equal(2))
	w.remove()
	w.until(w.gone, "down")
	w.expectDown()
	// Who replaces it gets a good one.
	w.addMachine(tenant, tenant, "replacement")
	w.until(func() bool { return provisioned(w.get(tenant, "replacement")) }, "up")
	w.removeMachine(w.get(tenant, "replacement"))
	w.until(func() bool { return len(w.machines()) == 0 }, "down")
	w.expectDown()
}

// TestDeploymentTakesTooLong gives a deployment up that MAAS does not end.
func TestDeploymentTakesTooLong(t *testing.T) {
	t.Parallel()
	w := newStoppedWorld(t, options{servers: 2, ports: true, identity: func(i *infrav1.MaasClusterIdentity) {
		i.Spec.Deadlines.DeploySeconds = ptr.To[int32](4)
	}})
	w.region.Inject(maassim.Fault{Kind: maassim.FaultDeployHangs, Operation: "deploy", Count: 1})
	w.supervise()
	w.until(w.provisioned, "up on another")
	w.Expect(w.machine().Status.AvoidedServers).To(ConsistOf(HaveField("Reason", infrav1.DeployTimedOutReason)))
	w.live()
}

// TestSuspectServer lets deployments of two machines fail on one server: it is held, off, annotated and listed, nobody gets it
// again, and it is no longer held once an operator has released it.
func TestSuspectServer(t *testing.T) {
	t.Parallel()
	w := newStoppedWorld(t, options{servers: 3, ports: true, empty: true})
	bad := serverID(0)
	w.failDeploys(0, bad)
	w.addCluster(tenant, tenant, "identity")
	// The bad server is the only one there is until both have failed on it.
	w.take(serverID(1))
	w.take(serverID(2))
	for _, name := range []string{"first", "second"} {
		w.addMachine(tenant, tenant, name)
	}
	w.supervise()
	held := func() *infrav1.HeldServer {
		for _, s := range w.identity("identity").Status.Held {
			if s.SystemID == bad {
				return &s
			}
		}
		return nil
	}
	w.until(func() bool { h := held(); return h != nil && h.Reason == infrav1.ServerSuspectReason }, "held")
	w.until(func() bool {
		s := w.server(bad)
		return s.Annotations[maas.AnnotationHold] == infrav1.ServerSuspectReason && !s.PoweredOn && s.Owner == account
	}, "off, allocated, annotated")
	w.Expect(w.identity("identity").Status.Suspects).To(ConsistOf(And(HaveField("SystemID", bad), HaveField("Machines", HaveLen(2)))))
	w.free(serverID(1))
	w.free(serverID(2))
	w.until(func() bool { return w.ready(infrav1.ReadyReason) == 2 }, "both are up on others")
	w.Expect(w.deployments()[bad]).To(Equal(2), "nobody tried it again")

	for _, m := range w.machines() {
		w.removeMachine(&m)
	}
	w.until(func() bool { return len(w.machines()) == 0 }, "down")
	w.Expect(w.server(bad).Owner).To(Equal(account), "it stays allocated without any machine")
	w.Expect(held()).NotTo(BeNil())
	w.Expect(w.as("admin").Release(w.Context(), bad, maas.ReleaseRequest{Erase: maas.EraseQuick})).To(Succeed())
	w.until(func() bool { w.look(); return held() == nil }, "no longer held")
	w.expectDown()
}

// look lets the identity be looked at at once, where it would be a minute later.
func (w *world) look() {
	w.Helper()
	w.changeIdentity(func(i *infrav1.MaasClusterIdentity) {
		i.Labels = map[string]string{"looked-at": fmt.Sprint(time.Now().UnixNano())}
	})
}

// TestCircuitBreaker holds three servers within the hour: no new claims, what runs goes on and goes down, and it closes when they
// are released.
func TestCircuitBreaker(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 6, ports: true})
	for i := range 3 {
		w.addMachine(tenant, tenant, fmt.Sprintf("unproven-%d", i))
	}
	w.until(func() bool { return w.ready(infrav1.ReadyReason) == 4 }, "four are up")
	w.fabric.tell(func(f *fabric) { f.unproven = true })
	for i := range 3 {
		w.Expect(w.identitySays(infrav1.ClaimsAdmittedCondition, infrav1.ClaimsAdmittedReason)()).To(BeTrue(), "after %d", i)
		w.removeMachine(w.get(tenant, fmt.Sprintf("unproven-%d", i)))
		w.until(func() bool { return len(w.identity("identity").Status.Held) == i+1 }, "held")
	}
	w.until(w.identitySays(infrav1.ClaimsAdmittedCondition, infrav1.CircuitBreakerOpenReason), "open")
	w.Expect(ptr.Deref(w.identity("identity").Status.Breaker.Open, false)).To(BeTrue())
	w.until(func() bool {
		off := 0
		for _, s := range w.owned(account) {
			if s.Annotations[maas.AnnotationHold] != "" && !s.PoweredOn {
				off++
			}
		}
		return off == 3
	}, "all three are off and annotated")
	allocations := w.count(account, "allocate")
	w.addMachine(tenant, tenant, "late")
	late := func() *infrav1.MaasMachine { return w.get(tenant, "late") }
	w.until(func() bool {
		return conditions.GetReason(late(), infrav1.ReadyCondition) == infrav1.CircuitBreakerOpenReason
	}, "a new machine waits and says why")
	w.quiet()
	w.Expect(w.count(account, "allocate")).To(Equal(allocations))
	w.Expect(w.provisioned()).To(BeTrue(), "what runs goes on")

	w.fabric.tell(func(f *fabric) { f.unproven = false })
	w.until(func() bool { return len(w.machines()) == 2 }, "the held ones go once the proof is there")
	w.until(w.identitySays(infrav1.ClaimsAdmittedCondition, infrav1.ClaimsAdmittedReason), "closed")
	w.until(func() bool { return provisioned(late()) }, "the new machine is up")
	w.removeMachine(late())
	w.until(func() bool { return late() == nil }, "down")
	w.live()
}
