// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioningv1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// DPUClusterPhase is the life of a DPU cluster's control plane.
type DPUClusterPhase string

// Phases of a DPUCluster.
const (
	DPUClusterPhasePending  DPUClusterPhase = "Pending"
	DPUClusterPhaseCreating DPUClusterPhase = "Creating"
	DPUClusterPhaseReady    DPUClusterPhase = "Ready"
	DPUClusterPhaseNotReady DPUClusterPhase = "NotReady"
	DPUClusterPhaseFailed   DPUClusterPhase = "Failed"
)

// AdminKubeconfigKey is the data key of the Secret that DPUClusterSpec.Kubeconfig names.
const AdminKubeconfigKey = "super-admin.conf"

// DPUClusterSpec says who runs the control plane and how to reach it.
type DPUClusterSpec struct {
	// Type is kamaji, static or vendor/name.
	// +required
	// +kubebuilder:validation:Pattern=`kamaji|static|[^/]+/.*`
	Type string `json:"type"`
	// Kubeconfig names the Secret, in the same namespace, with the administrator's kubeconfig under AdminKubeconfigKey.
	// +optional
	// +kubebuilder:validation:XValidation:rule="oldSelf == \"\" || self == oldSelf",message="kubeconfig is set once"
	Kubeconfig string `json:"kubeconfig,omitempty"`
	// MaxNodes the cluster takes.
	// +optional
	// +kubebuilder:default=1000
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	MaxNodes int32 `json:"maxNodes,omitempty"`
}

// DPUClusterStatus says whether the control plane is there.
type DPUClusterStatus struct {
	// Phase of the control plane.
	// +optional
	// +kubebuilder:default=Pending
	Phase DPUClusterPhase `json:"phase,omitempty"`
	// Conditions Created, Ready and Upgraded.
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Version of Kubernetes it runs.
	// +optional
	Version string `json:"version,omitempty"`
}

// DPUCluster is a Kubernetes cluster whose Nodes are DPUs.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=dpuclusters
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63",message="name must have at most 63 characters"
type DPUCluster struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec DPUClusterSpec `json:"spec"`
	// +optional
	// +kubebuilder:default={phase: Pending}
	Status DPUClusterStatus `json:"status,omitempty,omitzero"`
}

// DPUClusterList is a list of DPUCluster.
//
// +kubebuilder:object:root=true
type DPUClusterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DPUCluster `json:"items"`
}
