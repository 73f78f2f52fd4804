// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	provisioningGroup = "provisioning.dpu.nvidia.com"
	svcGroup          = "svc.dpu.nvidia.com"
	vpcGroup          = "vpc.dpu.nvidia.com"
)

var (
	kindDPUDevice          = schema.GroupVersionKind{Group: provisioningGroup, Version: "v1alpha1", Kind: "DPUDevice"}
	kindDPUNode            = schema.GroupVersionKind{Group: provisioningGroup, Version: "v1alpha1", Kind: "DPUNode"}
	kindDPU                = schema.GroupVersionKind{Group: provisioningGroup, Version: "v1alpha1", Kind: "DPU"}
	kindDPUCluster         = schema.GroupVersionKind{Group: provisioningGroup, Version: "v1alpha1", Kind: "DPUCluster"}
	kindDPUNodeMaintenance = schema.GroupVersionKind{Group: provisioningGroup, Version: "v1alpha1", Kind: "DPUNodeMaintenance"}
	kindDSI                = schema.GroupVersionKind{Group: svcGroup, Version: "v1alpha1", Kind: "DPUServiceInterface"}
	kindSIS                = schema.GroupVersionKind{Group: svcGroup, Version: "v1alpha1", Kind: "ServiceInterfaceSet"}
	kindSI                 = schema.GroupVersionKind{Group: svcGroup, Version: "v1alpha1", Kind: "ServiceInterface"}
	kindCredentialRequest  = schema.GroupVersionKind{Group: svcGroup, Version: "v1alpha1", Kind: "DPUServiceCredentialRequest"}
	kindIsolationClass     = schema.GroupVersionKind{Group: vpcGroup, Version: "v1alpha1", Kind: "IsolationClass"}
	kindVPC                = schema.GroupVersionKind{Group: vpcGroup, Version: "v1alpha1", Kind: "DPUVPC"}
	kindVirtualNetwork     = schema.GroupVersionKind{Group: vpcGroup, Version: "v1alpha1", Kind: "DPUVirtualNetwork"}
)

// DPF's names, as its documentation and sources give them.
const (
	provisionerOVN   = "ovn.vpc.dpu.nvidia.com"
	labelProvisioner = "vpc.dpu.nvidia.com/provisioner"

	labelNodeVPC        = "ovn.vpc.dpu.nvidia.com/vpc"
	annotationLRP       = "ovn.vpc.dpu.nvidia.com/lrp-address"
	annotationVTEP      = "ovn.vpc.dpu.nvidia.com/ovn-vtep-ip"
	annotationChassis   = "ovn.vpc.dpu.nvidia.com/ovn-chassis-id"
	annotationGateway   = "ovn.vpc.dpu.nvidia.com/gw-config"
	annotationMAC       = "ovn.vpc.dpu.nvidia.com/lsp-mac-address"
	annotationUnknown   = "ovn.vpc.dpu.nvidia.com/unknown-mac"
	annotationConnected = "ovn.vpc.dpu.nvidia.com/lsp-connected"

	finalizerVPC            = "ovn.vpc.dpu.nvidia.com/vpc-protection"
	finalizerVirtualNetwork = "ovn.vpc.dpu.nvidia.com/virtualnetwork-protection"
	finalizerSI             = "ovn.vpc.dpu.nvidia.com/serviceinterface-protection"
	finalizerSINode         = "ovn.vpc.dpu.nvidia.com/serviceinterface-node-finalizer"
	finalizerDSI            = "svc.dpu.nvidia.com/dpuserviceinterface"
	finalizerSIS            = "dpu.nvidia.com/serviceinterfaceset"
	// unsure: the name of this finalizer is a guess, its existence is not.
	finalizerCredentials = "svc.dpu.nvidia.com/dpuservicecredentialrequest"

	labelSetName      = "svc.dpu.nvidia.com/serviceinterfaceset-name"
	labelSetNamespace = "svc.dpu.nvidia.com/serviceinterfaceset-namespace"

	annotationInterfaceMode = "svc.dpu.nvidia.com/interface-mode"
	annotationHold          = "provisioning.dpu.nvidia.com/wait-for-external-nodeeffect"

	labelDPUNodeName      = "provisioning.dpu.nvidia.com/dpunode-name"
	labelDPUNodeNamespace = "provisioning.dpu.nvidia.com/dpunode-namespace"
	labelDPUDeviceName    = "provisioning.dpu.nvidia.com/dpudevice-name"
	labelDPUSetName       = "provisioning.dpu.nvidia.com/dpuset-name"
	labelDPUSetNamespace  = "provisioning.dpu.nvidia.com/dpuset-namespace"

	annotationReboot = "provisioning.dpu.nvidia.com/dpunode-external-reboot-required"
	labelDPFVersion  = "operator.dpu.nvidia.com/dpf-version"
	// annotationLastApplied is DPF's record of the labels it put: the DPUSet's on the DPU, and the DPU's on the Node.
	annotationLastApplied = "provisioning.dpu.nvidia.com/last-applied-labels-on-dpu"
	finalizerDPU          = "provisioning.dpu.nvidia.com/dpu-protection"
)

// The parts of DPF's specs the controllers read.
type (
	templateMeta struct {
		Labels      map[string]string `json:"labels,omitempty"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	interfaceSpec struct {
		InterfaceType string  `json:"interfaceType"`
		Node          *string `json:"node,omitempty"`
		PF            *struct {
			PFID           int64   `json:"pfID"`
			VirtualNetwork *string `json:"virtualNetwork,omitempty"`
		} `json:"pf,omitempty"`
		VF *struct {
			PFID           int64   `json:"pfID"`
			VFID           int64   `json:"vfID"`
			VirtualNetwork *string `json:"virtualNetwork,omitempty"`
		} `json:"vf,omitempty"`
		Service *struct {
			VirtualNetwork *string `json:"virtualNetwork,omitempty"`
		} `json:"service,omitempty"`
	}
	setSpec struct {
		NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`
		Template     struct {
			Metadata templateMeta  `json:"metadata,omitempty"`
			Spec     interfaceSpec `json:"spec"`
		} `json:"template"`
	}
	dsiSpec struct {
		DPUClusterSelector *metav1.LabelSelector `json:"dpuClusterSelector,omitempty"`
		ClusterSelector    *metav1.LabelSelector `json:"clusterSelector,omitempty"`
		Template           struct {
			Metadata templateMeta `json:"metadata,omitempty"`
			Spec     setSpec      `json:"spec"`
		} `json:"template"`
	}
	vpcSpec struct {
		IsolationClassName string                `json:"isolationClassName"`
		InterNetworkAccess bool                  `json:"interNetworkAccess"`
		NodeSelector       *metav1.LabelSelector `json:"nodeSelector,omitempty"`
	}
	virtualNetworkSpec struct {
		VPCName          string `json:"vpcName"`
		ExternallyRouted bool   `json:"externallyRouted"`
		Masquerade       *bool  `json:"masquerade,omitempty"`
		BridgedNetwork   struct {
			IPAM struct {
				IPv4 struct {
					DHCP       bool   `json:"dhcp"`
					Subnet     string `json:"subnet"`
					ExcludeIPs []struct {
						IP    string `json:"ip,omitempty"`
						Range *struct {
							Start string `json:"start"`
							End   string `json:"end"`
						} `json:"range,omitempty"`
					} `json:"excludeIPs,omitempty"`
				} `json:"ipv4"`
			} `json:"ipam"`
		} `json:"bridgedNetwork"`
	}
	dpuSpec struct {
		DPUNodeName   string `json:"dpuNodeName"`
		DPUDeviceName string `json:"dpuDeviceName"`
		NodeEffect    struct {
			Hold               bool `json:"hold,omitempty"`
			ApplyOnLabelChange bool `json:"applyOnLabelChange,omitempty"`
		} `json:"nodeEffect"`
		Cluster struct {
			NodeLabels map[string]string `json:"nodeLabels,omitempty"`
		} `json:"cluster"`
	}
)

// virtualNetwork is the network the interface is to be on, or "".
func (s *interfaceSpec) virtualNetwork() string {
	switch {
	case s.InterfaceType == "pf" && s.PF != nil && s.PF.VirtualNetwork != nil:
		return *s.PF.VirtualNetwork
	case s.InterfaceType == "vf" && s.VF != nil && s.VF.VirtualNetwork != nil:
		return *s.VF.VirtualNetwork
	case s.InterfaceType == "service" && s.Service != nil && s.Service.VirtualNetwork != nil:
		return *s.Service.VirtualNetwork
	}
	return ""
}

// function is the host's function behind the interface; ok is false for interfaces no host sees.
func (s *interfaceSpec) function() (f function, ok bool) {
	switch {
	case s.InterfaceType == "pf" && s.PF != nil:
		return function{pf: int(s.PF.PFID), vf: noVF}, true
	case s.InterfaceType == "vf" && s.VF != nil:
		return function{pf: int(s.VF.PFID), vf: int(s.VF.VFID)}, true
	}
	return function{}, false
}

func (s *interfaceSpec) node() string {
	if s.Node == nil {
		return ""
	}
	return *s.Node
}

// readSpec decodes an object's spec.
func readSpec[T any](object *unstructured.Unstructured) (T, error) {
	var spec T
	raw, _, err := unstructured.NestedMap(object.Object, "spec")
	if err == nil {
		err = runtime.DefaultUnstructuredConverter.FromUnstructured(raw, &spec)
	}
	if err != nil {
		return spec, fmt.Errorf("read spec of %s %s/%s: %w", object.GetKind(), object.GetNamespace(), object.GetName(), err)
	}
	return spec, nil
}

func newObject(kind schema.GroupVersionKind) *unstructured.Unstructured {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(kind)
	return object
}

func newList(kind schema.GroupVersionKind) *unstructured.UnstructuredList {
	list := &unstructured.UnstructuredList{}
	kind.Kind += "List"
	list.SetGroupVersionKind(kind)
	return list
}

// selects says whether a selector matches; absent is what an absent selector means to the asking controller.
func selects(selector *metav1.LabelSelector, set map[string]string, absent bool) (bool, error) {
	if selector == nil {
		return absent, nil
	}
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return false, fmt.Errorf("node selector: %w", err)
	}
	return s.Matches(labels.Set(set)), nil
}
