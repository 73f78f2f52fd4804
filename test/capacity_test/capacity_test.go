// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package capacity_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

func capacity(cpu, memory, disk string) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory), corev1.ResourceEphemeralStorage: resource.MustParse(disk),
	}
}

func big(id string) maassim.Machine {
	return maassim.Machine{SystemID: id, CPUCount: 64, MemoryMiB: 262144, StorageMB: 1920000}
}

// TestFloor follows the capacity of a template from its first day: until a Cluster owns it, over servers of several sizes, while they
// are claimed by its own account and by another one, and while MAAS does not answer.
func TestFloor(t *testing.T) {
	n := newTenant(t, "floor", big("flr001"), maassim.Machine{SystemID: "flr002"},
		maassim.Machine{SystemID: "flr003", IsDPU: true, CPUCount: 16, MemoryMiB: 16384, Parent: "flr001"},
		maassim.Machine{SystemID: "flr004", Status: maassim.AddAsNew, CPUCount: 2, MemoryMiB: 1024},
		maassim.Machine{SystemID: "flr005", CPUCount: 4, MemoryMiB: 4096, Architecture: "arm64"})
	template := n.template("workers", func(c *infrav1.MachineConstraints) { c.Architecture = "amd64" })
	n.says(template, infrav1.NoClusterReason, nil, "no Cluster owns the template")
	n.Expect(n.calls()).To(BeEmpty())

	n.own(template)
	n.says(template, infrav1.ReadyReason, capacity("16", "64Gi", "960G"), "cpu 16 to 64, memory 64Gi to 256Gi, disk 960G to 1920G")
	n.Expect(template.Status.NodeInfo).To(Equal(infrav1.NodeInfo{Architecture: "amd64", OperatingSystem: "linux"}))
	n.Expect(conditions.IsFalse(template, clusterv1.PausedCondition)).To(BeTrue())

	// In use by the same account, the small one is still the floor: it comes back. Somebody else's is not known.
	n.claim(t.Context(), "flr002")
	n.rack(maassim.Machine{SystemID: "flr006", CPUCount: 32, MemoryMiB: 262144, StorageMB: 480000})
	n.says(template, infrav1.ReadyReason, capacity("16", "64Gi", "480G"), "disk 480G to 1920G")
	n.rack(maassim.Machine{SystemID: "flr007", CPUCount: 8, Status: maassim.StatusDeployed, Owner: "floor"})
	n.says(template, infrav1.ReadyReason, capacity("8", "64Gi", "480G"), "cpu 8 to 64")
	identity := n.identity()
	n.Expect(world.admin.Get(t.Context(), client.ObjectKeyFromObject(identity), identity)).To(Succeed())
	identity.Status.Held = []infrav1.HeldServer{{SystemID: "flr007", Reason: infrav1.DetachUnprovenReason, Since: metav1.Now()}}
	n.Expect(world.admin.Status().Update(t.Context(), identity)).To(Succeed())
	n.says(template, infrav1.ReadyReason, capacity("16", "64Gi", "480G"), "")

	// MAAS does not list: what was said stays, and it is said that nobody knows.
	heal := world.region.Inject(maassim.Fault{Kind: maassim.FaultStatus, Operation: "list_machines", User: "floor", Status: 500, Body: "out of order"})
	n.says(template, infrav1.MaasUnreachableReason, capacity("16", "64Gi", "480G"), "")
	n.Expect(conditions.Get(template, infrav1.ReadyCondition).Status).To(Equal(metav1.ConditionUnknown))
	heal()
	n.says(template, infrav1.ReadyReason, capacity("16", "64Gi", "480G"), "")
}

// TestNothingMatches tells what can never match from what does not match now.
func TestNothingMatches(t *testing.T) {
	n := newTenant(t, "nothing", maassim.Machine{SystemID: "non001"})
	large := n.own(n.template("large", func(c *infrav1.MachineConstraints) { c.MinCPU = ptr.To[int32](32) }))
	tagged := n.own(n.template("tagged", func(c *infrav1.MachineConstraints) { c.Tags = []string{"nothing-gpu"} }))
	spared := n.own(n.template("spared", func(c *infrav1.MachineConstraints) { c.NotTags = []string{"nothing-old"} }))
	foreign := n.own(n.template("foreign", func(c *infrav1.MachineConstraints) { c.ResourcePool = "default" }))
	n.says(large, infrav1.NoServerMatchesReason, nil, "ask for less")
	n.says(tagged, infrav1.ConstraintsNeverMatchReason, nil, "MAAS does not know tag nothing-gpu")
	n.says(spared, infrav1.ConstraintsNeverMatchReason, nil, "MAAS does not know tag nothing-old")
	n.says(foreign, infrav1.ConstraintsNeverMatchReason, nil, "resourcePool default is one the identity may not use")

	world.region.AddTag("nothing-gpu")
	world.region.AddTag("nothing-old")
	n.says(tagged, infrav1.NoServerMatchesReason, nil, "")
	n.says(spared, infrav1.ReadyReason, capacity("16", "64Gi", "960G"), "")
	fast := big("non002")
	fast.Tags = []string{"nothing-gpu"}
	n.rack(fast)
	n.says(large, infrav1.ReadyReason, capacity("64", "256Gi", "1920G"), "")
	n.says(tagged, infrav1.ReadyReason, capacity("64", "256Gi", "1920G"), "")
}

func TestSeveralArchitectures(t *testing.T) {
	n := newTenant(t, "arches", big("arc001"), maassim.Machine{SystemID: "arc002", Architecture: "arm64"})
	template := n.own(n.template("workers", nil))
	n.says(template, infrav1.SeveralArchitecturesReason, capacity("16", "64Gi", "960G"), "amd64, arm64")
	n.Expect(template.Status.NodeInfo).To(Equal(infrav1.NodeInfo{OperatingSystem: "linux"}))
	arm := n.own(n.template("arm", func(c *infrav1.MachineConstraints) { c.Architecture = "arm64" }))
	n.says(arm, infrav1.ReadyReason, capacity("16", "64Gi", "960G"), "")
	n.Expect(arm.Status.NodeInfo.Architecture).To(Equal(infrav1.Architecture("arm64")))
}

// TestRights takes the identity from the namespace, and asks it for isolation that the template does not have.
func TestRights(t *testing.T) {
	n := newTenant(t, "rights", maassim.Machine{SystemID: "rig001"})
	template := n.own(n.template("workers", nil))
	whole := capacity("16", "64Gi", "960G")
	n.says(template, infrav1.ReadyReason, whole, "")
	identity := n.identity()
	n.change(identity, func() { identity.Spec.AllowedNamespaces.Names = []string{"others"} })
	n.says(template, infrav1.NamespaceNotAllowedReason, nil, "")
	n.Expect(template.Status.NodeInfo).To(BeZero())
	n.change(identity, func() { identity.Spec.AllowedNamespaces.Names = []string{n.name} })
	n.says(template, infrav1.ReadyReason, whole, "")
	n.change(identity, func() { identity.Spec.Isolation = infrav1.IsolationRequired })
	n.says(template, infrav1.IsolationRequiredReason, nil, "")
	n.change(identity, func() {
		identity.Spec.Isolation, identity.Spec.AllowedPools = infrav1.IsolationOptional, []string{"typo"}
	})
	n.says(template, infrav1.ConstraintsNeverMatchReason, nil, "allowedZones or allowedPools")
}

// TestPorts counts only servers whose DPUs can have the ports, also while they are in use.
func TestPorts(t *testing.T) {
	n := newTenant(t, "ports", big("prt001"), maassim.Machine{SystemID: "prt002"}, maassim.Machine{SystemID: "prt003", CPUCount: 8})
	port := func(pf int32) func(*infrav1.MachineConstraints) {
		return func(c *infrav1.MachineConstraints) {
			c.Ports = []infrav1.MachinePort{{Name: "tenant", PF: ptr.To(pf), Subnet: "nodes"}}
		}
	}
	template := n.own(n.template("workers", port(1)))
	none := n.own(n.template("none", port(7)))
	n.says(template, infrav1.NoServerMatchesReason, nil, "kubectl get dpuservers")
	n.dpuServer("prt001", infrav1.Eligible)
	sick := n.dpuServer("prt002", infrav1.Ineligible)
	n.says(template, infrav1.ReadyReason, capacity("64", "256Gi", "1920G"), "")
	sick.Status.Holder = &infrav1.DPUServerHolder{Namespace: n.name, Name: "a", TokenHash: "h"}
	n.Expect(world.admin.Status().Update(t.Context(), sick)).To(Succeed())
	n.says(template, infrav1.ReadyReason, capacity("16", "64Gi", "960G"), "")
	n.says(none, infrav1.NoServerMatchesReason, nil, "kubectl get dpuservers")
}

// TestPaused changes everything under a paused Cluster: nothing is written until it is unpaused.
func TestPaused(t *testing.T) {
	n := newTenant(t, "paused", maassim.Machine{SystemID: "pau001"})
	template := n.own(n.template("workers", nil))
	other := &clusterv1.Cluster{ObjectMeta: n.meta("paused-not"), Spec: n.cluster.Spec}
	n.create(other)
	awake := n.ownBy(other, n.template("awake", nil))
	n.says(template, infrav1.ReadyReason, capacity("16", "64Gi", "960G"), "")
	n.change(n.cluster, func() { n.cluster.Spec.Paused = ptr.To(true) })
	n.Eventually(func() bool {
		n.Expect(world.admin.Get(t.Context(), client.ObjectKeyFromObject(template), template)).To(Succeed())
		return conditions.IsTrue(template, clusterv1.PausedCondition)
	}).WithTimeout(patience).WithPolling(poll).Should(BeTrue())
	paused := template.ResourceVersion
	identity := n.identity()
	n.change(identity, func() { identity.Spec.AllowedNamespaces.Names = []string{"others"} })
	n.says(awake, infrav1.NamespaceNotAllowedReason, nil, "")
	n.rack(maassim.Machine{SystemID: "pau002", CPUCount: 2})
	n.change(identity, func() { identity.Spec.AllowedNamespaces.Names = []string{n.name} })
	n.says(awake, infrav1.ReadyReason, capacity("2", "64Gi", "960G"), "")
	n.Expect(world.admin.Get(t.Context(), client.ObjectKeyFromObject(template), template)).To(Succeed())
	n.Expect(template.ResourceVersion).To(Equal(paused), "written while paused")
	n.change(n.cluster, func() { n.cluster.Spec.Paused = nil })
	n.says(template, infrav1.ReadyReason, capacity("2", "64Gi", "960G"), "")
}

// TestCalls counts what many templates ask of MAAS, and what is written while nothing changes.
func TestCalls(t *testing.T) {
	const templates, rounds = 25, 6
	n := newTenant(t, "calls", big("cal001"), maassim.Machine{SystemID: "cal002"})
	began := time.Now()
	var all []*infrav1.MaasMachineTemplate
	for i := range templates {
		all = append(all, n.own(n.template("workers-"+string(rune('a'+i)), nil)))
	}
	versions := map[string]string{}
	for _, template := range all {
		n.says(template, infrav1.ReadyReason, capacity("16", "64Gi", "960G"), "")
		versions[template.Name] = template.ResourceVersion
	}
	lists := n.calls()["list_machines"]
	n.Eventually(func() int { return n.calls()["list_machines"] }).WithTimeout(patience).WithPolling(poll).Should(BeNumerically(">=", lists+rounds))
	calls := n.calls()
	elapsed := time.Since(began)
	t.Logf("%d templates, %s, %.1f rounds: %v", templates, elapsed.Round(time.Millisecond), elapsed.Seconds()/round.Seconds(), calls)
	// One list when it is nine tenths of a round old, and nothing else but the question whose key it is.
	n.Expect(calls["list_machines"]).To(BeNumerically("<=", 1+int(elapsed/(round*9/10))))
	delete(calls, "list_machines")
	n.Expect(calls).To(Equal(map[string]int{"whoami": 1}))
	for _, template := range all {
		n.Expect(world.admin.Get(t.Context(), client.ObjectKeyFromObject(template), template)).To(Succeed())
		n.Expect(template.ResourceVersion).To(Equal(versions[template.Name]), "nothing changed and yet it was written")
	}
}
