// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package v1beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TenantVPCFinalizer keeps a TenantVPC until its objects on the fabric are gone.
const TenantVPCFinalizer = "tenantvpc.infrastructure.cluster.x-k8s.io"

// TenantVPCMadeAnnotation is put on a TenantVPC by the fabric wing before it makes the first object on the fabric; its value is
// the name of the DPUVPC. A TenantVPC without it, and without a vpcName in its status, left nothing on any fabric: it can be
// deleted even while its fabric cannot be asked. An annotation survives a move and a backup, which lose the status.
const TenantVPCMadeAnnotation = "tenantvpc.infrastructure.cluster.x-k8s.io/made"

// VPCSubnet is one virtual network of a TenantVPC.
type VPCSubnet struct {
	// name names the subnet within the TenantVPC.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name,omitempty"`

	// cidr is the IPv4 network of the subnet, for example 10.64.0.0/24; the first usable address is the gateway. It lies in
	// a tenant pool of the fabric, not in 100.64.0.0/16 (OVN's own), and overlaps no other subnet of the TenantVPC. Immutable.
	// +required
	// +kubebuilder:validation:MinLength=9
	// +kubebuilder:validation:MaxLength=18
	// +kubebuilder:validation:XValidation:rule="isCIDR(self) && cidr(self).ip().family() == 4",message="cidr must be an IPv4 network such as 10.64.0.0/24"
	// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || cidr(self) == cidr(self).masked()",message="cidr must be the network's own address: clear the host bits, for example 10.64.0.0/24 instead of 10.64.0.5/24"
	// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || cidr(self).ip().family() != 4 || (cidr(self).prefixLength() >= 8 && cidr(self).prefixLength() <= 29)",message="cidr must have a prefix length between 8 and 29"
	// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || cidr(self).ip().family() != 4 || !(cidr('100.64.0.0/16').containsCIDR(cidr(self)) || cidr(self).containsCIDR(cidr('100.64.0.0/16')))",message="cidr must lie outside 100.64.0.0/16, which OVN uses inside every VPC"
	CIDR string `json:"cidr,omitempty"`

	// externallyRouted lets machines reach addresses outside the VPC by source NAT. Nobody can dial in. Immutable.
	// +optional
	ExternallyRouted *bool `json:"externallyRouted,omitempty"`

	// excludeIPs are addresses or ranges (10.64.0.10-10.64.0.20) that are never leased. Immutable.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=7
	// +kubebuilder:validation:items:MaxLength=31
	// +kubebuilder:validation:items:Pattern=`^[0-9.]+(-[0-9.]+)?$`
	ExcludeIPs []string `json:"excludeIPs,omitempty"`
}

// VPCAdoption names an existing DPUVPC to use instead of making one.
type VPCAdoption struct {
	// name is the name of the DPUVPC on the fabric. It is used only where the operator granted it to this TenantVPC.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`
}

// TenantVPCSpec is one wanted VPC.
// +kubebuilder:validation:XValidation:rule="self.fabricName == oldSelf.fabricName",message="fabricName is immutable: create a new TenantVPC on the other fabric"
// +kubebuilder:validation:XValidation:rule="has(self.adopt) == has(oldSelf.adopt) && (!has(self.adopt) || self.adopt == oldSelf.adopt)",message="adopt is immutable: create a new TenantVPC instead"
// +kubebuilder:validation:XValidation:rule="!has(self.adopt) || !has(self.subnets) || size(self.subnets) == 0",message="subnets and adopt exclude each other: an adopted VPC has the subnets it has"
// +kubebuilder:validation:XValidation:rule="has(self.adopt) || (has(self.subnets) && size(self.subnets) > 0)",message="name at least one subnet, or a VPC to adopt"
// +kubebuilder:validation:XValidation:rule="!has(self.subnets) || !has(oldSelf.subnets) || self.subnets.all(s, oldSelf.subnets.all(o, o.name != s.name || (o.cidr == s.cidr && (has(o.externallyRouted) && o.externallyRouted) == (has(s.externallyRouted) && s.externallyRouted) && (has(o.excludeIPs) ? o.excludeIPs : []) == (has(s.excludeIPs) ? s.excludeIPs : []))))",message="a subnet cannot be changed: remove it and add one with another name"
// +kubebuilder:validation:XValidation:rule="!has(self.adopt) || !has(self.interNetworkAccess)",message="interNetworkAccess and adopt exclude each other: an adopted VPC is never changed, ask its operator"
type TenantVPCSpec struct {
	// fabricName names the DPUFabric. Immutable.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	FabricName string `json:"fabricName,omitempty"`

	// interNetworkAccess lets the subnets of the VPC reach each other.
	// +optional
	InterNetworkAccess *bool `json:"interNetworkAccess,omitempty"`

	// subnets are the virtual networks of the VPC. They can be added and removed, not changed.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	Subnets []VPCSubnet `json:"subnets,omitempty"`

	// adopt names an existing DPUVPC to use instead of making one. Immutable.
	// +optional
	Adopt *VPCAdoption `json:"adopt,omitempty"`
}

// VPCSubnetStatus is one observed subnet.
type VPCSubnetStatus struct {
	// name is the name of the subnet.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`

	// networkName is the name of the DPUVirtualNetwork on the fabric.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	NetworkName string `json:"networkName,omitempty"`

	// cidr is the network of the subnet.
	// +optional
	// +kubebuilder:validation:MaxLength=18
	CIDR string `json:"cidr,omitempty"`

	// externallyRouted says whether machines reach addresses outside the VPC.
	// +optional
	ExternallyRouted *bool `json:"externallyRouted,omitempty"`

	// ready says whether the subnet can take ports.
	// +optional
	Ready *bool `json:"ready,omitempty"`

	// capacity is how many addresses can be leased.
	// +optional
	Capacity *int32 `json:"capacity,omitempty"`

	// used is how many ports are on the subnet, as read from the fabric.
	// +optional
	Used *int32 `json:"used,omitempty"`

	// claimed is how many addresses are spoken for: the ports that are on the subnet, and those that DPUAttachments ask for and
	// that are not proven attached yet. No server is claimed for a machine that would find none left.
	// +optional
	Claimed *int32 `json:"claimed,omitempty"`
}

// TenantVPCStatus is one observed VPC.
type TenantVPCStatus struct {
	// vpcName is the name of the DPUVPC on the fabric, from the moment something is made there.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	VPCName string `json:"vpcName,omitempty"`

	// tenantPools are the networks subnets are taken from, repeated from the fabric for those who may not read it: nobody can
	// dial into an address inside them.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=18
	TenantPools []string `json:"tenantPools,omitempty"`

	// subnets are the subnets as they are on the fabric.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Subnets []VPCSubnetStatus `json:"subnets,omitempty"`

	// conditions say where the VPC stands.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=32
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=tenantvpcs,categories=cluster-api
// +kubebuilder:metadata:labels="cluster.x-k8s.io/v1beta2=v1beta1"
// +kubebuilder:metadata:labels="clusterctl.cluster.x-k8s.io/move=true"
// +kubebuilder:printcolumn:name="Fabric",type=string,JSONPath=`.spec.fabricName`
// +kubebuilder:printcolumn:name="VPC",type=string,JSONPath=`.status.vpcName`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Subnets",type=string,JSONPath=`.spec.subnets[*].cidr`
// +kubebuilder:printcolumn:name="Addresses",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="AddressesAvailable")].reason`
// +kubebuilder:printcolumn:name="Claimed",type=string,priority=1,JSONPath=`.status.subnets[*].claimed`
// +kubebuilder:printcolumn:name="Capacity",type=string,priority=1,JSONPath=`.status.subnets[*].capacity`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Paused",type=string,priority=10,JSONPath=`.status.conditions[?(@.type=="Paused")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`

// TenantVPC is a tenant's isolated network on a DPU fabric. It has a life of its own: clusters come and go in it.
type TenantVPC struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   TenantVPCSpec   `json:"spec,omitempty"`
	Status TenantVPCStatus `json:"status,omitempty"`
}

// GetConditions returns the conditions.
func (v *TenantVPC) GetConditions() []metav1.Condition { return v.Status.Conditions }

// SetConditions replaces the conditions.
func (v *TenantVPC) SetConditions(conditions []metav1.Condition) { v.Status.Conditions = conditions }

// +kubebuilder:object:root=true

// TenantVPCList is a list of TenantVPCs.
type TenantVPCList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TenantVPC `json:"items"`
}
