// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
)

// Place is where the objects of a fabric are made, and by whom.
type Place struct {
	// Installation identifies this installation of the provider among those that share a DPF.
	Installation string
	// Namespace is DPF's namespace.
	Namespace string
	// IsolationClassName is the class of the VPCs made.
	IsolationClassName string
	// AdoptionKeyPrefixes are those that label keys in selectors of adopted VPCs must have.
	AdoptionKeyPrefixes []string
}

// PlaceOf returns the place a fabric describes.
func PlaceOf(installation string, fabric *infrav1.DPUFabric) Place {
	backend := fabric.Spec.Backend.OVNVPC
	if backend == nil {
		return Place{Installation: installation}
	}
	return Place{
		Installation: installation, Namespace: backend.Namespace, IsolationClassName: backend.IsolationClassName,
		AdoptionKeyPrefixes: backend.AdoptionKeyPrefixes,
	}
}

// OwnerOf is the owner of what is made for a TenantVPC.
func (p Place) OwnerOf(tenant *infrav1.TenantVPC) Owner {
	return Owner{Installation: p.Installation, Namespace: tenant.Namespace, Name: tenant.Name}
}

// VPCName is the name of the DPUVPC of a TenantVPC: the adopted one's, or the one made for it.
func (p Place) VPCName(tenant *infrav1.TenantVPC) string {
	if tenant.Spec.Adopt != nil {
		return tenant.Spec.Adopt.Name
	}
	return VPCName(p.Installation, tenant.Namespace, tenant.Name)
}

// NetworkName is the name of the DPUVirtualNetwork of a subnet of a TenantVPC. An adopted VPC's subnets are called as its
// networks are.
func (p Place) NetworkName(tenant *infrav1.TenantVPC, subnet string) string {
	if tenant.Spec.Adopt != nil {
		return subnet
	}
	return NetworkName(p.Installation, tenant.Namespace, tenant.Name, subnet)
}

// InterfaceName is the name of the DPUServiceInterface that plugs a physical function into a subnet of a TenantVPC.
func (p Place) InterfaceName(tenant *infrav1.TenantVPC, subnet string, pf int32) string {
	if tenant.Spec.Adopt != nil {
		// Other tenants of DPF choose the network's name: it must not lead to a name that they could take.
		return InterfaceName(NetworkName(p.Installation, tenant.Namespace, tenant.Name, subnet), pf)
	}
	return InterfaceName(p.NetworkName(tenant, subnet), pf)
}

func (p Place) meta(tenant *infrav1.TenantVPC, name string) metav1.ObjectMeta {
	owner := p.OwnerOf(tenant)
	return metav1.ObjectMeta{
		Namespace:   p.Namespace,
		Name:        name,
		Labels:      map[string]string{InstallationLabel: owner.InstallationHash()},
		Annotations: map[string]string{OwnerAnnotation: owner.String()},
	}
}

// DesiredVPC is the DPUVPC of a TenantVPC that adopts none. It selects the Nodes that carry VPCKey with its name.
func DesiredVPC(place Place, tenant *infrav1.TenantVPC) *vpcv1alpha1.DPUVPC {
	name := place.VPCName(tenant)
	return &vpcv1alpha1.DPUVPC{
		ObjectMeta: place.meta(tenant, name),
		Spec: vpcv1alpha1.DPUVPCSpec{
			Tenant:             tenant.Namespace + "/" + tenant.Name,
			IsolationClassName: place.IsolationClassName,
			InterNetworkAccess: ptr.Deref(tenant.Spec.InterNetworkAccess, false),
			// Without a selector the VPC would take no Node, with an empty one every Node; and it can never be changed.
			NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{VPCKey: name}},
		},
	}
}

// DesiredNetwork is the DPUVirtualNetwork of a subnet. It fails on excludeIPs that are no addresses of the subnet.
func DesiredNetwork(place Place, tenant *infrav1.TenantVPC, subnet infrav1.VPCSubnet) (*vpcv1alpha1.DPUVirtualNetwork, error) {
	excluded, err := excludeIPs(subnet)
	if err != nil {
		return nil, fmt.Errorf("subnet %s of TenantVPC %s/%s: %w", subnet.Name, tenant.Namespace, tenant.Name, err)
	}
	return &vpcv1alpha1.DPUVirtualNetwork{
		ObjectMeta: place.meta(tenant, place.NetworkName(tenant, subnet.Name)),
		Spec: vpcv1alpha1.DPUVirtualNetworkSpec{
			VPCName:          place.VPCName(tenant),
			Type:             vpcv1alpha1.VirtualNetworkTypeBridged,
			ExternallyRouted: ptr.Deref(subnet.ExternallyRouted, false),
			Masquerade:       ptr.To(true),
			BridgedNetwork: &vpcv1alpha1.BridgedNetwork{IPAM: &vpcv1alpha1.IPAM{IPv4: &vpcv1alpha1.IPv4{
				DHCP: true, Subnet: subnet.CIDR, ExcludeIPs: excluded,
			}}},
		},
	}, nil
}

func excludeIPs(subnet infrav1.VPCSubnet) ([]vpcv1alpha1.ExcludeIP, error) {
	network, err := netip.ParsePrefix(subnet.CIDR)
	if err != nil {
		return nil, fmt.Errorf("cidr %q is not a network: %w", subnet.CIDR, err)
	}
	var excluded []vpcv1alpha1.ExcludeIP
	for _, entry := range subnet.ExcludeIPs {
		first, last, isRange := strings.Cut(entry, "-")
		if !isRange {
			last = first
		}
		start, startErr := netip.ParseAddr(first)
		end, endErr := netip.ParseAddr(last)
		switch {
		case startErr != nil || endErr != nil:
			return nil, fmt.Errorf("excludeIPs entry %q is neither an address nor a range such as 10.64.0.10-10.64.0.20", entry)
		case !network.Contains(start) || !network.Contains(end):
			return nil, fmt.Errorf("excludeIPs entry %q lies outside %s", entry, subnet.CIDR)
		case end.Less(start):
			return nil, fmt.Errorf("excludeIPs entry %q ends before it starts", entry)
		case isRange:
			excluded = append(excluded, vpcv1alpha1.ExcludeIP{Range: &vpcv1alpha1.IPRange{Start: first, End: last}})
		default:
			excluded = append(excluded, vpcv1alpha1.ExcludeIP{IP: first})
		}
	}
	return excluded, nil
}

// DesiredInterface is the DPUServiceInterface that plugs one physical function into a subnet, on the DPUs that carry both the
// VPC's and the port's label. In an adopted VPC the DPUs carry the labels of its selector besides, which take them into it.
func DesiredInterface(place Place, tenant *infrav1.TenantVPC, subnet string, pf int32) *svcv1alpha1.DPUServiceInterface {
	network := place.NetworkName(tenant, subnet)
	return &svcv1alpha1.DPUServiceInterface{
		ObjectMeta: place.meta(tenant, place.InterfaceName(tenant, subnet, pf)),
		Spec: svcv1alpha1.DPUServiceInterfaceSpec{Template: svcv1alpha1.ServiceInterfaceSetTemplate{
			// Evidence is read from ServiceInterface objects, so DPF must not pack them into one object per Node.
			ObjectMeta: svcv1alpha1.TemplateMeta{Annotations: map[string]string{
				svcv1alpha1.InterfaceModeAnnotation: svcv1alpha1.InterfaceModeLegacy,
			}},
			Spec: svcv1alpha1.ServiceInterfaceSetSpec{
				// Without a selector the interface would be plugged on every DPU.
				NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{
					VPCKey: place.VPCName(tenant), PortKey(pf): network,
				}},
				Template: svcv1alpha1.ServiceInterfaceTemplate{Spec: svcv1alpha1.InterfaceSpec{
					InterfaceType: svcv1alpha1.InterfaceTypePF,
					PF:            &svcv1alpha1.PF{ID: pf, VirtualNetwork: ptr.To(network)},
				}},
			},
		}},
	}
}

// WantedInterface is a physical function that some attachment asks to have on a subnet.
type WantedInterface struct {
	Subnet string
	PF     int32
}

// WantedInterfaces are the interfaces the attachments of a TenantVPC need, in order, without repetition. An attachment needs
// its interfaces as long as it exists: without them neither attachment nor detachment can be proven.
func WantedInterfaces(tenant *infrav1.TenantVPC, attachments []infrav1.DPUAttachment) []WantedInterface {
	var wanted []WantedInterface
	for i := range attachments {
		if attachments[i].Namespace != tenant.Namespace || attachments[i].Spec.VPCName != tenant.Name {
			continue
		}
		for _, port := range attachments[i].Spec.Ports {
			wanted = append(wanted, WantedInterface{Subnet: port.Subnet, PF: ptr.Deref(port.PF, 0)})
		}
	}
	slices.SortFunc(wanted, func(a, b WantedInterface) int {
		return cmp.Or(cmp.Compare(a.Subnet, b.Subnet), cmp.Compare(a.PF, b.PF))
	})
	return slices.Compact(wanted)
}
