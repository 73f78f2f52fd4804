// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"maps"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

const token = "v1.00112233445566778899aabbccddeeff.00112233445566778899aabbccddeeff"

var now = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

// scene is an observation of an authorised attachment for a free, healthy server.
func scene() *observation {
	attachment := &infrav1.DPUAttachment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "a", Generation: 4},
		Spec: infrav1.DPUAttachmentSpec{
			State: infrav1.AttachmentStateAttached, MachineName: "m", VPCName: "net",
			Server: infrav1.AttachmentServer{Source: "s", SystemID: "abc", Token: token},
			Ports:  []infrav1.MachinePort{{Name: "p0", Subnet: "workers"}},
		},
	}
	o := &observation{
		now: now, attachment: attachment, fabricFound: yes, admission: yes, network: yes, resolved: yes,
		place:  vpc.Place{Installation: "i", Namespace: "dpf", IsolationClassName: "ovn"},
		fabric: &scope.Fabric{Object: &infrav1.DPUFabric{ObjectMeta: metav1.ObjectMeta{Name: "f"}}},
		tenant: &infrav1.TenantVPC{ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "net"}},
	}
	o.cards = []card{o.freeCard("d1", attachment.Spec.Ports)}
	return o
}

func (o *observation) freeCard(device string, ports []infrav1.MachinePort) card {
	member := dpfzt.Member{
		Node:   &provisioningv1alpha1.DPUNode{ObjectMeta: metav1.ObjectMeta{Name: "n1"}},
		Device: &provisioningv1alpha1.DPUDevice{ObjectMeta: metav1.ObjectMeta{Name: device}, Status: provisioningv1alpha1.DPUDeviceStatus{PF0MAC: "AA:BB:CC:00:00:01"}},
		DPU: &provisioningv1alpha1.DPU{
			ObjectMeta: metav1.ObjectMeta{Name: "dpu-" + device}, Status: provisioningv1alpha1.DPUStatus{Phase: provisioningv1alpha1.DPUPhaseReady},
			Spec: provisioningv1alpha1.DPUSpec{DPUNodeName: "n1", NodeEffect: provisioningv1alpha1.NodeEffect{Hold: ptr.To(true)}},
		},
	}
	c := card{device: device, member: member, ports: ports}
	c.want = o.wantOf(c)
	c.evidence = vpc.Evidence{
		Server: member.Node, Device: member.Device, DPU: member.DPU, Carriers: []vpc.Carrier{{Kind: "DPU"}},
		Node: &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: member.DPU.Name, UID: "uid", Labels: map[string]string{}, Annotations: map[string]string{
				vpcv1alpha1.NodeVTEPAnnotation: "x", vpcv1alpha1.NodeChassisIDAnnotation: "x", vpcv1alpha1.NodeGatewayAnnotation: "x",
			}},
			Status: corev1.NodeStatus{
				NodeInfo:   corev1.NodeSystemInfo{BootID: "boot"},
				Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-time.Hour))}},
			},
		},
		Lease: &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{RenewTime: ptr.To(metav1.NewMicroTime(now))}},
	}
	return c
}

func (o *observation) asked(finding vpc.Finding) *observation {
	o.claim = claim{asked: true, finding: finding}
	if finding.Answer == vpc.Yes {
		o.claim.machine = &maas.Machine{}
	}
	return o
}

func (o *observation) authorized() *observation {
	o.attachment.Status.TokenHash = maas.TokenHash(token)
	o.attachment.Status.Conditions = append(o.attachment.Status.Conditions, metav1.Condition{
		Type: infrav1.AuthorizedCondition, Status: metav1.ConditionTrue, Reason: infrav1.AuthorizedReason,
	})
	return o
}

// record puts the claim's record, labels and mark on the first card.
func (o *observation) record(t *testing.T, change func(*vpc.Holder), ports, mark bool) *observation {
	t.Helper()
	holder := o.holder()
	change(&holder)
	value, err := holder.Encode()
	if err != nil {
		t.Fatal(err)
	}
	c := &o.cards[0]
	labels := map[string]string{}
	if !holder.Detached {
		labels[vpc.VPCKey] = c.want.VPCName
	}
	if ports {
		labels[vpc.PortKey(0)] = c.want.Ports[0].Network
	}
	c.evidence.Carriers = []vpc.Carrier{{Kind: "DPU", Labels: labels, Annotations: map[string]string{vpc.HolderAnnotation: value}}}
	if mark {
		c.evidence.Node.Labels[vpcv1alpha1.NodeVPCLabel] = vpc.Mark("dpf", c.want.VPCName)
	}
	o.memory = memory{}.with("d1", cardMemory{Ports: []string{"p0"}, Before: c.evidence.Stretch(now)})
	return o
}

// attached makes the first card's port proven attached.
func (o *observation) attached(t *testing.T) *observation {
	t.Helper()
	o.record(t, func(h *vpc.Holder) { h.Plugged = true }, true, true)
	port := o.cards[0].want.Ports[0]
	maps.Copy(o.cards[0].evidence.Node.Labels, o.cards[0].evidence.Carriers[0].Labels)
	o.cards[0].evidence.Interfaces = []svcv1alpha1.ServiceInterface{{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "dpf", Name: "si", Generation: 1,
			Labels:      map[string]string{svcv1alpha1.SetNameLabel: port.Interface, svcv1alpha1.SetNamespaceLabel: "dpf"},
			Annotations: map[string]string{vpcv1alpha1.PortConnectedAnnotation: "true", vpcv1alpha1.PortMACAnnotation: port.MAC},
		},
		Spec: svcv1alpha1.InterfaceSpec{InterfaceType: svcv1alpha1.InterfaceTypePF, Node: ptr.To("dpu-d1"), PF: &svcv1alpha1.PF{VirtualNetwork: &port.Network}},
		Status: svcv1alpha1.ServiceInterfaceStatus{ObservedGeneration: 1, Conditions: []metav1.Condition{
			{Type: svcv1alpha1.ReadyCondition, Status: metav1.ConditionTrue, ObservedGeneration: 1},
			{Type: svcv1alpha1.ServiceInterfaceReconciledCondition, Status: metav1.ConditionTrue, ObservedGeneration: 1},
		}},
	}}
	return o
}

// running has the status say that the ports were proven attached.
func (o *observation) running(t *testing.T) *observation {
	t.Helper()
	o.attached(t).authorized()
	o.attachment.Status.State = infrav1.AttachmentStateAttached
	o.attachment.Status.ValidUntil = ptr.To(metav1.NewTime(now.Add(time.Minute)))
	return o
}

var (
	unknown  = vpc.Finding{Answer: vpc.Unknown, Reason: infrav1.MaasUnreachableReason, Message: "no answer"}
	lostIt   = vpc.Finding{Answer: vpc.No, Reason: infrav1.ClaimNotConfirmedReason, Message: "not held"}
	plainly  = func(*vpc.Holder) {}
	withPlug = func(h *vpc.Holder) { h.Plugged = true }
)
