// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package svcv1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ServiceInterfaceSetSpec wants one ServiceInterface on each selected Node.
type ServiceInterfaceSetSpec struct {
	// NodeSelector over the Nodes of the DPU cluster; absent or empty selects every DPU.
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`
	// Template of the ServiceInterfaces.
	// +required
	Template ServiceInterfaceTemplate `json:"template"`
}

// ServiceInterfaceSetStatus counts the interfaces.
type ServiceInterfaceSetStatus struct {
	// Conditions ServiceInterfacesReconciled, ServiceInterfacesReady and Ready; True with zero Nodes.
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// ObservedGeneration of the spec.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// NumberApplied ServiceInterfaces made.
	// +optional
	NumberApplied *int32 `json:"numberApplied,omitempty"`
	// NumberReady exists, but DPF never fills it.
	// +optional
	NumberReady *int32 `json:"numberReady,omitempty"`
}

// ServiceInterfaceSet spreads one interface over the Nodes of a DPU cluster; DPF makes it from a DPUServiceInterface of the
// same namespace and name.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=serviceinterfacesets
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63",message="name must have at most 63 characters"
type ServiceInterfaceSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec ServiceInterfaceSetSpec `json:"spec,omitempty,omitzero"`
	// +optional
	Status ServiceInterfaceSetStatus `json:"status,omitempty,omitzero"`
}

// ServiceInterfaceSetList is a list of ServiceInterfaceSet.
//
// +kubebuilder:object:root=true
type ServiceInterfaceSetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ServiceInterfaceSet `json:"items"`
}
