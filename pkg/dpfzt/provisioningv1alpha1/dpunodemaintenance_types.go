// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioningv1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// DPUNodeMaintenanceSpec says which server is to be disturbed, how and for whom.
type DPUNodeMaintenanceSpec struct {
	// DPUNodeName is the server.
	// +required
	DPUNodeName string `json:"dpuNodeName"`
	// NodeEffect to apply first.
	// +optional
	NodeEffect *NodeEffect `json:"nodeEffect,omitempty"`
	// Requestor lists who asked.
	// +optional
	Requestor []string `json:"requestor,omitempty"`
}

// DPUNodeMaintenanceStatus says how far it got.
type DPUNodeMaintenanceStatus struct {
	// Conditions NodeEffectApplied and NodeEffectRemoved.
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// NodeEffectSyncStartTime is when DPF began to wait for the other DPUs of the server.
	// +optional
	NodeEffectSyncStartTime *metav1.Time `json:"nodeEffectSyncStartTime,omitempty"`
}

// DPUNodeMaintenance carries the node effect of a server. With hold, DPF waits here before it reinstalls a DPU.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=dpunodemaintenances
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63",message="name must have at most 63 characters"
type DPUNodeMaintenance struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec DPUNodeMaintenanceSpec `json:"spec,omitempty"`
	// +optional
	Status DPUNodeMaintenanceStatus `json:"status,omitempty,omitzero"`
}

// DPUNodeMaintenanceList is a list of DPUNodeMaintenance.
//
// +kubebuilder:object:root=true
type DPUNodeMaintenanceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DPUNodeMaintenance `json:"items"`
}
