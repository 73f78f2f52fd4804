// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package dpftypes checks the Go types of DPF's kinds against the schemas of their CRDs.
package dpftypes

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	provisioningv1alpha1 "github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	svcv1alpha1 "github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	vpcv1alpha1 "github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
)

// laterFields are in DPF v26.8 and not in v26.4, whose CRDs drop them.
var laterFields = map[string][]string{
	"DPUDevice": {"spec.cluster"},
	"DPU":       {"status.deploymentMode"},
}

var conditions = []metav1.Condition{{
	Type: "Ready", Status: metav1.ConditionTrue, Reason: "Success", ObservedGeneration: 3,
	LastTransitionTime: metav1.NewTime(time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)),
}}

func selector() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"vpc": "acme"}}
}

// objects uses every field of every kind, so that one the schema lacks is noticed.
func objects() map[string]runtime.Object {
	now := metav1.NewTime(time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC))
	pf := svcv1alpha1.InterfaceSpec{InterfaceType: "pf", Node: ptr.To("dpu-1"), PF: &svcv1alpha1.PF{ID: 0, VirtualNetwork: ptr.To("workers")}}
	meta := svcv1alpha1.TemplateMeta{Labels: map[string]string{"a": "b"}, Annotations: map[string]string{svcv1alpha1.InterfaceModeAnnotation: svcv1alpha1.InterfaceModeLegacy}}
	set := svcv1alpha1.ServiceInterfaceSetSpec{NodeSelector: selector(), Template: svcv1alpha1.ServiceInterfaceTemplate{ObjectMeta: meta, Spec: pf}}
	effect := provisioningv1alpha1.NodeEffect{Hold: ptr.To(true), ApplyOnLabelChange: ptr.To(false)}
	secureBoot := &provisioningv1alpha1.SecureBootStatus{Enabled: ptr.To(true)}
	return map[string]runtime.Object{
		"dpudevices": &provisioningv1alpha1.DPUDevice{
			Spec: provisioningv1alpha1.DPUDeviceSpec{
				SerialNumber: "MT2601", BMCIP: "192.0.2.7", BMCPort: 443, NumberOfPFs: 2,
				Cluster: &provisioningv1alpha1.DPUDeviceCluster{NodeLabels: map[string]string{"vpc": "acme"}, NodeAnnotations: map[string]string{"a": "b"}},
			},
			Status: provisioningv1alpha1.DPUDeviceStatus{
				Conditions: conditions, SerialNumber: "MT2601", PF0MAC: "58:A2:E1:73:04:A2", BMCIP: "192.0.2.7", DPUMode: "dpu",
				DPUType: "BlueField3", SecureBoot: secureBoot,
			},
		},
		"dpunodes": &provisioningv1alpha1.DPUNode{
			Spec: provisioningv1alpha1.DPUNodeSpec{
				DPUs:             []provisioningv1alpha1.DPURef{{Name: "mt2601"}},
				NodeRebootMethod: &provisioningv1alpha1.NodeRebootMethod{External: &provisioningv1alpha1.NodeRebootEmpty{}},
			},
			Status: provisioningv1alpha1.DPUNodeStatus{Conditions: conditions, DPUInstallInterface: "redfish", RebootInProgress: ptr.To(false)},
		},
		"dpus": &provisioningv1alpha1.DPU{
			Spec: provisioningv1alpha1.DPUSpec{
				DPUNodeName: "node", DPUDeviceName: "mt2601", SerialNumber: "MT2601", BFB: "bfb", DPUFlavor: "flavor", NodeEffect: effect,
				Cluster: provisioningv1alpha1.DPUClusterMembership{Name: "dpus", Namespace: "dpf", NodeLabels: map[string]string{"vpc": "acme"}},
			},
			Status: provisioningv1alpha1.DPUStatus{
				Phase: provisioningv1alpha1.DPUPhaseReady, PreviousPhase: provisioningv1alpha1.DPUPhaseNodeEffectRemoval, ObservedGeneration: 2,
				Conditions: conditions, OperationalConditions: conditions, DPUMode: "dpu", DPUType: "BlueField3", DeploymentMode: "zero-trust",
				SecureBoot: secureBoot, Firmware: &provisioningv1alpha1.DPUFirmware{BMC: "1", NIC: "2", UEFI: "3"},
				AgentStatus:                &provisioningv1alpha1.DPUAgentStatus{RebootMethod: "NoAction", LastStartupTime: &now},
				PostProvisioningNodeEffect: ptr.To(false),
			},
		},
		"dpuclusters": &provisioningv1alpha1.DPUCluster{
			Spec:   provisioningv1alpha1.DPUClusterSpec{Type: "static", Kubeconfig: "admin", MaxNodes: 1000},
			Status: provisioningv1alpha1.DPUClusterStatus{Phase: provisioningv1alpha1.DPUClusterPhaseReady, Conditions: conditions, Version: "v1.34.1"},
		},
		"dpunodemaintenances": &provisioningv1alpha1.DPUNodeMaintenance{
			Spec:   provisioningv1alpha1.DPUNodeMaintenanceSpec{DPUNodeName: "node", NodeEffect: &effect, Requestor: []string{"dpu"}},
			Status: provisioningv1alpha1.DPUNodeMaintenanceStatus{Conditions: conditions, NodeEffectSyncStartTime: &now},
		},
		"dpuserviceinterfaces": &svcv1alpha1.DPUServiceInterface{
			Spec: svcv1alpha1.DPUServiceInterfaceSpec{
				DPUClusterSelector: selector(), Template: svcv1alpha1.ServiceInterfaceSetTemplate{ObjectMeta: meta, Spec: set},
			},
			Status: svcv1alpha1.DPUServiceInterfaceStatus{Conditions: conditions, ObservedGeneration: 2},
		},
		"serviceinterfacesets": &svcv1alpha1.ServiceInterfaceSet{
			Spec: set,
			Status: svcv1alpha1.ServiceInterfaceSetStatus{
				Conditions: conditions, ObservedGeneration: 2, NumberApplied: ptr.To[int32](1), NumberReady: ptr.To[int32](0),
			},
		},
		"serviceinterfaces": &svcv1alpha1.ServiceInterface{
			Spec: pf, Status: svcv1alpha1.ServiceInterfaceStatus{Conditions: conditions, ObservedGeneration: 1},
		},
		"dpuservicecredentialrequests": &svcv1alpha1.DPUServiceCredentialRequest{
			Spec: svcv1alpha1.DPUServiceCredentialRequestSpec{
				ServiceAccount: svcv1alpha1.NamespacedName{Name: "sa", Namespace: ptr.To("ns")},
				TargetCluster:  &svcv1alpha1.NamespacedName{Name: "dpus", Namespace: ptr.To("dpf")},
				Type:           svcv1alpha1.CredentialTypeKubeconfig, Duration: &metav1.Duration{Duration: 90 * time.Minute},
				Secret: svcv1alpha1.NamespacedName{Name: "secret", Namespace: ptr.To("ns")}, ObjectMeta: meta,
			},
			Status: svcv1alpha1.DPUServiceCredentialRequestStatus{
				Conditions: conditions, ServiceAccount: "ns/sa", TargetCluster: "dpf/dpus", Secret: "ns/secret", IssuedAt: &now, ExpirationTimestamp: &now,
			},
		},
		"isolationclasses": &vpcv1alpha1.IsolationClass{
			Spec: vpcv1alpha1.IsolationClassSpec{Provisioner: vpcv1alpha1.ProvisionerOVN, Parameters: map[string]string{"a": "b"}},
		},
		"dpuvpcs": &vpcv1alpha1.DPUVPC{
			Spec: vpcv1alpha1.DPUVPCSpec{Tenant: "acme", IsolationClassName: "ovn", InterNetworkAccess: false, NodeSelector: selector()},
			Status: vpcv1alpha1.DPUVPCStatus{
				Conditions: conditions, ObservedGeneration: 1, VirtualNetworks: []vpcv1alpha1.VirtualNetworkStatus{{Name: "workers"}},
			},
		},
		"dpuvirtualnetworks": &vpcv1alpha1.DPUVirtualNetwork{
			Spec: vpcv1alpha1.DPUVirtualNetworkSpec{
				VPCName: "acme", Type: vpcv1alpha1.VirtualNetworkTypeBridged, ExternallyRouted: false, Masquerade: ptr.To(true),
				BridgedNetwork: &vpcv1alpha1.BridgedNetwork{IPAM: &vpcv1alpha1.IPAM{IPv4: &vpcv1alpha1.IPv4{
					DHCP: false, Subnet: "172.30.8.0/24",
					ExcludeIPs: []vpcv1alpha1.ExcludeIP{{IP: "172.30.8.9"}, {Range: &vpcv1alpha1.IPRange{Start: "172.30.8.10", End: "172.30.8.20"}}},
				}}},
			},
			Status: vpcv1alpha1.DPUVirtualNetworkStatus{Conditions: conditions, ObservedGeneration: 1},
		},
	}
}

func TestSchemasTakeWhatTheTypesSay(t *testing.T) {
	for name, dir := range map[string]string{
		"generated": filepath.Join("..", "dpfsim", "crds"),
		"upstream":  os.Getenv("DPF_CRD_DIR"),
	} {
		t.Run(name, func(t *testing.T) {
			if dir == "" {
				t.Skip("DPF_CRD_DIR names no directory with upstream's CRDs")
			}
			for plural, object := range objects() {
				t.Run(plural, func(t *testing.T) { check(t, readCRD(t, dir, plural), object, name == "upstream") })
			}
		})
	}
}

func readCRD(t *testing.T, dir, plural string) *apiextensions.CustomResourceDefinition {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_"+plural+".yaml"))
	if err != nil || len(files) != 1 {
		t.Fatalf("want one CRD of %s in %s, found %v (%v)", plural, dir, files, err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	v1 := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(data, v1); err != nil {
		t.Fatal(err)
	}
	crd := &apiextensions.CustomResourceDefinition{}
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(v1, crd, nil); err != nil {
		t.Fatal(err)
	}
	return crd
}

func check(t *testing.T, crd *apiextensions.CustomResourceDefinition, object runtime.Object, earlier bool) {
	t.Helper()
	properties := crd.Spec.Validation.OpenAPIV3Schema
	raw := content(t, object)
	validator, _, err := validation.NewSchemaValidator(properties)
	if err != nil {
		t.Fatal(err)
	}
	if errs := validation.ValidateCustomResource(field.NewPath(""), raw, validator); len(errs) > 0 {
		t.Errorf("refused: %v", errs.ToAggregate())
	}
	structural, err := structuralschema.NewStructural(properties)
	if err != nil {
		t.Fatal(err)
	}
	kept := content(t, object)
	pruning.Prune(kept, structural, true)
	if earlier {
		for _, path := range laterFields[crd.Spec.Names.Kind] {
			remove(raw, strings.Split(path, "."))
		}
	}
	if diff := cmp.Diff(raw, kept); diff != "" {
		t.Errorf("fields the schema does not have (-):\n%s", diff)
	}
}

func content(t *testing.T, object runtime.Object) map[string]any {
	t.Helper()
	data, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func remove(object map[string]any, path []string) {
	if len(path) == 1 {
		delete(object, path[0])
		return
	}
	if next, ok := object[path[0]].(map[string]any); ok {
		remove(next, path[1:])
	}
}
