// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package webhooks

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

func maasClusterValidator(refs references) *validator[*infrav1.MaasCluster] {
	w := maasClusterWebhook{references: refs}
	return &validator[*infrav1.MaasCluster]{kind: "MaasCluster", check: w.check}
}

type maasClusterWebhook struct {
	references
}

func (w maasClusterWebhook) check(ctx context.Context, old, cluster *infrav1.MaasCluster, v *verdict) error {
	identity, err := w.identity(ctx, cluster.Spec.IdentityRef.Name)
	if err != nil {
		return err
	}
	if old == nil {
		if err := w.checkIdentity(ctx, identity, cluster, v); err != nil {
			return err
		}
	}
	if identity != nil && (old == nil || !slices.Equal(old.Spec.FailureDomains, cluster.Spec.FailureDomains)) {
		checkZones(field.NewPath("spec", "failureDomains"), cluster.Spec.FailureDomains, identity, v)
	}
	return w.checkVPC(ctx, old, cluster, identity, v)
}

// checkIdentity judges the identity, which cannot be changed later.
func (w maasClusterWebhook) checkIdentity(ctx context.Context, identity *infrav1.MaasClusterIdentity, cluster *infrav1.MaasCluster, v *verdict) error {
	path := field.NewPath("spec", "identityRef", "name")
	if identity == nil {
		v.warn(path, "MaasClusterIdentity %q does not exist yet: nothing is claimed until it does", cluster.Spec.IdentityRef.Name)
		return nil
	}
	if identity.Spec.Isolation != infrav1.IsolationOptional && cluster.Spec.VPCName == "" {
		v.refuse(field.Required(field.NewPath("spec", "vpcName"), fmt.Sprintf(
			"MaasClusterIdentity %q requires isolation: name a TenantVPC of this namespace", identity.Name)))
	}
	return w.checkNamespace(ctx, path, "MaasClusterIdentity", identity.Name, identity.Spec.AllowedNamespaces, cluster.Namespace, v)
}

func checkZones(path *field.Path, zones []string, identity *infrav1.MaasClusterIdentity, v *verdict) {
	allowed := identity.Spec.AllowedZones
	if len(allowed) == 0 {
		return
	}
	for i, zone := range zones {
		if !slices.Contains(allowed, zone) {
			v.refuse(field.Invalid(path.Index(i), zone, fmt.Sprintf(
				"MaasClusterIdentity %q does not allow this zone: choose among %s", identity.Name, strings.Join(allowed, ", "))))
		}
	}
}

// checkVPC judges the TenantVPC and that the control plane endpoint lies outside it and the pools of its fabric, which this wing
// may not read and the TenantVPC's status repeats.
func (w maasClusterWebhook) checkVPC(ctx context.Context, old, cluster *infrav1.MaasCluster, identity *infrav1.MaasClusterIdentity, v *verdict) error {
	elsewhere := identity != nil && identity.Spec.FabricAccess != nil
	if cluster.Spec.VPCName == "" || elsewhere {
		return nil
	}
	vpc, err := w.vpc(ctx, cluster.Namespace, cluster.Spec.VPCName)
	if err != nil {
		return err
	}
	if vpc == nil {
		if old == nil {
			v.warn(field.NewPath("spec", "vpcName"), "TenantVPC %q does not exist yet in namespace %q: no machine is deployed until it does",
				cluster.Spec.VPCName, cluster.Namespace)
		}
		return nil
	}
	if old == nil || old.Spec.ControlPlaneEndpoint != cluster.Spec.ControlPlaneEndpoint ||
		old.Spec.EndpointReachability != cluster.Spec.EndpointReachability {
		checkEndpoint(cluster, vpc, v)
	}
	return nil
}

// checkEndpoint refuses an endpoint inside the VPC: nobody can dial into one.
func checkEndpoint(cluster *infrav1.MaasCluster, vpc *infrav1.TenantVPC, v *verdict) {
	address, err := netip.ParseAddr(cluster.Spec.ControlPlaneEndpoint.Host)
	if err != nil || cluster.Spec.EndpointReachability == infrav1.EndpointReachabilityAsserted {
		return
	}
	for _, pool := range vpc.Status.TenantPools {
		prefix, ok := prefixOf(pool)
		if ok && prefix.Contains(address) {
			v.refuse(field.Invalid(field.NewPath("spec", "controlPlaneEndpoint", "host"), cluster.Spec.ControlPlaneEndpoint.Host, fmt.Sprintf(
				"lies inside tenant pool %s of DPUFabric %q, where nobody can dial in: choose an address outside the fabric's tenant pools, "+
					"or write endpointReachability: Asserted if you vouch for a path to it", pool, vpc.Spec.FabricName)))
			return
		}
	}
	for _, subnet := range vpcSubnets(vpc) {
		prefix, ok := prefixOf(subnet.CIDR)
		if ok && prefix.Contains(address) {
			v.refuse(field.Invalid(field.NewPath("spec", "controlPlaneEndpoint", "host"), cluster.Spec.ControlPlaneEndpoint.Host, fmt.Sprintf(
				"lies inside subnet %q (%s) of TenantVPC %q, where nobody can dial in: choose an address outside the fabric's tenant pools, "+
					"or write endpointReachability: Asserted if you vouch for a path to it", subnet.Name, subnet.CIDR, vpc.Name)))
			return
		}
	}
}

// vpcSubnets returns the subnets as wanted, or as observed of an adopted VPC.
func vpcSubnets(vpc *infrav1.TenantVPC) []infrav1.VPCSubnet {
	if vpc.Spec.Adopt == nil {
		return vpc.Spec.Subnets
	}
	subnets := make([]infrav1.VPCSubnet, 0, len(vpc.Status.Subnets))
	for _, subnet := range vpc.Status.Subnets {
		subnets = append(subnets, infrav1.VPCSubnet{Name: subnet.Name, CIDR: subnet.CIDR})
	}
	return subnets
}
