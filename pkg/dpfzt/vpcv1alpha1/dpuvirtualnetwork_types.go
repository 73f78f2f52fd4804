// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpcv1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// VirtualNetworkType is how hosts see a virtual network.
//
// +kubebuilder:validation:Enum=Bridged
type VirtualNetworkType string

// VirtualNetworkTypeBridged is a layer 2 network with a gateway.
const VirtualNetworkTypeBridged VirtualNetworkType = "Bridged"

// DPUVirtualNetworkSpec can never change.
//
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="spec is immutable"
// +kubebuilder:validation:XValidation:rule="self.type == 'Bridged' && has(self.bridgedNetwork)",message="a Bridged network needs bridgedNetwork"
type DPUVirtualNetworkSpec struct {
	// VPCName is the DPUVPC, in the same namespace.
	// +required
	VPCName string `json:"vpcName"`
	// Type of the network.
	// +required
	Type VirtualNetworkType `json:"type"`
	// ExternallyRouted lets hosts reach outside the VPC.
	// +required
	ExternallyRouted bool `json:"externallyRouted"`
	// Masquerade hides hosts behind their DPU's address on the way out; DPF does not support false.
	// +optional
	// +kubebuilder:default=true
	Masquerade *bool `json:"masquerade,omitempty"`
	// BridgedNetwork of a Bridged network.
	// +optional
	BridgedNetwork *BridgedNetwork `json:"bridgedNetwork,omitempty"`
}

// BridgedNetwork is a layer 2 network.
type BridgedNetwork struct {
	// IPAM of the network.
	// +optional
	IPAM *IPAM `json:"ipam,omitempty"`
}

// IPAM gives addresses to hosts.
type IPAM struct {
	// IPv4 addresses.
	// +optional
	IPv4 *IPv4 `json:"ipv4,omitempty"`
}

// IPv4 addresses of a network; the first usable one is the gateway's.
type IPv4 struct {
	// DHCP makes OVN answer DHCP requests, without name servers, MTU or boot file.
	// +required
	DHCP bool `json:"dhcp"`
	// Subnet in CIDR notation.
	// +required
	Subnet string `json:"subnet"`
	// ExcludeIPs are not handed out.
	// +optional
	ExcludeIPs []ExcludeIP `json:"excludeIPs,omitempty"`
}

// ExcludeIP is an address or a range.
type ExcludeIP struct {
	// IP is a single address.
	// +optional
	IP string `json:"ip,omitempty"`
	// Range of addresses, both ends included.
	// +optional
	Range *IPRange `json:"range,omitempty"`
}

// IPRange from Start to End, both included.
type IPRange struct {
	// Start of the range.
	// +required
	Start string `json:"start"`
	// End of the range.
	// +required
	End string `json:"end"`
}

// DPUVirtualNetworkStatus says what OVN has of it.
type DPUVirtualNetworkStatus struct {
	// Conditions PrerequisitesReady, DPUVirtualNetworkReconciled and Ready.
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// ObservedGeneration of the spec.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
}

// DPUVirtualNetwork is a subnet of a DPUVPC.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=dpuvirtualnetworks
// +kubebuilder:selectablefield:JSONPath=`.spec.vpcName`
type DPUVirtualNetwork struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec DPUVirtualNetworkSpec `json:"spec,omitempty,omitzero"`
	// +optional
	Status DPUVirtualNetworkStatus `json:"status,omitempty,omitzero"`
}

// DPUVirtualNetworkList is a list of DPUVirtualNetwork.
//
// +kubebuilder:object:root=true
type DPUVirtualNetworkList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DPUVirtualNetwork `json:"items"`
}
