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
	// WaitingForTurnReason says that a server may be free and that a cluster with fewer servers is served first.
	WaitingForTurnReason = "WaitingForTurn"
	// ServerIsDPUReason says that MAAS gave out a DPU, which is never a machine.
	ServerIsDPUReason = "ServerIsDPU"
	// ServerSuspectReason says that deployments of several machines failed on the server: it is held until an operator has
	// looked at it.
	ServerSuspectReason = "ServerSuspect"
	// RecordingSuspicionReason waits for a failed deployment to be listed in the identity's suspects, before its server is
	// given back.
	RecordingSuspicionReason = "RecordingSuspicion"
	// ClaimsAdmittedReason says that new claims are taken.
	ClaimsAdmittedReason = "ClaimsAdmitted"
	// AccountedReason says that every server of the account belongs to one MaasMachine or is held.
	AccountedReason = "Accounted"
	// OrphansFoundReason says that servers of the account and MaasMachines do not agree; see status.orphans.
	OrphansFoundReason = "OrphansFound"
	// NoClusterReason says that no Cluster owns a template, so that nobody knows which servers it is for.
	NoClusterReason = "NoCluster"
	// NoServerMatchesReason says that no server that the account has or could be given matches a template now.
	NoServerMatchesReason = "NoServerMatches"
	// SeveralArchitecturesReason says that servers of several architectures match a template that names none.
	SeveralArchitecturesReason = "SeveralArchitectures"
	// AuditPendingReason says that the servers of the account were not compared with the MaasMachines yet.
	AuditPendingReason = "AuditPending"
)

// Condition types of a MaasClusterIdentity besides Ready and CredentialsValid.
const (
	// ClaimsAdmittedCondition is False while the circuit breaker stops new claims.
	ClaimsAdmittedCondition = "ClaimsAdmitted"
	// AccountedCondition is False while the last audit found orphans, Unknown before the first.
	AccountedCondition = "Accounted"
)

// Reasons of an OrphanServer. They stand in status.orphans and in events, not in conditions.
const (
	// OrphanNoMachine is a server that carries a claim no MaasMachine has.
	OrphanNoMachine = "NoMaasMachine"
	// OrphanUnclaimed is a server of the account that carries no claim.
	OrphanUnclaimed = "Unclaimed"
	// OrphanDisagrees is a server whose claim belongs to a MaasMachine that has another server, or whose annotations name
	// another MaasMachine than the claim does.
	OrphanDisagrees = "AnnotationsDisagree"
	// OrphanServerGone is a server a MaasMachine has and the account no longer holds.
	OrphanServerGone = "ServerGone"
)
