// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package svcv1alpha1

// Labels and annotations.
const (
	// SetNameLabel and SetNamespaceLabel stand on a ServiceInterface and name its ServiceInterfaceSet. Its own name is
	// generated: find it by these.
	SetNameLabel      = "svc.dpu.nvidia.com/serviceinterfaceset-name"
	SetNamespaceLabel = "svc.dpu.nvidia.com/serviceinterfaceset-namespace"
	// OwnedByDPUDeploymentLabel stands on the DPUServiceInterfaces a DPUDeployment made.
	OwnedByDPUDeploymentLabel = "svc.dpu.nvidia.com/owned-by-dpudeployment"
	// InterfaceModeAnnotation of a ServiceInterfaceSet decides whether its interfaces are ServiceInterface objects
	// (InterfaceModeLegacy) or entries of one object per Node. Set on the template beforehand, it wins. Since v26.8.
	InterfaceModeAnnotation = "svc.dpu.nvidia.com/interface-mode"
	// InterfaceModeLegacy asks for one ServiceInterface object per Node.
	InterfaceModeLegacy = "legacy"
)

// Finalizers.
const (
	// DPUServiceInterfaceFinalizer keeps a DPUServiceInterface until its sets are gone from every DPU cluster.
	DPUServiceInterfaceFinalizer = "svc.dpu.nvidia.com/dpuserviceinterface"
	// ServiceInterfaceSetFinalizer keeps a set until its ServiceInterfaces are gone.
	ServiceInterfaceSetFinalizer = "dpu.nvidia.com/serviceinterfaceset"
)

// Condition types. Ready of a DPUServiceInterface is True with no Node at all: it proves nothing about a port.
const (
	// ReadyCondition sums up the others.
	ReadyCondition = "Ready"
	// PreReqsReadyCondition of a DPUServiceInterface: virtual network, VPC and isolation class exist.
	PreReqsReadyCondition = "ServiceInterfacePreReqsReady"
	// SetReconciledCondition of a DPUServiceInterface: the sets are applied, or, in deletion, gone.
	SetReconciledCondition = "ServiceInterfaceSetReconciled"
	// SetReadyCondition of a DPUServiceInterface: every set is Ready.
	SetReadyCondition = "ServiceInterfaceSetReady"
	// ServiceInterfaceReconciledCondition of a ServiceInterface: the port is programmed on its DPU.
	ServiceInterfaceReconciledCondition = "ServiceInterfaceReconciled"
	// SecretReconciledCondition of a DPUServiceCredentialRequest: the Secret is written.
	SecretReconciledCondition = "SecretReconciled"
	// ServiceAccountReconciledCondition of a DPUServiceCredentialRequest: the ServiceAccount exists.
	ServiceAccountReconciledCondition = "ServiceAccountReconciled"
)

// Reasons of the conditions of this group and of vpc.dpu.nvidia.com.
const (
	ReasonSuccess          = "Success"
	ReasonPending          = "Pending"
	ReasonError            = "Error"
	ReasonFailure          = "Failure"
	ReasonAwaitingDeletion = "AwaitingDeletion"
)
