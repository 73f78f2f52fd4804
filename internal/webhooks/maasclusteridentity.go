// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package webhooks

import (
	"bytes"
	"context"
	"fmt"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

func maasClusterIdentityValidator(refs references) *validator[*infrav1.MaasClusterIdentity] {
	w := maasClusterIdentityWebhook{references: refs}
	return &validator[*infrav1.MaasClusterIdentity]{kind: "MaasClusterIdentity", check: w.check, remove: w.remove}
}

type maasClusterIdentityWebhook struct {
	references
}

func (w maasClusterIdentityWebhook) check(_ context.Context, old, identity *infrav1.MaasClusterIdentity, v *verdict) error {
	spec := field.NewPath("spec")
	if old == nil || !bytes.Equal(old.Spec.CABundle, identity.Spec.CABundle) {
		checkCABundle(spec.Child("caBundle"), identity.Spec.CABundle, v)
	}
	if old == nil || !apiequality.Semantic.DeepEqual(old.Spec.AllowedNamespaces, identity.Spec.AllowedNamespaces) {
		checkAllowedNamespaces(spec.Child("allowedNamespaces"), identity.Spec.AllowedNamespaces, v)
	}
	if old == nil && identity.Spec.AllowedNamespaces == nil {
		v.warn(spec.Child("allowedNamespaces"), "is absent: no namespace may use this identity until it is written")
	}
	return nil
}

// remove refuses to forget an account whose servers somebody still runs: its key is what releases them.
func (w maasClusterIdentityWebhook) remove(ctx context.Context, identity *infrav1.MaasClusterIdentity, v *verdict) error {
	users, err := w.users(ctx, identity.Name)
	if err != nil {
		return err
	}
	path := field.NewPath("metadata", "name")
	if len(users) > 0 {
		v.refuse(field.Forbidden(path, fmt.Sprintf(
			"MaasClusterIdentity %q is in use by %s: delete their clusters first, servers cannot be released without it", identity.Name, listed(users))))
	}
	if held := identity.Status.Held; len(held) > 0 {
		servers := make([]string, 0, len(held))
		for _, server := range held {
			servers = append(servers, server.SystemID)
		}
		v.refuse(field.Forbidden(path, fmt.Sprintf(
			"MaasClusterIdentity %q lists held servers: release %s with erase in MAAS first, the list would be lost", identity.Name, listed(servers))))
	}
	return nil
}

// users names the clusters and machines that need the identity. A machine counts by its claim, which outlives its cluster.
func (w maasClusterIdentityWebhook) users(ctx context.Context, name string) ([]string, error) {
	clusters := &infrav1.MaasClusterList{}
	if err := w.reader.List(ctx, clusters); err != nil {
		return nil, fmt.Errorf("list MaasClusters: %w", err)
	}
	machines := &infrav1.MaasMachineList{}
	if err := w.reader.List(ctx, machines); err != nil {
		return nil, fmt.Errorf("list MaasMachines: %w", err)
	}
	var users []string
	for i := range clusters.Items {
		if cluster := &clusters.Items[i]; cluster.Spec.IdentityRef.Name == name {
			users = append(users, fmt.Sprintf("MaasCluster %s/%s", cluster.Namespace, cluster.Name))
		}
	}
	for i := range machines.Items {
		if machine := &machines.Items[i]; machine.Spec.Claim != nil && machine.Spec.Claim.IdentityName == name {
			users = append(users, fmt.Sprintf("MaasMachine %s/%s", machine.Namespace, machine.Name))
		}
	}
	return users, nil
}
