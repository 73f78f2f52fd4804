// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// toldOf are the events since it was asked last that begin so.
func (s *scene) toldOf(kind, reason string) []string {
	var of []string
	for _, event := range s.told() {
		if strings.HasPrefix(event, kind+" "+reason+" ") {
			of = append(of, event)
		}
	}
	return of
}

// attachments changes what the fabric says of attachments, for one pass.
func (s *scene) attachments(change func(*infrav1.DPUAttachment)) {
	s.Helper()
	list := &infrav1.DPUAttachmentList{}
	s.Expect(s.objects.List(s.Context(), list)).To(Succeed())
	for i := range list.Items {
		change(&list.Items[i])
		s.Expect(s.objects.Status().Update(s.Context(), &list.Items[i])).To(Succeed())
	}
}

func TestEventsTellOfATransitionOnce(t *testing.T) {
	attached := func(status metav1.ConditionStatus, reason string) func(*infrav1.DPUAttachment) {
		return func(a *infrav1.DPUAttachment) {
			conditions.Set(a, metav1.Condition{Type: infrav1.AttachedCondition, Status: status, Reason: reason})
			if reason == infrav1.DetachUnprovenReason {
				a.Status.State = ""
			}
		}
	}
	for reason, c := range map[string]struct {
		kind string
		pass func(*scene)
	}{
		infrav1.ServerLostReason: {"Warning", func(s *scene) {
			s.region.servers["a"].Owner, s.region.servers["a"].Annotations = "stranger", nil
			s.clock.Step(defaultAuditInterval)
		}},
		infrav1.IsolationBrokenReason: {"Warning", func(s *scene) {
			s.attachments(attached(metav1.ConditionFalse, infrav1.EvidenceMissingReason))
		}},
		infrav1.HeldReason: {"Warning", func(s *scene) {
			if s.get("m").DeletionTimestamp.IsZero() {
				s.remove("m")
			}
			s.attachments(attached(metav1.ConditionUnknown, infrav1.DetachUnprovenReason))
		}},
	} {
		t.Run(reason, func(t *testing.T) {
			s := newScene(t, "a")
			s.add("m")
			s.up("m")
			s.told()
			for range 10 {
				c.pass(s)
				s.step("m")
			}
			s.Expect(s.toldOf(c.kind, reason)).To(HaveLen(1))
		})
	}
}

// TestScarcityIsToldOnce: other reasons to wait may come in between.
func TestScarcityIsToldOnce(t *testing.T) {
	s := newScene(t)
	s.add("m")
	for i := range 20 {
		s.broken = nil
		if i%3 == 2 {
			s.broken = &scope.UnusableError{Reason: infrav1.MaasUnreachableReason, Message: "no answer"}
		}
		s.step("m")
	}
	s.Expect(s.toldOf("Normal", infrav1.NoServerAvailableReason)).To(HaveLen(1))
}

// TestAnOrdinaryLifeWarnsOfNothing: a server that was given back is not lost.
func TestAnOrdinaryLifeWarnsOfNothing(t *testing.T) {
	s := newScene(t, "a")
	s.add("m")
	s.up("m")
	s.remove("m")
	for s.get("m") != nil {
		s.step("m")
		if m := s.get("m"); m != nil {
			s.Expect(conditions.GetReason(m, infrav1.ServerClaimedCondition)).NotTo(Equal(infrav1.ServerLostReason))
		}
	}
	told := s.told()
	s.Expect(told).To(ContainElement(HavePrefix("Normal Released Server a is released")))
	s.Expect(told).NotTo(ContainElement(HavePrefix("Warning")))
}

func TestAReleaseThatTakesTooLong(t *testing.T) {
	for erase, told := range map[infrav1.ReleaseErase]int{infrav1.ReleaseEraseQuick: 1, infrav1.ReleaseEraseFull: 0} {
		t.Run(string(erase), func(t *testing.T) {
			s := newScene(t, "a")
			s.configure(func(spec *infrav1.MaasClusterIdentitySpec) { spec.Deadlines.ReleaseSeconds = ptr.To[int32](600) })
			s.add("m", func(m *infrav1.MaasMachine) { m.Spec.Release.Erase = erase })
			s.up("m")
			s.region.stay = maas.StatusDiskErasing
			s.remove("m")
			s.until("m", func(m *infrav1.MaasMachine) bool { return m.Status.Release != nil })
			s.told()
			for range 5 {
				s.step("m")
			}
			s.Expect(s.told()).To(BeEmpty())
			s.clock.Step(10 * time.Minute)
			for range 5 {
				s.step("m")
			}
			s.Expect(s.toldOf("Warning", infrav1.ReleasingReason)).To(HaveLen(told))
			s.Expect(s.get("m")).To(sayFalse(infrav1.ReleasedCondition, infrav1.ReleasingReason))
			s.Expect(strings.Contains(conditions.GetMessage(s.get("m"), infrav1.ReleasedCondition), "releaseSeconds")).To(Equal(told > 0))
			s.Expect(s.region.count("release")).To(Equal(1), "nothing else is done")
		})
	}
}
