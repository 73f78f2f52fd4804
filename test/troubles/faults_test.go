// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package troubles

import (
	"context"
	"slices"
	"testing"
	"time"

	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/demo"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const (
	nsAllocateDropped  = "allocate-dropped"
	nsAllocateLate     = "allocate-late"
	nsAllocateConflict = "allocate-conflict"
	nsReleaseDropped   = "release-dropped"
	nsHang             = "hang"
	nsBeside           = "beside-hang"
	nsEraseFails       = "erase-fails"
)

// TestFaults lets calls of MAAS and parts of DPF fail under single machines: one server a machine, no server given back too early,
// and nobody else delayed.
func TestFaults(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"MAAS: allocation's answer lost":         testAllocateDropped,
		"MAAS: allocation takes effect late":     testAllocateLate,
		"MAAS: allocation conflicts":             testAllocateConflict,
		"MAAS: release conflicts, answer lost":   testReleaseDropped,
		"MAAS: calls of one machine hang":        testHang,
		"MAAS: erasing fails":                    testEraseFails,
		"DPF: agent down at detachment":          testAgentDown,
		"DPF: another VPC claims the node":       testVPCClaim,
		"DPF: DPU relabelled":                    testUnplugged,
		"a machine wing that forges attachments": testForger,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begin(t)
			test(t)
		})
	}
}

// answers counts how calls of one operation on the machine's claim ended; 0 is an answer that never came.
func (m *machine) answers(operation string) map[int]int {
	counts := map[int]int{}
	for _, c := range world.MAAS.Calls() {
		if c.Operation == operation && maas.Token(c.AgentName).Fits(m.tenant.name, m.name) {
			counts[c.Code] += c.Count
		}
	}
	return counts
}

// once holds that an operation took effect exactly once in the machine's life.
func (m *machine) once(operations ...string) {
	m.Helper()
	for _, operation := range operations {
		if n := len(effects(m.tenant.name, m.name, operation)); n != 1 {
			m.Errorf("%s took effect %d times for %s/%s, want once", operation, n, m.tenant.name, m.name)
		}
	}
}

func testAllocateDropped(t *testing.T) {
	n := newReadyTenant(t, nsAllocateDropped)
	m := n.up("m", maassim.Fault{Kind: maassim.FaultDropReply, Operation: "allocate", Count: 1})
	if got := m.answers("allocate"); got[0] != 1 {
		t.Errorf("allocations ended as %v, want one without an answer", got)
	}
	m.down()
	m.once("allocate", "deploy", "release")
}

// testAllocateLate cuts the connection at once; MAAS takes the server seconds later.
func testAllocateLate(t *testing.T) {
	n := newReadyTenant(t, nsAllocateLate)
	claiming.Lock()
	remove := world.MAAS.Inject(maassim.Fault{Kind: maassim.FaultLateCommit, Operation: "allocate", Count: 1, Delay: 4 * time.Second})
	m := n.createMachine("m", port(subnet))
	func() {
		defer claiming.Unlock()
		defer remove()
		expect(t, m.object(), no(infrav1.ServerClaimedCondition, infrav1.AllocateOutcomeUnknownReason, "the answer to an allocation was lost: MAAS is searched"))
		if taken := effects(n.name, "m", "allocate"); len(taken) > 0 {
			t.Error("the allocation was not late")
		}
		m.waitClaimed()
	}()
	m.waitUp()
	m.down()
	m.once("allocate", "deploy", "release")
}

// testAllocateConflict answers as MAAS' database does under load: 409, HTML, Retry-After.
func testAllocateConflict(t *testing.T) {
	n := newReadyTenant(t, nsAllocateConflict)
	m := n.up("m", maassim.Fault{Kind: maassim.FaultConflict, Operation: "allocate", Count: 2})
	if got := m.answers("allocate"); got[409] != 2 {
		t.Errorf("allocations ended as %v, want two conflicts", got)
	}
	m.down()
	m.once("allocate", "deploy", "release")
}

func testReleaseDropped(t *testing.T) {
	n := newReadyTenant(t, nsReleaseDropped)
	m := n.up("m")
	systemID := m.now().Status.SystemID
	before := releases(systemID)
	defer world.MAAS.Inject(maassim.Fault{Kind: maassim.FaultConflict, Operation: "release", SystemID: systemID, Count: 1})()
	defer world.MAAS.Inject(maassim.Fault{Kind: maassim.FaultDropReply, Operation: "release", SystemID: systemID, Count: 1})()
	m.down()
	if after := releases(systemID); after[409]-before[409] != 1 || after[0]-before[0] != 1 {
		t.Errorf("releases ended as %v, before as %v: want a conflict and an answer lost", after, before)
	}
	m.once("allocate", "deploy", "release")
}

// releases counts how releases of a server ended, whosoever it was.
func releases(systemID string) map[int]int {
	counts := map[int]int{}
	for _, c := range world.MAAS.Calls() {
		if c.Operation == "release" && c.SystemID == systemID {
			counts[c.Code] += c.Count
		}
	}
	return counts
}

// testHang lets every call that names one server hang; another machine comes and goes meanwhile.
func testHang(t *testing.T) {
	n, beside := newReadyTenant(t, nsHang), newReadyTenant(t, nsBeside)
	stuck := n.claim("stuck")
	remove := world.MAAS.Inject(maassim.Fault{Kind: maassim.FaultHang, SystemID: stuck.now().Status.SystemID})
	defer remove()
	free := beside.up("free")
	free.down()
	if conditions.IsTrue(stuck.now(), infrav1.ReadyCondition) {
		t.Error("the machine is Ready although each call that names its server hangs")
	}
	if len(effects(nsHang, "stuck", "deploy")) > 0 {
		t.Error("the machine was deployed although each call that names its server hangs")
	}
	remove()
	// Where the deployment was among the calls that hang, it is not sent again before the first can no longer take effect.
	stuck.waitUpWithin(orderWithin)
	stuck.down()
}

// testEraseFails holds a server whose disks may still have the tenant's data, until the operator has them erased.
func testEraseFails(t *testing.T) {
	n := newReadyTenant(t, nsEraseFails)
	m := n.up("m")
	systemID := m.now().Status.SystemID
	heal := world.MAAS.Inject(maassim.Fault{Kind: maassim.FaultEraseFails, Operation: "release", SystemID: systemID})
	defer heal()
	m.ask()
	expectWithin(t, upWithin, m.object(), no(infrav1.ReleasedCondition, infrav1.HeldReason, "server "+systemID+" is held", "failed to erase", "released with erase"))
	m.expectHeld(systemID)
	if s := server(t, systemID); !s.Dirty || s.PoweredOn {
		t.Errorf("the held server is dirty=%t, on=%t; want it dirty and off", s.Dirty, s.PoweredOn)
	}
	heal()
	if err := maasClient(t, adminKey).Release(suite, systemID, maas.ReleaseRequest{Erase: maas.EraseQuick, Comment: "the disk is replaced"}); err != nil {
		t.Fatal(err)
	}
	m.waitDown(upWithin)
	notHeld(t, systemID)
}

// expectHeld waits until the server is held as promised: still ours, off, marked in MAAS, and listed by the identity.
func (m *machine) expectHeld(systemID string) {
	m.Helper()
	eventually(m.T, soon, "server "+systemID+" is held", func(ctx context.Context) string {
		s := server(m.T, systemID)
		if s.Owner != demo.Account || s.PoweredOn || s.Annotations[maas.AnnotationHold] == "" {
			return "it is not allocated, off and marked in MAAS: " + s.StatusName
		}
		entry, listed := heldEntry(ctx, systemID)
		if !listed || entry.Machine != m.tenant.name+"/"+m.name {
			return "the identity does not list it under its machine"
		}
		return ""
	})
}

func notHeld(t *testing.T, systemID string) {
	t.Helper()
	eventually(t, upWithin, "server "+systemID+" is held no more", func(ctx context.Context) string {
		if _, listed := heldEntry(ctx, systemID); listed {
			return "the identity still lists it"
		}
		return ""
	})
}

func heldEntry(ctx context.Context, systemID string) (infrav1.HeldServer, bool) {
	identity := &infrav1.MaasClusterIdentity{}
	if err := world.Operator.Get(ctx, client.ObjectKey{Name: demo.Identity}, identity); err != nil {
		return infrav1.HeldServer{}, false
	}
	i := slices.IndexFunc(identity.Status.Held, func(h infrav1.HeldServer) bool { return h.SystemID == systemID })
	if i < 0 {
		return infrav1.HeldServer{}, false
	}
	return identity.Status.Held[i], true
}

// maasClient is somebody else who uses the lab's MAAS.
func maasClient(t *testing.T, key string) *maas.Client {
	t.Helper()
	identity := &infrav1.MaasClusterIdentity{}
	if err := world.Operator.Get(suite, client.ObjectKey{Name: demo.Identity}, identity); err != nil {
		t.Fatal(err)
	}
	c, err := maas.New(maas.Config{Endpoint: identity.Spec.Endpoint, CABundle: identity.Spec.CABundle, APIKey: maas.NewAPIKey(key)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}
