// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package v1beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MaasClusterIdentityFinalizer keeps an identity while machines or clusters need it.
const MaasClusterIdentityFinalizer = "maasclusteridentity.infrastructure.cluster.x-k8s.io"

// AllowedNamespaces are the namespaces that may use a cluster-scoped object: those listed, and those selected.
type AllowedNamespaces struct {
	// names are namespaces by name.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=1024
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	Names []string `json:"names,omitempty"`

	// selector selects namespaces by label; an empty selector selects all.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// LocalSecretReference names a Secret in the namespace of the wing that reads it.
type LocalSecretReference struct {
	// name is the name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
}

// IsolationRequirement says whether machines may run without a proven attachment.
// +kubebuilder:validation:Enum=Required;Optional
type IsolationRequirement string

// The requirements of isolation.
const (
	IsolationRequired IsolationRequirement = "Required"
	IsolationOptional IsolationRequirement = "Optional"
)

// PortIsolationRequirement says what an identity accepts of the provisioning network.
// +kubebuilder:validation:Enum=Asserted;NotAssertedAccepted
type PortIsolationRequirement string

// The requirements of the provisioning network.
const (
	PortIsolationRequirementAsserted            PortIsolationRequirement = "Asserted"
	PortIsolationRequirementNotAssertedAccepted PortIsolationRequirement = "NotAssertedAccepted"
)

// IdentityRelease is the policy for releasing servers.
// +kubebuilder:validation:XValidation:rule="!has(self.eraseDefault) || !has(self.eraseMinimum) || self.eraseDefault == self.eraseMinimum || self.eraseMinimum == 'None' || self.eraseDefault == 'Full' || (self.eraseMinimum == 'Quick' && self.eraseDefault == 'Secure')",message="eraseDefault must not be weaker than eraseMinimum; the order is None, Quick, Secure, Full"
type IdentityRelease struct {
	// eraseDefault is how disks are wiped where a machine does not say.
	// +optional
	// +kubebuilder:default=Quick
	EraseDefault ReleaseErase `json:"eraseDefault,omitempty"`

	// eraseMinimum is the least a machine may ask for.
	// +optional
	// +kubebuilder:default=Quick
	EraseMinimum ReleaseErase `json:"eraseMinimum,omitempty"`

	// scripts are MAAS release scripts to run.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=255
	Scripts []string `json:"scripts,omitempty"`
}

// CircuitBreaker stops new claims when servers break faster than chance: whichever of servers and percent is more.
type CircuitBreaker struct {
	// servers is how many servers held within the window open it.
	// +optional
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=1
	Servers *int32 `json:"servers,omitempty"`

	// percent is which part of the account's servers opens it.
	// +optional
	// +kubebuilder:default=5
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Percent *int32 `json:"percent,omitempty"`

	// windowSeconds is the window.
	// +optional
	// +kubebuilder:default=3600
	// +kubebuilder:validation:Minimum=60
	WindowSeconds *int32 `json:"windowSeconds,omitempty"`
}

// Deadlines bound what MAAS may take.
type Deadlines struct {
	// callSeconds bounds one call.
	// +optional
	// +kubebuilder:default=30
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=300
	CallSeconds *int32 `json:"callSeconds,omitempty"`

	// allocateSeconds bounds one allocation; MAAS itself gives up after 90 s.
	// +optional
	// +kubebuilder:default=60
	// +kubebuilder:validation:Minimum=10
	// +kubebuilder:validation:Maximum=300
	AllocateSeconds *int32 `json:"allocateSeconds,omitempty"`

	// deploySeconds bounds a deployment, from accepted to Deployed.
	// +optional
	// +kubebuilder:default=3600
	// +kubebuilder:validation:Minimum=60
	DeploySeconds *int32 `json:"deploySeconds,omitempty"`

	// releaseSeconds bounds a release without a full overwrite.
	// +optional
	// +kubebuilder:default=3600
	// +kubebuilder:validation:Minimum=60
	ReleaseSeconds *int32 `json:"releaseSeconds,omitempty"`
}

// FabricAccess names where TenantVPCs, DPUAttachments and DPUServers live.
type FabricAccess struct {
	// secretRef names a Secret, in the machine wing's namespace, whose key kubeconfig reaches the cluster of the fabric wing.
	// +required
	SecretRef LocalSecretReference `json:"secretRef,omitempty,omitzero"`

	// namespace is the namespace there that stands for every namespace here. Empty means the same names.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
}

// MaasClusterIdentitySpec is one MAAS account and what it may be used for.
// +kubebuilder:validation:XValidation:rule="self.endpoint == oldSelf.endpoint",message="endpoint is immutable: servers claimed there would be lost; create a new identity"
// +kubebuilder:validation:XValidation:rule="(has(self.source) ? self.source : \"\") == (has(oldSelf.source) ? oldSelf.source : \"\")",message="source is immutable: servers claimed under it would be lost; create a new identity"
// +kubebuilder:validation:XValidation:rule="(has(self.isolation) && self.isolation == 'Optional') || (has(self.source) && self.source != \"\")",message="source is required where isolation is Required: write the name the DPUFabric's claimSources give this MAAS"
type MaasClusterIdentitySpec struct {
	// endpoint is the root of the MAAS API, for example https://maas.example.com:5443/MAAS. Immutable.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() in ['http','https'] && url(self).getEscapedPath().endsWith('/MAAS')",message="endpoint must be a URL that ends in /MAAS, for example https://maas.example.com:5443/MAAS"
	Endpoint string `json:"endpoint,omitempty"`

	// caBundle are the PEM certificates MAAS is verified with. Empty means the system's.
	// +optional
	CABundle []byte `json:"caBundle,omitempty"`

	// secretRef names the Secret, in the machine wing's namespace, whose key apiKey holds the MAAS API key.
	// +required
	SecretRef LocalSecretReference `json:"secretRef,omitempty,omitzero"`

	// source is the fabric's name for this MAAS. Required unless isolation is Optional. Immutable.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Source string `json:"source,omitempty"`

	// allowedNamespaces are the namespaces whose clusters may use the identity. Absent means none.
	// +optional
	AllowedNamespaces *AllowedNamespaces `json:"allowedNamespaces,omitempty"`

	// isolation says whether machines may run without a proven attachment.
	// +optional
	// +kubebuilder:default=Required
	Isolation IsolationRequirement `json:"isolation,omitempty"`

	// portIsolation says what is accepted of the fabric's provisioning network.
	// +optional
	// +kubebuilder:default=Asserted
	PortIsolation PortIsolationRequirement `json:"portIsolation,omitempty"`

	// allowAdmin accepts a MAAS administrator's key. An administrator's account is not stopped by MAAS from touching
	// servers of others.
	// +optional
	AllowAdmin *bool `json:"allowAdmin,omitempty"`

	// allowedZones are the MAAS zones that may be used. Empty means all.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=256
	AllowedZones []string `json:"allowedZones,omitempty"`

	// allowedPools are the MAAS resource pools that may be used. Empty means all.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=256
	AllowedPools []string `json:"allowedPools,omitempty"`

	// maxParallelAllocates is how many allocations are under way at once.
	// +optional
	// +kubebuilder:default=4
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=16
	MaxParallelAllocates *int32 `json:"maxParallelAllocates,omitempty"`

	// release is the policy for releasing servers.
	// +optional
	// +kubebuilder:default={}
	Release IdentityRelease `json:"release,omitempty"`

	// circuitBreaker stops new claims when servers break faster than chance.
	// +optional
	// +kubebuilder:default={}
	CircuitBreaker CircuitBreaker `json:"circuitBreaker,omitempty"`

	// deadlines bound what MAAS may take.
	// +optional
	// +kubebuilder:default={}
	Deadlines Deadlines `json:"deadlines,omitempty"`

	// fabricAccess names where the fabric's objects live. Absent means this cluster.
	// +optional
	FabricAccess *FabricAccess `json:"fabricAccess,omitempty"`
}

// HeldServer is a server that stays allocated because it is not proven clean.
type HeldServer struct {
	// systemID is the MAAS system ID.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	SystemID string `json:"systemID,omitempty"`

	// machine is the MaasMachine it was claimed for, as namespace/name.
	// +optional
	// +kubebuilder:validation:MaxLength=320
	Machine string `json:"machine,omitempty"`

	// reason is why it is held, in one CamelCase word.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`

	// since is when it was held.
	// +required
	Since metav1.Time `json:"since,omitempty,omitzero"`
}

// SuspectServer is a server under which deployments failed.
type SuspectServer struct {
	// systemID is the MAAS system ID.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	SystemID string `json:"systemID,omitempty"`

	// machines are the MaasMachines under which it failed, as namespace/name.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	Machines []string `json:"machines,omitempty"`

	// since is when it failed first.
	// +required
	Since metav1.Time `json:"since,omitempty,omitzero"`
}

// OrphanServer is a server about which MAAS and the MaasMachines do not agree. It is only reported: nobody touches it.
type OrphanServer struct {
	// systemID is the MAAS system ID.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	SystemID string `json:"systemID,omitempty"`

	// machine is the MaasMachine concerned, as namespace/name; empty if none is known.
	// +optional
	// +kubebuilder:validation:MaxLength=320
	Machine string `json:"machine,omitempty"`

	// reason is what disagrees, in one CamelCase word.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`

	// since is when an audit found it first.
	// +optional
	Since metav1.Time `json:"since,omitempty,omitzero"`
}

// BreakerStatus is the state of the circuit breaker.
type BreakerStatus struct {
	// open says that new claims are stopped.
	// +optional
	Open *bool `json:"open,omitempty"`

	// since is when it changed.
	// +optional
	Since *metav1.Time `json:"since,omitempty"`
}

// MaasClusterIdentityStatus is what is known of one account.
type MaasClusterIdentityStatus struct {
	// account is the MAAS user name behind the key. It is pinned while machines use the identity: a key of another account
	// would make every server look lost.
	// +optional
	// +kubebuilder:validation:MaxLength=255
	Account string `json:"account,omitempty"`

	// zones are the MAAS zones that may be used.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=1024
	Zones []string `json:"zones,omitempty"`

	// held are the servers that stay allocated because they are not proven clean.
	// +optional
	// +listType=map
	// +listMapKey=systemID
	Held []HeldServer `json:"held,omitempty"`

	// suspects are the servers under which deployments failed.
	// +optional
	// +listType=map
	// +listMapKey=systemID
	Suspects []SuspectServer `json:"suspects,omitempty"`

	// orphans are the servers of the account that no MaasMachine answers for.
	// +optional
	// +listType=map
	// +listMapKey=systemID
	Orphans []OrphanServer `json:"orphans,omitempty"`

	// breaker is the state of the circuit breaker.
	// +optional
	Breaker *BreakerStatus `json:"breaker,omitempty"`

	// conditions say whether the identity can be used.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=32
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=maasclusteridentities,scope=Cluster,categories=cluster-api
// +kubebuilder:metadata:labels="cluster.x-k8s.io/v1beta2=v1beta1"
// +kubebuilder:metadata:labels="clusterctl.cluster.x-k8s.io/move-hierarchy=true"
// +kubebuilder:printcolumn:name="Endpoint",type=string,JSONPath=`.spec.endpoint`
// +kubebuilder:printcolumn:name="Account",type=string,JSONPath=`.status.account`
// +kubebuilder:printcolumn:name="Isolation",type=string,JSONPath=`.spec.isolation`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Claims",type=string,JSONPath=`.status.conditions[?(@.type=="ClaimsAdmitted")].reason`
// +kubebuilder:printcolumn:name="Held",type=string,JSONPath=`.status.held[*].systemID`
// +kubebuilder:printcolumn:name="Suspects",type=string,priority=1,JSONPath=`.status.suspects[*].systemID`
// +kubebuilder:printcolumn:name="Orphans",type=string,JSONPath=`.status.orphans[*].systemID`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Paused",type=string,priority=10,JSONPath=`.status.conditions[?(@.type=="Paused")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`

// MaasClusterIdentity is one MAAS account, who may use it, and how.
type MaasClusterIdentity struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   MaasClusterIdentitySpec   `json:"spec,omitempty"`
	Status MaasClusterIdentityStatus `json:"status,omitempty"`
}

// GetConditions returns the conditions.
func (i *MaasClusterIdentity) GetConditions() []metav1.Condition { return i.Status.Conditions }

// SetConditions replaces the conditions.
func (i *MaasClusterIdentity) SetConditions(conditions []metav1.Condition) {
	i.Status.Conditions = conditions
}

// +kubebuilder:object:root=true

// MaasClusterIdentityList is a list of MaasClusterIdentities.
type MaasClusterIdentityList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []MaasClusterIdentity `json:"items"`
}
