// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package v1beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// DPUServerFabricLabel is the DPUFabric that keeps a DPUServer.
	DPUServerFabricLabel = "infrastructure.cluster.x-k8s.io/fabric-name"
	// DPUServerSourceLabel is the claim source of a DPUServer.
	DPUServerSourceLabel = "infrastructure.cluster.x-k8s.io/source"
)

// DPUServerOverride is an operator's Rebind.
// +kubebuilder:validation:XValidation:rule="self.action == 'Rebind'",message="action must be Rebind"
type DPUServerOverride struct {
	Override `json:",inline"`
}

// DPUServerSpec identifies one server.
// +kubebuilder:validation:XValidation:rule="self.fabricName == oldSelf.fabricName && self.source == oldSelf.source && self.systemID == oldSelf.systemID",message="fabricName, source and systemID are immutable"
type DPUServerSpec struct {
	// fabricName is the DPUFabric that keeps this memory.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	FabricName string `json:"fabricName,omitempty"`

	// source is the fabric's name for the MAAS of the server.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Source string `json:"source,omitempty"`

	// systemID is the MAAS system ID.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[a-z0-9]+$`
	SystemID string `json:"systemID,omitempty"`

	// override is an operator's decision: Rebind. The binding follows what is found as long as it is there, and the server is not
	// handed out meanwhile; it is pinned anew when the override is removed.
	// +optional
	Override *DPUServerOverride `json:"override,omitempty"`
}

// Eligibility says whether a server may be claimed for isolated machines.
// +kubebuilder:validation:Enum=Eligible;Ineligible;Unknown
type Eligibility string

// The answers to whether a server may be claimed.
const (
	Eligible           Eligibility = "Eligible"
	Ineligible         Eligibility = "Ineligible"
	EligibilityUnknown Eligibility = "Unknown"
)

// DPUServerPort is one function of a DPU.
type DPUServerPort struct {
	// pf is the physical function, counted from 0.
	// +required
	PF *int32 `json:"pf,omitempty"`

	// mac is its MAC address, in lower case with colons, where known.
	// +optional
	// +kubebuilder:validation:MaxLength=17
	MAC string `json:"mac,omitempty"`
}

// BoundDPU is one DPU of a server, pinned at the first sight.
type BoundDPU struct {
	// dpuDevice is the DPUDevice.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	DPUDevice string `json:"dpuDevice,omitempty"`

	// dpuNode is the DPUNode that lists it.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	DPUNode string `json:"dpuNode,omitempty"`

	// dpu is the DPU object, and the name of its Node in the DPU cluster.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	DPU string `json:"dpu,omitempty"`

	// dpuCluster is the DPUCluster the DPU has joined.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	DPUCluster string `json:"dpuCluster,omitempty"`

	// serialNumber is the serial number the binding was pinned with.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	SerialNumber string `json:"serialNumber,omitempty"`

	// ports are its functions.
	// +optional
	// +listType=map
	// +listMapKey=pf
	// +kubebuilder:validation:MaxItems=16
	Ports []DPUServerPort `json:"ports,omitempty"`

	// vpcMark is the VPC the DPU's Node is marked with now, in DPF's form namespace_name; empty means none.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	VPCMark string `json:"vpcMark,omitempty"`
}

// DPUServerHolder is the attachment that holds a server.
type DPUServerHolder struct {
	// namespace of the attachment.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// name of the attachment.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// tokenHash is the hash of the claim's token.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	TokenHash string `json:"tokenHash,omitempty"`

	// installation is the management cluster the attachment is in, if it is another than this one.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Installation string `json:"installation,omitempty"`
}

// Rebound is a Rebind that was carried out.
type Rebound struct {
	// by is the user who decided.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	By string `json:"by,omitempty"`

	// reason is why.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason,omitempty"`

	// since is when the binding began to follow what is found.
	// +optional
	Since metav1.Time `json:"since,omitempty,omitzero"`

	// before are the DPUDevices that were pinned until then.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=253
	Before []string `json:"before,omitempty"`
}

// PostureResult is the result of one posture check.
type PostureResult struct {
	// name is the check.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Name string `json:"name,omitempty"`

	// status is True when the check passed, False when it failed, Unknown when it could not be made.
	// +required
	Status metav1.ConditionStatus `json:"status,omitempty"`

	// message says what was read.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`

	// observedAt is when the DPUs' BMCs were asked.
	// +optional
	ObservedAt *metav1.Time `json:"observedAt,omitempty"`
}

// DPUServerStatus is what the fabric remembers of one server.
type DPUServerStatus struct {
	// eligibility says whether the server may be claimed for isolated machines.
	// +optional
	Eligibility Eligibility `json:"eligibility,omitempty"`

	// dpus are the DPUs of the server: the pinned binding.
	// +optional
	// +listType=map
	// +listMapKey=dpuDevice
	// +kubebuilder:validation:MaxItems=8
	DPUs []BoundDPU `json:"dpus,omitempty"`

	// holder is the attachment that holds the server, until its ports are proven detached.
	// +optional
	Holder *DPUServerHolder `json:"holder,omitempty"`

	// rebound is the last Rebind that the binding followed; it stays when spec.override is gone.
	// +optional
	Rebound *Rebound `json:"rebound,omitempty"`

	// posture are the results of the posture checks since the server was last detached, each the worst of all its DPUs.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	Posture []PostureResult `json:"posture,omitempty"`

	// observedAt is when the fabric was read last for this server.
	// +optional
	ObservedAt *metav1.Time `json:"observedAt,omitempty"`

	// conditions say where the server stands: Healthy, Free, Ready.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=32
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=dpuservers,scope=Cluster
// +kubebuilder:metadata:labels="cluster.x-k8s.io/v1beta2=v1beta1"
// +kubebuilder:printcolumn:name="Server",type=string,JSONPath=`.spec.systemID`
// +kubebuilder:printcolumn:name="Eligibility",type=string,JSONPath=`.status.eligibility`
// +kubebuilder:printcolumn:name="Healthy",type=string,JSONPath=`.status.conditions[?(@.type=="Healthy")].status`
// +kubebuilder:printcolumn:name="Free",type=string,JSONPath=`.status.conditions[?(@.type=="Free")].status`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Holder",type=string,JSONPath=`.status.holder.namespace`
// +kubebuilder:printcolumn:name="Attachment",type=string,priority=1,JSONPath=`.status.holder.name`
// +kubebuilder:printcolumn:name="DPUs",type=string,JSONPath=`.status.dpus[*].dpu`
// +kubebuilder:printcolumn:name="VPC",type=string,priority=1,JSONPath=`.status.dpus[*].vpcMark`
// +kubebuilder:printcolumn:name="Observed",type=date,priority=1,JSONPath=`.status.observedAt`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`

// DPUServer is what the fabric knows and remembers of one server: its DPUs, and who holds it. Its name is <source>.<systemID>.
// +kubebuilder:validation:XValidation:rule="self.metadata.name == self.spec.source + '.' + self.spec.systemID",message="metadata.name must be <source>.<systemID>: there is one memory of a server"
type DPUServer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   DPUServerSpec   `json:"spec,omitempty"`
	Status DPUServerStatus `json:"status,omitempty"`
}

// GetConditions returns the conditions.
func (s *DPUServer) GetConditions() []metav1.Condition { return s.Status.Conditions }

// SetConditions replaces the conditions.
func (s *DPUServer) SetConditions(conditions []metav1.Condition) { s.Status.Conditions = conditions }

// +kubebuilder:object:root=true

// DPUServerList is a list of DPUServers.
type DPUServerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DPUServer `json:"items"`
}

// DPUServerName is the name of the DPUServer of a server.
func DPUServerName(source, systemID string) string { return source + "." + systemID }
