// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

var changes = []string{"allocate", "annotate", "deploy", "power off", "release"}

// TestCallsOfOneLife: each change once, and two reads of its own, before the power-off and before the release. The rest is shared
// with other machines.
func TestCallsOfOneLife(t *testing.T) {
	s := newScene(t, "a")
	s.add("m")
	s.up("m")
	s.Expect(s.get("m").Status.LastAllocateTime).To(BeNil(), "the allocation was answered")
	s.remove("m")
	s.down("m")
	for _, change := range changes {
		s.Expect(s.region.count(change)).To(Equal(1), change)
	}
	s.Expect(s.region.count("read")).To(Equal(2), "before the power-off and before the release")
	s.Expect(s.region.count("list by token")).To(BeZero(), "what the answer said is not asked again")
	s.Expect(s.region.count("list by tokens")).To(Equal(1))
	s.Expect(s.region.servers["a"].Status).To(Equal(maas.StatusReady))
	s.Expect(s.region.calls).To(ContainElement("release Quick"))
}

// TestARestartAsksByToken: what the process knew of its own allocation is not believed by the next.
func TestARestartAsksByToken(t *testing.T) {
	s := newScene(t, "a")
	s.add("m")
	s.until("m", func(m *infrav1.MaasMachine) bool { return m.Status.SystemID != "" })
	s.restart()
	s.step("m")
	s.Expect(s.region.count("list by token")).To(Equal(1))
	s.Expect(s.region.servers["a"].Annotations).To(HaveKey(maas.AnnotationToken))
}

// TestNothingIsAskedAfterTheLastTry: after the last try nobody polls.
func TestNothingIsAskedAfterTheLastTry(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	s.add("m")
	s.until("m", func(m *infrav1.MaasMachine) bool {
		s.deployed(maas.StatusFailedDeployment)
		s.suspects()
		return shows(infrav1.ReadyCondition, infrav1.DeployFailedReason)(m)
	})
	m := s.get("m")
	s.Expect(m.Status.AvoidedServers).To(HaveLen(2))
	for _, condition := range []string{infrav1.ServerClaimedCondition, infrav1.DeployedCondition, infrav1.ReadyCondition} {
		s.Expect(m).To(sayFalse(condition, infrav1.DeployFailedReason))
	}
	calls := len(s.region.calls)
	s.Expect(s.step("m").RequeueAfter).To(BeZero())
	s.Expect(s.region.calls).To(HaveLen(calls))
	s.Expect(slices.DeleteFunc(s.told(), func(e string) bool { return e != "Warning DeployFailed deployment failed on 2 servers" })).To(HaveLen(1))
}

// TestNothingIsWrittenWhileAMachineIsMade: Cluster API would give it up for another.
func TestNothingIsWrittenWhileAMachineIsMade(t *testing.T) {
	s := newScene(t, "a")
	var owners []metav1.OwnerReference
	s.add("m", func(m *infrav1.MaasMachine) {
		owners, m.OwnerReferences = m.OwnerReferences, nil
		m.CreationTimestamp = metav1.NewTime(s.clock.Now())
	})
	made := s.get("m").ResourceVersion
	s.clock.Step(time.Second)
	s.Expect(s.pass("m").RequeueAfter).To(Equal(ownedWithin - time.Second))
	s.Expect(s.get("m").ResourceVersion).To(Equal(made))

	s.clock.Step(ownedWithin)
	s.until("m", shows(infrav1.ServerClaimedCondition, infrav1.WaitingForMachineReason))

	m := s.get("m")
	m.OwnerReferences = owners
	s.Expect(s.objects.Update(s.Context(), m)).To(Succeed())
	s.up("m")
}
