// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
)

func TestPreflight(t *testing.T) {
	deleted := ptr.To(metav1.NewTime(now))
	condition := func(kind string, status corev1.ConditionStatus) func(*Evidence) {
		return func(e *Evidence) {
			e.Node.Status.Conditions = append(e.Node.Status.Conditions[:1], corev1.NodeCondition{Type: corev1.NodeConditionType(kind), Status: status})
		}
	}
	for _, tc := range []struct {
		name   string
		change func(*Evidence)
		answer Answer
		reason string
	}{
		{"at rest and free", func(*Evidence) {}, Yes, ""},
		{"no DPU", func(e *Evidence) { e.DPU, e.Carriers = nil, nil }, No, infrav1.DPUNotReadyReason},
		{"DPU deleting", func(e *Evidence) { e.DPU.DeletionTimestamp = deleted }, No, infrav1.DPUNotReadyReason},
		{"DPU installing", func(e *Evidence) { e.DPU.Status.Phase = provisioningv1alpha1.DPUPhaseOSInstalling }, No, infrav1.DPUNotReadyReason},
		{"DPU blinking", func(e *Evidence) { e.DPU.Status.Phase = provisioningv1alpha1.DPUPhaseDPUClusterConfig }, No, infrav1.DPUNotReadyReason},
		{"DPU in NIC mode", func(e *Evidence) { e.DPU.Status.DPUMode = "nic" }, No, infrav1.DPUNotReadyReason},
		{"node effect on label change", func(e *Evidence) { e.DPU.Spec.NodeEffect.ApplyOnLabelChange = ptr.To(true) }, No, infrav1.DPUNotReadyReason},
		{"node effect under way", func(e *Evidence) { e.DPU.Status.PostProvisioningNodeEffect = ptr.To(true) }, No, infrav1.DPUNotReadyReason},
		{"device deleting", func(e *Evidence) { e.Device.DeletionTimestamp = deleted }, No, infrav1.DPUNotReadyReason},
		{"server deleting", func(e *Evidence) { e.Server.DeletionTimestamp = deleted }, No, infrav1.DPUNotReadyReason},
		{"reboot asked for", func(e *Evidence) {
			e.Server.Annotations = map[string]string{provisioningv1alpha1.ExternalRebootRequiredAnnotation: ""}
		}, No, infrav1.DPUNotReadyReason},
		{"reboot under way", func(e *Evidence) { e.Server.Status.RebootInProgress = ptr.To(true) }, No, infrav1.DPUNotReadyReason},
		{"no Node", func(e *Evidence) { e.Node = nil }, No, infrav1.DPUNotReadyReason},
		{"Node not Ready", func(e *Evidence) { e.Node.Status.Conditions[0].Status = corev1.ConditionUnknown }, No, infrav1.DPUNotReadyReason},
		{"no lease", func(e *Evidence) { e.Lease = nil }, No, infrav1.DPUNotReadyReason},
		{"no boot ID", func(e *Evidence) { e.Node.Status.NodeInfo.BootID = "" }, Unknown, infrav1.DPUNotReadyReason},
		{"no VTEP", func(e *Evidence) { delete(e.Node.Annotations, vpcv1alpha1.NodeVTEPAnnotation) }, No, infrav1.DPUNotReadyReason},
		{"no chassis", func(e *Evidence) { delete(e.Node.Annotations, vpcv1alpha1.NodeChassisIDAnnotation) }, No, infrav1.DPUNotReadyReason},
		{"no gateway", func(e *Evidence) { delete(e.Node.Annotations, vpcv1alpha1.NodeGatewayAnnotation) }, No, infrav1.DPUNotReadyReason},
		{"no problem detector", func(e *Evidence) { e.Node.Status.Conditions = e.Node.Status.Conditions[:1] }, Yes, ""},
		{"OVS unhealthy", condition("OVSHealthy", corev1.ConditionFalse), No, infrav1.DPUNotReadyReason},
		{"OVSDB unhealthy", condition("OVSDBHealthy", corev1.ConditionFalse), No, infrav1.DPUNotReadyReason},
		{"vswitchd unknown", condition("OVSvSwitchdHealthy", corev1.ConditionUnknown), No, infrav1.DPUNotReadyReason},
		{"DPU cluster away", func(e *Evidence) { e.ClusterError = errors.New("timeout") }, Unknown, infrav1.FabricUnreachableReason},
		{"marked", func(e *Evidence) { *e = marked(*e, "x_y") }, No, infrav1.ForeignVPCReason},
		{"marked with the very VPC", func(e *Evidence) { *e = marked(*e, ourMark) }, No, infrav1.ForeignVPCReason},
		{"a port is on a network", func(e *Evidence) { e.Interfaces = []svcv1alpha1.ServiceInterface{serviceInterface()} }, No, infrav1.ForeignVPCReason},
		{"labelled without record", func(e *Evidence) { e.Carriers[0].Labels[VPCKey] = vpcName }, No, infrav1.ForeignVPCReason},
		{"the Node is labelled", func(e *Evidence) { e.Node.Labels[PortKey(3)] = network }, No, infrav1.ForeignVPCReason},
		{"held by another", func(e *Evidence) { *e = held(t, *e, other, nil) }, No, infrav1.ServerHeldByOtherReason},
		{"held by another on the other carrier", func(e *Evidence) {
			value := held(t, *e, other, nil).Carriers[0]
			value.Kind = "DPUDevice"
			e.Carriers = append(e.Carriers, value)
		}, No, infrav1.ServerHeldByOtherReason},
		{"another's record that holds nothing", func(e *Evidence) {
			past := other
			past.Detached = true
			*e = held(t, *e, past, nil)
		}, Yes, ""},
		{"unreadable record", func(e *Evidence) { e.Carriers[0].Annotations[HolderAnnotation] = "{" }, No, infrav1.ServerHeldByOtherReason},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := idle()
			tc.change(&e)
			got := Preflight(e, claim, now)
			if got.Answer != tc.answer || got.Reason != tc.reason {
				t.Errorf("got %+v, want %s %s", got, tc.answer, tc.reason)
			}
			plan := PlanAttach(wanted(), e, now)
			if joins := plan.Step == StepJoin; joins != (tc.answer == Yes) {
				t.Errorf("planned %s", plan.Step)
			}
		})
	}
}
