// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package webhooks

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"
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
	}
	if added > 0 {
		checkOverlaps(path, vpc.Spec.Subnets, v)
	}
	return w.checkRemoved(ctx, before, vpc, v)
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

// checkRemoved refuses to take a subnet away from under a server.
func (w tenantVPCWebhook) checkRemoved(ctx context.Context, before []infrav1.VPCSubnet, vpc *infrav1.TenantVPC, v *verdict) error {
	removed := slices.DeleteFunc(slices.Clone(before), func(s infrav1.VPCSubnet) bool { return hasSubnet(vpc.Spec.Subnets, s.Name) })
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
		}
	}
	return nil
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
		detached := a.Spec.State == infrav1.AttachmentStateDetached && a.Status.State == infrav1.AttachmentStateDetached
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
