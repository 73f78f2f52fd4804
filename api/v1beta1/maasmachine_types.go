// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package v1beta1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
)

// MaasMachineFinalizer keeps a MaasMachine until its server is proven detached, released and seen Ready.
const MaasMachineFinalizer = "maasmachine.infrastructure.cluster.x-k8s.io"

// ReleaseErase is how MAAS wipes the disks when a server is released. The order is None, Quick, Secure, Full: each is at
// least as thorough as the ones before it.
// +kubebuilder:validation:Enum=None;Quick;Secure;Full
type ReleaseErase string

// The ways of erasing, from the weakest to the strongest.
const (
	ReleaseEraseNone   ReleaseErase = "None"
	ReleaseEraseQuick  ReleaseErase = "Quick"
	ReleaseEraseSecure ReleaseErase = "Secure"
	ReleaseEraseFull   ReleaseErase = "Full"
)

// MachineRelease is what a tenant asks of the release of its server.
type MachineRelease struct {
	// erase asks for more than the identity's minimum, never less. Empty means the identity's default.
	// +optional
	Erase ReleaseErase `json:"erase,omitempty"`
}

// MachinePort is one function of one DPU of the server, to be attached to one subnet of the cluster's TenantVPC.
type MachinePort struct {
	// name names the port within the machine.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name,omitempty"`

	// dpuSelector selects the DPU among those of the server by the labels of its DPUDevice. Must match exactly one; may be
	// left out where the server has one DPU.
	// +optional
	DPUSelector *metav1.LabelSelector `json:"dpuSelector,omitempty"`

	// pf is the physical function of the DPU, counted from 0.
	// +optional
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=15
	PF *int32 `json:"pf,omitempty"`

	// subnet names the subnet of the TenantVPC; one of an adopted VPC is called as its DPUVirtualNetwork is.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Subnet string `json:"subnet,omitempty"`
}

// MachineClaim is the promise under which a server is held: written once, before MAAS is asked.
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="claim is immutable: it is what ties the server to this machine"
type MachineClaim struct {
	// token is what the server carries in MAAS: v1.<128 random bits>.<hash of namespace/name>. A copy fits no other object.
	// +required
	// +kubebuilder:validation:Pattern=`^v1\.[0-9a-f]{32}\.[0-9a-f]{32}$`
	Token string `json:"token,omitempty"`

	// identityName is the MaasClusterIdentity whose account holds the server.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	IdentityName string `json:"identityName,omitempty"`

	// source is the fabric's name for that MAAS.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Source string `json:"source,omitempty"`
}

// OverrideAction is a way out that ends in hold, never in an available server.
type OverrideAction string

// MachineOverride is a decision an operator takes against the controller's. Only who has the verb "override" on the object
// may write it, and only in their own name; it stays in the object.
// +kubebuilder:validation:XValidation:rule="self.action in ['Abandon','AdoptServer']",message="action is one of Abandon, AdoptServer"
type MachineOverride struct {
	Override `json:",inline"`
}

// Override says who decided what, and why.
type Override struct {
	// action is what is to be done.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=32
	Action OverrideAction `json:"action,omitempty"`

	// by is the user who decides; it equals the user that writes it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	By string `json:"by,omitempty"`

	// reason is why, for whoever reads it later.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason,omitempty"`
}

// The actions of the overrides.
const (
	// OverrideAbandon drops the finalizer of a MaasMachine whose release cannot be proven; the server stays allocated and is
	// listed as held in the identity's status.
	OverrideAbandon OverrideAction = "Abandon"
	// OverrideAdoptServer lets a MaasMachine take over a server of its account that no other claim holds.
	OverrideAdoptServer OverrideAction = "AdoptServer"
	// OverrideForceDetach takes a DPU that cannot be proven detached as detached; its server stays ineligible.
	OverrideForceDetach OverrideAction = "ForceDetach"
	// OverrideRebind replaces the pinned binding of a server to its DPUs.
	OverrideRebind OverrideAction = "Rebind"
)

// MachineConstraints are what a server must offer.
type MachineConstraints struct {
	// image is the operating system in MAAS' form os/series, for example ubuntu/noble or custom/my-image.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$`
	Image string `json:"image,omitempty"`

	// kernel is the MAAS kernel to deploy, for example ga-24.04. Empty means the image's own.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Kernel string `json:"kernel,omitempty"`

	// deployInMemory runs the operating system from memory, leaving the disks alone.
	// +optional
	DeployInMemory *bool `json:"deployInMemory,omitempty"`

	// minCPU is the least number of CPU cores.
	// +optional
	// +kubebuilder:validation:Minimum=1
	MinCPU *int32 `json:"minCPU,omitempty"`

	// minMemory is the least memory in MiB.
	// +optional
	// +kubebuilder:validation:Minimum=1
	MinMemory *int32 `json:"minMemory,omitempty"`

	// minDiskSize is the least size of the first disk in GB.
	// +optional
	// +kubebuilder:validation:Minimum=1
	MinDiskSize *int32 `json:"minDiskSize,omitempty"`

	// architecture is the CPU architecture in MAAS' words.
	// +optional
	// +kubebuilder:validation:Enum=amd64;arm64
	Architecture string `json:"architecture,omitempty"`

	// tags are MAAS tags the server must all have. A tag that one server alone has picks that server.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z0-9_-]+$`
	Tags []string `json:"tags,omitempty"`

	// notTags are MAAS tags of which the server must have none.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z0-9_-]+$`
	NotTags []string `json:"notTags,omitempty"`

	// resourcePool is the MAAS resource pool. Empty means any the identity may use.
	// +optional
	// +kubebuilder:validation:MaxLength=255
	ResourcePool string `json:"resourcePool,omitempty"`

	// ports are the DPU ports to attach to the cluster's TenantVPC before the operating system boots. May be empty only
	// where the identity's isolation is Optional.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	Ports []MachinePort `json:"ports,omitempty"`

	// primaryPort names the port whose address is the machine's InternalIP. Empty means the only port.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	PrimaryPort string `json:"primaryPort,omitempty"`

	// release is what the tenant asks of the release.
	// +optional
	Release MachineRelease `json:"release,omitempty,omitzero"`
}

// MaasMachineSpec is one wanted server.
// +kubebuilder:validation:XValidation:rule="!has(self.ports) || size(self.ports) < 2 || (has(self.primaryPort) && self.primaryPort != \"\")",message="primaryPort must be set when there are several ports: name the port whose address is the machine's InternalIP"
// +kubebuilder:validation:XValidation:rule="!has(self.primaryPort) || self.primaryPort == \"\" || (has(self.ports) && self.ports.exists(p, p.name == self.primaryPort))",message="primaryPort must name one of ports"
// +kubebuilder:validation:XValidation:rule="!has(self.tags) || !has(self.notTags) || !self.tags.exists(t, t in self.notTags)",message="a tag cannot be in both tags and notTags"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.providerID) || (has(self.providerID) && self.providerID == oldSelf.providerID)",message="providerID is immutable once set"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.claim) || has(self.claim)",message="claim cannot be removed: it is what ties the server to this machine"
// +kubebuilder:validation:XValidation:rule="self.image == oldSelf.image && (has(self.kernel) ? self.kernel : \"\") == (has(oldSelf.kernel) ? oldSelf.kernel : \"\") && (has(self.deployInMemory) && self.deployInMemory) == (has(oldSelf.deployInMemory) && oldSelf.deployInMemory)",message="image, kernel and deployInMemory are immutable: roll out a new MaasMachineTemplate"
// +kubebuilder:validation:XValidation:rule="(has(self.ports) ? self.ports : []) == (has(oldSelf.ports) ? oldSelf.ports : []) && (has(self.primaryPort) ? self.primaryPort : \"\") == (has(oldSelf.primaryPort) ? oldSelf.primaryPort : \"\")",message="ports and primaryPort are immutable: roll out a new MaasMachineTemplate"
// +kubebuilder:validation:XValidation:rule="(has(self.minCPU) ? self.minCPU : 0) == (has(oldSelf.minCPU) ? oldSelf.minCPU : 0) && (has(self.minMemory) ? self.minMemory : 0) == (has(oldSelf.minMemory) ? oldSelf.minMemory : 0) && (has(self.minDiskSize) ? self.minDiskSize : 0) == (has(oldSelf.minDiskSize) ? oldSelf.minDiskSize : 0) && (has(self.architecture) ? self.architecture : \"\") == (has(oldSelf.architecture) ? oldSelf.architecture : \"\") && (has(self.resourcePool) ? self.resourcePool : \"\") == (has(oldSelf.resourcePool) ? oldSelf.resourcePool : \"\") && (has(self.tags) ? self.tags : []) == (has(oldSelf.tags) ? oldSelf.tags : []) && (has(self.notTags) ? self.notTags : []) == (has(oldSelf.notTags) ? oldSelf.notTags : [])",message="the constraints on the server are immutable: roll out a new MaasMachineTemplate"
type MaasMachineSpec struct {
	MachineConstraints `json:",inline"`

	// providerID is maas:///<system_id>, set by the controller; maas:///<zone>/<system_id> stays legal for adopted machines.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^maas:///([^/]+/)?[a-z0-9]+$`
	ProviderID string `json:"providerID,omitempty"`

	// claim is written by the controller before MAAS is asked. Immutable once set.
	// +optional
	Claim *MachineClaim `json:"claim,omitempty"`

	// override is an operator's decision: Abandon or AdoptServer.
	// +optional
	Override *MachineOverride `json:"override,omitempty"`
}

// MaasMachineInitializationStatus is what Cluster API reads to go on.
// +kubebuilder:validation:MinProperties=1
type MaasMachineInitializationStatus struct {
	// provisioned is true once MAAS said Deployed and isolation was proven; it never flips back.
	// +optional
	Provisioned *bool `json:"provisioned,omitempty"`
}

// AvoidedServer is a server this machine does not try again.
type AvoidedServer struct {
	// systemID is the MAAS system ID.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	SystemID string `json:"systemID,omitempty"`

	// reason is why, in one CamelCase word.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`

	// since is when.
	// +required
	Since metav1.Time `json:"since,omitempty,omitzero"`
}

// MachineReleaseStatus records a release that MAAS accepted under this machine's token.
type MachineReleaseStatus struct {
	// systemID is the server that was released.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	SystemID string `json:"systemID,omitempty"`

	// erase is how it is erased.
	// +required
	Erase ReleaseErase `json:"erase,omitempty"`

	// acceptedAt is when MAAS accepted it.
	// +required
	AcceptedAt metav1.Time `json:"acceptedAt,omitempty,omitzero"`
}

// MachineOrderOperation is a call to MAAS whose late effect could hit the next claim of the server.
// +kubebuilder:validation:Enum=PowerOff;Release
type MachineOrderOperation string

// The operations of a MachineOrder.
const (
	MachineOrderPowerOff MachineOrderOperation = "PowerOff"
	MachineOrderRelease  MachineOrderOperation = "Release"
)

// MachineOrder is a call to MAAS that was sent and not answered, as far as is known.
type MachineOrder struct {
	// operation is what MAAS was told.
	// +required
	Operation MachineOrderOperation `json:"operation,omitempty"`

	// systemID is the server.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	SystemID string `json:"systemID,omitempty"`

	// sentAt is just before it was sent.
	// +required
	SentAt metav1.Time `json:"sentAt,omitempty,omitzero"`
}

// MaasMachineStatus is one observed server. None of it is taken as truth: what MAAS and the fabric say is.
type MaasMachineStatus struct {
	// initialization tells Cluster API when to go on.
	// +optional
	Initialization MaasMachineInitializationStatus `json:"initialization,omitempty,omitzero"`

	// systemID is the MAAS system ID of the claimed server: a hint, verified against MAAS before every use.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	SystemID string `json:"systemID,omitempty"`

	// hostname is the server's name in MAAS.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Hostname string `json:"hostname,omitempty"`

	// failureDomain is the MAAS zone of the server.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	FailureDomain string `json:"failureDomain,omitempty"`

	// addresses are the addresses of the machine.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Addresses []clusterv1.MachineAddress `json:"addresses,omitempty"`

	// attachmentName names the DPUAttachment of the claimed server, in the same namespace.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	AttachmentName string `json:"attachmentName,omitempty"`

	// lastAllocateTime is stored before MAAS is asked for a server, so that a lost answer is looked for long enough.
	// +optional
	LastAllocateTime *metav1.Time `json:"lastAllocateTime,omitempty"`

	// deployStartTime is when MAAS accepted the deployment.
	// +optional
	DeployStartTime *metav1.Time `json:"deployStartTime,omitempty"`

	// release records a release that MAAS accepted.
	// +optional
	Release *MachineReleaseStatus `json:"release,omitempty"`

	// openOrder is stored before MAAS is told to power off or release, and cleared with the answer: while it is there the
	// order may still take effect, also on whoever claims the server next.
	// +optional
	OpenOrder *MachineOrder `json:"openOrder,omitempty"`

	// avoidedServers are servers this machine does not try again.
	// +optional
	// +listType=map
	// +listMapKey=systemID
	// +kubebuilder:validation:MaxItems=64
	AvoidedServers []AvoidedServer `json:"avoidedServers,omitempty"`

	// conditions say where the machine stands: ServerClaimed, DPUAttached, Isolated, Deployed, Released, Ready.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=32
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=maasmachines,categories=cluster-api
// +kubebuilder:metadata:labels="cluster.x-k8s.io/v1beta2=v1beta1"
// +kubebuilder:printcolumn:name="Cluster",type=string,JSONPath=`.metadata.labels['cluster\.x-k8s\.io/cluster-name']`
// +kubebuilder:printcolumn:name="Server",type=string,JSONPath=`.status.systemID`
// +kubebuilder:printcolumn:name="Zone",type=string,JSONPath=`.status.failureDomain`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Isolated",type=string,JSONPath=`.status.conditions[?(@.type=="Isolated")].status`
// +kubebuilder:printcolumn:name="Machine",type=string,priority=1,JSONPath=`.metadata.ownerReferences[?(@.kind=="Machine")].name`
// +kubebuilder:printcolumn:name="Hostname",type=string,priority=1,JSONPath=`.status.hostname`
// +kubebuilder:printcolumn:name="Internal-IP",type=string,priority=1,JSONPath=`.status.addresses[?(@.type=="InternalIP")].address`
// +kubebuilder:printcolumn:name="ProviderID",type=string,priority=1,JSONPath=`.spec.providerID`
// +kubebuilder:printcolumn:name="Identity",type=string,priority=1,JSONPath=`.spec.claim.identityName`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Paused",type=string,priority=10,JSONPath=`.status.conditions[?(@.type=="Paused")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`

// MaasMachine is one server claimed from MAAS.
type MaasMachine struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   MaasMachineSpec   `json:"spec,omitempty"`
	Status MaasMachineStatus `json:"status,omitempty"`
}

// GetConditions returns the conditions.
func (m *MaasMachine) GetConditions() []metav1.Condition { return m.Status.Conditions }

// SetConditions replaces the conditions.
func (m *MaasMachine) SetConditions(conditions []metav1.Condition) { m.Status.Conditions = conditions }

// +kubebuilder:object:root=true

// MaasMachineList is a list of MaasMachines.
type MaasMachineList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []MaasMachine `json:"items"`
}

// MaasMachineTemplateResourceSpec is a MaasMachineSpec without what belongs to one machine alone and without transition
// rules, so that the topology controller's dry runs reach the webhook.
// +kubebuilder:validation:XValidation:rule="!has(self.claim)",message="a claim belongs to one machine: remove claim from the template"
// +kubebuilder:validation:XValidation:rule="!has(self.providerID)",message="a providerID belongs to one machine: remove providerID from the template"
// +kubebuilder:validation:XValidation:rule="!has(self.override)",message="an override belongs to one machine: remove override from the template"
// +kubebuilder:validation:XValidation:rule="!has(self.ports) || size(self.ports) < 2 || (has(self.primaryPort) && self.primaryPort != \"\")",message="primaryPort must be set when there are several ports: name the port whose address is the machine's InternalIP"
// +kubebuilder:validation:XValidation:rule="!has(self.primaryPort) || self.primaryPort == \"\" || (has(self.ports) && self.ports.exists(p, p.name == self.primaryPort))",message="primaryPort must name one of ports"
// +kubebuilder:validation:XValidation:rule="!has(self.tags) || !has(self.notTags) || !self.tags.exists(t, t in self.notTags)",message="a tag cannot be in both tags and notTags"
type MaasMachineTemplateResourceSpec struct {
	MachineConstraints `json:",inline"`

	// providerID must be left out: it belongs to one machine.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	ProviderID string `json:"providerID,omitempty"`

	// claim must be left out: it belongs to one machine.
	// +optional
	Claim *TemplateClaim `json:"claim,omitempty"`

	// override must be left out: it belongs to one machine.
	// +optional
	Override *Override `json:"override,omitempty"`
}

// TemplateClaim exists to be refused with a sentence instead of being dropped silently.
type TemplateClaim struct {
	// token must be left out.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Token string `json:"token,omitempty"`
}

// MaasMachineTemplateResource is a MaasMachine without status.
type MaasMachineTemplateResource struct {
	// metadata is put on the MaasMachine.
	// +optional
	ObjectMeta clusterv1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// spec is the spec of the MaasMachine.
	// +required
	Spec MaasMachineTemplateResourceSpec `json:"spec,omitempty,omitzero"`
}

// MaasMachineTemplateSpec holds the template.
type MaasMachineTemplateSpec struct {
	// template is what MaasMachines are made from. Immutable.
	// +required
	Template MaasMachineTemplateResource `json:"template,omitempty,omitzero"`
}

// Architecture is a CPU architecture as Kubernetes spells it.
// +kubebuilder:validation:Enum=amd64;arm64;s390x;ppc64le
type Architecture string

// NodeInfo is what cluster-autoscaler needs to know of a Node that does not exist yet.
// +kubebuilder:validation:MinProperties=1
type NodeInfo struct {
	// architecture is the CPU architecture of the Nodes.
	// +optional
	Architecture Architecture `json:"architecture,omitempty"`

	// operatingSystem is the operating system of the Nodes.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	OperatingSystem string `json:"operatingSystem,omitempty"`
}

// MaasMachineTemplateStatus is what the servers that match offer at least.
type MaasMachineTemplateStatus struct {
	// capacity is the floor over the servers that match, for scaling from zero.
	// +optional
	Capacity corev1.ResourceList `json:"capacity,omitempty"`

	// nodeInfo is the architecture and operating system of the Nodes.
	// +optional
	NodeInfo NodeInfo `json:"nodeInfo,omitempty,omitzero"`

	// conditions say how current capacity is.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=32
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=maasmachinetemplates,categories=cluster-api
// +kubebuilder:metadata:labels="cluster.x-k8s.io/v1beta2=v1beta1"
// +kubebuilder:printcolumn:name="Cluster",type=string,JSONPath=`.metadata.ownerReferences[?(@.kind=="Cluster")].name`
// +kubebuilder:printcolumn:name="Image",type=string,JSONPath=`.spec.template.spec.image`
// +kubebuilder:printcolumn:name="CPU",type=string,JSONPath=`.status.capacity.cpu`
// +kubebuilder:printcolumn:name="Memory",type=string,JSONPath=`.status.capacity.memory`
// +kubebuilder:printcolumn:name="Arch",type=string,JSONPath=`.status.nodeInfo.architecture`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Disk",type=string,priority=1,JSONPath=`.status.capacity.ephemeral-storage`
// +kubebuilder:printcolumn:name="Subnets",type=string,priority=1,JSONPath=`.spec.template.spec.ports[*].subnet`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Paused",type=string,priority=10,JSONPath=`.status.conditions[?(@.type=="Paused")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`

// MaasMachineTemplate is what MaasMachines are made from.
type MaasMachineTemplate struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   MaasMachineTemplateSpec   `json:"spec,omitempty"`
	Status MaasMachineTemplateStatus `json:"status,omitempty"`
}

// GetConditions returns the conditions.
func (t *MaasMachineTemplate) GetConditions() []metav1.Condition { return t.Status.Conditions }

// SetConditions replaces the conditions.
func (t *MaasMachineTemplate) SetConditions(conditions []metav1.Condition) {
	t.Status.Conditions = conditions
}

// +kubebuilder:object:root=true

// MaasMachineTemplateList is a list of MaasMachineTemplates.
type MaasMachineTemplateList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []MaasMachineTemplate `json:"items"`
}
