// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package v1beta1

// Condition types of a MaasMachine, one per promise. Ready summarises them and is what Cluster API mirrors.
const (
	// ServerClaimedCondition is True while MAAS says that a server is held under the machine's token.
	ServerClaimedCondition = "ServerClaimed"
	// DPUAttachedCondition is True once the fabric wing proved the server's ports attached for this token and generation.
	DPUAttachedCondition = "DPUAttached"
	// IsolatedCondition is the promise to the tenant: True while attachment is proven and no proof is older than the
	// fabric allows; Unknown when the proof went stale; False when isolation is known broken.
	IsolatedCondition = "Isolated"
	// DeployedCondition is True once MAAS says Deployed.
	DeployedCondition = "Deployed"
	// ReleasedCondition says where the way down stands.
	ReleasedCondition = "Released"
	// ReadyCondition summarises the others; every kind has it.
	ReadyCondition = "Ready"
)

// Condition types of a DPUAttachment.
const (
	// AuthorizedCondition is True while the claim behind the attachment is confirmed.
	AuthorizedCondition = "Authorized"
	// DPUResolvedCondition is True once each port is resolved to one DPU and nothing else of the server is on a VPC.
	DPUResolvedCondition = "DPUResolved"
	// PostureVerifiedCondition is True once the DPUs' BMCs answered as the fabric asks.
	PostureVerifiedCondition = "PostureVerified"
	// AttachedCondition is True while all ports are proven attached.
	AttachedCondition = "Attached"
)

// Condition types of the other kinds.
const (
	// CredentialsValidCondition of an identity or fabric: its Secret is there and accepted.
	CredentialsValidCondition = "CredentialsValid"
	// IdentityReadyCondition of a MaasCluster: its identity can be used from its namespace.
	IdentityReadyCondition = "IdentityReady"
	// VPCReadyCondition of a MaasCluster: its TenantVPC can take ports.
	VPCReadyCondition = "VPCReady"
	// FabricReadyCondition of a TenantVPC: its fabric can be used from its namespace.
	FabricReadyCondition = "FabricReady"
	// NetworksReadyCondition of a TenantVPC: its VPC and subnets are ready on the fabric.
	NetworksReadyCondition = "NetworksReady"
	// HealthyCondition of a DPUServer: its DPUs are Ready and alive.
	HealthyCondition = "Healthy"
	// FreeCondition of a DPUServer: no port of it is on a VPC and nobody holds it.
	FreeCondition = "Free"
	// DPFReachableCondition of a DPUFabric: the DPF management cluster and the DPU clusters answer.
	DPFReachableCondition = "DPFReachable"
	// ClaimSourcesReadyCondition of a DPUFabric: each claim source's MAAS answers with the key given.
	ClaimSourcesReadyCondition = "ClaimSourcesReady"
	// ChangesWatchedCondition of a DPUFabric: changes in DPF and the DPU clusters are watched. Where they are not, they are noticed
	// all the same, but later, by polling: Ready does not hang on it.
	ChangesWatchedCondition = "ChangesWatched"
	// WithinAllowedNamespacesCondition says whether the namespace may still use the identity or fabric. False stops new
	// claims and attachments only.
	WithinAllowedNamespacesCondition = "WithinAllowedNamespaces"
)

// Reasons used by several kinds.
const (
	// ReadyReason is the reason of a Ready that is True.
	ReadyReason = "Ready"
	// DeletingReason says that deletion goes on as it should.
	DeletingReason = "Deleting"
	// NotStartedReason says that nothing was tried yet.
	NotStartedReason = "NotStarted"
	// IdentityNotFoundReason says that the named identity does not exist.
	IdentityNotFoundReason = "IdentityNotFound"
	// IdentityNotReadyReason says that the identity exists and cannot be used now.
	IdentityNotReadyReason = "IdentityNotReady"
	// NamespaceNotAllowedReason says that the identity or fabric does not admit the namespace.
	NamespaceNotAllowedReason = "NamespaceNotAllowed"
	// SecretNotFoundReason says that a Secret the operator named does not exist.
	SecretNotFoundReason = "SecretNotFound"
	// SecretInvalidReason says that a Secret the operator named lacks a key or holds nonsense.
	SecretInvalidReason = "SecretInvalid"
	// CredentialsRefusedReason says that the other side does not accept the credentials.
	CredentialsRefusedReason = "CredentialsRefused"
	// AccountTooPowerfulReason says that the key is an administrator's and the identity does not accept that.
	AccountTooPowerfulReason = "AccountTooPowerful"
	// AccountChangedReason says that the key is of another MAAS account than the one that holds the claims.
	AccountChangedReason = "AccountChanged"
	// ClockSkewReason says that MAAS refuses our timestamps.
	ClockSkewReason = "ClockSkew"
	// MaasUnreachableReason says that MAAS does not answer; nothing is changed until it does.
	MaasUnreachableReason = "MaasUnreachable"
	// FabricUnreachableReason says that DPF or the DPU cluster does not answer; nothing is changed until it does.
	FabricUnreachableReason = "FabricUnreachable"
	// FabricNotFoundReason says that the named fabric does not exist.
	FabricNotFoundReason = "FabricNotFound"
	// FabricNotReadyReason says that the fabric exists and cannot be used now.
	FabricNotReadyReason = "FabricNotReady"
	// VPCNotFoundReason says that the named TenantVPC does not exist in the namespace.
	VPCNotFoundReason = "VPCNotFound"
	// VPCNotReadyReason says that the TenantVPC exists and cannot take ports now.
	VPCNotReadyReason = "VPCNotReady"
	// SubnetNotFoundReason says that the TenantVPC has no such subnet.
	SubnetNotFoundReason = "SubnetNotFound"
	// InUseReason says that others still need the object.
	InUseReason = "InUse"
	// OverriddenReason says that an operator decided against the controller.
	OverriddenReason = "Overridden"
)

// Reasons of a MaasMachine on its way up.
const (
	// WaitingForClusterInfrastructureReason waits for the cluster's infrastructure.
	WaitingForClusterInfrastructureReason = "WaitingForClusterInfrastructure"
	// WaitingForBootstrapDataReason waits for the bootstrap provider.
	WaitingForBootstrapDataReason = "WaitingForBootstrapData"
	// BootstrapSecretForbiddenReason says that the template's RoleBinding is missing.
	BootstrapSecretForbiddenReason = "BootstrapSecretForbidden"
	// IsolationRequiredReason says that the identity asks for ports on a VPC and the machine has none.
	IsolationRequiredReason = "IsolationRequired"
	// ClaimingReason is looking for a server or asking for one.
	ClaimingReason = "Claiming"
	// NoServerAvailableReason says that no server is free now; it is tried again.
	NoServerAvailableReason = "NoServerAvailable"
	// ConstraintsNeverMatchReason says that MAAS does not know a tag, zone or pool that was asked for.
	ConstraintsNeverMatchReason = "ConstraintsNeverMatch"
	// AllocateOutcomeUnknownReason says that an allocation's answer was lost; it is looked for before asking again.
	AllocateOutcomeUnknownReason = "AllocateOutcomeUnknown"
	// CircuitBreakerOpenReason says that the identity takes no new claims.
	CircuitBreakerOpenReason = "CircuitBreakerOpen"
	// ClaimedReason says that the server is held under our token.
	ClaimedReason = "Claimed"
	// ServerLostReason says that the server is no longer ours; it is not touched.
	ServerLostReason = "ServerLost"
	// OwnershipUnclearReason says that MAAS contradicts itself about whose the server is; it is not touched.
	OwnershipUnclearReason = "OwnershipUnclear"
	// SystemIDCollisionReason says that another MAAS' server with the same system ID is already a machine here.
	SystemIDCollisionReason = "SystemIDCollision"
	// AttachmentRefusedReason says that the fabric refused the server, which is released undeployed and avoided.
	AttachmentRefusedReason = "AttachmentRefused"
	// AttachingReason waits for the fabric wing's proof.
	AttachingReason = "Attaching"
	// AttachmentProvenReason says that attachment is proven for this token and generation.
	AttachmentProvenReason = "AttachmentProven"
	// AttachmentNotRequestedReason says that the machine has no ports, which its identity allows.
	AttachmentNotRequestedReason = "AttachmentNotRequested"
	// ProofStaleReason says that the last proof is older than the fabric allows.
	ProofStaleReason = "ProofStale"
	// IsolationBrokenReason says that isolation is known broken.
	IsolationBrokenReason = "IsolationBroken"
	// PortIsolationNotAssertedReason says that nobody vouches for the provisioning network.
	PortIsolationNotAssertedReason = "PortIsolationNotAsserted"
	// IsolatedReason says that isolation is proven.
	IsolatedReason = "Isolated"
	// DeployingReason waits for MAAS to deploy.
	DeployingReason = "Deploying"
	// DeployedReason says that MAAS said Deployed.
	DeployedReason = "Deployed"
	// DeployFailedReason says that the tries are used up; a MachineHealthCheck may replace the machine.
	DeployFailedReason = "DeployFailed"
	// DeployRetryingReason says that a deployment failed and another server is tried.
	DeployRetryingReason = "DeployRetrying"
)

// Reasons of a MaasMachine on its way down.
const (
	// NotReleasedReason says that the machine is in use.
	NotReleasedReason = "NotReleased"
	// LookingForClaimReason says that a lost allocation is still looked for before the machine goes.
	LookingForClaimReason = "LookingForClaim"
	// DetachingReason waits for the fabric wing's proof of detachment.
	DetachingReason = "Detaching"
	// PoweringOffReason waits for MAAS to see the power off.
	PoweringOffReason = "PoweringOff"
	// ReleasingReason waits for MAAS to erase and release.
	ReleasingReason = "Releasing"
	// HeldReason says that isolation or erasure is unproven: the server stays allocated and powered off.
	HeldReason = "Held"
	// ReleasedReason says that the server was seen Ready.
	ReleasedReason = "Released"
	// EraseFailedReason says that MAAS failed to erase.
	EraseFailedReason = "EraseFailed"
)

// Reasons of a DPUAttachment.
const (
	// AuthorizedReason says that the claim is confirmed.
	AuthorizedReason = "Authorized"
	// SourceUnknownReason says that no fabric has that claim source.
	SourceUnknownReason = "SourceUnknown"
	// TokenMismatchReason says that the token was made for another object.
	TokenMismatchReason = "TokenMismatch"
	// ClaimNotConfirmedReason says that MAAS does not hold the server under that token.
	ClaimNotConfirmedReason = "ClaimNotConfirmed"
	// MachineNotConsentingReason says that no MaasMachine, owned by a Machine that refers back to it, stands behind the claim.
	MachineNotConsentingReason = "MachineNotConsenting"
	// ServerNotMappedReason says that no DPUNode stands for the server.
	ServerNotMappedReason = "ServerNotMapped"
	// AmbiguousDPUReason says that a port matches no DPU or several.
	AmbiguousDPUReason = "AmbiguousDPU"
	// BindingChangedReason says that the server's DPUs are not those pinned.
	BindingChangedReason = "BindingChanged"
	// UnaccountedPortReason says that another port of the server is connected.
	UnaccountedPortReason = "UnaccountedPort"
	// ServerHeldByOtherReason says that another attachment holds the server.
	ServerHeldByOtherReason = "ServerHeldByOther"
	// DPUNotReadyReason says that the DPU is being installed or is not alive.
	DPUNotReadyReason = "DPUNotReady"
	// DPUUnpoweredWithHostReason says that the DPU went down with its host: the slot has no standby power.
	DPUUnpoweredWithHostReason = "DPUUnpoweredWithHost"
	// ForeignVPCReason says that the DPU is on a VPC that is not ours.
	ForeignVPCReason = "ForeignVPC"
	// ResolvedReason says that every port has its DPU.
	ResolvedReason = "Resolved"
	// MaintenancePendingReason says that DPF waits to reinstall a DPU under a tenant, or that nothing keeps it from that.
	MaintenancePendingReason = "MaintenancePending"
	// PostureOffReason says that the fabric asks for no posture.
	PostureOffReason = "PostureOff"
	// PostureCheckingReason says that the DPUs' BMCs are being asked.
	PostureCheckingReason = "PostureChecking"
	// PostureVerifiedReason says that all checks asked for passed.
	PostureVerifiedReason = "PostureVerified"
	// PostureWarningReason says that checks did not pass whose failure the fabric only wants to be told.
	PostureWarningReason = "PostureWarning"
	// PostureFailedReason says that an enforced check failed.
	PostureFailedReason = "PostureFailed"
	// PostureUnknownReason says that an enforced check could not be made.
	PostureUnknownReason = "PostureUnknown"
	// AttachingVPCReason waits for the DPU's Node to be marked with the VPC.
	AttachingVPCReason = "AttachingVPC"
	// AttachingPortReason waits for the ports to be plugged.
	AttachingPortReason = "AttachingPort"
	// AttachedReason says that all ports are proven attached.
	AttachedReason = "Attached"
	// WaitingForBarrierReason waits for OVN's controllers to have programmed what proves the ports attached, or detached.
	WaitingForBarrierReason = "WaitingForBarrier"
	// DetachingPortReason waits for the ports to be unplugged.
	DetachingPortReason = "DetachingPort"
	// DetachingVPCReason waits for the Node's VPC mark to go.
	DetachingVPCReason = "DetachingVPC"
	// DetachedReason says that all ports are proven detached.
	DetachedReason = "Detached"
	// DetachUnprovenReason says that proof of detachment did not come in time.
	DetachUnprovenReason = "DetachUnproven"
	// EvidenceMissingReason says that the evidence contradicts the attachment or cannot be read.
	EvidenceMissingReason = "EvidenceMissing"
	// PollingReason says that something is not watched, so that changes are noticed by polling only.
	PollingReason = "Polling"
)
