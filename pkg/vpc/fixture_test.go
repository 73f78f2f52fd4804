// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"maps"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
)

const (
	dpf     = "dpf-operator-system"
	vpcName = "red-net-aaaaaaaaaaaaaaaa"
	network = "net-workers-bbbbbbbbbbbbbbbb"
	mac     = "aa:bb:cc:00:00:01"
)

var (
	now        = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	readySince = metav1.NewTime(now.Add(-time.Hour))
	claim      = Holder{Installation: "i", Namespace: "red", Attachment: "claim-1", TokenHash: "h1"}
	other      = Holder{Installation: "i", Namespace: "blue", Attachment: "claim-2", TokenHash: "h2"}
	stretch    = Continuity{NodeUID: "node-uid", BootID: "boot-1", ReadySince: readySince}
)

func wanted() Want {
	return Want{
		Namespace: dpf, VPCName: vpcName, VPCLabels: map[string]string{VPCKey: vpcName}, Claim: claim,
		Ports: []WantedPort{{PF: 0, Network: network, Interface: InterfaceName(network, 0), MAC: mac}},
	}
}

// idle is a healthy DPU that is nobody's.
func idle() Evidence {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: "dpu-1", UID: types.UID("node-uid"), Labels: map[string]string{},
			Annotations: map[string]string{
				vpcv1alpha1.NodeVTEPAnnotation: "192.0.2.1", vpcv1alpha1.NodeChassisIDAnnotation: "dpu-1", vpcv1alpha1.NodeGatewayAnnotation: "{}",
			},
		},
		Status: corev1.NodeStatus{
			NodeInfo: corev1.NodeSystemInfo{BootID: "boot-1"},
			Conditions: []corev1.NodeCondition{
				{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastTransitionTime: readySince},
				{Type: "OVSHealthy", Status: corev1.ConditionTrue},
			},
		},
	}
	return Evidence{
		Server: &provisioningv1alpha1.DPUNode{ObjectMeta: metav1.ObjectMeta{Name: "server-1"}},
		Device: &provisioningv1alpha1.DPUDevice{ObjectMeta: metav1.ObjectMeta{Name: "mt1"}},
		DPU: &provisioningv1alpha1.DPU{
			ObjectMeta: metav1.ObjectMeta{Name: "dpu-1"},
			Spec: provisioningv1alpha1.DPUSpec{
				DPUNodeName: "server-1", NodeEffect: provisioningv1alpha1.NodeEffect{Hold: ptr.To(true)},
				Cluster: provisioningv1alpha1.DPUClusterMembership{Name: "c", Namespace: dpf},
			},
			Status: provisioningv1alpha1.DPUStatus{Phase: provisioningv1alpha1.DPUPhaseReady},
		},
		Carriers: []Carrier{{Kind: "DPU", Labels: map[string]string{}, Annotations: map[string]string{}}},
		Node:     node,
		Lease:    &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{RenewTime: ptr.To(metav1.NewMicroTime(now.Add(-10 * time.Second)))}},
	}
}

// held writes labels and a record on the carrier.
func held(t *testing.T, e Evidence, holder Holder, labels map[string]string) Evidence {
	t.Helper()
	value, err := holder.Encode()
	if err != nil {
		t.Fatal(err)
	}
	e.Carriers = []Carrier{{Kind: "DPU", Labels: maps.Clone(labels), Annotations: map[string]string{HolderAnnotation: value}}}
	return e
}

// joined is a DPU that the claim took into the VPC.
func joined(t *testing.T) Evidence {
	t.Helper()
	return held(t, idle(), claim, map[string]string{VPCKey: vpcName})
}

func marked(e Evidence, mark string) Evidence {
	e.Node = e.Node.DeepCopy()
	if mark == "" {
		delete(e.Node.Labels, vpcv1alpha1.NodeVPCLabel)
	} else {
		e.Node.Labels[vpcv1alpha1.NodeVPCLabel] = mark
	}
	return e
}

var (
	ourMark   = Mark(dpf, vpcName)
	portKeys  = map[string]string{VPCKey: vpcName, PortKey(0): network}
	plugged   = Holder{Installation: "i", Namespace: "red", Attachment: "claim-1", TokenHash: "h1", Plugged: true}
	unplugged = Holder{Installation: "i", Namespace: "red", Attachment: "claim-1", TokenHash: "h1", Plugged: true, Unplugged: &stretch}
	tombstone = Holder{Installation: "i", Namespace: "red", Attachment: "claim-1", TokenHash: "h1", Detached: true}
)

func serviceInterface() svcv1alpha1.ServiceInterface {
	condition := func(kind string) metav1.Condition {
		return metav1.Condition{Type: kind, Status: metav1.ConditionTrue, ObservedGeneration: 3}
	}
	return svcv1alpha1.ServiceInterface{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: dpf, Name: "si-x", Generation: 3,
			Labels: map[string]string{svcv1alpha1.SetNameLabel: InterfaceName(network, 0), svcv1alpha1.SetNamespaceLabel: dpf},
			Annotations: map[string]string{
				vpcv1alpha1.PortConnectedAnnotation: "true", vpcv1alpha1.PortMACAnnotation: "AA-BB-CC-00-00-01",
			},
		},
		Spec: svcv1alpha1.InterfaceSpec{
			InterfaceType: svcv1alpha1.InterfaceTypePF, Node: ptr.To("dpu-1"), PF: &svcv1alpha1.PF{ID: 0, VirtualNetwork: ptr.To(network)},
		},
		Status: svcv1alpha1.ServiceInterfaceStatus{
			ObservedGeneration: 3,
			Conditions:         []metav1.Condition{condition(svcv1alpha1.ReadyCondition), condition(svcv1alpha1.ServiceInterfaceReconciledCondition)},
		},
	}
}

// attached is a DPU whose port is proven attached.
func attached(t *testing.T) Evidence {
	t.Helper()
	e := marked(held(t, idle(), plugged, portKeys), ourMark)
	// An uplink of the DPU is no tenant's port.
	uplink := svcv1alpha1.ServiceInterface{Spec: svcv1alpha1.InterfaceSpec{
		InterfaceType: svcv1alpha1.InterfaceTypePhysical, Node: ptr.To("dpu-1"), Physical: &svcv1alpha1.Physical{InterfaceName: "p0"},
	}}
	e.Interfaces = []svcv1alpha1.ServiceInterface{uplink, serviceInterface()}
	maps.Copy(e.Node.Labels, portKeys)
	return e
}
