// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package flavors_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	pollEvery = 250 * time.Millisecond
	// patience is for garbage collection on a busy machine.
	patience = 2 * time.Minute
)

// passing are kinds that go by themselves or belong to every namespace.
var passing = []string{"events", "serviceaccounts", "configmaps", "leases"}

// noResidue waits until nothing is left in the namespace but the right of its administrator.
func noResidue(t *testing.T, namespace string) {
	t.Helper()
	kinds := listable(t)
	var left []string
	err := wait.PollUntilContextTimeout(suite, pollEvery, patience, true, func(ctx context.Context) (bool, error) {
		left = nil
		for _, kind := range kinds {
			list := &unstructured.UnstructuredList{}
			list.SetGroupVersionKind(kind)
			if err := world.Operator.List(ctx, list, client.InNamespace(namespace)); err != nil {
				left = append(left, kind.Kind+": "+err.Error())
				continue
			}
			for i := range list.Items {
				if name := list.Items[i].GetName(); kind.Kind != "RoleBinding" || name != "tenant" {
					left = append(left, kind.Kind+" "+name)
				}
			}
		}
		return len(left) == 0, nil
	})
	if err != nil {
		t.Errorf("left in namespace %s: %s", namespace, strings.Join(left, ", "))
	}
}

// listable are the kinds of namespaced objects that the API server can list.
func listable(t *testing.T) []schema.GroupVersionKind {
	t.Helper()
	discoverer, err := discovery.NewDiscoveryClientForConfig(world.Lab.Management())
	if err != nil {
		t.Fatal(err)
	}
	lists, err := discoverer.ServerPreferredNamespacedResources()
	if err != nil {
		t.Fatal(err)
	}
	var kinds []schema.GroupVersionKind
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, resource := range list.APIResources {
			if slices.Contains(resource.Verbs, "list") && !slices.Contains(passing, resource.Name) {
				kinds = append(kinds, version.WithKind(resource.Kind))
			}
		}
	}
	if !slices.ContainsFunc(kinds, func(k schema.GroupVersionKind) bool { return k.Kind == "MaasMachine" }) {
		t.Fatal("the API server does not list MaasMachines: this would find nothing")
	}
	return kinds
}
