// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package v1beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// DPUAttachmentFinalizer keeps a DPUAttachment until its ports are proven detached.
	DPUAttachmentFinalizer = "dpuattachment.infrastructure.cluster.x-k8s.io"

	// DPUAttachmentMachineLabel is the name of the MaasMachine an attachment was asked for, for people and selectors; the
	// authorisation reads spec.machineName.
	DPUAttachmentMachineLabel = "infrastructure.cluster.x-k8s.io/maasmachine-name"
)

// AttachmentState is what is asked of an attachment, and what is proven of it.
// +kubebuilder:validation:Enum=Attached;Detached
type AttachmentState string

// The states of an attachment.
const (
	AttachmentStateAttached AttachmentState = "Attached"
	AttachmentStateDetached AttachmentState = "Detached"
)

// EvidenceGrade says what a proof was read from, from the weakest to the strongest.
// +kubebuilder:validation:Enum=ServiceInterface;Bound;Barrier
type EvidenceGrade string

// The grades of evidence.
const (
	// EvidenceServiceInterface was read from the DPU cluster: ServiceInterface, Node and DPU.
	EvidenceServiceInterface EvidenceGrade = "ServiceInterface"
	// EvidenceBound was read from OVN's southbound database besides.
	EvidenceBound EvidenceGrade = "Bound"
	// EvidenceBarrier was read after every controller concerned had passed a barrier.
	EvidenceBarrier EvidenceGrade = "Barrier"
)

// AttachmentServer is the server whose ports are attached, and the claim under which it is held.
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="server is immutable: an attachment belongs to one claim on one server"
type AttachmentServer struct {
	// source is the fabric's name for the MAAS that owns the server.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Source string `json:"source,omitempty"`

	// systemID is the MAAS system ID.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[a-z0-9]+$`
	SystemID string `json:"systemID,omitempty"`

	// token is the claim's token.
	// +required
	// +kubebuilder:validation:Pattern=`^v1\.[0-9a-f]{32}\.[0-9a-f]{32}$`
	Token string `json:"token,omitempty"`
}

// AttachmentOverride is an operator's ForceDetach.
// +kubebuilder:validation:XValidation:rule="self.action == 'ForceDetach'",message="action must be ForceDetach"
type AttachmentOverride struct {
	Override `json:",inline"`
}

// DPUAttachmentSpec is what the machine wing asks of the fabric wing for one server under one claim.
// +kubebuilder:validation:XValidation:rule="self.vpcName == oldSelf.vpcName",message="vpcName is immutable"
// +kubebuilder:validation:XValidation:rule="self.machineName == oldSelf.machineName",message="machineName is immutable"
// +kubebuilder:validation:XValidation:rule="self.ports == oldSelf.ports",message="ports are immutable"
// +kubebuilder:validation:XValidation:rule="oldSelf.state != 'Detached' || self.state == 'Detached'",message="a detached attachment is not attached again: a new claim makes a new one"
type DPUAttachmentSpec struct {
	// state is what is asked: Attached, and once Detached for ever Detached.
	// +required
	State AttachmentState `json:"state,omitempty"`

	// server is the server and the claim under which it is held. Immutable.
	// +required
	Server AttachmentServer `json:"server,omitempty,omitzero"`

	// machineName is the MaasMachine in the attachment's namespace for which the token was made. Immutable.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	MachineName string `json:"machineName,omitempty"`

	// vpcName names the TenantVPC in the attachment's namespace. Immutable.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	VPCName string `json:"vpcName,omitempty"`

	// ports are the DPU ports and their subnets. All other ports of the server's DPUs must be on no VPC. Immutable.
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Ports []MachinePort `json:"ports,omitempty"`

	// override is an operator's decision: ForceDetach.
	// +optional
	Override *AttachmentOverride `json:"override,omitempty"`
}

// AttachmentPortStatus is one observed port.
type AttachmentPortStatus struct {
	// name is the name of the port.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=32
	Name string `json:"name,omitempty"`

	// dpuDevice is the DPUDevice of the port.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	DPUDevice string `json:"dpuDevice,omitempty"`

	// dpu is the DPU of the port, and the name of its Node in the DPU cluster.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	DPU string `json:"dpu,omitempty"`

	// networkName is the DPUVirtualNetwork the port is on.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	NetworkName string `json:"networkName,omitempty"`

	// mac is the MAC address of the port, in lower case with colons.
	// +optional
	// +kubebuilder:validation:MaxLength=17
	MAC string `json:"mac,omitempty"`

	// address is the tenant address of the port, where evidence gives it.
	// +optional
	// +kubebuilder:validation:MaxLength=39
	Address string `json:"address,omitempty"`

	// state is what is proven of the port: Attached or Detached; empty while neither is.
	// +optional
	State AttachmentState `json:"state,omitempty"`

	// evidence is what the proof was read from.
	// +optional
	Evidence EvidenceGrade `json:"evidence,omitempty"`

	// since is when the state was proven first.
	// +optional
	Since *metav1.Time `json:"since,omitempty"`

	// observed is when the state was proven last.
	// +optional
	Observed *metav1.Time `json:"observed,omitempty"`
}

// RequestedAction is what the fabric wing asks of the machine wing.
// +kubebuilder:validation:Enum=PowerOff
type RequestedAction string

// RequestedActionPowerOff asks for the server to be powered off, because its isolation is lost and the fabric says so.
const RequestedActionPowerOff RequestedAction = "PowerOff"

// DPUAttachmentStatus is what is proven of an attachment.
type DPUAttachmentStatus struct {
	// state is what is proven of all ports: Attached or Detached; empty while neither is.
	// +optional
	State AttachmentState `json:"state,omitempty"`

	// tokenHash is the hash of the token for which the state was proven.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	TokenHash string `json:"tokenHash,omitempty"`

	// observedGeneration is the generation for which the state was proven.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// provenAt is when the state was proven last.
	// +optional
	ProvenAt *metav1.Time `json:"provenAt,omitempty"`

	// validUntil is when the proof of Attached goes stale: provenAt plus the fabric's proofMaxAge.
	// +optional
	ValidUntil *metav1.Time `json:"validUntil,omitempty"`

	// fabricName is the DPUFabric that serves the attachment.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	FabricName string `json:"fabricName,omitempty"`

	// portIsolation repeats what the fabric says of its provisioning network, for the machine's Isolated condition.
	// +optional
	PortIsolation PortIsolation `json:"portIsolation,omitempty"`

	// requestedAction is what the fabric wing asks of the machine wing.
	// +optional
	RequestedAction RequestedAction `json:"requestedAction,omitempty"`

	// ports are the observed ports.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	Ports []AttachmentPortStatus `json:"ports,omitempty"`

	// conditions say where the attachment stands: Authorized, DPUResolved, PostureVerified, Attached, Ready.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=32
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=dpuattachments
// +kubebuilder:metadata:labels="cluster.x-k8s.io/v1beta2=v1beta1"
// +kubebuilder:printcolumn:name="Server",type=string,JSONPath=`.spec.server.systemID`
// +kubebuilder:printcolumn:name="Machine",type=string,JSONPath=`.spec.machineName`
// +kubebuilder:printcolumn:name="VPC",type=string,JSONPath=`.spec.vpcName`
// +kubebuilder:printcolumn:name="Asked",type=string,JSONPath=`.spec.state`
// +kubebuilder:printcolumn:name="Proven",type=string,JSONPath=`.status.state`
// +kubebuilder:printcolumn:name="Evidence",type=string,JSONPath=`.status.ports[0].evidence`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="DPU",type=string,priority=1,JSONPath=`.status.ports[*].dpu`
// +kubebuilder:printcolumn:name="Fabric",type=string,priority=1,JSONPath=`.status.fabricName`
// +kubebuilder:printcolumn:name="Proven-At",type=date,priority=1,JSONPath=`.status.provenAt`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Paused",type=string,priority=10,JSONPath=`.status.conditions[?(@.type=="Paused")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`

// DPUAttachment asks the fabric wing to attach the ports of one server to a TenantVPC under one claim. Only the machine wing
// writes it; it has no owner, so that no garbage collection takes it away before the ports are proven detached.
type DPUAttachment struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   DPUAttachmentSpec   `json:"spec,omitempty"`
	Status DPUAttachmentStatus `json:"status,omitempty"`
}

// GetConditions returns the conditions.
func (a *DPUAttachment) GetConditions() []metav1.Condition { return a.Status.Conditions }

// SetConditions replaces the conditions.
func (a *DPUAttachment) SetConditions(conditions []metav1.Condition) {
	a.Status.Conditions = conditions
}

// +kubebuilder:object:root=true

// DPUAttachmentList is a list of DPUAttachments.
type DPUAttachmentList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DPUAttachment `json:"items"`
}
