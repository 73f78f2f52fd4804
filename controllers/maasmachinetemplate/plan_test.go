// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachinetemplate

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// server is one of 32 CPUs, 128 GiB and a disk of 960 GB, in use.
func server(id string, change ...func(*maas.Machine)) maas.Machine {
	m := maas.Machine{
		SystemID: id, Status: maas.StatusDeployed, Zone: "z1", Pool: "gold", Tags: []string{"bf3"}, Architecture: "amd64/generic",
		CPUCount: 32, MemoryMiB: 131072, BootDiskBytes: 960_000_000_000, LargestDiskBytes: 960_000_000_000,
	}
	for _, c := range change {
		c(&m)
	}
	return m
}

func small(m *maas.Machine) {
	m.CPUCount, m.MemoryMiB, m.BootDiskBytes = 16, 262144, 480_000_000_000
}

func arm(m *maas.Machine) { m.Architecture = "arm64/generic" }

func in(status maas.Status) func(*maas.Machine) { return func(m *maas.Machine) { m.Status = status } }

// dpuServer has one DPU with the functions 0 and 1.
func dpuServer(id string, eligibility infrav1.Eligibility, holder bool) *infrav1.DPUServer {
	s := &infrav1.DPUServer{Spec: infrav1.DPUServerSpec{Source: "a", SystemID: id}}
	s.Status.Eligibility = eligibility
	s.Status.DPUs = []infrav1.BoundDPU{{DPUDevice: "d", Ports: []infrav1.DPUServerPort{{PF: ptr.To[int32](0)}, {PF: ptr.To[int32](1)}}}}
	if holder {
		s.Status.Holder = &infrav1.DPUServerHolder{Namespace: "red", Name: "a"}
	}
	return s
}

// seen has a template without ports, and servers that match it.
func seen(servers ...maas.Machine) Observation {
	return Observation{Owned: true, Spec: &infrav1.MachineConstraints{Image: "ubuntu/noble"}, Servers: servers}
}

func with(o Observation, change func(*Observation)) Observation {
	change(&o)
	return o
}

// ported asks for a function of a DPU.
func ported(o Observation, pf int32, servers ...*infrav1.DPUServer) Observation {
	o.Spec.Ports = []infrav1.MachinePort{{Name: "a", PF: ptr.To(pf), Subnet: "blue"}}
	o.DPUServers = map[string]*infrav1.DPUServer{}
	for _, s := range servers {
		o.DPUServers[s.Spec.SystemID] = s
	}
	return o
}

func capacity(cpu, memory, disk string) corev1.ResourceList {
	list := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	if disk != "" {
		list[corev1.ResourceEphemeralStorage] = resource.MustParse(disk)
	}
	return list
}

func TestCapacity(t *testing.T) {
	whole := capacity("32", "128Gi", "960G")
	cases := map[string]struct {
		o            Observation
		capacity     corev1.ResourceList
		architecture infrav1.Architecture
		reason       string
		message      string
	}{
		"one server":         {seen(server("a")), whole, "amd64", infrav1.ReadyReason, ""},
		"servers alike":      {seen(server("a"), server("b")), whole, "amd64", infrav1.ReadyReason, ""},
		"the least of each":  {seen(server("a"), server("b", small)), capacity("16", "128Gi", "480G"), "amd64", infrav1.ReadyReason, "cpu 16 to 32, memory 128Gi to 256Gi, disk 480G to 960G"},
		"in memory":          {with(seen(server("a")), func(o *Observation) { o.Spec.DeployInMemory = ptr.To(true) }), capacity("32", "128Gi", ""), "amd64", infrav1.ReadyReason, ""},
		"boot disk unknown":  {seen(server("a"), server("b", func(m *maas.Machine) { m.BootDiskBytes = 0 })), capacity("32", "128Gi", ""), "amd64", infrav1.ReadyReason, ""},
		"arm64":              {seen(server("a", arm)), whole, "arm64", infrav1.ReadyReason, ""},
		"POWER":              {seen(server("a", func(m *maas.Machine) { m.Architecture = "ppc64el/generic" })), whole, "ppc64le", infrav1.ReadyReason, ""},
		"architectures":      {seen(server("a", arm), server("b")), whole, "", infrav1.SeveralArchitecturesReason, "(amd64, arm64): name one"},
		"architecture named": {with(seen(server("a", arm, small), server("b")), func(o *Observation) { o.Constraints.Architecture = "amd64" }), whole, "amd64", infrav1.ReadyReason, ""},
		"what does not match does not count": {with(seen(server("a", small), server("b")), func(o *Observation) { o.Constraints.MinCPU = 32 }),
			whole, "amd64", infrav1.ReadyReason, ""},
		"a DPU is no server": {seen(server("a"), server("b", small, arm, func(m *maas.Machine) { m.IsDPU = true }), server("c", small, func(m *maas.Machine) { m.ParentSystemID = "a" })),
			whole, "amd64", infrav1.ReadyReason, ""},
		"not commissioned": {seen(server("a"), server("b", func(m *maas.Machine) { m.CPUCount = 0 }), server("c", func(m *maas.Machine) { m.MemoryMiB = 0 })),
			whole, "amd64", infrav1.ReadyReason, ""},
		"locked":                          {seen(server("a"), server("b", small, func(m *maas.Machine) { m.Locked = true })), whole, "amd64", infrav1.ReadyReason, ""},
		"held":                            {with(seen(server("a"), server("b", small)), func(o *Observation) { o.Held = map[string]bool{"b": true} }), whole, "amd64", infrav1.ReadyReason, ""},
		"no server":                       {seen(), nil, "", infrav1.NoServerMatchesReason, "meets the constraints: ask for less"},
		"no server meets the constraints": {with(seen(server("a")), func(o *Observation) { o.Constraints.MinCPU = 64 }), nil, "", infrav1.NoServerMatchesReason, "ask for less"},
		"none in service":                 {seen(server("a", in(maas.StatusBroken))), nil, "", infrav1.NoServerMatchesReason, "broken, failed, locked or held"},
		"port on an eligible server":      {ported(seen(server("a"), server("b", small)), 1, dpuServer("a", infrav1.Eligible, false)), whole, "amd64", infrav1.ReadyReason, ""},
		"port on one in use":              {ported(seen(server("a")), 1, dpuServer("a", infrav1.Ineligible, true)), whole, "amd64", infrav1.ReadyReason, ""},
		"port on one not known":           {ported(seen(server("a")), 1, dpuServer("a", infrav1.EligibilityUnknown, false)), whole, "amd64", infrav1.ReadyReason, ""},
		"port, DPU not working":           {ported(seen(server("a")), 1, dpuServer("a", infrav1.Ineligible, false)), nil, "", infrav1.NoServerMatchesReason, "kubectl get dpuservers"},
		"port no DPU has":                 {ported(seen(server("a")), 2, dpuServer("a", infrav1.Eligible, false)), nil, "", infrav1.NoServerMatchesReason, "kubectl get dpuservers"},
		"port, the fabric is not told":    {with(ported(seen(server("a")), 1), func(o *Observation) { o.DPUServers = nil }), whole, "amd64", infrav1.ReadyReason, ""},
		"no port, a server without DPUs":  {with(ported(seen(server("a")), 1), func(o *Observation) { o.Spec.Ports = nil }), whole, "amd64", infrav1.ReadyReason, ""},
		"no port, DPU not working":        {with(ported(seen(server("a")), 1, dpuServer("a", infrav1.Ineligible, false)), func(o *Observation) { o.Spec.Ports = nil }), nil, "", infrav1.NoServerMatchesReason, "dpuservers"},
		"unknown tag": {with(seen(server("a")), func(o *Observation) {
			o.Constraints.Tags = []string{"gpu"}
			o.Names = &scope.Names{Tags: []string{"bf3"}}
		}), nil, "", infrav1.ConstraintsNeverMatchReason, "MAAS does not know tag gpu"},
		"unknown tag that is not wanted": {with(seen(server("a")), func(o *Observation) { o.Constraints.NotTags = []string{"old"}; o.Names = &scope.Names{} }), nil, "", infrav1.ConstraintsNeverMatchReason, "MAAS does not know tag old"},
		"known tag that no server has": {with(seen(server("a")), func(o *Observation) {
			o.Constraints.Tags = []string{"gpu"}
			o.Names = &scope.Names{Tags: []string{"gpu"}}
		}), nil, "", infrav1.NoServerMatchesReason, "ask for less"},
		"unknown zone and pool": {with(seen(server("a")), func(o *Observation) {
			o.Constraints.Zones, o.Constraints.Pool = []string{"z1", "z9"}, "lead"
			o.Names = &scope.Names{Zones: []string{"z1"}}
		}), nil, "", infrav1.ConstraintsNeverMatchReason, "zone z9, resource pool lead"},
		"no machine can be made at all":    {with(seen(server("a")), func(o *Observation) { o.Obstacle = &Problem{infrav1.NamespaceNotAllowedReason, "not here"} }), nil, "", infrav1.NamespaceNotAllowedReason, "not here"},
		"an obstacle comes before a doubt": {with(seen(), func(o *Observation) { o.Obstacle, o.Doubt = &Problem{Reason: "Never"}, &Problem{Reason: "Perhaps"} }), nil, "", "Never", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			step := decide(&c.o)
			if step.Keep || !equality.Semantic.DeepEqual(step.Capacity, c.capacity) {
				t.Errorf("capacity %v, want %v", step.Capacity, c.capacity)
			}
			if step.Ready.Reason != c.reason || !strings.Contains(step.Ready.Message, c.message) || (c.message == "" && step.Ready.Message != "") {
				t.Errorf("says %+v, want %s: %s", step.Ready, c.reason, c.message)
			}
			if (step.Ready.Status == metav1.ConditionTrue) != (c.reason == infrav1.ReadyReason) {
				t.Errorf("status %s for %s", step.Ready.Status, c.reason)
			}
			want := infrav1.NodeInfo{}
			if c.capacity != nil {
				want = infrav1.NodeInfo{Architecture: c.architecture, OperatingSystem: "linux"}
			}
			if step.NodeInfo != want {
				t.Errorf("node info %+v, want %+v", step.NodeInfo, want)
			}
			if step.Soon != (c.reason == infrav1.NoServerMatchesReason) {
				t.Errorf("soon is %v for %s", step.Soon, c.reason)
			}
		})
	}
}

// TestStates says of each of MAAS' states whether a server in it is given to a machine sooner or later.
func TestStates(t *testing.T) {
	never := map[maas.Status]bool{
		maas.StatusNew: true, maas.StatusCommissioning: true, maas.StatusFailedCommissioning: true, maas.StatusMissing: true,
		maas.StatusRetired: true, maas.StatusBroken: true, maas.StatusFailedTesting: true, maas.StatusFailedReleasing: true,
		maas.StatusFailedDiskErasing: true, maas.StatusFailedEnteringRescue: true, maas.StatusFailedExitingRescue: true,
	}
	for status := maas.StatusNew; status <= maas.StatusFailedTesting; status++ {
		if m := server("a", in(status)); comesBack(&m) == never[status] {
			t.Errorf("%s: %v", status, comesBack(&m))
		}
	}
	if m := server("a", in(maas.StatusFailedTesting+1)); comesBack(&m) {
		t.Error("a server in a state nobody knows counts")
	}
}

func TestUnknownChangesNothing(t *testing.T) {
	for name, o := range map[string]Observation{
		"no Cluster": with(seen(server("a", small)), func(o *Observation) { o.Owned = false }),
		"MAAS away":  with(seen(), func(o *Observation) { o.Doubt = &Problem{infrav1.MaasUnreachableReason, "away"} }),
	} {
		t.Run(name, func(t *testing.T) {
			template := &infrav1.MaasMachineTemplate{}
			known := seen(server("a"))
			first := decide(&known)
			report(template, &first)
			before := template.Status.DeepCopy()
			next := decide(&o)
			report(template, &next)
			if !equality.Semantic.DeepEqual(template.Status.Capacity, before.Capacity) || template.Status.NodeInfo != before.NodeInfo {
				t.Errorf("the status is now %+v", template.Status)
			}
			if ready := conditions.Get(template, infrav1.ReadyCondition); ready.Status != metav1.ConditionUnknown {
				t.Errorf("Ready is %+v", ready)
			}
		})
	}
}

func TestNamesSeen(t *testing.T) {
	servers := []maas.Machine{server("a"), server("b", func(m *maas.Machine) { m.Zone, m.Tags = "z2", []string{"old"} })}
	for name, c := range map[string]struct {
		constraints maas.Constraints
		want        bool
	}{
		"nothing asked":    {maas.Constraints{}, true},
		"all on servers":   {maas.Constraints{Zones: []string{"z1", "z2"}, Pool: "gold", Tags: []string{"bf3"}, NotTags: []string{"old"}}, true},
		"zone on none":     {maas.Constraints{Zones: []string{"z1", "z3"}}, false},
		"pool on none":     {maas.Constraints{Pools: []string{"lead"}}, false},
		"tag on none":      {maas.Constraints{Tags: []string{"gpu"}}, false},
		"not tags on none": {maas.Constraints{NotTags: []string{"gpu"}}, false},
	} {
		if got := namesSeen(&c.constraints, servers); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestNoIsNotKept(t *testing.T) {
	template := &infrav1.MaasMachineTemplate{}
	for _, o := range []Observation{seen(server("a")), seen()} {
		step := decide(&o)
		report(template, &step)
	}
	if template.Status.Capacity != nil || template.Status.NodeInfo != (infrav1.NodeInfo{}) {
		t.Errorf("the status still is %+v", template.Status)
	}
}
