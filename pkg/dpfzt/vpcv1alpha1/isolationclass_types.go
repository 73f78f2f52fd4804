// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpcv1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// IsolationClassSpec says who isolates and with which parameters.
//
// +kubebuilder:validation:XValidation:rule="self.provisioner == oldSelf.provisioner",message="provisioner is immutable"
type IsolationClassSpec struct {
	// Provisioner that serves the class.
	// +required
	Provisioner string `json:"provisioner"`
	// Parameters for the provisioner.
	// +optional
	Parameters map[string]string `json:"parameters,omitempty"`
}

// IsolationClass is a way to isolate tenants, set up by the operator.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=isolationclasses,scope=Cluster
type IsolationClass struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec IsolationClassSpec `json:"spec,omitempty,omitzero"`
}

// IsolationClassList is a list of IsolationClass.
//
// +kubebuilder:object:root=true
type IsolationClassList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []IsolationClass `json:"items"`
}
