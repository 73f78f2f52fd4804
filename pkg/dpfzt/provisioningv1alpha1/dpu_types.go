// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioningv1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// DPUPhase is where a DPU stands between a bare card and a Node with services.
//
// +kubebuilder:validation:Enum="Initializing";"Node Effect";"Pending";"Config FW Parameters";"Prepare BFB";"OS Installing";"DPU Config";"DPU Cluster Config";"Host Network Configuration";"Ready";"Error";"Deleting";"Rebooting";"Perform ARM Force Restart";"Initialize Interface";"Node Effect Removal";"Checking Host Reboot Required";"Update Firmware";"Service Readiness"
type DPUPhase string

// Phases of a DPU. A label change takes a Ready one through DPUClusterConfig and NodeEffectRemoval back to Ready.
const (
	DPUPhaseInitializing        DPUPhase = "Initializing"
	DPUPhaseNodeEffect          DPUPhase = "Node Effect"
	DPUPhasePending             DPUPhase = "Pending"
	DPUPhaseConfigFW            DPUPhase = "Config FW Parameters"
	DPUPhasePrepareBFB          DPUPhase = "Prepare BFB"
	DPUPhaseOSInstalling        DPUPhase = "OS Installing"
	DPUPhaseDPUConfig           DPUPhase = "DPU Config"
	DPUPhaseDPUClusterConfig    DPUPhase = "DPU Cluster Config"
	DPUPhaseHostNetwork         DPUPhase = "Host Network Configuration"
	DPUPhaseRebooting           DPUPhase = "Rebooting"
	DPUPhaseArmForceRestart     DPUPhase = "Perform ARM Force Restart"
	DPUPhaseInitializeInterface DPUPhase = "Initialize Interface"
	DPUPhaseNodeEffectRemoval   DPUPhase = "Node Effect Removal"
	DPUPhaseCheckHostReboot     DPUPhase = "Checking Host Reboot Required"
	DPUPhaseUpdateFirmware      DPUPhase = "Update Firmware"   // since v26.8
	DPUPhaseServiceReadiness    DPUPhase = "Service Readiness" // since v26.8
	DPUPhaseReady               DPUPhase = "Ready"
	DPUPhaseError               DPUPhase = "Error"
	DPUPhaseDeleting            DPUPhase = "Deleting"
)

// DPUSpec binds a card to a server and a DPU cluster.
type DPUSpec struct {
	// DPUNodeName is the DPUNode (server), in the DPU's namespace.
	// +required
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="dpuNodeName is immutable"
	DPUNodeName string `json:"dpuNodeName"`
	// DPUDeviceName is the DPUDevice (card), in the DPU's namespace.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="dpuDeviceName is immutable"
	DPUDeviceName string `json:"dpuDeviceName"`
	// SerialNumber of the card.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="serialNumber is immutable"
	SerialNumber string `json:"serialNumber"`
	// BFB is the image on the DPU; v26.8 allows it to be empty.
	// +required
	BFB string `json:"bfb"`
	// DPUFlavor is the configuration of the DPU.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="dpuFlavor is immutable"
	DPUFlavor string `json:"dpuFlavor"`
	// NodeEffect is what DPF does to the server before it disturbs the DPU.
	// +required
	NodeEffect NodeEffect `json:"nodeEffect"`
	// Cluster the DPU joins.
	// +optional
	Cluster DPUClusterMembership `json:"cluster,omitempty,omitzero"`
}

// DPUClusterMembership says which DPU cluster, and with which labels on the Node.
type DPUClusterMembership struct {
	// Name of the DPUCluster.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="cluster name is immutable"
	Name string `json:"name,omitempty"`
	// Namespace of the DPUCluster.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="cluster namespace is immutable"
	Namespace string `json:"namespace,omitempty"`
	// NodeLabels are copied to the Node; a label taken away here is taken off the Node.
	// +optional
	NodeLabels map[string]string `json:"nodeLabels,omitempty"`
}

// NodeEffect holds one effect (zero trust knows hold, noEffect and customAction) and how it is applied.
//
// +kubebuilder:validation:XValidation:rule="(has(self.hold) ? 1 : 0) + (has(self.noEffect) ? 1 : 0) + (has(self.customAction) ? 1 : 0) + (has(self.drain) ? 1 : 0) == 1",message="set exactly one node effect"
type NodeEffect struct {
	// Hold waits until somebody releases the DPUNodeMaintenance.
	// +optional
	Hold *bool `json:"hold,omitempty"`
	// NoEffect goes on at once.
	// +optional
	NoEffect *bool `json:"noEffect,omitempty"`
	// CustomAction names a ConfigMap with a Pod to run.
	// +optional
	CustomAction *string `json:"customAction,omitempty"`
	// Drain the server's Node; not for zero trust.
	// +optional
	Drain *bool `json:"drain,omitempty"`
	// ApplyOnLabelChange applies the effect also when only Node labels change: with hold, every attachment of a tenant then
	// waits for a human.
	// +optional
	// +kubebuilder:default=false
	ApplyOnLabelChange *bool `json:"applyOnLabelChange,omitempty"`
}

// DPUStatus is where the DPU stands.
type DPUStatus struct {
	// Phase of the DPU; separate from the condition Ready.
	// +optional
	// +kubebuilder:default=Initializing
	Phase DPUPhase `json:"phase,omitempty"`
	// PreviousPhase is set by DPF when it needs to know where it came from.
	// +optional
	PreviousPhase DPUPhase `json:"previousPhase,omitempty"`
	// ObservedGeneration of the spec.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Conditions of the installation.
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// OperationalConditions of the running DPU.
	// +optional
	// +listType=map
	// +listMapKey=type
	OperationalConditions []metav1.Condition `json:"operationalConditions,omitempty"`
	// DPUMode is "dpu" or "nic".
	// +optional
	DPUMode string `json:"dpuMode,omitempty"`
	// DPUType is the family, such as BlueField3.
	// +optional
	// +kubebuilder:validation:Enum=Unknown;BlueField2;BlueField3;BlueField4
	DPUType string `json:"dpuType,omitempty"`
	// DeploymentMode is zero-trust or host-trusted. Since v26.8.
	// +optional
	DeploymentMode string `json:"deploymentMode,omitempty"`
	// SecureBoot of the DPU.
	// +optional
	SecureBoot *SecureBootStatus `json:"secureBoot,omitempty"`
	// Firmware versions of the DPU.
	// +optional
	Firmware *DPUFirmware `json:"firmware,omitempty"`
	// AgentStatus is what the agent on the DPU reports.
	// +optional
	AgentStatus *DPUAgentStatus `json:"agentStatus,omitempty"`
	// PostProvisioningNodeEffect is true while a node effect runs for a change to a DPU that was Ready.
	// +optional
	PostProvisioningNodeEffect *bool `json:"postProvisioningNodeEffect,omitempty"`
}

// DPUFirmware versions.
type DPUFirmware struct {
	// BMC firmware.
	// +optional
	BMC string `json:"bmc,omitempty"`
	// NIC firmware.
	// +optional
	NIC string `json:"nic,omitempty"`
	// UEFI firmware.
	// +optional
	UEFI string `json:"uefi,omitempty"`
}

// DPUAgentStatus is what the agent on the DPU reports.
type DPUAgentStatus struct {
	// RebootMethod is the strongest reboot the DPU still needs.
	// +optional
	// +kubebuilder:validation:Enum=Unknown;NoAction;PowerCycle;SystemReboot;SystemLevelReset;FirmwareReset;DPUWarmReboot
	RebootMethod string `json:"rebootMethod,omitempty"`
	// LastStartupTime of the agent.
	// +optional
	LastStartupTime *metav1.Time `json:"lastStartupTime,omitempty"`
}

// DPU is one card as a member of a DPU cluster. Its name is the name of its Node there; it is generated, so a DPU is found by
// its spec.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=dpus
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
type DPU struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec DPUSpec `json:"spec,omitempty"`
	// +optional
	// +kubebuilder:default={phase: Initializing}
	Status DPUStatus `json:"status,omitempty,omitzero"`
}

// DPUList is a list of DPU.
//
// +kubebuilder:object:root=true
type DPUList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DPU `json:"items"`
}
