// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioningv1alpha1

// Labels.
const (
	// NodeDPUNodeNameLabel names, on the Node of a DPU, its DPUNode (the server). A server may hold several DPUs.
	NodeDPUNodeNameLabel = "provisioning.dpu.nvidia.com/dpunode-name"
	// NodeDPUNodeNamespaceLabel is the namespace of NodeDPUNodeNameLabel.
	NodeDPUNodeNamespaceLabel = "provisioning.dpu.nvidia.com/dpunode-namespace"
	// DPUDeviceNameLabel names the DPUDevice on its DPU object. There is no such label on the Node.
	DPUDeviceNameLabel = "provisioning.dpu.nvidia.com/dpudevice-name"
	// DPUNodeNameLabel names the DPUNode on its DPUs and DPUDevices.
	DPUNodeNameLabel = "provisioning.dpu.nvidia.com/dpunode-name"
)

// Annotations.
const (
	// ExternalRebootRequiredAnnotation stands on a DPUNode as long as DPF waits for somebody to power-cycle the server;
	// whoever did removes it.
	ExternalRebootRequiredAnnotation = "provisioning.dpu.nvidia.com/dpunode-external-reboot-required"
	// HoldAnnotation stands on a DPUNodeMaintenance whose node effect is hold; DPF proceeds when it reads "false".
	HoldAnnotation = "provisioning.dpu.nvidia.com/wait-for-external-nodeeffect"
)

// Condition types shared by the kinds of this group.
const (
	// ReadyCondition sums up the others.
	ReadyCondition = "Ready"
	// ErrorCondition is True with the reason of a DPU or DPUDevice that cannot go on by itself.
	ErrorCondition = "Error"
	// DeviceNodeAttachedCondition is True on a DPUDevice that some DPUNode lists.
	DeviceNodeAttachedCondition = "NodeAttached"
	// DeviceDiscoveredCondition is True on a DPUDevice whose facts were read over Redfish.
	DeviceDiscoveredCondition = "Discovered"
	// DPUOperationalReadyCondition is in a DPU's operationalConditions, not in its conditions.
	DPUOperationalReadyCondition = "OperationalReady"
	// DPUNodeRebootInProgressCondition is True on a DPUNode whose server is being rebooted for DPF.
	DPUNodeRebootInProgressCondition = "DPUNodeRebootInProgress"
	// DPUNodeUpdateInProgressCondition is True on a DPUNode one of whose DPUs is being changed.
	DPUNodeUpdateInProgressCondition = "DPUUpdateInProgress"
	// NodeEffectAppliedCondition is True on a DPUNodeMaintenance past its hold.
	NodeEffectAppliedCondition = "NodeEffectApplied"
	// NodeEffectRemovedCondition is True on a DPUNodeMaintenance that is over.
	NodeEffectRemovedCondition = "NodeEffectRemoved"
)
