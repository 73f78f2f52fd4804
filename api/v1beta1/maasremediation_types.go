// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package v1beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
)

// RemediationStrategyType is the kind of remediation.
// +kubebuilder:validation:Enum=PowerCycle
type RemediationStrategyType string

// RemediationPowerCycle power-cycles the server before it is replaced.
const RemediationPowerCycle RemediationStrategyType = "PowerCycle"

// RemediationStrategy says how an unhealthy machine is treated before it is replaced.
type RemediationStrategy struct {
	// type is the kind of remediation.
	// +required
	Type RemediationStrategyType `json:"type,omitempty"`

	// retryLimit is how often it is tried before the machine is replaced.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10
	RetryLimit *int32 `json:"retryLimit,omitempty"`

	// timeoutSeconds is how long one try may take.
	// +optional
	// +kubebuilder:default=900
	// +kubebuilder:validation:Minimum=60
	TimeoutSeconds *int32 `json:"timeoutSeconds,omitempty"`
}

// MaasRemediationSpec is one wanted remediation.
type MaasRemediationSpec struct {
	// strategy says how the machine is treated.
	// +required
	Strategy RemediationStrategy `json:"strategy,omitempty,omitzero"`
}

// RemediationPhase is where a remediation stands.
// +kubebuilder:validation:Enum=Running;Waiting;Deleting
type RemediationPhase string

// The phases of a remediation.
const (
	RemediationRunning  RemediationPhase = "Running"
	RemediationWaiting  RemediationPhase = "Waiting"
	RemediationDeleting RemediationPhase = "Deleting"
)

// MaasRemediationStatus is one observed remediation.
type MaasRemediationStatus struct {
	// phase is where it stands.
	// +optional
	Phase RemediationPhase `json:"phase,omitempty"`

	// retryCount is how often it was tried.
	// +optional
	RetryCount *int32 `json:"retryCount,omitempty"`

	// lastRemediated is when it was tried last.
	// +optional
	LastRemediated *metav1.Time `json:"lastRemediated,omitempty"`

	// conditions say where the remediation stands.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=32
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=maasremediations,categories=cluster-api
// +kubebuilder:metadata:labels="cluster.x-k8s.io/v1beta2=v1beta1"
// +kubebuilder:printcolumn:name="Machine",type=string,JSONPath=`.metadata.ownerReferences[?(@.kind=="Machine")].name`
// +kubebuilder:printcolumn:name="Strategy",type=string,JSONPath=`.spec.strategy.type`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Retries",type=integer,JSONPath=`.status.retryCount`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Last",type=date,priority=1,JSONPath=`.status.lastRemediated`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`

// MaasRemediation treats one unhealthy machine. No controller serves it yet.
type MaasRemediation struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   MaasRemediationSpec   `json:"spec,omitempty"`
	Status MaasRemediationStatus `json:"status,omitempty"`
}

// GetConditions returns the conditions.
func (r *MaasRemediation) GetConditions() []metav1.Condition { return r.Status.Conditions }

// SetConditions replaces the conditions.
func (r *MaasRemediation) SetConditions(conditions []metav1.Condition) {
	r.Status.Conditions = conditions
}

// +kubebuilder:object:root=true

// MaasRemediationList is a list of MaasRemediations.
type MaasRemediationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []MaasRemediation `json:"items"`
}

// MaasRemediationTemplateResource is a MaasRemediation without status.
type MaasRemediationTemplateResource struct {
	// metadata is put on the MaasRemediation.
	// +optional
	ObjectMeta clusterv1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// spec is the spec of the MaasRemediation.
	// +required
	Spec MaasRemediationSpec `json:"spec,omitempty,omitzero"`
}

// MaasRemediationTemplateSpec holds the template.
type MaasRemediationTemplateSpec struct {
	// template is what MaasRemediations are made from.
	// +required
	Template MaasRemediationTemplateResource `json:"template,omitempty,omitzero"`
}

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=maasremediationtemplates,categories=cluster-api
// +kubebuilder:metadata:labels="cluster.x-k8s.io/v1beta2=v1beta1"
// +kubebuilder:printcolumn:name="Strategy",type=string,JSONPath=`.spec.template.spec.strategy.type`
// +kubebuilder:printcolumn:name="Retries",type=integer,JSONPath=`.spec.template.spec.strategy.retryLimit`
// +kubebuilder:printcolumn:name="Timeout",type=integer,JSONPath=`.spec.template.spec.strategy.timeoutSeconds`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`

// MaasRemediationTemplate is what MaasRemediations are made from.
type MaasRemediationTemplate struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec MaasRemediationTemplateSpec `json:"spec,omitempty"`
}

// +kubebuilder:object:root=true

// MaasRemediationTemplateList is a list of MaasRemediationTemplates.
type MaasRemediationTemplateList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []MaasRemediationTemplate `json:"items"`
}
