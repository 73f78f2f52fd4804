// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package svcv1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// CredentialType says what the Secret of a DPUServiceCredentialRequest holds.
//
// +kubebuilder:validation:Enum=kubeconfig;tokenFile
type CredentialType string

// Credential types.
const (
	CredentialTypeKubeconfig CredentialType = "kubeconfig"
	CredentialTypeTokenFile  CredentialType = "tokenFile"
)

// NamespacedName names an object; an unset namespace means "default" to DPF.
type NamespacedName struct {
	// Name of the object.
	// +required
	Name string `json:"name"`
	// Namespace of the object.
	// +optional
	Namespace *string `json:"namespace,omitempty"`
}

// DPUServiceCredentialRequestSpec asks for a ServiceAccount's credentials.
type DPUServiceCredentialRequestSpec struct {
	// ServiceAccount DPF makes in the target cluster. Its rights are to be granted there by other means.
	// +required
	ServiceAccount NamespacedName `json:"serviceAccount"`
	// TargetCluster is the DPUCluster; absent means the management cluster itself.
	// +optional
	TargetCluster *NamespacedName `json:"targetCluster,omitempty"`
	// Type of the credentials.
	// +required
	Type CredentialType `json:"type"`
	// Duration a token lives, at least ten minutes, at most a day; DPF renews it in time.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	Duration *metav1.Duration `json:"duration,omitempty"`
	// Secret DPF writes in the management cluster; it rotates, so read it anew on every use.
	// +required
	Secret NamespacedName `json:"secret"`
	// ObjectMeta of that Secret.
	// +optional
	ObjectMeta TemplateMeta `json:"metadata,omitempty,omitzero"`
}

// DPUServiceCredentialRequestStatus says which credentials are in the Secret.
type DPUServiceCredentialRequestStatus struct {
	// Conditions ServiceAccountReconciled, SecretReconciled and Ready.
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// ServiceAccount as namespace/name.
	// +optional
	ServiceAccount string `json:"serviceAccount,omitempty"`
	// TargetCluster as namespace/name.
	// +optional
	TargetCluster string `json:"targetCluster,omitempty"`
	// Secret as namespace/name.
	// +optional
	Secret string `json:"secret,omitempty"`
	// IssuedAt is when the present token was made.
	// +optional
	IssuedAt *metav1.Time `json:"issuedAt,omitempty"`
	// ExpirationTimestamp is when it ends.
	// +optional
	ExpirationTimestamp *metav1.Time `json:"expirationTimestamp,omitempty"`
}

// DPUServiceCredentialRequest asks DPF for narrow credentials of a DPU cluster.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=dpuservicecredentialrequests
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63",message="name must have at most 63 characters"
type DPUServiceCredentialRequest struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec DPUServiceCredentialRequestSpec `json:"spec,omitempty,omitzero"`
	// +optional
	Status DPUServiceCredentialRequestStatus `json:"status,omitempty,omitzero"`
}

// DPUServiceCredentialRequestList is a list of DPUServiceCredentialRequest.
//
// +kubebuilder:object:root=true
type DPUServiceCredentialRequestList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DPUServiceCredentialRequest `json:"items"`
}
