// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package v1beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DPUFabricFinalizer keeps a fabric while TenantVPCs, attachments or held servers need it.
const DPUFabricFinalizer = "dpufabric.infrastructure.cluster.x-k8s.io"

// FabricBackendType is the kind of fabric.
// +kubebuilder:validation:Enum=OVNVPC
type FabricBackendType string

// FabricBackendOVNVPC is the OVN VPC service of DPF.
const FabricBackendOVNVPC FabricBackendType = "OVNVPC"

// DPUClusterAccess is how the DPU cluster is read.
// +kubebuilder:validation:Enum=CredentialRequest;AdminKubeconfig
type DPUClusterAccess string

// The ways of reading the DPU cluster.
const (
	// DPUClusterAccessCredentialRequest asks DPF for a read-only account by DPUServiceCredentialRequest.
	DPUClusterAccessCredentialRequest DPUClusterAccess = "CredentialRequest"
	// DPUClusterAccessAdminKubeconfig uses the DPUCluster's administrator kubeconfig.
	DPUClusterAccessAdminKubeconfig DPUClusterAccess = "AdminKubeconfig"
)

// OVNEndpoints reach OVN's databases for stronger evidence.
// +kubebuilder:validation:XValidation:rule="has(self.tlsSecretRef) || !(self.southbound.contains('ssl:') || (has(self.northbound) && self.northbound.contains('ssl:')))",message="ssl: needs tlsSecretRef: name a Secret in the fabric wing's namespace with tls.crt, tls.key and ca.crt, or write tcp:"
// +kubebuilder:validation:XValidation:rule="!has(self.barrier) || !self.barrier || has(self.northbound)",message="barrier: true needs northbound: name the northbound database, for example ssl:192.0.2.1:6641, or leave barrier out"
type OVNEndpoints struct {
	// southbound is the southbound database, for example ssl:192.0.2.1:6642. Those of a cluster are separated by commas; the
	// one that leads is believed.
	// +required
	// +kubebuilder:validation:Pattern=`^(tcp|ssl):.+:[0-9]+$`
	// +kubebuilder:validation:MaxLength=255
	Southbound string `json:"southbound,omitempty"`

	// northbound is the northbound database, for example ssl:192.0.2.1:6641. Barriers need it, and so do the tenant addresses
	// that OVN's DHCP gives: only it knows them.
	// +optional
	// +kubebuilder:validation:Pattern=`^(tcp|ssl):.+:[0-9]+$`
	// +kubebuilder:validation:MaxLength=255
	Northbound string `json:"northbound,omitempty"`

	// tlsSecretRef names a Secret, in the fabric wing's namespace, with tls.crt, tls.key and ca.crt.
	// +optional
	TLSSecretRef *LocalSecretReference `json:"tlsSecretRef,omitempty"`

	// barrier permits the one write of the Barrier grade: to increment NB_Global.nb_cfg.
	// +optional
	Barrier *bool `json:"barrier,omitempty"`
}

// OVNVPCBackend is one zero-trust DPF control plane.
type OVNVPCBackend struct {
	// kubeconfigSecretRef names a Secret, in the fabric wing's namespace, whose key kubeconfig reaches the DPF management cluster.
	// +required
	KubeconfigSecretRef LocalSecretReference `json:"kubeconfigSecretRef,omitempty,omitzero"`

	// namespace is DPF's namespace there.
	// +optional
	// +kubebuilder:default=dpf-operator-system
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// isolationClassName is the IsolationClass of the VPCs made.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	IsolationClassName string `json:"isolationClassName,omitempty"`

	// dpuClusterAccess is how the DPU cluster is read.
	// +optional
	// +kubebuilder:default=CredentialRequest
	DPUClusterAccess DPUClusterAccess `json:"dpuClusterAccess,omitempty"`

	// adoptionKeyPrefixes are the label key prefixes that selectors of adopted DPUVPCs may use, for example site.example/vpc. The
	// ConfigMap maas-dpu-fabric-adoption on DPF's side must permit them too.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:Pattern=`^[a-z0-9.-]+/[A-Za-z0-9_.-]*$`
	// +kubebuilder:validation:items:XValidation:rule="!self.startsWith('maas-dpu.dpucloud.io/')",message="maas-dpu.dpucloud.io/ is the provider's own: name a prefix of the site, such as site.example/vpc"
	AdoptionKeyPrefixes []string `json:"adoptionKeyPrefixes,omitempty"`

	// ovn reaches OVN's databases for stronger evidence. They have no authentication in DPF: whoever reaches them owns
	// every tenant's network.
	// +optional
	OVN *OVNEndpoints `json:"ovn,omitempty"`
}

// FabricBackend is a union on type.
// +kubebuilder:validation:XValidation:rule="(self.type == 'OVNVPC') == has(self.ovnVPC)",message="ovnVPC must be set exactly when type is OVNVPC"
type FabricBackend struct {
	// type is the kind of fabric.
	// +required
	Type FabricBackendType `json:"type,omitempty"`

	// ovnVPC is set when type is OVNVPC.
	// +optional
	OVNVPC *OVNVPCBackend `json:"ovnVPC,omitempty"`
}

// ClaimConsent is what must stand behind an attachment besides the claim in MAAS.
// +kubebuilder:validation:Enum=MaasMachine;Namespace
type ClaimConsent string

// The kinds of consent.
const (
	// ClaimConsentMaasMachine asks for a MaasMachine owned by a Machine that refers back to it.
	ClaimConsentMaasMachine ClaimConsent = "MaasMachine"
	// ClaimConsentNamespace takes the namespace's word: for a machine wing in another cluster.
	ClaimConsentNamespace ClaimConsent = "Namespace"
)

// ClaimNamespace is a namespace that may attach servers of a source.
type ClaimNamespace struct {
	// name is the namespace.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`

	// consent is what must stand behind an attachment besides the claim in MAAS.
	// +optional
	// +kubebuilder:default=MaasMachine
	Consent ClaimConsent `json:"consent,omitempty"`
}

// ClaimSource is a MAAS account whose claims the fabric confirms with a key of its own.
type ClaimSource struct {
	// name is the fabric's name for this MAAS account, unique over all fabrics.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name,omitempty"`

	// endpoint is the root of the MAAS API.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() in ['http','https'] && url(self).getEscapedPath().endsWith('/MAAS')",message="endpoint must be a URL that ends in /MAAS, for example https://maas.example.com:5443/MAAS"
	Endpoint string `json:"endpoint,omitempty"`

	// caBundle are the PEM certificates MAAS is verified with. Empty means the system's.
	// +optional
	CABundle []byte `json:"caBundle,omitempty"`

	// secretRef names a Secret, in the fabric wing's namespace, whose key apiKey holds a key of the owning account. Only
	// GET requests are sent with it.
	// +required
	SecretRef LocalSecretReference `json:"secretRef,omitempty,omitzero"`

	// namespaces may attach servers of this source.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=1024
	Namespaces []ClaimNamespace `json:"namespaces,omitempty"`
}

// PostureMode says what a failed check does.
// +kubebuilder:validation:Enum=Enforce;Warn;Off
type PostureMode string

// The modes of a check.
const (
	PostureEnforce PostureMode = "Enforce"
	PostureWarn    PostureMode = "Warn"
	PostureOff     PostureMode = "Off"
)

// PostureOverride sets the mode of one check.
type PostureOverride struct {
	// check is the check.
	// +required
	// +kubebuilder:validation:Enum=DPUMode;HostPrivilegeRestricted;HostRShimDisabled;SecureBoot
	Check string `json:"check,omitempty"`

	// mode is what a failure of it does.
	// +required
	Mode PostureMode `json:"mode,omitempty"`
}

// DeviceSecret names the BMC credentials of one DPUDevice.
type DeviceSecret struct {
	// dpuDevice is the DPUDevice.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	DPUDevice string `json:"dpuDevice,omitempty"`

	// secretRef names a Secret in the fabric wing's namespace.
	// +required
	SecretRef LocalSecretReference `json:"secretRef,omitempty,omitzero"`
}

// Posture is what is asked of a DPU's BMC before a server is handed over.
type Posture struct {
	// mode is what a failed check does.
	// +optional
	// +kubebuilder:default=Off
	Mode PostureMode `json:"mode,omitempty"`

	// overrides set the mode of single checks.
	// +optional
	// +listType=map
	// +listMapKey=check
	// +kubebuilder:validation:MaxItems=16
	Overrides []PostureOverride `json:"overrides,omitempty"`

	// caBundle are the PEM certificates BMCs are verified with. A BMC's certificate must name its address. Empty means the
	// system's, or none where certificates are pinned.
	// +optional
	CABundle []byte `json:"caBundle,omitempty"`

	// pinnedCertificates are SHA-256 fingerprints of BMC certificates, in hex, accepted besides.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=4096
	// +kubebuilder:validation:items:Pattern=`^[0-9a-f]{64}$`
	PinnedCertificates []string `json:"pinnedCertificates,omitempty"`

	// secretRef names a Secret, in the fabric wing's namespace, with username and password of all BMCs.
	// +optional
	SecretRef *LocalSecretReference `json:"secretRef,omitempty"`

	// deviceSecrets name Secrets for single DPUDevices.
	// +optional
	// +listType=map
	// +listMapKey=dpuDevice
	// +kubebuilder:validation:MaxItems=4096
	DeviceSecrets []DeviceSecret `json:"deviceSecrets,omitempty"`
}

// DPUPower says how DPUs are powered.
// +kubebuilder:validation:Enum=Standby
type DPUPower string

// DPUPowerStandby says that a DPU lives while its host is off.
const DPUPowerStandby DPUPower = "Standby"

// PortIsolation says whether the operator vouches that servers on the provisioning network cannot reach each other.
// +kubebuilder:validation:Enum=Asserted;NotAsserted
type PortIsolation string

// The statements about the provisioning network.
const (
	PortIsolationAsserted    PortIsolation = "Asserted"
	PortIsolationNotAsserted PortIsolation = "NotAsserted"
)

// ProvisioningNetwork is the network MAAS boots servers over, outside the DPUs.
type ProvisioningNetwork struct {
	// portIsolation says whether the operator vouches that servers cannot reach each other over it.
	// +optional
	// +kubebuilder:default=NotAsserted
	PortIsolation PortIsolation `json:"portIsolation,omitempty"`

	// fabrics are the MAAS fabrics it consists of.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=256
	Fabrics []string `json:"fabrics,omitempty"`

	// vlans are the MAAS VLAN IDs it consists of. Empty means all of the fabrics.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:Minimum=0
	// +kubebuilder:validation:items:Maximum=4094
	VLANs []int32 `json:"vlans,omitempty"`
}

// ServerMapping says how a MAAS server is found among DPUNodes.
// +kubebuilder:validation:Enum=Explicit;ExplicitOrMAC
type ServerMapping string

// The ways of finding a server's DPUs.
const (
	// ServerMappingExplicit goes by the label serverLabelKey on the DPUNode alone.
	ServerMappingExplicit ServerMapping = "Explicit"
	// ServerMappingExplicitOrMAC goes by the MAC address of PF0 where there is no label.
	ServerMappingExplicitOrMAC ServerMapping = "ExplicitOrMAC"
)

// IsolationLostReaction says what happens when a running tenant's isolation is known broken and cannot be repaired.
// +kubebuilder:validation:Enum=Report;PowerOff
type IsolationLostReaction string

// The reactions to lost isolation.
const (
	IsolationLostReport   IsolationLostReaction = "Report"
	IsolationLostPowerOff IsolationLostReaction = "PowerOff"
)

// DPUFabricSpec is one fabric of DPUs.
// +kubebuilder:validation:XValidation:rule="self.backend.type == oldSelf.backend.type",message="backend.type is immutable: create a new DPUFabric"
// +kubebuilder:validation:XValidation:rule="(has(self.serverLabelKey) ? self.serverLabelKey : \"\") == (has(oldSelf.serverLabelKey) ? oldSelf.serverLabelKey : \"\")",message="serverLabelKey is immutable: the servers found by it would be lost"
type DPUFabricSpec struct {
	// backend is what runs the fabric.
	// +required
	Backend FabricBackend `json:"backend,omitempty,omitzero"`

	// claimSources are the MAAS accounts whose servers the fabric serves.
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	ClaimSources []ClaimSource `json:"claimSources,omitempty"`

	// allowedNamespaces are the namespaces that may have TenantVPCs. Absent means none.
	// +optional
	AllowedNamespaces *AllowedNamespaces `json:"allowedNamespaces,omitempty"`

	// tenantPools are the IPv4 networks subnets are taken from. Control plane endpoints lie outside.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=18
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self) && cidr(self).ip().family() == 4 && cidr(self) == cidr(self).masked()",message="a tenant pool must be an IPv4 network such as 10.64.0.0/10"
	TenantPools []string `json:"tenantPools,omitempty"`

	// posture is what is asked of a DPU's BMC.
	// +optional
	// +kubebuilder:default={}
	Posture Posture `json:"posture,omitempty"`

	// dpuPower says how DPUs are powered. Standby, the only value, is a precondition: a DPU lives while its host is off.
	// +optional
	// +kubebuilder:default=Standby
	DPUPower DPUPower `json:"dpuPower,omitempty"`

	// provisioningNetwork is the network MAAS boots servers over.
	// +optional
	// +kubebuilder:default={}
	ProvisioningNetwork ProvisioningNetwork `json:"provisioningNetwork,omitempty"`

	// serverMapping says how a MAAS server is found among DPUNodes.
	// +optional
	// +kubebuilder:default=Explicit
	ServerMapping ServerMapping `json:"serverMapping,omitempty"`

	// serverLabelKey is the label of a DPUNode that holds the MAAS system ID; the value may be written <source>.<system_id>
	// where there are several sources. Immutable.
	// +optional
	// +kubebuilder:default="maas.io/system-id"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=316
	// +kubebuilder:validation:XValidation:rule="!format.qualifiedName().validate(self).hasValue()",message="serverLabelKey must be a label key such as maas.io/system-id"
	ServerLabelKey string `json:"serverLabelKey,omitempty"`

	// proofMaxAgeSeconds is how old a proof may be.
	// +optional
	// +kubebuilder:default=300
	// +kubebuilder:validation:Minimum=30
	// +kubebuilder:validation:Maximum=3600
	ProofMaxAgeSeconds *int32 `json:"proofMaxAgeSeconds,omitempty"`

	// detachTimeoutSeconds is how long a detachment may stay unproven before the server is held.
	// +optional
	// +kubebuilder:default=600
	// +kubebuilder:validation:Minimum=30
	// +kubebuilder:validation:Maximum=86400
	DetachTimeoutSeconds *int32 `json:"detachTimeoutSeconds,omitempty"`

	// onIsolationLost says what happens when a running tenant's isolation is known broken.
	// +optional
	// +kubebuilder:default=Report
	OnIsolationLost IsolationLostReaction `json:"onIsolationLost,omitempty"`
}

// ClaimSourceStatus is one observed claim source.
type ClaimSourceStatus struct {
	// name is the name of the claim source.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`

	// account is the MAAS user name that holds the claims of the source. It is pinned while attachments use the source: a key
	// of another account would make every claim look lost.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	Account string `json:"account,omitempty"`
}

// DPUFabricStatus is one observed fabric.
type DPUFabricStatus struct {
	// claimSources are the accounts behind the claim sources.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	ClaimSources []ClaimSourceStatus `json:"claimSources,omitempty"`

	// servers is how many servers the fabric knows.
	// +optional
	Servers *int32 `json:"servers,omitempty"`

	// eligibleServers is how many of them may be claimed.
	// +optional
	EligibleServers *int32 `json:"eligibleServers,omitempty"`

	// orphans are DPUs whose ports are attached with nobody who asked for it; nothing is done about them.
	// +optional
	// +listType=map
	// +listMapKey=dpuDevice
	// +kubebuilder:validation:MaxItems=64
	Orphans []OrphanPort `json:"orphans,omitempty"`

	// conditions say whether the fabric can be used.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=32
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=dpufabrics,scope=Cluster,categories=cluster-api
// +kubebuilder:metadata:labels="cluster.x-k8s.io/v1beta2=v1beta1"
// +kubebuilder:printcolumn:name="Backend",type=string,JSONPath=`.spec.backend.type`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Servers",type=integer,JSONPath=`.status.servers`
// +kubebuilder:printcolumn:name="Eligible",type=integer,JSONPath=`.status.eligibleServers`
// +kubebuilder:printcolumn:name="Orphans",type=string,JSONPath=`.status.orphans[*].dpuDevice`
// +kubebuilder:printcolumn:name="Watched",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="ChangesWatched")].status`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Paused",type=string,priority=10,JSONPath=`.status.conditions[?(@.type=="Paused")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`

// DPUFabric is one fabric of DPUs, who may use it, and which MAAS accounts own its servers.
type DPUFabric struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   DPUFabricSpec   `json:"spec,omitempty"`
	Status DPUFabricStatus `json:"status,omitempty"`
}

// GetConditions returns the conditions.
func (f *DPUFabric) GetConditions() []metav1.Condition { return f.Status.Conditions }

// SetConditions replaces the conditions.
func (f *DPUFabric) SetConditions(conditions []metav1.Condition) { f.Status.Conditions = conditions }

// +kubebuilder:object:root=true

// DPUFabricList is a list of DPUFabrics.
type DPUFabricList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DPUFabric `json:"items"`
}
