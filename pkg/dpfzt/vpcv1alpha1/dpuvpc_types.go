// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpcv1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// DPUVPCSpec of which only interNetworkAccess can change.
//
// +kubebuilder:validation:XValidation:rule="self.tenant == oldSelf.tenant",message="tenant is immutable"
// +kubebuilder:validation:XValidation:rule="self.isolationClassName == oldSelf.isolationClassName",message="isolationClassName is immutable"
// +kubebuilder:validation:XValidation:rule="has(self.nodeSelector) == has(oldSelf.nodeSelector) && (!has(self.nodeSelector) || self.nodeSelector == oldSelf.nodeSelector)",message="nodeSelector is immutable"
type DPUVPCSpec struct {
	// Tenant the VPC belongs to; free text.
	// +required
	// +kubebuilder:validation:MinLength=1
	Tenant string `json:"tenant"`
	// IsolationClassName is the class that isolates it.
	// +required
	// +kubebuilder:validation:MinLength=1
	IsolationClassName string `json:"isolationClassName"`
	// InterNetworkAccess lets the VPC's virtual networks reach each other.
	// +required
	InterNetworkAccess bool `json:"interNetworkAccess"`
	// NodeSelector over the Nodes of DPU clusters. Absent selects none, empty every one: the opposite of a
	// DPUServiceInterface.
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`
}

// DPUVPCStatus says what OVN has of it.
type DPUVPCStatus struct {
	// Conditions PrerequisitesReady, DPUVPCReconciled, DPUNodesReconciled, TopologyReconciled and Ready.
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// ObservedGeneration of the spec.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// VirtualNetworks in the VPC.
	// +optional
	VirtualNetworks []VirtualNetworkStatus `json:"virtualNetworks,omitempty"`
}

// VirtualNetworkStatus names a virtual network of a VPC.
type VirtualNetworkStatus struct {
	// Name of the DPUVirtualNetwork.
	// +required
	Name string `json:"name"`
}

// DPUVPC is an isolated network space of one tenant. A Node may be in one only.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=dpuvpcs
// +kubebuilder:selectablefield:JSONPath=`.spec.isolationClassName`
type DPUVPC struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec DPUVPCSpec `json:"spec,omitempty,omitzero"`
	// +optional
	Status DPUVPCStatus `json:"status,omitempty,omitzero"`
}

// DPUVPCList is a list of DPUVPC.
//
// +kubebuilder:object:root=true
type DPUVPCList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DPUVPC `json:"items"`
}
