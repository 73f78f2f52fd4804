// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package v1beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
)

// MaasClusterFinalizer keeps a MaasCluster until no MaasMachine of its cluster is left.
const MaasClusterFinalizer = "maascluster.infrastructure.cluster.x-k8s.io"

// IdentityReference names the MaasClusterIdentity with which MAAS is asked.
type IdentityReference struct {
	// kind is the kind of the identity.
	// +optional
	// +kubebuilder:default=MaasClusterIdentity
	// +kubebuilder:validation:Enum=MaasClusterIdentity
	Kind string `json:"kind,omitempty"`

	// name is the name of the identity.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
}

// EndpointReachability says who vouches that tenant servers reach the control plane endpoint.
// +kubebuilder:validation:Enum=Asserted
type EndpointReachability string

// EndpointReachabilityAsserted says that the operator or tenant vouches for the path to an endpoint that lies inside a
// tenant pool of the fabric; without it such an endpoint is refused, because nobody can dial into a VPC.
const EndpointReachabilityAsserted EndpointReachability = "Asserted"

// MaasClusterSpec is the wanted infrastructure of one cluster.
// +kubebuilder:validation:XValidation:rule="self.identityRef == oldSelf.identityRef",message="identityRef is immutable: the servers of a cluster stay with the MAAS account that claimed them; create a new cluster to change it"
// +kubebuilder:validation:XValidation:rule="(has(self.vpcName) ? self.vpcName : \"\") == (has(oldSelf.vpcName) ? oldSelf.vpcName : \"\")",message="vpcName is immutable: create a new cluster to move to another TenantVPC"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.controlPlaneEndpoint) || (has(self.controlPlaneEndpoint) && self.controlPlaneEndpoint == oldSelf.controlPlaneEndpoint)",message="controlPlaneEndpoint is immutable once set"
type MaasClusterSpec struct {
	// identityRef names the MaasClusterIdentity with which MAAS is asked. Immutable.
	// +required
	IdentityRef IdentityReference `json:"identityRef,omitempty,omitzero"`

	// controlPlaneEndpoint is where the workload cluster's API server answers. It is the user's own (a virtual IP, a load
	// balancer) and lies outside the tenant pools of the fabric. Empty until the control plane provider sets the Cluster's.
	// Immutable once set.
	// +optional
	ControlPlaneEndpoint clusterv1.APIEndpoint `json:"controlPlaneEndpoint,omitempty,omitzero"`

	// endpointReachability set to Asserted admits an endpoint inside a tenant pool of the fabric.
	// +optional
	EndpointReachability EndpointReachability `json:"endpointReachability,omitempty"`

	// failureDomains are the MAAS zones the cluster may use. Empty means every zone the identity may use.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=256
	FailureDomains []string `json:"failureDomains,omitempty"`

	// vpcName names the TenantVPC, in the same namespace, to which the machines' DPU ports are attached. May be left
	// empty only where the identity's isolation is Optional. Immutable.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	VPCName string `json:"vpcName,omitempty"`
}

// MaasClusterInitializationStatus is what Cluster API reads to go on.
// +kubebuilder:validation:MinProperties=1
type MaasClusterInitializationStatus struct {
	// provisioned is true once machines may be created; it never flips back.
	// +optional
	Provisioned *bool `json:"provisioned,omitempty"`
}

// MaasClusterStatus is the observed infrastructure of one cluster.
type MaasClusterStatus struct {
	// initialization tells Cluster API when to go on.
	// +optional
	Initialization MaasClusterInitializationStatus `json:"initialization,omitempty,omitzero"`

	// failureDomains are the MAAS zones machines are spread over.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=100
	FailureDomains []clusterv1.FailureDomain `json:"failureDomains,omitempty"`

	// conditions say where the cluster's infrastructure stands.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=32
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=maasclusters,categories=cluster-api
// +kubebuilder:metadata:labels="cluster.x-k8s.io/v1beta2=v1beta1"
// +kubebuilder:printcolumn:name="Cluster",type=string,JSONPath=`.metadata.labels['cluster\.x-k8s\.io/cluster-name']`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Endpoint",type=string,JSONPath=`.spec.controlPlaneEndpoint.host`
// +kubebuilder:printcolumn:name="VPC",type=string,JSONPath=`.spec.vpcName`
// +kubebuilder:printcolumn:name="Identity",type=string,priority=1,JSONPath=`.spec.identityRef.name`
// +kubebuilder:printcolumn:name="Provisioned",type=string,priority=1,JSONPath=`.status.initialization.provisioned`
// +kubebuilder:printcolumn:name="Zones",type=string,priority=1,JSONPath=`.status.failureDomains[*].name`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Paused",type=string,priority=10,JSONPath=`.status.conditions[?(@.type=="Paused")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`

// MaasCluster is the infrastructure of one cluster on servers claimed from MAAS.
type MaasCluster struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   MaasClusterSpec   `json:"spec,omitempty"`
	Status MaasClusterStatus `json:"status,omitempty"`
}

// GetConditions returns the conditions.
func (c *MaasCluster) GetConditions() []metav1.Condition { return c.Status.Conditions }

// SetConditions replaces the conditions.
func (c *MaasCluster) SetConditions(conditions []metav1.Condition) { c.Status.Conditions = conditions }

// +kubebuilder:object:root=true

// MaasClusterList is a list of MaasClusters.
type MaasClusterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []MaasCluster `json:"items"`
}

// MaasClusterTemplateSpec holds the template.
type MaasClusterTemplateSpec struct {
	// template is what a MaasCluster of a ClusterClass is made from.
	// +required
	Template MaasClusterTemplateResource `json:"template,omitempty,omitzero"`
}

// MaasClusterTemplateResource is a MaasCluster without status.
type MaasClusterTemplateResource struct {
	// metadata is put on the MaasCluster.
	// +optional
	ObjectMeta clusterv1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// spec is the spec of the MaasCluster.
	// +required
	Spec MaasClusterTemplateResourceSpec `json:"spec,omitempty,omitzero"`
}

// MaasClusterTemplateResourceSpec is a MaasClusterSpec without its transition rules, so that the topology controller's
// dry runs reach the webhook, which can tell them from real updates.
type MaasClusterTemplateResourceSpec struct {
	// identityRef names the MaasClusterIdentity with which MAAS is asked.
	// +required
	IdentityRef IdentityReference `json:"identityRef,omitempty,omitzero"`

	// controlPlaneEndpoint is where the workload cluster's API server answers.
	// +optional
	ControlPlaneEndpoint clusterv1.APIEndpoint `json:"controlPlaneEndpoint,omitempty,omitzero"`

	// endpointReachability set to Asserted admits an endpoint inside a tenant pool of the fabric.
	// +optional
	EndpointReachability EndpointReachability `json:"endpointReachability,omitempty"`

	// failureDomains are the MAAS zones the cluster may use.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=256
	FailureDomains []string `json:"failureDomains,omitempty"`

	// vpcName names the TenantVPC to which the machines' DPU ports are attached.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	VPCName string `json:"vpcName,omitempty"`
}

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=maasclustertemplates,categories=cluster-api
// +kubebuilder:metadata:labels="cluster.x-k8s.io/v1beta2=v1beta1"
// +kubebuilder:printcolumn:name="ClusterClass",type=string,JSONPath=`.metadata.ownerReferences[?(@.kind=="ClusterClass")].name`
// +kubebuilder:printcolumn:name="Identity",type=string,JSONPath=`.spec.template.spec.identityRef.name`
// +kubebuilder:printcolumn:name="VPC",type=string,JSONPath=`.spec.template.spec.vpcName`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`

// MaasClusterTemplate is what the MaasClusters of a ClusterClass are made from.
type MaasClusterTemplate struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec MaasClusterTemplateSpec `json:"spec,omitempty"`
}

// +kubebuilder:object:root=true

// MaasClusterTemplateList is a list of MaasClusterTemplates.
type MaasClusterTemplateList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []MaasClusterTemplate `json:"items"`
}
