// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package svcv1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// InterfaceType says which block of an InterfaceSpec counts.
//
// +kubebuilder:validation:Enum=vlan;physical;pf;vf;ovn;patch;service
type InterfaceType string

// Interface types a host port can have.
const (
	InterfaceTypePF       InterfaceType = "pf"
	InterfaceTypeVF       InterfaceType = "vf"
	InterfaceTypePhysical InterfaceType = "physical"
)

// InterfaceSpec is one interface on one DPU. DPF refuses a changed virtualNetwork, but lets other fields change: treat the
// object as immutable and replace it.
//
// +kubebuilder:validation:XValidation:rule="(self.interfaceType == 'pf' && has(self.pf)) || (self.interfaceType == 'vf' && has(self.vf)) || (self.interfaceType == 'vlan' && has(self.vlan)) || (self.interfaceType == 'physical' && has(self.physical)) || (self.interfaceType == 'service' && has(self.service)) || (self.interfaceType == 'patch' && has(self.patch)) || self.interfaceType == 'ovn'",message="interfaceType and its block must agree"
type InterfaceSpec struct {
	// InterfaceType says which block counts.
	// +required
	InterfaceType InterfaceType `json:"interfaceType"`
	// Node of the interface; set on a ServiceInterface, by its set.
	// +optional
	Node *string `json:"node,omitempty"`
	// PF is a physical function of the host.
	// +optional
	PF *PF `json:"pf,omitempty"`
	// VF is a virtual function of the host.
	// +optional
	VF *VF `json:"vf,omitempty"`
	// Physical is an uplink of the DPU.
	// +optional
	Physical *Physical `json:"physical,omitempty"`
	// VLAN is a VLAN on another interface.
	// +optional
	VLAN *VLAN `json:"vlan,omitempty"`
	// Service is an interface of a service on the DPU.
	// +optional
	Service *Service `json:"service,omitempty"`
	// Patch leads to another bridge of the DPU.
	// +optional
	Patch *Patch `json:"patch,omitempty"`
}

// PF is a physical function of the host.
//
// +kubebuilder:validation:XValidation:rule="has(self.virtualNetwork) == has(oldSelf.virtualNetwork) && (!has(self.virtualNetwork) || self.virtualNetwork == oldSelf.virtualNetwork)",message="virtualNetwork is immutable"
type PF struct {
	// ID of the function.
	// +required
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=255
	ID int32 `json:"pfID"`
	// VirtualNetwork in the namespace of the DPUServiceInterface.
	// +optional
	VirtualNetwork *string `json:"virtualNetwork,omitempty"`
}

// VF is a virtual function of the host.
//
// +kubebuilder:validation:XValidation:rule="has(self.virtualNetwork) == has(oldSelf.virtualNetwork) && (!has(self.virtualNetwork) || self.virtualNetwork == oldSelf.virtualNetwork)",message="virtualNetwork is immutable"
type VF struct {
	// PFID of the physical function it belongs to.
	// +required
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=255
	PFID int32 `json:"pfID"`
	// ID of the function.
	// +required
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=255
	ID int32 `json:"vfID"`
	// ParentInterfaceRef is deprecated by DPF.
	// +optional
	ParentInterfaceRef string `json:"parentInterfaceRef,omitempty"`
	// VirtualNetwork in the namespace of the DPUServiceInterface.
	// +optional
	VirtualNetwork *string `json:"virtualNetwork,omitempty"`
}

// Physical is an uplink of the DPU.
type Physical struct {
	// InterfaceName, such as p0.
	// +required
	InterfaceName string `json:"interfaceName"`
}

// VLAN on another interface.
type VLAN struct {
	// VLANID is the tag.
	// +required
	VLANID int32 `json:"vlanID"`
	// ParentInterfaceRef is the interface below.
	// +required
	ParentInterfaceRef string `json:"parentInterfaceRef"`
}

// Service is an interface of a service on the DPU.
//
// +kubebuilder:validation:XValidation:rule="has(self.virtualNetwork) == has(oldSelf.virtualNetwork) && (!has(self.virtualNetwork) || self.virtualNetwork == oldSelf.virtualNetwork)",message="virtualNetwork is immutable"
type Service struct {
	// ServiceID of the DPUService.
	// +required
	ServiceID string `json:"serviceID"`
	// Network is the attachment definition.
	// +required
	Network string `json:"network"`
	// InterfaceName inside the service.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=15
	InterfaceName string `json:"interfaceName"`
	// VirtualNetwork in the namespace of the DPUServiceInterface.
	// +optional
	VirtualNetwork *string `json:"virtualNetwork,omitempty"`
}

// Patch leads to another bridge of the DPU.
type Patch struct {
	// PeerBridge is that bridge.
	// +required
	PeerBridge string `json:"peerBridge"`
	// PeerPatchName is the port there.
	// +optional
	PeerPatchName string `json:"peerPatchName,omitempty"`
}

// TemplateMeta is put on the objects made from a template.
type TemplateMeta struct {
	// Labels to put.
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
	// Annotations to put.
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
}

// ServiceInterfaceTemplate is a ServiceInterface to be.
type ServiceInterfaceTemplate struct {
	// ObjectMeta of each ServiceInterface.
	// +optional
	ObjectMeta TemplateMeta `json:"metadata,omitempty,omitzero"`
	// Spec of each ServiceInterface, without node.
	// +required
	Spec InterfaceSpec `json:"spec"`
}

// ServiceInterfaceStatus is what the DPU made of an interface.
type ServiceInterfaceStatus struct {
	// Conditions ServiceInterfaceReconciled and Ready.
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// ObservedGeneration of the spec.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
}

// ServiceInterface is one interface on one DPU, in the DPU cluster: the place where an attachment is proven.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=serviceinterfaces
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.spec.node`
type ServiceInterface struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec InterfaceSpec `json:"spec,omitempty,omitzero"`
	// +optional
	Status ServiceInterfaceStatus `json:"status,omitempty,omitzero"`
}

// ServiceInterfaceList is a list of ServiceInterface.
//
// +kubebuilder:object:root=true
type ServiceInterfaceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ServiceInterface `json:"items"`
}
