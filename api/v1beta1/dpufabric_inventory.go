// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package v1beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// InventoryReadCondition of a DPUFabric is Unknown while the fabric's servers cannot be read in DPF: until they are, none is handed
// out. Its message names labels of DPUNodes that stand for no server.
const InventoryReadCondition = "InventoryRead"

// MaxOrphanPorts is how many orphans a DPUFabric lists; its condition Accounted counts them all.
const MaxOrphanPorts = 64

// OrphanPort is a DPU whose ports are attached with nobody who asked for it. It is only reported: nobody touches it.
type OrphanPort struct {
	// dpuDevice is the DPUDevice.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	DPUDevice string `json:"dpuDevice,omitempty"`

	// server is the DPUServer it belongs to; empty if it belongs to none.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Server string `json:"server,omitempty"`

	// dpu is the DPU object, and the name of its Node in the DPU cluster; empty if there is none.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	DPU string `json:"dpu,omitempty"`

	// attachment is the DPUAttachment that the record on the DPU names, as namespace/name; empty if there is no record.
	// +optional
	// +kubebuilder:validation:MaxLength=320
	Attachment string `json:"attachment,omitempty"`

	// vpcMark is the VPC the DPU's Node is marked with, in DPF's form namespace_name; empty means none.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	VPCMark string `json:"vpcMark,omitempty"`

	// reason is what is wrong, in one CamelCase word: NoAttachment, AnotherClaim, DetachedYetHeld, UnreadableRecord, NoRecord or
	// OnNetwork.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`

	// since is when it was found first.
	// +optional
	Since metav1.Time `json:"since,omitempty,omitzero"`
}

// What is wrong with an orphan of a DPUFabric.
const (
	// OrphanPortNoAttachment says that the attachment which the DPU's record names does not exist.
	OrphanPortNoAttachment = "NoAttachment"
	// OrphanPortAnotherClaim says that it exists under another claim.
	OrphanPortAnotherClaim = "AnotherClaim"
	// OrphanPortDetachedYetHeld says that it exists and is proven detached, and the DPU's record still holds.
	OrphanPortDetachedYetHeld = "DetachedYetHeld"
	// OrphanPortUnreadableRecord says that the DPU's record cannot be read.
	OrphanPortUnreadableRecord = "UnreadableRecord"
	// OrphanPortNoRecord says that the DPU carries labels of ours and no record of who put them there.
	OrphanPortNoRecord = "NoRecord"
	// OrphanPortOnNetwork says that a port of a server's DPU is on a virtual network, or its Node in a VPC, with neither labels of
	// ours nor a record.
	OrphanPortOnNetwork = "OnNetwork"
)
