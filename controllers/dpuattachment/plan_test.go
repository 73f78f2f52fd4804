// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"errors"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// expected is what a decision must be; empty fields must be empty.
type expected struct {
	step         vpc.Step
	needsClaim   bool
	needsDevices bool
	proven       infrav1.AttachmentState
	keep         bool
	attached     string
	resolved     string
	finalize     bool
	pace         pace
}

func check(t *testing.T, o *observation, want expected) {
	t.Helper()
	d := decide(o)
	got := expected{
		needsClaim: d.needsClaim, needsDevices: d.needsDevices, proven: d.proven, keep: d.keep, finalize: d.finalize, pace: d.pace,
		attached: string(d.attached.status) + "/" + d.attached.reason, resolved: string(d.resolved.status) + "/" + d.resolved.reason,
	}
	if d.write != nil {
		got.step = d.write.step
	}
	if want.resolved == "" {
		want.resolved = "True/" + infrav1.ResolvedReason
	}
	if got != want {
		t.Errorf("decided\n%+v, want\n%+v", got, want)
	}
}

func TestDecideAttach(t *testing.T) {
	attaching := func(reason string) string { return "False/" + reason }
	for _, tc := range []struct {
		name string
		o    *observation
		want expected
	}{
		{"nothing known yet", scene(), expected{needsClaim: true, attached: attaching(infrav1.NotStartedReason), resolved: "Unknown/NotStarted"}},
		{"claim not answered", scene().asked(unknown), expected{attached: attaching(infrav1.NotStartedReason), resolved: "Unknown/NotStarted"}},
		{"claim denied", scene().asked(lostIt), expected{attached: attaching(infrav1.NotStartedReason), resolved: "Unknown/NotStarted", pace: paceRefused}},
		{"confirmed and free", scene().asked(yes), expected{step: vpc.StepJoin, attached: attaching(infrav1.AttachingVPCReason)}},
		{"confirmed in an earlier pass only", scene().authorized(), expected{needsClaim: true, attached: attaching(infrav1.AttachingVPCReason)}},
		{"the VPC is not ready", func() *observation {
			o := scene().asked(yes)
			o.network = refused(infrav1.VPCNotReadyReason, "not yet")
			return o
		}(), expected{attached: attaching(infrav1.VPCNotReadyReason)}},
		{"not admitted", func() *observation {
			o := scene().asked(yes)
			o.admission = refused(infrav1.NamespaceNotAllowedReason, "no")
			return o
		}(), expected{attached: attaching(infrav1.NotStartedReason), resolved: "Unknown/NotStarted", pace: paceRefused}},
		{"not mapped", func() *observation {
			o := scene().asked(yes)
			o.resolved, o.cards = refused(infrav1.ServerNotMappedReason, "no"), nil
			return o
		}(), expected{attached: attaching(infrav1.NotStartedReason), resolved: "False/ServerNotMapped", pace: paceRefused}},
		{"DPF does not answer", func() *observation {
			o := scene().asked(yes)
			o.resolved, o.cards = unreachable(errors.New("no answer")), nil
			return o
		}(), expected{attached: attaching(infrav1.NotStartedReason), resolved: "Unknown/FabricUnreachable"}},
		{"DPU installing", func() *observation {
			o := scene().asked(yes)
			o.cards[0].evidence.DPU.Status.Phase = provisioningv1alpha1.DPUPhaseOSInstalling
			return o
		}(), expected{attached: attaching(infrav1.NotStartedReason), resolved: "False/DPUNotReady"}},
		{"rival", func() *observation {
			o := scene().asked(yes)
			o.rival = "b"
			return o
		}(), expected{attached: attaching(infrav1.NotStartedReason), resolved: "False/ServerHeldByOther"}},
		{"another card of the server is on a VPC", func() *observation {
			o := scene().asked(yes)
			c := o.freeCard("d2", nil)
			c.evidence.Node.Labels[vpcv1alpha1.NodeVPCLabel] = "x_y"
			o.cards = append(o.cards, c)
			return o
		}(), expected{attached: attaching(infrav1.NotStartedReason), resolved: "False/ForeignVPC"}},
		{"unaccounted port", func() *observation {
			o := scene().asked(yes)
			o.fabric.Object.Spec.ProvisioningNetwork.Fabrics = []string{"boot"}
			o.claim.machine.Interfaces = []maas.Interface{{Name: "eth9", Type: "physical", MAC: "00:00:00:00:00:09", LinkConnected: true, Fabric: "lab"}}
			o.devices = devices{asked: true, found: []maas.Device{{VendorID: "8086", ProductID: "1", PCIAddress: "0000:09:00.0", MAC: "00:00:00:00:00:09"}}}
			return o
		}(), expected{attached: attaching(infrav1.NotStartedReason), resolved: "False/UnaccountedPort", pace: paceRefused}},
		{"port to be looked into", func() *observation {
			o := scene().asked(yes)
			o.fabric.Object.Spec.ProvisioningNetwork.Fabrics = []string{"boot"}
			o.claim.machine.Interfaces = []maas.Interface{{Name: "eth9", Type: "physical", MAC: "00:00:00:00:00:09", LinkConnected: true, Fabric: "lab"}}
			return o
		}(), expected{needsDevices: true, attached: attaching(infrav1.AttachingVPCReason)}},
		{"posture enforced", func() *observation {
			o := scene().asked(yes)
			o.fabric.Object.Spec.Posture.Mode = infrav1.PostureEnforce
			return o
		}(), expected{attached: attaching(infrav1.NotStartedReason), pace: paceRefused}},
		{"joined", scene().authorized().record(t, plainly, false, false), expected{attached: attaching(infrav1.AttachingVPCReason)}},
		{"marked, not confirmed in this pass", scene().authorized().record(t, plainly, false, true), expected{needsClaim: true, attached: attaching(infrav1.AttachingPortReason)}},
		{"marked", scene().authorized().record(t, plainly, false, true).asked(yes), expected{step: vpc.StepPlug, attached: attaching(infrav1.AttachingPortReason)}},
		{"marked, claim not answered", scene().authorized().record(t, plainly, false, true).asked(unknown), expected{attached: attaching(infrav1.AttachingPortReason)}},
		{"marked, claim lost", scene().authorized().record(t, plainly, false, true).asked(lostIt), expected{step: vpc.StepLeave, attached: attaching(infrav1.DetachingVPCReason)}},
		{"plugged", scene().authorized().record(t, withPlug, true, true), expected{attached: attaching(infrav1.AttachingPortReason)}},
		{"attached, not confirmed once more", scene().authorized().attached(t), expected{needsClaim: true, attached: attaching(infrav1.AttachingPortReason)}},
		{"attached, claim not answered", scene().authorized().attached(t).asked(unknown), expected{attached: "Unknown/MaasUnreachable"}},
		{"attached and confirmed once more", scene().authorized().attached(t).asked(yes), expected{
			proven: infrav1.AttachmentStateAttached, attached: "True/Attached", pace: paceSteady,
		}},
		{"attached, claim lost", scene().authorized().attached(t).asked(lostIt), expected{step: vpc.StepUnplug, attached: attaching(infrav1.DetachingPortReason)}},
	} {
		t.Run(tc.name, func(t *testing.T) { check(t, tc.o, tc.want) })
	}
}

func TestDecideRunning(t *testing.T) {
	lost := "False/" + infrav1.EvidenceMissingReason
	silent := func(o *observation) { o.cards[0].evidence.Node.Status.Conditions[0].Status = corev1.ConditionUnknown }
	for _, tc := range []struct {
		name   string
		change func(*observation)
		want   expected
	}{
		{"renewed", func(o *observation) { o.asked(yes) }, expected{proven: infrav1.AttachmentStateAttached, attached: "True/Attached", pace: paceSteady}},
		{"renewed without MAAS", func(o *observation) { o.asked(unknown) }, expected{proven: infrav1.AttachmentStateAttached, attached: "True/Attached", pace: paceSteady}},
		{"namespace taken off the list", func(o *observation) {
			o.admission = refused(infrav1.NamespaceNotAllowedReason, "no")
			o.asked(yes)
		}, expected{proven: infrav1.AttachmentStateAttached, attached: "True/Attached", pace: paceSteady}},
		{"Node silent", silent, expected{keep: true, attached: "Unknown/" + infrav1.EvidenceMissingReason}},
		{"DPF does not answer", func(o *observation) {
			o.resolved, o.cards = unreachable(errors.New("no answer")), nil
		}, expected{keep: true, attached: "Unknown/" + infrav1.EvidenceMissingReason, resolved: "Unknown/FabricUnreachable"}},
		{"port unplugged", func(o *observation) { o.cards[0].evidence.Interfaces = nil }, expected{attached: lost}},
		{"VPC changed", func(o *observation) { o.cards[0].evidence.Node.Labels[vpcv1alpha1.NodeVPCLabel] = "x_y" }, expected{attached: lost}},
		{"DPU made anew", func(o *observation) { o.cards[0] = o.freeCard("d1", o.attachment.Spec.Ports); o.asked(yes) }, expected{attached: lost}},
		{"other cards in the server", func(o *observation) {
			o.resolved = refused(infrav1.BindingChangedReason, "others")
		}, expected{attached: lost, resolved: "False/BindingChanged"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := scene().running(t)
			tc.change(o)
			check(t, o, tc.want)
		})
	}
	t.Run("stays lost until it is proven again", func(t *testing.T) {
		o := scene().running(t)
		o.attachment.Status.State = ""
		o.attachment.Status.Conditions = append(o.attachment.Status.Conditions, metav1.Condition{
			Type: infrav1.AttachedCondition, Status: metav1.ConditionFalse, Reason: infrav1.EvidenceMissingReason,
		})
		o.cards[0].evidence.Interfaces = nil
		check(t, o, expected{attached: lost})
	})
	t.Run("power off", func(t *testing.T) {
		for _, tc := range []struct {
			reaction infrav1.IsolationLostReaction
			change   func(*observation)
			want     bool
		}{
			{infrav1.IsolationLostPowerOff, func(o *observation) { o.cards[0].evidence.Node.Labels[vpcv1alpha1.NodeVPCLabel] = "x_y" }, true},
			{infrav1.IsolationLostReport, func(o *observation) { o.cards[0].evidence.Node.Labels[vpcv1alpha1.NodeVPCLabel] = "x_y" }, false},
			{infrav1.IsolationLostPowerOff, func(o *observation) { o.cards[0].evidence.Interfaces = nil }, false},
			{infrav1.IsolationLostPowerOff, func(o *observation) { o.cards[0].evidence.Interfaces, o.now = nil, now.Add(59*time.Second) }, false},
			{infrav1.IsolationLostPowerOff, silent, false},
		} {
			o := scene().running(t)
			o.fabric.Object.Spec.OnIsolationLost = tc.reaction
			tc.change(o)
			if got := decide(o).powerOff; got != tc.want {
				t.Errorf("%s: %t", tc.reaction, got)
			}
		}
	})
}

func TestDecideDetach(t *testing.T) {
	detaching := func(reason string) string { return "False/" + reason }
	unplugged := func(o *observation) func(*vpc.Holder) {
		return func(h *vpc.Holder) { h.Plugged, h.Unplugged = true, ptr.To(o.cards[0].evidence.Stretch(now)) }
	}
	done := expected{proven: infrav1.AttachmentStateDetached, attached: detaching(infrav1.DetachedReason), pace: paceDone}
	for _, tc := range []struct {
		name   string
		change func(*observation)
		want   expected
	}{
		{"never written", func(*observation) {}, done},
		{"never written, not mapped", func(o *observation) { o.resolved, o.cards = refused(infrav1.ServerNotMappedReason, "no"), nil }, expected{
			proven: infrav1.AttachmentStateDetached, attached: detaching(infrav1.DetachedReason), pace: paceDone, resolved: "False/ServerNotMapped",
		}},
		{"never written, DPF does not answer", func(o *observation) { o.resolved, o.cards = unreachable(errors.New("x")), nil }, expected{
			keep: true, attached: "Unknown/FabricUnreachable", resolved: "Unknown/FabricUnreachable",
		}},
		{"attached", func(o *observation) { o.running(t) }, expected{step: vpc.StepUnplug, attached: detaching(infrav1.DetachingPortReason)}},
		{"the memory is gone, the record is there", func(o *observation) { o.running(t); o.memory = memory{} }, expected{step: vpc.StepUnplug, attached: detaching(infrav1.DetachingPortReason)}},
		{"unplugged", func(o *observation) { o.record(t, unplugged(o), false, true) }, expected{step: vpc.StepLeave, attached: detaching(infrav1.DetachingVPCReason)}},
		{"unplugging", func(o *observation) { o.attached(t).record(t, unplugged(o), false, true) }, expected{attached: detaching(infrav1.DetachingPortReason)}},
		{"unplugging, and the DPU went dark with its server", func(o *observation) {
			o.attached(t).record(t, unplugged(o), false, true)
			o.unpowered = true
		}, expected{attached: detaching(infrav1.DPUUnpoweredWithHostReason)}},
		{"unplugged, booted in between", func(o *observation) {
			o.record(t, unplugged(o), false, true)
			o.cards[0].evidence.Node.Status.NodeInfo.BootID = "other"
		}, expected{needsClaim: true, attached: detaching(infrav1.DetachUnprovenReason), pace: paceRefused}},
		{"unplugged, booted in between, confirmed", func(o *observation) {
			o.record(t, unplugged(o), false, true)
			o.cards[0].evidence.Node.Status.NodeInfo.BootID = "other"
			o.asked(yes)
		}, expected{step: vpc.StepPlug, attached: detaching(infrav1.DetachingPortReason)}},
		{"unplugged, booted in between, claim lost", func(o *observation) {
			o.record(t, unplugged(o), false, true)
			o.cards[0].evidence.Node.Status.NodeInfo.BootID = "other"
			o.asked(lostIt)
		}, expected{attached: detaching(infrav1.DetachUnprovenReason), pace: paceRefused}},
		{"left", func(o *observation) { o.record(t, func(h *vpc.Holder) { h.Detached = true }, false, false) }, done},
		{"left, marked", func(o *observation) { o.record(t, func(h *vpc.Holder) { h.Detached = true }, false, true) }, expected{attached: detaching(infrav1.DetachingVPCReason)}},
		{"the record is gone, one stretch", func(o *observation) {
			o.memory = memory{}.with("d1", cardMemory{Before: o.cards[0].evidence.Stretch(now)})
		}, done},
		{"the record is gone, another stretch", func(o *observation) {
			o.memory = memory{}.with("d1", cardMemory{Before: vpc.Continuity{NodeUID: "x", BootID: "y", ReadySince: metav1.NewTime(now)}})
		}, expected{needsClaim: true, attached: detaching(infrav1.DetachUnprovenReason), pace: paceRefused}},
		{"the card is gone", func(o *observation) {
			o.running(t)
			o.cards = nil
		}, expected{attached: "Unknown/" + infrav1.DetachUnprovenReason}},
		{"the DPU is gone", func(o *observation) {
			o.running(t)
			e := &o.cards[0].evidence
			e.DPU, e.Carriers, e.Node, e.Lease, e.Interfaces = nil, nil, nil, nil, nil
			o.asked(yes)
		}, expected{attached: detaching(infrav1.DetachUnprovenReason), pace: paceRefused}},
		{"in time", func(o *observation) {
			o.running(t)
			o.memory.DetachingSince = ptr.To(metav1.NewTime(now.Add(-9 * time.Minute)))
			o.cards[0].evidence.Node.Status.Conditions[0].Status = corev1.ConditionUnknown
		}, expected{attached: detaching(infrav1.DPUNotReadyReason)}},
		{"out of time", func(o *observation) {
			o.running(t)
			o.memory.DetachingSince = ptr.To(metav1.NewTime(now.Add(-10 * time.Minute)))
			o.cards[0].evidence.Node.Status.Conditions[0].Status = corev1.ConditionUnknown
		}, expected{attached: detaching(infrav1.DetachUnprovenReason), pace: paceRefused}},
		{"out of time, DPF does not answer", func(o *observation) {
			o.running(t)
			o.memory.DetachingSince = ptr.To(metav1.NewTime(now.Add(-10 * time.Minute)))
			o.resolved, o.cards = unreachable(errors.New("x")), nil
		}, expected{keep: true, attached: "Unknown/" + infrav1.DetachUnprovenReason, resolved: "Unknown/FabricUnreachable"}},
		{"proven before", func(o *observation) {
			o.running(t)
			o.attachment.Status.State = infrav1.AttachmentStateDetached
		}, expected{proven: infrav1.AttachmentStateDetached, attached: detaching(infrav1.DetachedReason), pace: paceDone, resolved: "Unknown/NotStarted"}},
		{"the memory cannot be read", func(o *observation) { o.memoryErr = errors.New("broken") }, expected{
			keep: true, attached: "Unknown/NotStarted", resolved: "Unknown/NotStarted", pace: paceRefused,
		}},
		{"forced", func(o *observation) {
			o.running(t)
			o.attachment.Spec.Override = &infrav1.AttachmentOverride{Override: infrav1.Override{Action: infrav1.OverrideForceDetach}}
			o.cards[0].evidence.Node.Status.Conditions[0].Status = corev1.ConditionUnknown
		}, expected{attached: detaching(infrav1.OverriddenReason)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := scene()
			o.attachment.Spec.State = infrav1.AttachmentStateDetached
			tc.change(o)
			check(t, o, tc.want)
			o.attachment.DeletionTimestamp = ptr.To(metav1.NewTime(now))
			tc.want.finalize = tc.want.proven == infrav1.AttachmentStateDetached || o.forced()
			check(t, o, tc.want)
		})
	}
}

func TestDecideWithoutFabric(t *testing.T) {
	unserved := refused(infrav1.SourceUnknownReason, "no fabric")
	for _, tc := range []struct {
		name   string
		change func(*observation)
		proven infrav1.AttachmentState
		keep   bool
	}{
		{"no fabric ever", func(*observation) {}, infrav1.AttachmentStateDetached, false},
		{"a fabric served it once", func(o *observation) { o.attachment.Status.FabricName = "f" }, "", true},
		{"something was written", func(o *observation) { o.memory = memory{}.with("d1", cardMemory{}) }, "", true},
		{"the fabric cannot be asked", func(o *observation) {
			o.fabricFound = vpc.Finding{Answer: vpc.Unknown, Reason: infrav1.FabricUnreachableReason}
		}, "", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := scene()
			o.fabric, o.cards, o.fabricFound = nil, nil, unserved
			o.attachment.Spec.State = infrav1.AttachmentStateDetached
			tc.change(o)
			if d := decide(o); d.proven != tc.proven || d.keep != tc.keep {
				t.Errorf("proven %q, keep %t", d.proven, d.keep)
			}
		})
	}
}

// TestAfterLoss keeps an attachment detached whose claim was lost, until MAAS confirms it again.
func TestAfterLoss(t *testing.T) {
	after := func() *observation {
		o := scene().authorized().record(t, func(h *vpc.Holder) { h.Detached = true }, false, false)
		o.attachment.Status.State = infrav1.AttachmentStateDetached
		o.memory.DetachingSince = ptr.To(metav1.NewTime(now))
		return o
	}
	stays := expected{proven: infrav1.AttachmentStateDetached, attached: "False/Detached", resolved: "Unknown/NotStarted", pace: paceRefused}
	asks := stays
	asks.needsClaim = true
	check(t, after(), asks)
	check(t, after().asked(lostIt), stays)
	check(t, after().asked(unknown), stays)
	check(t, after().asked(yes), expected{step: vpc.StepJoin, attached: "False/AttachingVPC"})
}

func TestMemoryComesBeforeTheWrite(t *testing.T) {
	o := scene().asked(yes)
	d := decide(o)
	card, known := d.memory.Cards["d1"]
	if d.write == nil || !known || !slices.Equal(card.Ports, []string{"p0"}) || !card.Before.Equal(o.cards[0].evidence.Stretch(now)) {
		t.Errorf("memory %+v for write %+v", d.memory, d.write)
	}
	o.attachment.Spec.State = infrav1.AttachmentStateDetached
	if d := decide(o); d.memory.DetachingSince != nil {
		t.Error("detaching what was never attached takes time")
	}
	o.running(t)
	o.attachment.Spec.State = infrav1.AttachmentStateDetached
	if d := decide(o); d.memory.DetachingSince == nil || d.write == nil {
		t.Error("it is not remembered since when ports are detached")
	}
}
