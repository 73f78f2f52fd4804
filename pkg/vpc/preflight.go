// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
)

const (
	reasonDPUNotReady       = infrav1.DPUNotReadyReason
	reasonForeignVPC        = infrav1.ForeignVPCReason
	reasonHeldByOther       = infrav1.ServerHeldByOtherReason
	reasonEvidenceMissing   = infrav1.EvidenceMissingReason
	reasonFabricUnreachable = infrav1.FabricUnreachableReason
)

// healthyConditions are those of DPF's problem detector on a DPU's Node that a port cannot do without. One that is not
// there is no problem: the detector may not be installed.
var healthyConditions = []corev1.NodeConditionType{"OVSHealthy", "OVSvSwitchdHealthy", "OVSDBHealthy"}

// agentAnnotations are written by the VPC agent of a DPU; a Node without one of them stops every VPC that selects it.
var agentAnnotations = []string{
	vpcv1alpha1.NodeVTEPAnnotation, vpcv1alpha1.NodeChassisIDAnnotation, vpcv1alpha1.NodeGatewayAnnotation,
}

// Preflight says whether a DPU may be taken into a VPC: it is installed, alive, at rest, and nobody's.
func Preflight(e Evidence, claim Holder, now time.Time) Finding {
	if finding := CheckHealth(e, now); finding.Answer != Yes {
		return finding
	}
	return CheckFree(e, claim)
}

// CheckHealth says whether a DPU is installed, alive and at rest.
func CheckHealth(e Evidence, now time.Time) Finding {
	if finding := checkInstalled(e); finding.Answer != Yes {
		return finding
	}
	if finding := e.Alive(now); finding.Answer != Yes {
		return finding
	}
	if e.Node.Status.NodeInfo.BootID == "" {
		return Finding{Unknown, reasonDPUNotReady, "Node " + e.Node.Name + " does not say its boot ID"}
	}
	return checkNodeHealth(e)
}

// checkNodeHealth says whether the Node's VPC agent has come up and nothing that carries ports reports a problem.
func checkNodeHealth(e Evidence) Finding {
	for _, key := range agentAnnotations {
		if e.Node.Annotations[key] == "" {
			return Finding{No, reasonDPUNotReady, "the VPC agent of Node " + e.Node.Name + " is not up: annotation " + key + " is missing"}
		}
	}
	for _, kind := range healthyConditions {
		if condition := nodeCondition(e.Node, kind); condition != nil && condition.Status != corev1.ConditionTrue {
			return Finding{No, reasonDPUNotReady, fmt.Sprintf("Node %s reports %s %s: %s", e.Node.Name, kind, condition.Status, condition.Reason)}
		}
	}
	return Finding{Answer: Yes}
}

func checkInstalled(e Evidence) Finding {
	notReady := func(format string, args ...any) Finding {
		return Finding{No, reasonDPUNotReady, fmt.Sprintf(format, args...)}
	}
	if e.DPU == nil {
		return notReady("%s is not installed: DPF has made no DPU for it", e.name())
	}
	if !e.DPU.DeletionTimestamp.IsZero() {
		return notReady("%s is being deleted", e.name())
	}
	if e.DPU.Status.Phase != provisioningv1alpha1.DPUPhaseReady {
		return notReady("%s is in phase %q", e.name(), e.DPU.Status.Phase)
	}
	if finding := checkHeldOff(e); finding.Answer != Yes {
		return finding
	}
	if ptr.Deref(e.DPU.Status.PostProvisioningNodeEffect, false) {
		return notReady("%s has a node effect under way", e.name())
	}
	if e.DPU.Status.DPUMode == "nic" {
		return notReady("%s is in NIC mode", e.name())
	}
	if e.Device != nil && !e.Device.DeletionTimestamp.IsZero() {
		return notReady("DPUDevice %s is being deleted", e.Device.Name)
	}
	return checkServer(e.Server)
}

// checkServer says whether DPF leaves the server alone.
func checkServer(server *provisioningv1alpha1.DPUNode) Finding {
	if server == nil {
		return Finding{Answer: Yes}
	}
	_, rebootAsked := server.Annotations[provisioningv1alpha1.ExternalRebootRequiredAnnotation]
	switch {
	case !server.DeletionTimestamp.IsZero():
		return Finding{No, reasonDPUNotReady, "DPUNode " + server.Name + " is being deleted"}
	case rebootAsked:
		return Finding{No, reasonDPUNotReady, "DPF waits for the server of DPUNode " + server.Name + " to be power-cycled"}
	case ptr.Deref(server.Status.RebootInProgress, false), isTrue(server.Status.Conditions, provisioningv1alpha1.DPUNodeRebootInProgressCondition):
		return Finding{No, reasonDPUNotReady, "DPF reboots the server of DPUNode " + server.Name}
	}
	return Finding{Answer: Yes}
}

func isTrue(conditions []metav1.Condition, kind string) bool {
	return meta.IsStatusConditionTrue(conditions, kind)
}

// CheckFree says whether nobody but the claim holds a DPU: no record of another holder, no label of ours, no VPC mark, no port
// on any virtual network, and no port that OVN has bound. The zero claim asks whether nobody at all does.
func CheckFree(e Evidence, claim Holder) Finding {
	if e.ClusterError != nil {
		return Finding{Unknown, reasonFabricUnreachable, "the DPU cluster of " + e.name() + " cannot be read: " + e.ClusterError.Error()}
	}
	own := false
	for _, carrier := range e.Carriers {
		holder, found, err := HolderOf(carrier.Annotations)
		switch {
		case err != nil:
			return Finding{No, reasonHeldByOther, "the holder record of " + e.name() + " cannot be read, so that it counts as held"}
		case found && holder.Holds() && !(claim != Holder{} && holder.SameClaim(claim)):
			return Finding{No, reasonHeldByOther, e.name() + " is held by another attachment"}
		case found && holder.Holds():
			own = true
		}
	}
	if own {
		return Finding{Answer: Yes}
	}
	if len(e.keys()) > 0 {
		return Finding{No, reasonForeignVPC, e.name() + " carries labels of a VPC without a record of who put them there"}
	}
	if e.Mark() != "" {
		return Finding{No, reasonForeignVPC, "the Node of " + e.name() + " is still marked with a VPC"}
	}
	if len(e.tenantInterfaces()) > 0 {
		return Finding{No, reasonForeignVPC, "a port of " + e.name() + " is on a virtual network"}
	}
	return CheckUnclaimed(e)
}
