// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package autoscaler_test

import (
	"context"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/autoscaler"
)

// TestRights holds that what the sample gives is what it takes, and that it gives nothing else: elsewhere, of other kinds, or by other
// verbs.
func TestRights(t *testing.T) {
	t.Parallel()
	stranger, err := world.Config(suite, "stranger")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := discovery("none")
	elsewhere.Namespace = "default"
	for name, open := range map[string]func() error{
		"a stranger":                      func() error { return opens(stranger, workload, discovery("none")) },
		"a stranger in the workload":      func() error { return opens(management, rest.AnonymousClientConfig(admin), discovery("none")) },
		"the autoscaler elsewhere":        func() error { return opens(management, workload, elsewhere) },
		"the autoscaler of all clusters":  func() error { return opens(management, workload, autoscaler.Discovery{}) },
		"the autoscaler, its own cluster": func() error { return reverse(opens(management, workload, discovery("none"))) },
	} {
		if err := open(); !apierrors.IsForbidden(err) && !apierrors.IsUnauthorized(err) {
			t.Errorf("%s: %v, want to be refused", name, err)
		}
	}
	as, err := client.New(management, client.Options{Scheme: world.Operator.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	g := newGroup(t, "rights", poolTide, map[string]string{minSize: "0", maxSize: "1"})
	for what, try := range map[string]func(context.Context) error{
		"change a MachineDeployment": func(ctx context.Context) error {
			return as.Patch(ctx, g.deployment(), client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"a":"b"}}}`)))
		},
		"delete a Machine": func(ctx context.Context) error { return as.Delete(ctx, &clusterv1.Machine{ObjectMeta: g.meta()}) },
		"list MaasMachines": func(ctx context.Context) error {
			return as.List(ctx, &infrav1.MaasMachineList{}, client.InNamespace(tenantName))
		},
		"change a template": func(ctx context.Context) error { return as.Update(ctx, g.template(poolTide)) },
		"give itself more rights": func(ctx context.Context) error {
			return as.Create(ctx, &rbacv1.RoleBinding{ObjectMeta: g.meta(), RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"}})
		},
		"read what templates offer": func(ctx context.Context) error {
			return reverse(as.List(ctx, &infrav1.MaasMachineTemplateList{}, client.InNamespace(tenantName)))
		},
	} {
		if err := try(suite); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, want to be refused", what, err)
		}
	}
}

func opens(management, workload *rest.Config, discover autoscaler.Discovery) error {
	provider, err := autoscaler.Open(suite, management, workload, discover)
	if err == nil {
		provider.Close()
	}
	return err
}

// reverse makes of what should work a refusal, and of what does not work its error.
func reverse(err error) error {
	if err == nil {
		return apierrors.NewForbidden(clusterv1.GroupVersion.WithResource("").GroupResource(), "", nil)
	}
	return err
}
