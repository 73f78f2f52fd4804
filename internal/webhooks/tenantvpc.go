// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package webhooks

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

func tenantVPCValidator(refs references) *validator[*infrav1.TenantVPC] {
	w := tenantVPCWebhook{references: refs}
	return &validator[*infrav1.TenantVPC]{kind: "TenantVPC", check: w.check, remove: w.remove}
}

type tenantVPCWebhook struct {
	references
}

func (w tenantVPCWebhook) check(ctx context.Context, old, vpc *infrav1.TenantVPC, v *verdict) error {
	var before []infrav1.VPCSubnet
	if old != nil {
		before = old.Spec.Subnets
	}
	fabric, err := w.checkFabric(ctx, old, vpc, v)
	if err != nil {
		return err
	}
	path := field.NewPath("spec", "subnets")
	added := 0
	for i, subnet := range vpc.Spec.Subnets {
		if hasSubnet(before, subnet.Name) {
			continue // unchanged: CEL sees to that
		}
		added++
		checkExclusions(path.Index(i), subnet, v)
		if fabric != nil {
			checkInPools(path.Index(i), subnet, fabric, v)
		}
		if old != nil {
			checkLeftovers(path.Index(i), subnet, vpc.Spec.Subnets, old.Status.Subnets, v)
		}
	}
	if old == nil && vpc.Spec.Adopt != nil && fabric != nil {
		checkAdoptable(fabric, v)
	}
	if added > 0 {
		checkOverlaps(path, vpc.Spec.Subnets, v)
	}
	return w.checkRemoved(ctx, old, vpc, v)
}

// checkAdoptable warns of a fabric that permits no adoption: its operator may be about to.
func checkAdoptable(fabric *infrav1.DPUFabric, v *verdict) {
	if backend := fabric.Spec.Backend.OVNVPC; backend == nil || len(backend.AdoptionKeyPrefixes) == 0 {
		v.warn(field.NewPath("spec", "adopt"), "DPUFabric %q permits no adoption yet: its operator names label key prefixes in adoptionKeyPrefixes", fabric.Name)
	}
}

// checkLeftovers judges a new subnet by what is still on the fabric: subnets removed before, that DPF lets go when nobody uses them.
func checkLeftovers(path *field.Path, subnet infrav1.VPCSubnet, wanted []infrav1.VPCSubnet, onFabric []infrav1.VPCSubnetStatus, v *verdict) {
	added, ok := prefixOf(subnet.CIDR)
	if !ok {
		return
	}
	for _, left := range onFabric {
		if hasSubnet(wanted, left.Name) && left.Name != subnet.Name {
			continue // Those that stay are compared with each other.
		}
		prefix, ok := prefixOf(left.CIDR)
		if !ok || !prefix.Overlaps(added) && left.Name != subnet.Name {
			continue
		}
		if used := ptr.Deref(left.Claimed, 0); used > 0 {
			v.refuse(field.Forbidden(path, fmt.Sprintf(
				"subnet %q (%s), which was removed, is still on the fabric and used by %d ports: wait until their machines are deleted, or take another name and network", left.Name, left.CIDR, used)))
			continue
		}
		v.warn(path, "made when subnet %q (%s), which was removed, is gone from the fabric", left.Name, left.CIDR)
	}
}

// checkFabric returns the fabric, nil where it does not exist, and judges whether the namespace may use it: once, because
// fabricName cannot be changed and a namespace taken off the list loses nothing it has.
func (w tenantVPCWebhook) checkFabric(ctx context.Context, old, vpc *infrav1.TenantVPC, v *verdict) (*infrav1.DPUFabric, error) {
	path := field.NewPath("spec", "fabricName")
	fabric, err := w.fabric(ctx, vpc.Spec.FabricName)
	if err != nil {
		return nil, err
	}
	if fabric == nil {
		if old == nil {
			v.warn(path, "DPUFabric %q does not exist yet: nothing is made until it does", vpc.Spec.FabricName)
		}
		return nil, nil
	}
	if old != nil {
		return fabric, nil
	}
	return fabric, w.checkNamespace(ctx, path, "DPUFabric", fabric.Name, fabric.Spec.AllowedNamespaces, vpc.Namespace, v)
}

// checkRemoved refuses to take a subnet away from under a server: one of ours, or whatever port the fabric has there.
func (w tenantVPCWebhook) checkRemoved(ctx context.Context, old, vpc *infrav1.TenantVPC, v *verdict) error {
	if old == nil {
		return nil
	}
	removed := slices.DeleteFunc(slices.Clone(old.Spec.Subnets), func(s infrav1.VPCSubnet) bool { return hasSubnet(vpc.Spec.Subnets, s.Name) })
	if len(removed) == 0 {
		return nil
	}
	attachments, err := w.attachments(ctx, vpc)
	if err != nil {
		return err
	}
	for _, subnet := range removed {
		users := machinesOn(attachments, subnet.Name)
		if len(users) > 0 {
			v.refuse(field.Forbidden(field.NewPath("spec", "subnets"), fmt.Sprintf(
				"subnet %q is in use by %s: keep it until their machines are deleted", subnet.Name, listed(users))))
			continue
		}
		checkPorts(subnet.Name, old.Status.Subnets, v)
	}
	return nil
}

// checkPorts refuses a removal where the fabric counted ports last time, whoever plugged them. The controller counts again before it
// takes anything away.
func checkPorts(subnet string, onFabric []infrav1.VPCSubnetStatus, v *verdict) {
	path := field.NewPath("spec", "subnets")
	i := slices.IndexFunc(onFabric, func(s infrav1.VPCSubnetStatus) bool { return s.Name == subnet })
	switch {
	case i < 0: // Nothing is made of it yet.
	case onFabric[i].Used == nil:
		v.warn(path, "the fabric did not say whether ports are on subnet %q: it is removed when it says that there are none", subnet)
	case *onFabric[i].Used > 0:
		v.refuse(field.Forbidden(path, fmt.Sprintf(
			"subnet %q is in use by %d ports on the fabric, for which no DPUAttachment of this TenantVPC stands: keep it until the operator has unplugged them", subnet, *onFabric[i].Used)))
	}
}

// remove lets the deletion pass and says what it waits for.
func (w tenantVPCWebhook) remove(ctx context.Context, vpc *infrav1.TenantVPC, v *verdict) error {
	attachments, err := w.attachments(ctx, vpc)
	if err != nil {
		return err
	}
	if users := machinesOn(attachments, ""); len(users) > 0 {
		v.warn(field.NewPath("metadata", "name"), "TenantVPC %q is in use by %s: its deletion waits until their machines are deleted", vpc.Name, listed(users))
	}
	return nil
}

// attachments returns the attachments to the VPC that are not proven detached.
func (w tenantVPCWebhook) attachments(ctx context.Context, vpc *infrav1.TenantVPC) ([]infrav1.DPUAttachment, error) {
	list := &infrav1.DPUAttachmentList{}
	if err := w.reader.List(ctx, list, client.InNamespace(vpc.Namespace)); err != nil {
		return nil, fmt.Errorf("list the DPUAttachments of namespace %s: %w", vpc.Namespace, err)
	}
	return slices.DeleteFunc(list.Items, func(a infrav1.DPUAttachment) bool {
		detached := a.Spec.State == infrav1.AttachmentStateDetached && a.Status.State == infrav1.AttachmentStateDetached &&
			a.Status.ObservedGeneration == a.Generation
		return a.Spec.VPCName != vpc.Name || detached
	}), nil
}

// machinesOn names the machines with a port on the subnet; an empty subnet means any.
func machinesOn(attachments []infrav1.DPUAttachment, subnet string) []string {
	var machines []string
	for i := range attachments {
		attachment := &attachments[i]
		if subnet == "" || slices.ContainsFunc(attachment.Spec.Ports, func(p infrav1.MachinePort) bool { return p.Subnet == subnet }) {
			machines = append(machines, fmt.Sprintf("MaasMachine %s (DPUAttachment %s)", attachment.Spec.MachineName, attachment.Name))
		}
	}
	slices.Sort(machines)
	return machines
}

func hasSubnet(subnets []infrav1.VPCSubnet, name string) bool {
	return slices.ContainsFunc(subnets, func(s infrav1.VPCSubnet) bool { return s.Name == name })
}
