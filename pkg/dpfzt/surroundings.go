// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfzt

import (
	"context"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// Surroundings are what is read of all VPCs at once. They are shared: nothing in them is to be changed.
type Surroundings struct {
	vpc.Surroundings
	started  time.Time
	networks []vpcv1alpha1.DPUVirtualNetwork
}

// Started is when the reading started, if Readings made it.
func (s *Surroundings) Started() time.Time { return s.started }

// Objects are those of a TenantVPC that the ports need. What does not exist is left out.
func (s *Surroundings) Objects(place vpc.Place, tenant *infrav1.TenantVPC, ports []vpc.WantedInterface) (vpc.Objects, error) {
	if s.Err != nil {
		return vpc.Objects{}, s.Err
	}
	objects := vpc.Objects{
		Networks:   map[string]*vpcv1alpha1.DPUVirtualNetwork{},
		Interfaces: map[string]*svcv1alpha1.DPUServiceInterface{},
	}
	for i := range s.VPCs {
		if s.VPCs[i].Namespace == place.Namespace && s.VPCs[i].Name == place.VPCName(tenant) {
			objects.VPC = &s.VPCs[i]
		}
	}
	for _, port := range ports {
		network, dsi := place.NetworkName(tenant, port.Subnet), place.InterfaceName(tenant, port.Subnet, port.PF)
		for i := range s.networks {
			if s.networks[i].Namespace == place.Namespace && s.networks[i].Name == network {
				objects.Networks[network] = &s.networks[i]
			}
		}
		for i := range s.Interfaces {
			if s.Interfaces[i].Namespace == place.Namespace && s.Interfaces[i].Name == dsi {
				objects.Interfaces[dsi] = &s.Interfaces[i]
			}
		}
	}
	return objects, nil
}

// readSurroundings reads what else of DPF decides about the ports of DPUs: VPCs and interfaces of every namespace, and what DPF
// itself is about to do.
func readSurroundings(ctx context.Context, reader client.Reader, namespace string) (*Surroundings, error) {
	networks := &vpcv1alpha1.DPUVirtualNetworkList{}
	vpcs, interfaces := &vpcv1alpha1.DPUVPCList{}, &svcv1alpha1.DPUServiceInterfaceList{}
	clusters, maintenances := &provisioningv1alpha1.DPUClusterList{}, &provisioningv1alpha1.DPUNodeMaintenanceList{}
	for _, read := range []struct {
		list    client.ObjectList
		what    string
		options []client.ListOption
	}{
		{vpcs, "DPUVPCs", nil},
		{interfaces, "DPUServiceInterfaces", nil},
		{networks, "DPUVirtualNetworks", []client.ListOption{client.InNamespace(namespace)}},
		{clusters, "DPUClusters", nil},
		{maintenances, "DPUNodeMaintenances", []client.ListOption{client.InNamespace(namespace)}},
	} {
		if err := reader.List(ctx, read.list, read.options...); err != nil {
			return nil, fmt.Errorf("list %s: %w", read.what, err)
		}
	}
	around := vpc.Surroundings{VPCs: vpcs.Items, Interfaces: interfaces.Items, Clusters: clusters.Items, Maintenances: maintenances.Items}
	return &Surroundings{Surroundings: around, networks: networks.Items}, nil
}
