// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"maps"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// unlabel takes the port's label off the first card.
func unlabel(o *observation) {
	carrier := &o.cards[0].evidence.Carriers[0]
	carrier.Labels = maps.Clone(carrier.Labels)
	delete(carrier.Labels, vpc.PortKey(0))
}

func TestRepair(t *testing.T) {
	lost := "False/" + infrav1.EvidenceMissingReason
	for _, tc := range []struct {
		name   string
		change func(*observation)
		want   expected
		says   string
	}{
		{"not confirmed in this pass", func(*observation) {}, expected{needsClaim: true, attached: lost}, "was taken away"},
		{"confirmed", func(o *observation) { o.asked(yes) }, expected{step: vpc.StepRepair, attached: lost}, "it is being put back"},
		{"MAAS away", func(o *observation) { o.asked(unknown) }, expected{attached: lost}, "once MAAS confirms"},
		{"namespace taken off the list", func(o *observation) {
			o.asked(yes).admission = refused(infrav1.NamespaceNotAllowedReason, "no")
		}, expected{step: vpc.StepRepair, attached: lost}, "it is being put back"},
		{"nobody consents any more", func(o *observation) {
			o.asked(yes).admission = refused(infrav1.MachineNotConsentingReason, "no Machine")
		}, expected{attached: lost}, "not authorised: no Machine"},
		{"an interface of the TenantVPC was changed", func(o *observation) {
			o.asked(yes).network = refused(infrav1.VPCNotReadyReason, "the interface was changed")
		}, expected{attached: lost}, "the interface was changed"},
		{"a second VPC", func(o *observation) {
			o.asked(yes).cards[0].evidence.Around.VPCs = []vpcv1alpha1.DPUVPC{{Spec: vpcv1alpha1.DPUVPCSpec{NodeSelector: &metav1.LabelSelector{}}}}
		}, expected{attached: lost}, "another VPC of the fabric"},
		{"too often", func(o *observation) {
			c := o.memory.Cards["d1"]
			c.Repairs, c.RepairedAt = 3, ptr.To(metav1.NewTime(now.Add(-59*time.Minute)))
			o.asked(yes).memory = o.memory.with("d1", c)
		}, expected{attached: lost}, "not put back any more"},
		{"too often, long ago", func(o *observation) {
			c := o.memory.Cards["d1"]
			c.Repairs, c.RepairedAt = 3, ptr.To(metav1.NewTime(now.Add(-time.Hour)))
			o.asked(yes).memory = o.memory.with("d1", c)
		}, expected{step: vpc.StepRepair, attached: lost}, "it is being put back"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := scene().running(t)
			unlabel(o)
			tc.change(o)
			check(t, o, tc.want)
			d := decide(o)
			if !strings.Contains(d.attached.message, tc.says) || !strings.Contains(d.attached.message, vpc.PortKey(0)) {
				t.Errorf("says %q", d.attached.message)
			}
			if after := d.memory.Cards["d1"]; d.write != nil && (after.Repairs != 1 || after.RepairedAt == nil || !after.Before.Equal(o.memory.Cards["d1"].Before)) {
				t.Errorf("remembers %+v", after)
			}
		})
	}
}

// TestWhatWasSeenEndsTheProof keeps apart what cannot be read, which takes nothing back, and what was seen.
func TestWhatWasSeenEndsTheProof(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*observation)
		valid  bool
	}{
		{"Node silent", nodeSilent, true},
		{"DPU cluster away", clusterAway, true},
		{"DPF away", dpfAway, true},
		{"second VPC", func(o *observation) {
			o.cards[0].evidence.Around.VPCs = []vpcv1alpha1.DPUVPC{{Spec: vpcv1alpha1.DPUVPCSpec{NodeSelector: &metav1.LabelSelector{}}}}
		}, false},
		{"interface changed", func(o *observation) { o.network = refused(infrav1.VPCNotReadyReason, "changed") }, false},
		{"TenantVPC not read", func(o *observation) { o.network = unreachable(errNoAnswer) }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := scene().running(t).asked(yes)
			o.attachment.Status.ProvenAt = ptr.To(metav1.NewTime(now.Add(-time.Minute)))
			tc.change(o)
			d := decide(o)
			report(o, d)
			status := o.attachment.Status
			if status.State != infrav1.AttachmentStateAttached || now.Before(status.ValidUntil.Time) != tc.valid {
				t.Errorf("state %q until %s, said %+v", status.State, status.ValidUntil, d.attached)
			}
		})
	}
}

// TestRunningStaysRunning: whatever the status says after a proof was taken back, nothing is taken into a VPC anew for it.
func TestRunningStaysRunning(t *testing.T) {
	o := scene().running(t).asked(yes)
	o.attachment.Status.ProvenAt = ptr.To(metav1.NewTime(now.Add(-time.Minute)))
	o.cards[0].evidence.Interfaces = nil
	report(o, decide(o))
	if o.attachment.Status.State != "" || o.attachment.Status.ProvenAt == nil {
		t.Fatalf("status %+v", o.attachment.Status)
	}
	for i := range o.attachment.Status.Conditions {
		o.attachment.Status.Conditions[i].Reason = infrav1.FabricNotReadyReason
	}
	o.cards[0] = o.freeCard("d1", o.attachment.Spec.Ports)
	if d := decide(o); d.write != nil {
		t.Errorf("wrote %+v", d.write)
	}
}

func TestPowerOff(t *testing.T) {
	exposed := func(o *observation) { o.cards[0].evidence.Node.Labels[vpcv1alpha1.NodeVPCLabel] = "x_y" }
	cutOff := func(o *observation) { o.cards[0].evidence.Interfaces = nil }
	old := func(o *observation) {
		cutOff(o)
		o.attachment.Status.ProvenAt = ptr.To(metav1.NewTime(now.Add(-5 * time.Minute)))
	}
	for _, tc := range []struct {
		name     string
		reaction infrav1.IsolationLostReaction
		change   func(*observation)
		want     bool
	}{
		{"exposed", infrav1.IsolationLostPowerOff, exposed, true},
		{"exposed, report", infrav1.IsolationLostReport, exposed, false},
		{"cut off", infrav1.IsolationLostPowerOff, cutOff, false},
		{"cut off for long", infrav1.IsolationLostPowerOff, old, true},
		{"silent", infrav1.IsolationLostPowerOff, nodeSilent, false},
		{"being repaired", infrav1.IsolationLostPowerOff, unlabel, false},
	} {
		o := scene().running(t).asked(yes)
		o.attachment.Status.ProvenAt = ptr.To(metav1.NewTime(now.Add(-time.Minute)))
		o.fabric.Object.Spec.OnIsolationLost = tc.reaction
		tc.change(o)
		if got := decide(o).powerOff; got != tc.want {
			t.Errorf("%s: %t", tc.name, got)
		}
	}
}

// TestMaintenanceIsNamed says that DPF waits, and keeps the proof.
func TestMaintenanceIsNamed(t *testing.T) {
	o := scene().running(t).asked(yes)
	o.cards[0].evidence.Around.Maintenances = []provisioningv1alpha1.DPUNodeMaintenance{{
		ObjectMeta: metav1.ObjectMeta{Name: "n1-hold", Annotations: map[string]string{provisioningv1alpha1.HoldAnnotation: "true"}},
		Spec:       provisioningv1alpha1.DPUNodeMaintenanceSpec{DPUNodeName: "n1"},
	}}
	check(t, o, expected{proven: infrav1.AttachmentStateAttached, attached: "True/Attached", resolved: "True/MaintenancePending", pace: paceSteady})
	if said := summarise(o, decide(o)); !strings.Contains(said.message, "n1-hold") {
		t.Errorf("Ready says %+v", said)
	}
}
