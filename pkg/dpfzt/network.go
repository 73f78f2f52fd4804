// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfzt

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// ReadObjects reads those objects of a TenantVPC that the ports need. What does not exist is left out.
func ReadObjects(ctx context.Context, reader client.Reader, place vpc.Place, tenant *infrav1.TenantVPC, ports []vpc.WantedInterface) (vpc.Objects, error) {
	objects := vpc.Objects{
		Networks:   map[string]*vpcv1alpha1.DPUVirtualNetwork{},
		Interfaces: map[string]*svcv1alpha1.DPUServiceInterface{},
	}
	found := &vpcv1alpha1.DPUVPC{}
	exists, err := read(ctx, reader, place.Namespace, place.VPCName(tenant), found)
	if err != nil {
		return vpc.Objects{}, fmt.Errorf("read DPUVPC: %w", err)
	}
	if exists {
		objects.VPC = found
	}
	for _, port := range ports {
		name := place.NetworkName(tenant, port.Subnet)
		if _, known := objects.Networks[name]; !known {
			network := &vpcv1alpha1.DPUVirtualNetwork{}
			if exists, err = read(ctx, reader, place.Namespace, name, network); err != nil {
				return vpc.Objects{}, fmt.Errorf("read DPUVirtualNetwork: %w", err)
			}
			if exists {
				objects.Networks[name] = network
			}
		}
		name = place.InterfaceName(tenant, port.Subnet, port.PF)
		dsi := &svcv1alpha1.DPUServiceInterface{}
		if exists, err = read(ctx, reader, place.Namespace, name, dsi); err != nil {
			return vpc.Objects{}, fmt.Errorf("read DPUServiceInterface: %w", err)
		}
		if exists {
			objects.Interfaces[name] = dsi
		}
	}
	return objects, nil
}

func read(ctx context.Context, reader client.Reader, namespace, name string, into client.Object) (exists bool, err error) {
	err = reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, into)
	return err == nil, client.IgnoreNotFound(err)
}

// NetworkOf is the DPUVirtualNetwork an interface is on, or empty.
func NetworkOf(spec *svcv1alpha1.InterfaceSpec) string {
	switch {
	case spec.PF != nil && spec.PF.VirtualNetwork != nil:
		return *spec.PF.VirtualNetwork
	case spec.VF != nil && spec.VF.VirtualNetwork != nil:
		return *spec.VF.VirtualNetwork
	case spec.Service != nil && spec.Service.VirtualNetwork != nil:
		return *spec.Service.VirtualNetwork
	}
	return ""
}
