// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"reflect"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
)

var place = Place{Installation: "i", Namespace: dpf, IsolationClassName: "ovn"}

func tenant() *infrav1.TenantVPC {
	return &infrav1.TenantVPC{
		ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "net"},
		Spec: infrav1.TenantVPCSpec{
			FabricName: "f", InterNetworkAccess: ptr.To(true),
			Subnets: []infrav1.VPCSubnet{{Name: "workers", CIDR: "10.64.0.0/24", ExternallyRouted: ptr.To(true), ExcludeIPs: []string{"10.64.0.9", "10.64.0.20-10.64.0.30"}}},
		},
	}
}

func TestDesiredObjects(t *testing.T) {
	made := DesiredVPC(place, tenant())
	if len(made.Spec.NodeSelector.MatchLabels) != 1 || made.Spec.NodeSelector.MatchLabels[VPCKey] != made.Name || !made.Spec.InterNetworkAccess {
		t.Errorf("VPC %+v", made.Spec)
	}
	if place.OwnerOf(tenant()).OwnershipOf(made.Annotations) != Mine {
		t.Error("the VPC is not its owner's")
	}
	net, err := DesiredNetwork(place, tenant(), tenant().Spec.Subnets[0])
	if err != nil {
		t.Fatal(err)
	}
	want := []vpcv1alpha1.ExcludeIP{{IP: "10.64.0.9"}, {Range: &vpcv1alpha1.IPRange{Start: "10.64.0.20", End: "10.64.0.30"}}}
	if ipv4 := net.Spec.BridgedNetwork.IPAM.IPv4; net.Spec.VPCName != made.Name || !net.Spec.ExternallyRouted || !ipv4.DHCP || !reflect.DeepEqual(ipv4.ExcludeIPs, want) {
		t.Errorf("network %+v", net.Spec)
	}
	dsi := DesiredInterface(place, tenant(), "workers", 1)
	selector := dsi.Spec.Template.Spec.NodeSelector.MatchLabels
	if len(selector) != 2 || selector[VPCKey] != made.Name || selector[PortKey(1)] != net.Name {
		t.Errorf("an interface that selects %v", selector)
	}
	if dsi.Spec.Template.ObjectMeta.Annotations[svcv1alpha1.InterfaceModeAnnotation] != svcv1alpha1.InterfaceModeLegacy {
		t.Error("the interface mode is not pinned")
	}
	if pf := dsi.Spec.Template.Spec.Template.Spec.PF; pf.ID != 1 || *pf.VirtualNetwork != net.Name {
		t.Errorf("PF %+v", pf)
	}
}

func TestDesiredNetworkRefuses(t *testing.T) {
	for _, exclude := range []string{"10.65.0.1", "10.64.0.1-10.65.0.1", "10.64.0.9-10.64.0.1", "999.1.1.1", "10.64.0.1-"} {
		subnet := infrav1.VPCSubnet{Name: "s", CIDR: "10.64.0.0/24", ExcludeIPs: []string{exclude}}
		if _, err := DesiredNetwork(place, tenant(), subnet); err == nil || !strings.Contains(err.Error(), exclude) {
			t.Errorf("%s: %v", exclude, err)
		}
	}
}

func TestWantedInterfaces(t *testing.T) {
	attachment := func(namespace, vpcName string, ports ...infrav1.MachinePort) infrav1.DPUAttachment {
		return infrav1.DPUAttachment{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace}, Spec: infrav1.DPUAttachmentSpec{VPCName: vpcName, Ports: ports},
		}
	}
	got := WantedInterfaces(tenant(), []infrav1.DPUAttachment{
		attachment("red", "net", infrav1.MachinePort{Subnet: "workers", PF: ptr.To[int32](1)}, infrav1.MachinePort{Subnet: "workers"}),
		attachment("red", "net", infrav1.MachinePort{Subnet: "workers", PF: ptr.To[int32](0)}),
		attachment("red", "other", infrav1.MachinePort{Subnet: "a"}),
		attachment("blue", "net", infrav1.MachinePort{Subnet: "b"}),
	})
	want := []WantedInterface{{Subnet: "workers", PF: 0}, {Subnet: "workers", PF: 1}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestCheckObjects(t *testing.T) {
	ports := []WantedInterface{{Subnet: "workers", PF: 0}}
	objects := func() (Objects, *vpcv1alpha1.DPUVirtualNetwork, *svcv1alpha1.DPUServiceInterface) {
		net, err := DesiredNetwork(place, tenant(), tenant().Spec.Subnets[0])
		if err != nil {
			t.Fatal(err)
		}
		net.Status.Conditions = []metav1.Condition{{Type: vpcv1alpha1.ReadyCondition, Status: metav1.ConditionTrue}}
		dsi := DesiredInterface(place, tenant(), "workers", 0)
		dsi.Spec.Template.ObjectMeta.Labels = map[string]string{vpcv1alpha1.ProvisionerLabel: vpcv1alpha1.ProvisionerOVN}
		return Objects{
			VPC:        DesiredVPC(place, tenant()),
			Networks:   map[string]*vpcv1alpha1.DPUVirtualNetwork{net.Name: net},
			Interfaces: map[string]*svcv1alpha1.DPUServiceInterface{dsi.Name: dsi},
		}, net, dsi
	}
	if found, _, _ := objects(); CheckObjects(place, tenant(), ports, found).Answer != Yes {
		t.Fatal("objects as desired, with DPF's own label, are refused")
	}
	deleted := ptr.To(metav1.NewTime(now))
	for _, tc := range []struct {
		name   string
		change func(*Objects, *vpcv1alpha1.DPUVirtualNetwork, *svcv1alpha1.DPUServiceInterface)
	}{
		{"no VPC", func(o *Objects, _ *vpcv1alpha1.DPUVirtualNetwork, _ *svcv1alpha1.DPUServiceInterface) { o.VPC = nil }},
		{"foreign VPC", func(o *Objects, _ *vpcv1alpha1.DPUVirtualNetwork, _ *svcv1alpha1.DPUServiceInterface) {
			o.VPC.Annotations = nil
		}},
		{"VPC deleting", func(o *Objects, _ *vpcv1alpha1.DPUVirtualNetwork, _ *svcv1alpha1.DPUServiceInterface) {
			o.VPC.DeletionTimestamp = deleted
		}},
		{"VPC selects all", func(o *Objects, _ *vpcv1alpha1.DPUVirtualNetwork, _ *svcv1alpha1.DPUServiceInterface) {
			o.VPC.Spec.NodeSelector = &metav1.LabelSelector{}
		}},
		{"no network", func(o *Objects, n *vpcv1alpha1.DPUVirtualNetwork, _ *svcv1alpha1.DPUServiceInterface) {
			delete(o.Networks, n.Name)
		}},
		{"foreign network", func(_ *Objects, n *vpcv1alpha1.DPUVirtualNetwork, _ *svcv1alpha1.DPUServiceInterface) {
			n.Annotations[OwnerAnnotation] = "j/red/net"
		}},
		{"network deleting", func(_ *Objects, n *vpcv1alpha1.DPUVirtualNetwork, _ *svcv1alpha1.DPUServiceInterface) {
			n.DeletionTimestamp = deleted
		}},
		{"network of another VPC", func(_ *Objects, n *vpcv1alpha1.DPUVirtualNetwork, _ *svcv1alpha1.DPUServiceInterface) {
			n.Spec.VPCName = "other"
		}},
		{"network not Ready", func(_ *Objects, n *vpcv1alpha1.DPUVirtualNetwork, _ *svcv1alpha1.DPUServiceInterface) {
			n.Status.Conditions = nil
		}},
		{"no interface", func(o *Objects, _ *vpcv1alpha1.DPUVirtualNetwork, d *svcv1alpha1.DPUServiceInterface) {
			delete(o.Interfaces, d.Name)
		}},
		{"foreign interface", func(_ *Objects, _ *vpcv1alpha1.DPUVirtualNetwork, d *svcv1alpha1.DPUServiceInterface) {
			d.Annotations = nil
		}},
		{"interface deleting", func(_ *Objects, _ *vpcv1alpha1.DPUVirtualNetwork, d *svcv1alpha1.DPUServiceInterface) {
			d.DeletionTimestamp = deleted
		}},
		{"interface selects all", func(_ *Objects, _ *vpcv1alpha1.DPUVirtualNetwork, d *svcv1alpha1.DPUServiceInterface) {
			d.Spec.Template.Spec.NodeSelector = nil
		}},
		{"interface selects the whole VPC", func(_ *Objects, _ *vpcv1alpha1.DPUVirtualNetwork, d *svcv1alpha1.DPUServiceInterface) {
			delete(d.Spec.Template.Spec.NodeSelector.MatchLabels, PortKey(0))
		}},
		{"interface of another function", func(_ *Objects, _ *vpcv1alpha1.DPUVirtualNetwork, d *svcv1alpha1.DPUServiceInterface) {
			d.Spec.Template.Spec.Template.Spec.PF.ID = 1
		}},
		{"interface mode changed", func(_ *Objects, _ *vpcv1alpha1.DPUVirtualNetwork, d *svcv1alpha1.DPUServiceInterface) {
			d.Spec.Template.ObjectMeta.Annotations = nil
		}},
		{"interface lets any MAC pass", func(_ *Objects, _ *vpcv1alpha1.DPUVirtualNetwork, d *svcv1alpha1.DPUServiceInterface) {
			d.Spec.Template.Spec.Template.ObjectMeta.Annotations = map[string]string{vpcv1alpha1.PortUnknownMACAnnotation: "true"}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			found, net, dsi := objects()
			tc.change(&found, net, dsi)
			if got := CheckObjects(place, tenant(), ports, found); got.Answer != No || got.Reason != infrav1.VPCNotReadyReason || got.Message == "" {
				t.Errorf("got %+v", got)
			}
		})
	}
	adopted := tenant()
	adopted.Spec.Adopt = &infrav1.VPCAdoption{Name: "x"}
	if found, _, _ := objects(); CheckObjects(place, adopted, ports, found).Answer != No {
		t.Error("an adoption without a grant is accepted")
	}
}
