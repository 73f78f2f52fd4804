// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"slices"
	"testing"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// suspects lists failed deployments and held servers in the identity, as its controller does.
func (s *scene) suspects() {
	s.Helper()
	list := &infrav1.MaasMachineList{}
	s.Expect(s.objects.List(s.Context(), list)).To(Succeed())
	s.identity(func(status *infrav1.MaasClusterIdentityStatus) {
		for i := range list.Items {
			m := &list.Items[i]
			id, name := m.Status.SystemID, client.ObjectKeyFromObject(m).String()
			if slices.ContainsFunc(m.Status.AvoidedServers, func(a infrav1.AvoidedServer) bool { return a.SystemID == id }) {
				listSuspect(status, id, name)
			}
			if conditions.GetReason(m, infrav1.ReleasedCondition) == infrav1.ServerSuspectReason {
				listHeld(status, id)
			}
		}
	})
}

func listSuspect(status *infrav1.MaasClusterIdentityStatus, id, machine string) {
	i := slices.IndexFunc(status.Suspects, func(s infrav1.SuspectServer) bool { return s.SystemID == id })
	if i < 0 {
		i = len(status.Suspects)
		status.Suspects = append(status.Suspects, infrav1.SuspectServer{SystemID: id})
	}
	if !slices.Contains(status.Suspects[i].Machines, machine) {
		status.Suspects[i].Machines = append(status.Suspects[i].Machines, machine)
	}
}

func listHeld(status *infrav1.MaasClusterIdentityStatus, id string) {
	if !slices.ContainsFunc(status.Held, func(h infrav1.HeldServer) bool { return h.SystemID == id }) {
		status.Held = append(status.Held, infrav1.HeldServer{SystemID: id, Reason: infrav1.ServerSuspectReason})
	}
}

// fails brings a machine to a failed deployment on the only free server.
func (s *scene) fails(name, id string) {
	s.Helper()
	s.until(name, func(m *infrav1.MaasMachine) bool { return s.region.servers[id].Status == maas.StatusDeploying })
	s.deployed(maas.StatusFailedDeployment)
}

func TestAFailureIsListedBeforeTheServerGoesBack(t *testing.T) {
	s := newScene(t, "a", "b")
	s.add("m")
	s.fails("m", "a")
	s.until("m", shows(infrav1.ReleasedCondition, infrav1.RecordingSuspicionReason))
	for range 5 {
		s.step("m")
	}
	s.Expect(s.get("m").Status.AvoidedServers).To(HaveLen(1))
	s.Expect(s.region.count("release")).To(BeZero())
	s.suspects()
	s.up("m")
	s.Expect(s.get("m").Status.SystemID).To(Equal("b"))
	s.Expect(s.region.servers["a"].Status).To(Equal(maas.StatusReady))
	s.Expect(s.region.calls).To(ContainElement("release Quick"), "with erase")
}

// TestAFailureIsRecordedThoughTheMachineIsDeleted: else the next machine gets the server as if nothing had happened.
func TestAFailureIsRecordedThoughTheMachineIsDeleted(t *testing.T) {
	s := newScene(t, "a")
	s.add("m")
	s.fails("m", "a")
	s.remove("m")
	s.until("m", shows(infrav1.ReleasedCondition, infrav1.RecordingSuspicionReason))
	s.Expect(s.get("m").Status.AvoidedServers).To(HaveLen(1))
	s.suspects()
	s.down("m")
	s.Expect(s.region.servers["a"].Status).To(Equal(maas.StatusReady))
}

// suspectScene has a server on which a machine failed that is gone by now.
func suspectScene(t *testing.T, ids ...string) *scene {
	s := newScene(t, ids...)
	s.identity(func(status *infrav1.MaasClusterIdentityStatus) { listSuspect(status, "a", "red/gone") })
	return s
}

func TestTheSecondMachineLeavesASuspectServerHeld(t *testing.T) {
	s := suspectScene(t, "a")
	s.add("m")
	s.fails("m", "a")
	s.until("m", func(*infrav1.MaasMachine) bool {
		s.suspects()
		return s.region.servers["a"].Annotations[maas.AnnotationHold] == infrav1.ServerSuspectReason
	})
	s.identity(func(status *infrav1.MaasClusterIdentityStatus) { status.Held = nil })
	for range 5 {
		s.step("m")
	}
	m := s.get("m")
	s.Expect(m.Status.SystemID).To(Equal("a"), "nobody lets go of what is not listed")
	s.Expect(m).To(sayFalse(infrav1.ReleasedCondition, infrav1.ServerSuspectReason))
	s.suspects()
	s.until("m", func(m *infrav1.MaasMachine) bool { return m.Status.SystemID == "" })

	server := s.region.servers["a"]
	s.Expect(server.Owner).To(Equal(account), "the server stays allocated")
	s.Expect(server.PowerState).To(Equal(maas.PowerOff))
	s.Expect(s.region.count("release")).To(BeZero())
	attachments := &infrav1.DPUAttachmentList{}
	s.Expect(s.objects.List(s.Context(), attachments)).To(Succeed())
	s.Expect(attachments.Items).To(BeEmpty())

	s.region.servers["b"] = newRegion("b").servers["b"]
	s.Expect(s.objects.Create(s.Context(), s.manifests([]string{"b"})[5])).To(Succeed())
	s.restart()
	s.up("m")
	s.Expect(s.get("m").Status.SystemID).To(Equal("b"), "the held server is not taken in again")
	s.remove("m")
	s.down("m")
	s.Expect(server.Owner).To(Equal(account))
	s.Expect(s.region.servers["b"].Owner).To(BeEmpty())
}

// TestAMovedMachineKnowsTheServerItLetGo: only MAAS and the identity remember once the status is lost.
func TestAMovedMachineKnowsTheServerItLetGo(t *testing.T) {
	for name, listed := range map[string]bool{"listed": true, "not listed": false} {
		t.Run(name, func(t *testing.T) {
			s := suspectScene(t, "a")
			s.add("m")
			s.fails("m", "a")
			s.until("m", func(m *infrav1.MaasMachine) bool { s.suspects(); return m.Status.SystemID == "" })
			if !listed {
				s.identity(func(status *infrav1.MaasClusterIdentityStatus) { status.Held = nil })
			}
			m := s.get("m")
			m.Status = infrav1.MaasMachineStatus{}
			s.Expect(s.objects.Status().Update(s.Context(), m)).To(Succeed())
			s.restart()
			for range 60 {
				s.step("m")
				if !listed && s.get("m").Status.SystemID == "a" {
					return // Nobody else answers for it.
				}
				s.Expect(s.get("m").Status.SystemID).To(BeEmpty())
			}
			s.Expect(listed).To(BeTrue(), "a held server that nobody lists is taken in again")
			s.remove("m")
			s.down("m")
			s.Expect(s.region.servers["a"].Owner).To(Equal(account))
		})
	}
}

func TestDeletedWithASuspectServer(t *testing.T) {
	s := suspectScene(t, "a")
	s.add("m")
	s.fails("m", "a")
	s.remove("m")
	s.until("m", func(m *infrav1.MaasMachine) bool { s.suspects(); return m == nil })
	s.Expect(s.region.servers["a"].Owner).To(Equal(account))
	s.Expect(s.region.servers["a"].Annotations).To(HaveKeyWithValue(maas.AnnotationHold, infrav1.ServerSuspectReason))
	s.Expect(s.region.count("release")).To(BeZero())
	s.Expect(s.told()).To(ContainElement(HavePrefix("Warning ServerSuspect Server a stays allocated")))
}

func TestSuspectServersAreTriedLast(t *testing.T) {
	for name, ports := range map[string]bool{"ports": true, "plain": false} {
		t.Run(name, func(t *testing.T) {
			s := suspectScene(t, "a", "b")
			s.ports = ports
			s.add("first")
			s.up("first")
			s.Expect(s.get("first").Status.SystemID).To(Equal("b"))
			s.add("second")
			s.up("second")
			s.Expect(s.get("second").Status.SystemID).To(Equal("a"), "better than none")
		})
	}
}

// TestOpenlySuspectServersAndDPUsAreTriedLast: where the fabric says nothing of its servers.
func TestOpenlySuspectServersAndDPUsAreTriedLast(t *testing.T) {
	s := suspectScene(t, "a", "dpu", "x")
	s.region.servers["dpu"].IsDPU = true
	s.hideServers()
	s.add("first")
	s.up("first")
	s.Expect(s.get("first").Status.SystemID).To(Equal("x"))
	s.Expect(s.region.count("allocate")).To(Equal(1), "a DPU is not even asked for")
}
