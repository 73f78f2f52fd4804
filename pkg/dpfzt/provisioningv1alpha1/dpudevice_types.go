// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioningv1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// DPUDeviceSpec identifies one physical card.
type DPUDeviceSpec struct {
	// SerialNumber of the card, as its BMC reports it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="serialNumber is immutable"
	SerialNumber string `json:"serialNumber"`
	// BMCIP is the IPv4 address of the card's BMC.
	// +optional
	// +kubebuilder:validation:Format=ipv4
	BMCIP string `json:"bmcIp,omitempty"`
	// BMCPort is where that BMC serves Redfish.
	// +optional
	// +kubebuilder:default=443
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="bmcPort is immutable"
	BMCPort int32 `json:"bmcPort,omitempty"`
	// NumberOfPFs the card shows to its host.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="numberOfPFs is immutable"
	NumberOfPFs int32 `json:"numberOfPFs,omitempty"`
	// Cluster holds what DPF puts on this card's Node. Since v26.8; an older API server drops it.
	// +optional
	Cluster *DPUDeviceCluster `json:"cluster,omitempty"`
}

// DPUDeviceCluster is metadata for the Node of one card.
type DPUDeviceCluster struct {
	// NodeLabels are copied to the Node; a label taken away here is taken off the Node.
	// +optional
	NodeLabels map[string]string `json:"nodeLabels,omitempty"`
	// NodeAnnotations are copied to the Node likewise.
	// +optional
	NodeAnnotations map[string]string `json:"nodeAnnotations,omitempty"`
}

// DPUDeviceStatus is what DPF read from the card.
type DPUDeviceStatus struct {
	// Conditions of the card, among them Discovered, NodeAttached, Error and Ready.
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// SerialNumber as the BMC reports it.
	// +optional
	SerialNumber string `json:"serialNumber,omitempty"`
	// PF0MAC is the MAC address of the first physical function, in the BMC's letter case.
	// +optional
	// +kubebuilder:validation:Pattern=`^([0-9A-Fa-f]{2}[:-]){5}([0-9A-Fa-f]{2})$`
	PF0MAC string `json:"pf0Mac,omitempty"`
	// BMCIP is the IPv4 address DPF talks to.
	// +optional
	// +kubebuilder:validation:Format=ipv4
	BMCIP string `json:"bmcIp,omitempty"`
	// DPUMode is "dpu" or "nic"; older releases said "zero-trust".
	// +optional
	// +kubebuilder:default=dpu
	DPUMode string `json:"dpuMode,omitempty"`
	// DPUType is the family, such as BlueField3.
	// +optional
	// +kubebuilder:default=Unknown
	// +kubebuilder:validation:Enum=Unknown;BlueField2;BlueField3;BlueField4
	DPUType string `json:"dpuType,omitempty"`
	// SecureBoot of the card.
	// +optional
	SecureBoot *SecureBootStatus `json:"secureBoot,omitempty"`
}

// SecureBootStatus says whether a DPU boots signed images only.
type SecureBootStatus struct {
	// Enabled is absent when unknown.
	// +optional
	Enabled *bool `json:"enabled,omitempty"`
}

// DPUDevice is one physical card. Deleting and recreating one makes DPF reset its BMC to factory settings.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=dpudevices
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63",message="name must have at most 63 characters"
type DPUDevice struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec DPUDeviceSpec `json:"spec,omitempty"`
	// +optional
	Status DPUDeviceStatus `json:"status,omitempty,omitzero"`
}

// DPUDeviceList is a list of DPUDevice.
//
// +kubebuilder:object:root=true
type DPUDeviceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DPUDevice `json:"items"`
}
