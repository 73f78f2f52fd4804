// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package svcv1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// DPUServiceInterfaceSpec wants an interface on DPUs of one or more DPU clusters.
type DPUServiceInterfaceSpec struct {
	// DPUClusterSelector over the labels of DPUClusters; absent selects every cluster.
	// +optional
	DPUClusterSelector *metav1.LabelSelector `json:"dpuClusterSelector,omitempty"`
	// Template of the ServiceInterfaceSet in each selected cluster. DPF adds a label to its metadata: own single keys there,
	// never the map.
	// +required
	Template ServiceInterfaceSetTemplate `json:"template"`
}

// ServiceInterfaceSetTemplate is a ServiceInterfaceSet to be.
type ServiceInterfaceSetTemplate struct {
	// ObjectMeta of each set.
	// +optional
	ObjectMeta TemplateMeta `json:"metadata,omitempty,omitzero"`
	// Spec of each set. A nodeSelector that is absent or empty selects every DPU.
	// +required
	Spec ServiceInterfaceSetSpec `json:"spec"`
}

// DPUServiceInterfaceStatus sums up the sets.
type DPUServiceInterfaceStatus struct {
	// Conditions ServiceInterfacePreReqsReady, ServiceInterfaceSetReconciled, ServiceInterfaceSetReady and Ready.
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// ObservedGeneration of the spec.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
}

// DPUServiceInterface asks for an interface on DPUs; made in the DPF management cluster.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=dpuserviceinterfaces
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63",message="name must have at most 63 characters"
type DPUServiceInterface struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec DPUServiceInterfaceSpec `json:"spec,omitempty,omitzero"`
	// +optional
	Status DPUServiceInterfaceStatus `json:"status,omitempty,omitzero"`
}

// DPUServiceInterfaceList is a list of DPUServiceInterface.
//
// +kubebuilder:object:root=true
type DPUServiceInterfaceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DPUServiceInterface `json:"items"`
}
