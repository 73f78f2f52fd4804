// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package webhooks

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/posture"
)

func dpuFabricValidator(refs references) *validator[*infrav1.DPUFabric] {
	w := dpuFabricWebhook{references: refs}
	return &validator[*infrav1.DPUFabric]{kind: "DPUFabric", check: w.check, remove: w.remove}
}

type dpuFabricWebhook struct {
	references
}

func (w dpuFabricWebhook) check(ctx context.Context, old, fabric *infrav1.DPUFabric, v *verdict) error {
	before := &infrav1.DPUFabricSpec{}
	if old != nil {
		before = &old.Spec
	}
	spec := field.NewPath("spec")
	if !slices.Equal(before.TenantPools, fabric.Spec.TenantPools) {
		checkPools(spec.Child("tenantPools"), fabric.Spec.TenantPools, v)
	}
	if !bytes.Equal(before.Posture.CABundle, fabric.Spec.Posture.CABundle) {
		checkCABundle(spec.Child("posture", "caBundle"), fabric.Spec.Posture.CABundle, v)
	}
	if !apiequality.Semantic.DeepEqual(before.Posture, fabric.Spec.Posture) {
		checkPosture(spec.Child("posture"), fabric.Spec.Posture, v)
	}
	if !apiequality.Semantic.DeepEqual(before.AllowedNamespaces, fabric.Spec.AllowedNamespaces) {
		checkAllowedNamespaces(spec.Child("allowedNamespaces"), fabric.Spec.AllowedNamespaces, v)
	}
	return w.checkSources(ctx, spec.Child("claimSources"), before.ClaimSources, fabric, v)
}

// checkPosture warns of a fabric that asks BMCs and cannot log in to them: no server of it will be handed over where that is
// enforced.
func checkPosture(path *field.Path, asked infrav1.Posture, v *verdict) {
	if posture.Asks(asked) && asked.SecretRef == nil && len(asked.DeviceSecrets) == 0 {
		v.warn(path.Child("secretRef"), "is not set, and no BMC can be asked without: write the name of a Secret with keys username and password")
	}
}

func (w dpuFabricWebhook) checkSources(ctx context.Context, path *field.Path, before []infrav1.ClaimSource, fabric *infrav1.DPUFabric, v *verdict) error {
	if apiequality.Semantic.DeepEqual(before, fabric.Spec.ClaimSources) {
		return nil
	}
	takenBy, err := w.sourcesOfOthers(ctx, fabric.Name)
	if err != nil {
		return err
	}
	for i, source := range fabric.Spec.ClaimSources {
		if other, taken := takenBy[source.Name]; taken {
			v.refuse(field.Invalid(path.Index(i).Child("name"), source.Name, fmt.Sprintf(
				"is a claim source of DPUFabric %q: choose a name that no other fabric has", other)))
		}
		checkCABundle(path.Index(i).Child("caBundle"), source.CABundle, v)
	}
	return w.checkRemovedSources(ctx, path, before, fabric, v)
}

// sourcesOfOthers maps the claim sources of all other fabrics to those.
func (w dpuFabricWebhook) sourcesOfOthers(ctx context.Context, name string) (map[string]string, error) {
	fabrics := &infrav1.DPUFabricList{}
	if err := w.reader.List(ctx, fabrics); err != nil {
		return nil, fmt.Errorf("list DPUFabrics: %w", err)
	}
	takenBy := map[string]string{}
	for i := range fabrics.Items {
		if fabrics.Items[i].Name == name {
			continue
		}
		for _, source := range fabrics.Items[i].Spec.ClaimSources {
			takenBy[source.Name] = fabrics.Items[i].Name
		}
	}
	return takenBy, nil
}

// checkRemovedSources refuses to drop a source whose claims back attachments: without its key nothing of them can be verified.
func (w dpuFabricWebhook) checkRemovedSources(ctx context.Context, path *field.Path, before []infrav1.ClaimSource, fabric *infrav1.DPUFabric, v *verdict) error {
	removed := slices.DeleteFunc(slices.Clone(before), func(s infrav1.ClaimSource) bool {
		return slices.ContainsFunc(fabric.Spec.ClaimSources, func(kept infrav1.ClaimSource) bool { return kept.Name == s.Name })
	})
	if len(removed) == 0 {
		return nil
	}
	users, err := w.attachmentsBySource(ctx)
	if err != nil {
		return err
	}
	for _, source := range removed {
		if names := users[source.Name]; len(names) > 0 {
			v.refuse(field.Forbidden(path, fmt.Sprintf(
				"claim source %q is in use by DPUAttachments %s: keep it until their machines are deleted", source.Name, listed(names))))
		}
	}
	return nil
}

func (w dpuFabricWebhook) attachmentsBySource(ctx context.Context) (map[string][]string, error) {
	list := &infrav1.DPUAttachmentList{}
	if err := w.reader.List(ctx, list); err != nil {
		return nil, fmt.Errorf("list DPUAttachments: %w", err)
	}
	users := map[string][]string{}
	for i := range list.Items {
		attachment := &list.Items[i]
		source := attachment.Spec.Server.Source
		users[source] = append(users[source], attachment.Namespace+"/"+attachment.Name)
	}
	return users, nil
}

// remove lets the deletion pass and says what it waits for.
func (w dpuFabricWebhook) remove(ctx context.Context, fabric *infrav1.DPUFabric, v *verdict) error {
	list := &infrav1.TenantVPCList{}
	if err := w.reader.List(ctx, list); err != nil {
		return fmt.Errorf("list TenantVPCs: %w", err)
	}
	var users []string
	for i := range list.Items {
		if vpc := &list.Items[i]; vpc.Spec.FabricName == fabric.Name {
			users = append(users, "TenantVPC "+vpc.Namespace+"/"+vpc.Name)
		}
	}
	if len(users) > 0 {
		v.warn(field.NewPath("metadata", "name"), "DPUFabric %q is in use by %s: its deletion waits until they are deleted", fabric.Name, listed(users))
	}
	return nil
}
