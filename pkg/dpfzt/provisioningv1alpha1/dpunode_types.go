// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioningv1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// DPUNodeSpec lists the cards of one server.
type DPUNodeSpec struct {
	// DPUs in the server, by DPUDevice name; DPF compares the names without regard to case.
	// +optional
	DPUs []DPURef `json:"dpus,omitempty"`
	// NodeRebootMethod is how DPF gets the server rebooted.
	// +optional
	NodeRebootMethod *NodeRebootMethod `json:"nodeRebootMethod,omitempty"`
}

// DPURef names a DPUDevice in the same namespace.
type DPURef struct {
	// Name of the DPUDevice.
	// +required
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
}

// NodeRebootMethod holds exactly one of its members.
//
// +kubebuilder:validation:XValidation:rule="(has(self.external) ? 1 : 0) + (has(self.hostAgent) ? 1 : 0) + (has(self.script) ? 1 : 0) <= 1",message="set one reboot method"
type NodeRebootMethod struct {
	// External leaves it to somebody outside DPF, see ExternalRebootRequiredAnnotation.
	// +optional
	External *NodeRebootEmpty `json:"external,omitempty"`
	// HostAgent is an agent on the host, which zero trust does not have.
	// +optional
	HostAgent *NodeRebootEmpty `json:"hostAgent,omitempty"`
	// Script runs a Job from a ConfigMap.
	// +optional
	Script *NodeRebootScript `json:"script,omitempty"`
}

// NodeRebootEmpty is a reboot method without parameters.
type NodeRebootEmpty struct{}

// NodeRebootScript names the ConfigMap whose key pod-template describes the Job.
type NodeRebootScript struct {
	// Name of the ConfigMap.
	// +required
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
}

// DPUNodeStatus is what DPF does with the server.
type DPUNodeStatus struct {
	// Conditions of the server, among them Ready and DPUNodeRebootInProgress.
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// DPUInstallInterface is redfish in zero trust.
	// +optional
	// +kubebuilder:validation:Enum=gNOI;hostAgent;redfish
	DPUInstallInterface string `json:"dpuInstallInterface,omitempty"`
	// RebootInProgress is true while DPF has a reboot of the server under way.
	// +optional
	RebootInProgress *bool `json:"rebootInProgress,omitempty"`
}

// DPUNode is one server and the cards in it. DPF does not find out which server that is: the operator says so.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=dpunodes
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 48",message="name must have at most 48 characters"
type DPUNode struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec DPUNodeSpec `json:"spec,omitempty"`
	// +optional
	Status DPUNodeStatus `json:"status,omitempty,omitzero"`
}

// DPUNodeList is a list of DPUNode.
//
// +kubebuilder:object:root=true
type DPUNodeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DPUNode `json:"items"`
}
