// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

func TestKeepTheFurthestAlongElseTheLowestID(t *testing.T) {
	allocated := func(id string) maas.Machine { return maas.Machine{SystemID: id, Status: maas.StatusAllocated} }
	if got := keep([]maas.Machine{allocated("b"), allocated("a"), allocated("c")}); got.SystemID != "a" {
		t.Errorf("kept %s", got.SystemID)
	}
	if got := keep([]maas.Machine{allocated("a"), {SystemID: "z", Status: maas.StatusDeploying}, {SystemID: "y", Status: maas.StatusFailedDeployment}}); got.SystemID != "z" {
		t.Errorf("kept %s", got.SystemID)
	}
}

func TestAHeldServerIsTheLastToGoOnWith(t *testing.T) {
	held := maas.Machine{SystemID: "a", Status: maas.StatusDeployed, Annotations: map[string]string{maas.AnnotationHold: "x"}}
	if got := keep([]maas.Machine{held, {SystemID: "b", Status: maas.StatusAllocated}}); got.SystemID != "b" {
		t.Errorf("kept %s", got.SystemID)
	}
}

// claimed is a machine with a claim that was not used yet.
func (s *scene) claimed(name string) string {
	s.Helper()
	s.add(name)
	s.until(name, func(m *infrav1.MaasMachine) bool { return m.Spec.Claim != nil })
	return s.get(name).Spec.Claim.Token
}

// TestSurplus: of five servers under one token the recorded one stays, and only the one that nothing was done with is given back.
func TestSurplus(t *testing.T) {
	s := newScene(t, "attached", "deployed", "deploying", "held", "recorded", "unused")
	token := s.claimed("m")
	for id, status := range map[string]maas.Status{
		"attached": maas.StatusAllocated, "deployed": maas.StatusDeployed, "deploying": maas.StatusDeploying, "held": maas.StatusAllocated,
		"recorded": maas.StatusAllocated, "unused": maas.StatusAllocated,
	} {
		s.region.give(id, token)
		s.region.servers[id].Status = status
	}
	s.region.servers["held"].Annotations = map[string]string{maas.AnnotationToken: maas.TokenHash(token), maas.AnnotationHold: "x"}
	s.Expect(s.objects.Create(s.Context(), &infrav1.DPUAttachment{
		ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: AttachmentName(token, "attached")},
		Spec:       infrav1.DPUAttachmentSpec{Server: infrav1.AttachmentServer{SystemID: "attached", Token: token}},
	})).To(Succeed())
	m := s.get("m")
	m.Status.SystemID = "recorded"
	s.Expect(s.objects.Status().Update(s.Context(), m)).To(Succeed())
	for range 5 {
		s.step("m")
	}
	s.Expect(s.region.servers["unused"].Owner).To(BeEmpty())
	s.Expect(s.region.count("release")).To(Equal(1))
	s.Expect(s.region.calls).To(ContainElement("release None"))
	s.Expect(s.get("m").Status.SystemID).To(Equal("recorded"))
	s.Expect(s.region.servers["recorded"].Annotations).To(HaveKey(maas.AnnotationToken))
}

// TestSurplusWithALostAnswer: the answer was lost, the release may come late and must not hit what comes after.
func TestSurplusWithALostAnswer(t *testing.T) {
	s := newScene(t, "a", "b")
	token := s.claimed("m")
	s.region.give("a", token)
	s.region.give("b", token)
	s.region.refuse["release"] = lost
	s.until("m", func(*infrav1.MaasMachine) bool { return s.region.count("release") == 1 })
	s.region.refuse["release"] = nil
	for range 5 {
		s.restart()
		s.step("m")
	}
	s.Expect(s.region.count("release")).To(Equal(1), "not told again before the first cannot come any more")
	s.Expect(s.get("m").Status.OpenOrder.SystemID).To(Equal("b"))
	s.Expect(s.get("m").Status.SystemID).To(Equal("a"))
	s.until("m", func(*infrav1.MaasMachine) bool { return s.region.servers["b"].Owner == "" })
	s.up("m")
	s.Expect(s.get("m").Status.OpenOrder).To(BeNil())
}
