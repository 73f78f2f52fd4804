// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpcv1alpha1

// ProvisionerOVN is the provisioner of the OVN VPC service.
const ProvisionerOVN = "ovn.vpc.dpu.nvidia.com"

// Labels.
const (
	// ProvisionerLabel names the provisioner on what depends on an isolation class; DPF writes it.
	ProvisionerLabel = "vpc.dpu.nvidia.com/provisioner"
	// NodeVPCLabel stands on a Node that is in a VPC, with the value "<namespace>_<name>"; written by DPF alone.
	NodeVPCLabel = "ovn.vpc.dpu.nvidia.com/vpc"
)

// Annotations.
const (
	// NodeLRPAddressAnnotation is a Node's address in its VPC's join network; set and removed with NodeVPCLabel.
	NodeLRPAddressAnnotation = "ovn.vpc.dpu.nvidia.com/lrp-address"
	// NodeVTEPAnnotation, NodeChassisIDAnnotation and NodeGatewayAnnotation are written on the Node by the agent of its DPU; a
	// Node without them blocks every VPC that selects it.
	NodeVTEPAnnotation      = "ovn.vpc.dpu.nvidia.com/ovn-vtep-ip"
	NodeChassisIDAnnotation = "ovn.vpc.dpu.nvidia.com/ovn-chassis-id"
	NodeGatewayAnnotation   = "ovn.vpc.dpu.nvidia.com/gw-config"
	// PortMACAnnotation is the MAC address the DPU's agent found for a ServiceInterface's port, or "unknown".
	PortMACAnnotation = "ovn.vpc.dpu.nvidia.com/lsp-mac-address"
	// PortConnectedAnnotation is "true" on a ServiceInterface whose logical port exists. It keeps its last value while the
	// virtual network is not Ready.
	PortConnectedAnnotation = "ovn.vpc.dpu.nvidia.com/lsp-connected"
	// PortUnknownMACAnnotation, set to "true" by the user, lets a port carry any MAC address.
	PortUnknownMACAnnotation = "ovn.vpc.dpu.nvidia.com/unknown-mac"
)

// Finalizers.
const (
	// DPUVPCFinalizer keeps a DPUVPC while virtual networks name it.
	DPUVPCFinalizer = "ovn.vpc.dpu.nvidia.com/vpc-protection"
	// DPUVirtualNetworkFinalizer keeps a virtual network while DPUServiceInterfaces name it.
	DPUVirtualNetworkFinalizer = "ovn.vpc.dpu.nvidia.com/virtualnetwork-protection"
	// ServiceInterfaceFinalizer keeps a ServiceInterface until its logical port is gone.
	ServiceInterfaceFinalizer = "ovn.vpc.dpu.nvidia.com/serviceinterface-protection"
	// ServiceInterfaceNodeFinalizer keeps a ServiceInterface until the agent on its DPU has unplugged the port.
	ServiceInterfaceNodeFinalizer = "ovn.vpc.dpu.nvidia.com/serviceinterface-node-finalizer"
)

// Condition types.
const (
	// ReadyCondition sums up the others.
	ReadyCondition = "Ready"
	// PrerequisitesReadyCondition: what the object builds on exists; of a DPUVPC also that every selected Node has its agent's
	// annotations.
	PrerequisitesReadyCondition = "PrerequisitesReady"
	// DPUVPCReconciledCondition of a DPUVPC.
	DPUVPCReconciledCondition = "DPUVPCReconciled"
	// DPUNodesReconciledCondition of a DPUVPC: False when a selected Node is in another VPC too.
	DPUNodesReconciledCondition = "DPUNodesReconciled"
	// TopologyReconciledCondition of a DPUVPC: OVN has its routers and switches.
	TopologyReconciledCondition = "TopologyReconciled"
	// DPUVirtualNetworkReconciledCondition of a DPUVirtualNetwork.
	DPUVirtualNetworkReconciledCondition = "DPUVirtualNetworkReconciled"
)
