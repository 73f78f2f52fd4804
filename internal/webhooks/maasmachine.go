// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package webhooks

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

func maasMachineValidator(refs references) *validator[*infrav1.MaasMachine] {
	w := maasMachineWebhook{references: refs}
	return &validator[*infrav1.MaasMachine]{kind: "MaasMachine", check: w.check}
}

type maasMachineWebhook struct {
	references
}

func (w maasMachineWebhook) check(ctx context.Context, old, machine *infrav1.MaasMachine, v *verdict) error {
	spec := field.NewPath("spec")
	if claim := machine.Spec.Claim; claim != nil && (old == nil || old.Spec.Claim == nil) &&
		!maas.Token(claim.Token).Fits(machine.Namespace, machine.Name) {
		v.refuse(field.Invalid(spec.Child("claim", "token"), field.OmitValueType{},
			"was made for another object: leave claim out, the controller writes it"))
	}
	if adopts(machine) && (old == nil || !adopts(old)) {
		v.refuse(field.Forbidden(spec.Child("override", "action"), "AdoptServer is not supported yet: leave override out, release the server "+
			"with erase in MAAS, and let a machine claim it by a tag that no other server has"))
	}
	if old != nil && old.Spec.Release == machine.Spec.Release {
		return nil // nothing else that depends on other objects can be changed
	}
	return w.checkConstraints(ctx, spec, machine, &machine.Spec.MachineConstraints, v)
}

// adopts says that an override is asked for that no controller carries out.
func adopts(machine *infrav1.MaasMachine) bool {
	return machine.Spec.Override != nil && machine.Spec.Override.Action == infrav1.OverrideAdoptServer
}

// checkConstraints judges what a machine, or a template of machines, asks for by its cluster and the identity of that, as far
// as they are known.
func (r references) checkConstraints(ctx context.Context, path *field.Path, object client.Object,
	constraints *infrav1.MachineConstraints, v *verdict,
) error {
	cluster, err := r.clusterOf(ctx, object)
	if err != nil || cluster == nil {
		return err
	}
	identity, err := r.identity(ctx, cluster.Spec.IdentityRef.Name)
	if err != nil {
		return err
	}
	if identity != nil {
		checkAgainstIdentity(path, constraints, identity, v)
	}
	return r.checkPorts(ctx, path.Child("ports"), constraints.Ports, cluster, identity, v)
}

func checkAgainstIdentity(path *field.Path, constraints *infrav1.MachineConstraints, identity *infrav1.MaasClusterIdentity, v *verdict) {
	if identity.Spec.Isolation != infrav1.IsolationOptional && len(constraints.Ports) == 0 {
		v.refuse(field.Required(path.Child("ports"), fmt.Sprintf(
			"MaasClusterIdentity %q requires isolation: name at least one DPU port and its subnet", identity.Name)))
	}
	least := identity.Spec.Release.EraseMinimum
	if least == "" {
		least = infrav1.ReleaseEraseQuick
	}
	if erase := constraints.Release.Erase; erase != "" && weaker(erase, least) {
		v.refuse(field.Invalid(path.Child("release", "erase"), string(erase), fmt.Sprintf(
			"is weaker than MaasClusterIdentity %q demands: write %s or stronger, or leave it out", identity.Name, least)))
	}
	pools := identity.Spec.AllowedPools
	if pool := constraints.ResourcePool; pool != "" && len(pools) > 0 && !slices.Contains(pools, pool) {
		v.refuse(field.Invalid(path.Child("resourcePool"), pool, fmt.Sprintf(
			"MaasClusterIdentity %q does not allow this pool: choose among %s, or leave it out", identity.Name, strings.Join(pools, ", "))))
	}
}

// eraseStrength lists the ways of erasing from the weakest to the strongest.
var eraseStrength = []infrav1.ReleaseErase{
	infrav1.ReleaseEraseNone, infrav1.ReleaseEraseQuick, infrav1.ReleaseEraseSecure, infrav1.ReleaseEraseFull,
}

func weaker(a, b infrav1.ReleaseErase) bool {
	return slices.Index(eraseStrength, a) < slices.Index(eraseStrength, b)
}

// checkPorts judges the subnets of ports by the cluster's TenantVPC.
func (r references) checkPorts(ctx context.Context, path *field.Path, ports []infrav1.MachinePort, cluster *infrav1.MaasCluster,
	identity *infrav1.MaasClusterIdentity, v *verdict,
) error {
	if len(ports) == 0 {
		return nil
	}
	if cluster.Spec.VPCName == "" {
		v.refuse(field.Forbidden(path, fmt.Sprintf(
			"MaasCluster %q has no vpcName, so that there is nothing to attach ports to: leave ports out, or create a cluster with a vpcName", cluster.Name)))
		return nil
	}
	if identity != nil && identity.Spec.FabricAccess != nil {
		return nil
	}
	vpc, err := r.vpc(ctx, cluster.Namespace, cluster.Spec.VPCName)
	if err != nil {
		return err
	}
	if vpc == nil {
		v.warn(path, "TenantVPC %q does not exist yet in namespace %q: no machine is deployed until it does", cluster.Spec.VPCName, cluster.Namespace)
		return nil
	}
	subnets := vpcSubnets(vpc)
	for i, port := range ports {
		if !slices.ContainsFunc(subnets, func(s infrav1.VPCSubnet) bool { return s.Name == port.Subnet }) {
			v.warn(path.Index(i).Child("subnet"), "TenantVPC %q has no subnet %q yet: no machine is deployed until it has", vpc.Name, port.Subnet)
		}
	}
	return nil
}
