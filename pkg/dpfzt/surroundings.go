// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfzt

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// ReadSurroundings reads what else of DPF decides about the ports of DPUs: VPCs and interfaces of every namespace, and what DPF
// itself is about to do. A failure is kept and said in what is read, which then says nothing.
func ReadSurroundings(ctx context.Context, reader client.Reader, namespace string) vpc.Surroundings {
	vpcs, interfaces := &vpcv1alpha1.DPUVPCList{}, &svcv1alpha1.DPUServiceInterfaceList{}
	clusters, maintenances := &provisioningv1alpha1.DPUClusterList{}, &provisioningv1alpha1.DPUNodeMaintenanceList{}
	for _, read := range []struct {
		list    client.ObjectList
		what    string
		options []client.ListOption
	}{
		{vpcs, "DPUVPCs", nil},
		{interfaces, "DPUServiceInterfaces", nil},
		{clusters, "DPUClusters", nil},
		{maintenances, "DPUNodeMaintenances", []client.ListOption{client.InNamespace(namespace)}},
	} {
		if err := reader.List(ctx, read.list, read.options...); err != nil {
			return vpc.Surroundings{Err: fmt.Errorf("list %s: %w", read.what, err)}
		}
	}
	return vpc.Surroundings{VPCs: vpcs.Items, Interfaces: interfaces.Items, Clusters: clusters.Items, Maintenances: maintenances.Items}
}
