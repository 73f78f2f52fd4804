// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// Placement is where machines of a cluster may be placed, and on what servers.
type Placement struct {
	Spec *infrav1.MachineConstraints
	// FailureDomain is the zone a Machine asks for; empty if it does not.
	FailureDomain string
	Cluster       *infrav1.MaasCluster
	Identity      *infrav1.MaasClusterIdentity
}

// Constraints are what MAAS is asked for, without system IDs.
func (p Placement) Constraints() maas.Constraints {
	spec, identity := p.Spec, &p.Identity.Spec
	constraints := maas.Constraints{
		Zone: p.FailureDomain, Pool: spec.ResourcePool,
		Tags: spec.Tags, NotTags: spec.NotTags, Architecture: spec.Architecture,
		MinCPU: int(ptr.Deref(spec.MinCPU, 0)), MinMemoryMiB: int(ptr.Deref(spec.MinMemory, 0)), MinDiskGB: int(ptr.Deref(spec.MinDiskSize, 0)),
	}
	if constraints.Zone == "" {
		constraints.Zones = identity.AllowedZones
		if zones := p.Cluster.Spec.FailureDomains; len(zones) > 0 {
			constraints.Zones = zones
			if len(identity.AllowedZones) > 0 {
				constraints.Zones = intersect(identity.AllowedZones, zones)
			}
		}
	}
	if constraints.Pool == "" {
		constraints.Pools = identity.AllowedPools
	}
	return constraints
}

// NeverMatches says which zone or pool is asked for that the identity or the cluster excludes; empty if there is none.
func (p Placement) NeverMatches() string {
	allowed, zones, wanted := p.Identity.Spec.AllowedZones, p.Cluster.Spec.FailureDomains, p.FailureDomain
	switch {
	case wanted != "" && len(zones) > 0 && !slices.Contains(zones, wanted):
		return fmt.Sprintf("failureDomain %s of the Machine is not among the MaasCluster's failureDomains", wanted)
	case wanted != "" && len(allowed) > 0 && !slices.Contains(allowed, wanted):
		return fmt.Sprintf("failureDomain %s of the Machine is a zone the identity may not use", wanted)
	case len(allowed) > 0 && len(zones) > 0 && len(intersect(allowed, zones)) == 0:
		return "none of the MaasCluster's failureDomains is a zone the identity may use"
	}
	if pool, pools := p.Spec.ResourcePool, p.Identity.Spec.AllowedPools; pool != "" && len(pools) > 0 && !slices.Contains(pools, pool) {
		return fmt.Sprintf("resourcePool %s is one the identity may not use", pool)
	}
	return ""
}

// PortsFit reports whether the DPUs of a server can have the ports. Selectors are matched by the fabric wing, which knows the
// labels.
func PortsFit(ports []infrav1.MachinePort, server *infrav1.DPUServer) bool {
	for _, port := range ports {
		wanted := ptr.Deref(port.PF, 0)
		if !slices.ContainsFunc(server.Status.DPUs, func(dpu infrav1.BoundDPU) bool {
			return len(dpu.Ports) == 0 || slices.ContainsFunc(dpu.Ports, func(f infrav1.DPUServerPort) bool { return ptr.Deref(f.PF, 0) == wanted })
		}) {
			return false
		}
	}
	return true
}

// Servers returns the DPUServers of a source; nil if this wing may not read them.
func (f *FabricAccess) Servers(ctx context.Context, source string) ([]infrav1.DPUServer, error) {
	list := &infrav1.DPUServerList{}
	err := f.Client.List(ctx, list)
	if apierrors.IsForbidden(err) || meta.IsNoMatchError(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	servers := slices.DeleteFunc(list.Items, func(s infrav1.DPUServer) bool { return s.Spec.Source != source })
	if servers == nil {
		servers = []infrav1.DPUServer{}
	}
	return servers, nil
}

func intersect(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return !slices.Contains(b, s) })
}
