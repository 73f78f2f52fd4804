// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

// FaultKind is something that goes wrong.
type FaultKind string

const (
	// AgentDown kills or hangs the OVN VPC agent on DPU Target; its kubelet and OVN controller live on.
	AgentDown FaultKind = "AgentDown"
	// AgentForgetsPort makes the agent on DPU Target drop its finalizer without finding the port to unplug.
	AgentForgetsPort FaultKind = "AgentForgetsPort"
	// OVNControllerHung freezes what OVN does on DPU Target: ports carry traffic as they did.
	OVNControllerHung FaultKind = "OVNControllerHung"
	// NodeNotReady silences the kubelet of DPU Target, nothing else.
	NodeNotReady FaultKind = "NodeNotReady"
	// OVSProblem makes the problem detector of DPU Target report OVSHealthy False.
	OVSProblem FaultKind = "OVSProblem"
	// WrongMAC makes the agent on DPU Target take Value for the MAC address of every port.
	WrongMAC FaultKind = "WrongMAC"
	// Reprovision reinstalls DPU Target; the installation ends, with a new Node, when the fault is removed.
	Reprovision FaultKind = "Reprovision"
	// DPUReboot takes DPU Target down, whatever its server does; it boots, with a new boot ID, when the fault is removed. What it
	// said last stays in the objects meanwhile.
	DPUReboot FaultKind = "DPUReboot"
	// NodeDeleted deletes the Node of DPU Target, and with it the agent; removing the fault restarts the kubelet, which registers
	// the Node anew: another UID, no label of others, DPF's own after a while.
	NodeDeleted FaultKind = "NodeDeleted"
	// DPUReplaced deletes the DPU object Target, as a DPUSet does to reinstall a card. Its Node goes at once; the DPUSet makes the
	// DPU again, without labels others had put on it; then DPF waits in "Node Effect" until somebody sets the annotation
	// wait-for-external-nodeeffect of the DPUNodeMaintenance to "false", and installs. Removing the fault does not undo it.
	DPUReplaced FaultKind = "DPUReplaced"
	// ReinstallWanted makes DPF want to reinstall DPU Target without deleting anything first: it waits in "Node Effect", with the
	// Node and traffic as they were, for the same annotation. Removing the fault withdraws the wish if nothing has begun.
	// unsure: DPF's sources know the deletion before (DPUReplaced); this is how the hold is meant.
	ReinstallWanted FaultKind = "ReinstallWanted"
	// ExternalReboot makes whatever is installed on DPU Target wait for its server's power cycle, as DPUNodes with external reboot
	// do: phase "Rebooting", condition Rebooted False, and the annotation dpunode-external-reboot-required on the DPUNode, which
	// whoever has cycled the power removes. Without the fault the simulator's operator is quick about it.
	ExternalReboot FaultKind = "ExternalReboot"
	// DPUPhase keeps DPU Target in phase Value, such as "Error".
	DPUPhase FaultKind = "DPUPhase"
	// NetworkNotReady makes DPUVirtualNetwork Target ("namespace/name") not Ready; its ports stay as they are.
	NetworkNotReady FaultKind = "NetworkNotReady"
	// VPCNotReady makes DPUVPC Target ("namespace/name") not Ready: TopologyReconciled fails, and nothing changes in OVN.
	VPCNotReady FaultKind = "VPCNotReady"
	// CredentialsRotated renews the token of the DPUServiceCredentialRequest Target ("namespace/name") now. With Value "revoke" the
	// tokens given before end, up to ten seconds later (API servers remember those they have seen).
	CredentialsRotated FaultKind = "CredentialsRotated"
	// StrayDPUCluster adds a DPUCluster Target that does not answer, which stalls every DPUServiceInterface, selected or not.
	StrayDPUCluster FaultKind = "StrayDPUCluster"
	// ControllerSlow makes the controller Target (see the Controller constants) think for Value (a duration) before each step.
	ControllerSlow FaultKind = "ControllerSlow"
	// ControllerStalled stops the controller Target (see the Controller constants).
	ControllerStalled FaultKind = "ControllerStalled"
	// DPUClusterUnreachable keeps DPF's management side from the DPU cluster: every DPUServiceInterface, label, mark and logical
	// port stays as it is, also in deletion.
	DPUClusterUnreachable FaultKind = "DPUClusterUnreachable"
	// NorthboundUnreachable keeps the VPC service from OVN's Northbound database: nothing is plugged, unplugged or finalized, and
	// traffic goes on as it was.
	NorthboundUnreachable FaultKind = "NorthboundUnreachable"
	// NorthboundLost empties OVN's Northbound database once; the objects go on saying what they said.
	NorthboundLost FaultKind = "NorthboundLost"
	// VPCClaim makes VPC Value ("namespace/name", of somebody else) select the Node of DPU Target, too, and has DPF look at the VPCs
	// that do.
	VPCClaim FaultKind = "VPCClaim"
	// QuietVPCClaim is the same without the second part: DPF looks at neither VPC by itself, and goes on calling them Ready.
	QuietVPCClaim FaultKind = "QuietVPCClaim"
	// Relabel changes a label on the Node of DPU Target behind DPF's back: Value is "key=value", or "key-" to remove it.
	// Removing the fault does not undo it.
	Relabel FaultKind = "Relabel"
)

// Controllers that can be stalled.
const (
	ControllerDPUSet              = "dpuset"
	ControllerDPU                 = "dpu"
	ControllerDPUServiceInterface = "dpuserviceinterface"
	ControllerServiceInterfaceSet = "serviceinterfaceset"
	ControllerVPC                 = "dpuvpc"
	ControllerVirtualNetwork      = "dpuvirtualnetwork"
	ControllerServiceInterface    = "vpc-ovn-controller"
	ControllerAgent               = "vpc-ovn-node"
	ControllerCredentials         = "dpuservicecredentialrequest"
)
