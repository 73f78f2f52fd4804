// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package webhooks

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
)

// references reads what objects refer to.
type references struct {
	reader client.Reader
}

// find reads an object. It returns false where the object does not exist.
func (r references) find(ctx context.Context, namespace, name string, object client.Object) (bool, error) {
	err := r.reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, object)
	switch {
	case apierrors.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read %T %q: %w", object, name, err)
	}
	return true, nil
}

// identity returns the named identity, nil where it does not exist.
func (r references) identity(ctx context.Context, name string) (*infrav1.MaasClusterIdentity, error) {
	identity := &infrav1.MaasClusterIdentity{}
	if found, err := r.find(ctx, "", name, identity); err != nil || !found {
		return nil, err
	}
	return identity, nil
}

// fabric returns the named fabric, nil where it does not exist.
func (r references) fabric(ctx context.Context, name string) (*infrav1.DPUFabric, error) {
	fabric := &infrav1.DPUFabric{}
	if found, err := r.find(ctx, "", name, fabric); err != nil || !found {
		return nil, err
	}
	return fabric, nil
}

// vpc returns the named TenantVPC, nil where it does not exist.
func (r references) vpc(ctx context.Context, namespace, name string) (*infrav1.TenantVPC, error) {
	vpc := &infrav1.TenantVPC{}
	if found, err := r.find(ctx, namespace, name, vpc); err != nil || !found {
		return nil, err
	}
	return vpc, nil
}

// clusterOf returns the MaasCluster of the Cluster that an object is labelled with, nil where that is not known (yet).
func (r references) clusterOf(ctx context.Context, object client.Object) (*infrav1.MaasCluster, error) {
	name := object.GetLabels()[clusterv1.ClusterNameLabel]
	if name == "" {
		return nil, nil
	}
	cluster := &clusterv1.Cluster{}
	if found, err := r.find(ctx, object.GetNamespace(), name, cluster); err != nil || !found {
		return nil, err
	}
	infrastructure := cluster.Spec.InfrastructureRef
	if infrastructure.APIGroup != infrav1.GroupVersion.Group || infrastructure.Kind != "MaasCluster" {
		return nil, nil
	}
	maasCluster := &infrav1.MaasCluster{}
	if found, err := r.find(ctx, object.GetNamespace(), infrastructure.Name, maasCluster); err != nil || !found {
		return nil, err
	}
	return maasCluster, nil
}

// checkNamespace refuses, at path, the use of the cluster-scoped owner from a namespace that it does not allow.
func (r references) checkNamespace(ctx context.Context, path *field.Path, kind, name string, allowed *infrav1.AllowedNamespaces,
	namespace string, v *verdict,
) error {
	ok, err := scope.NamespaceAllowed(ctx, r.reader, allowed, namespace)
	if err != nil {
		return fmt.Errorf("%s %s: %w", kind, name, err)
	}
	if !ok {
		v.refuse(field.Forbidden(path, fmt.Sprintf("%s %q does not allow namespace %q: "+
			"name one that does, or have its operator add the namespace to spec.allowedNamespaces", kind, name, namespace)))
	}
	return nil
}

// listed joins names for a sentence, and counts what would make it unreadable.
func listed(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
