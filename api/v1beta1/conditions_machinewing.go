// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package v1beta1

// Further reasons of the machine wing.
const (
	// WaitingForMachineReason waits for a Machine to own the MaasMachine.
	WaitingForMachineReason = "WaitingForMachine"
	// MaasClusterNotFoundReason says that the Cluster's MaasCluster cannot be read.
	MaasClusterNotFoundReason = "MaasClusterNotFound"
	// SubnetNotExternallyRoutedReason says that no subnet of the machine reaches the control plane endpoint.
	SubnetNotExternallyRoutedReason = "SubnetNotExternallyRouted"
	// EndpointMissingReason waits for a control plane endpoint.
	EndpointMissingReason = "EndpointMissing"
	// EndpointInsideVPCReason says that the control plane endpoint lies where nobody can dial in.
	EndpointInsideVPCReason = "EndpointInsideVPC"
	// NoZoneReason says that the identity and the cluster have no MAAS zone in common.
	NoZoneReason = "NoZone"
	// MachinesRemainReason says that machines of the cluster still exist.
	MachinesRemainReason = "MachinesRemain"
	// DeployTimedOutReason says that MAAS did not deploy a server in time.
	DeployTimedOutReason = "DeployTimedOut"
	// DeployRefusedReason says that MAAS refuses to deploy what was asked for.
	DeployRefusedReason = "DeployRefused"
	// DeployOutcomeUnknownReason says that a deployment's answer was lost; the server's state is read before anything else.
	DeployOutcomeUnknownReason = "DeployOutcomeUnknown"
	// ServerBrokenReason says that somebody marked the server broken in MAAS.
	ServerBrokenReason = "ServerBroken"
	// ServerLockedReason says that somebody locked the server in MAAS; nothing can be done before it is unlocked.
	ServerLockedReason = "ServerLocked"
	// ServerStateUnexpectedReason says that the server is in a state of MAAS that this provider never asks for.
	ServerStateUnexpectedReason = "ServerStateUnexpected"
	// ReleaseOutcomeUnknownReason says that the answer to a power-off or release was lost; the server is not released before
	// that can no longer take effect.
	ReleaseOutcomeUnknownReason = "ReleaseOutcomeUnknown"
	// CleaningUpReason says that the attachment of a released server is going.
	CleaningUpReason = "CleaningUp"
	// AbandonedReason says that an operator gave the server up: it stays allocated and powered off, listed as held.
	AbandonedReason = "Abandoned"
)
