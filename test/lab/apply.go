// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const (
	fieldOwner       = "lab"
	establishTimeout = 60 * time.Second
	discoveryTimeout = 15 * time.Second
	applyInterval    = 100 * time.Millisecond

	kindCRD = "CustomResourceDefinition"
)

// ApplyFiles applies every object of the given YAML files and directories (their *.yaml files), CRDs first, and waits until
// those are served.
func (l *Lab) ApplyFiles(ctx context.Context, cluster *rest.Config, paths ...string) error {
	var objects []*unstructured.Unstructured
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if !info.IsDir() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			parsed, err := parseObjects(content)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			objects = append(objects, parsed...)
			continue
		}
		parsed, err := readObjects(path)
		if err != nil {
			return err
		}
		objects = append(objects, parsed...)
	}
	return applyObjects(ctx, cluster, objects)
}

// ApplyKustomization builds a kustomization (a path relative to the checkout, or absolute) and applies the result.
func (l *Lab) ApplyKustomization(ctx context.Context, cluster *rest.Config, path string) error {
	return ApplyKustomization(ctx, cluster, l.inRepo(path))
}

func (l *Lab) inRepo(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(l.options.Repo, path)
}

// ApplyKustomization builds the kustomization in a folder as an operator would, and applies the result to a cluster, CRDs
// first, waiting until those are served.
func ApplyKustomization(ctx context.Context, cluster *rest.Config, path string) error {
	objects, err := build(path)
	if err != nil {
		return err
	}
	return applyObjects(ctx, cluster, objects)
}

// build runs kustomize in-process, so that the lab installs what is shipped.
func build(path string) ([]*unstructured.Unstructured, error) {
	result, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), path)
	if err != nil {
		return nil, fmt.Errorf("building kustomization %s: %w", path, err)
	}
	content, err := result.AsYaml()
	if err != nil {
		return nil, fmt.Errorf("encoding kustomization %s: %w", path, err)
	}
	return parseObjects(content)
}

// parseObjects reads a YAML stream.
func parseObjects(content []byte) ([]*unstructured.Unstructured, error) {
	reader := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	var objects []*unstructured.Unstructured
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(document, &object.Object); err != nil {
			return nil, err
		}
		if len(object.Object) > 0 {
			objects = append(objects, object)
		}
	}
}

// applyOrder puts first what others need to exist.
var applyOrder = []string{"Namespace", kindCRD, "ServiceAccount", "ClusterRole", "Role"}

func applyRank(object *unstructured.Unstructured) int {
	if rank := slices.Index(applyOrder, object.GetKind()); rank >= 0 {
		return rank
	}
	return len(applyOrder)
}

// applyObjects applies server-side, CRDs and namespaces first, and waits until the CRDs are established.
func applyObjects(ctx context.Context, cluster *rest.Config, objects []*unstructured.Unstructured) error {
	c, err := newClient(cluster)
	if err != nil {
		return err
	}
	objects = slices.Clone(objects)
	slices.SortStableFunc(objects, func(a, b *unstructured.Unstructured) int { return applyRank(a) - applyRank(b) })
	crds := slices.IndexFunc(objects, func(o *unstructured.Unstructured) bool { return applyRank(o) > slices.Index(applyOrder, kindCRD) })
	if crds < 0 {
		crds = len(objects)
	}
	for _, object := range objects[:crds] {
		if err := applyOne(ctx, c, object); err != nil {
			return err
		}
	}
	if err := waitEstablished(ctx, c, objects[:crds]); err != nil {
		return err
	}
	for _, object := range objects[crds:] {
		if err := applyOne(ctx, c, object); err != nil {
			return err
		}
	}
	return nil
}

// applyOne waits for discovery: a CRD is established a moment before its resource is listed. It waits for the namespace too:
// an API server makes kube-node-lease a moment after it starts.
func applyOne(ctx context.Context, c client.Client, object *unstructured.Unstructured) error {
	object = object.DeepCopy()
	var last error
	err := wait.PollUntilContextTimeout(ctx, applyInterval, discoveryTimeout, true, func(ctx context.Context) (bool, error) {
		last = c.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner(fieldOwner), client.ForceOwnership)
		if meta.IsNoMatchError(last) || apierrors.IsNotFound(last) {
			return false, nil
		}
		return last == nil, last
	})
	if err != nil {
		return fmt.Errorf("applying %s %s/%s: %w", object.GetKind(), object.GetNamespace(), object.GetName(), errors.Join(last, ctx.Err()))
	}
	return nil
}

// waitEstablished waits until every CRD among the objects is served.
func waitEstablished(ctx context.Context, c client.Client, objects []*unstructured.Unstructured) error {
	for _, object := range objects {
		if object.GetKind() != kindCRD {
			continue
		}
		err := wait.PollUntilContextTimeout(ctx, applyInterval, establishTimeout, true, func(ctx context.Context) (bool, error) {
			crd := &apiextensionsv1.CustomResourceDefinition{}
			if err := c.Get(ctx, client.ObjectKeyFromObject(object), crd); err != nil {
				return false, err
			}
			return served(c, crd)
		})
		if err != nil {
			return fmt.Errorf("CRD %s is not established: %w", object.GetName(), err)
		}
	}
	return nil
}

// served says whether the CRD is established and its kind discoverable: managers that start in between the two fail.
func served(c client.Client, crd *apiextensionsv1.CustomResourceDefinition) (bool, error) {
	established := slices.ContainsFunc(crd.Status.Conditions, func(condition apiextensionsv1.CustomResourceDefinitionCondition) bool {
		return condition.Type == apiextensionsv1.Established && condition.Status == apiextensionsv1.ConditionTrue
	})
	if !established {
		return false, nil
	}
	_, err := c.RESTMapper().RESTMapping(schema.GroupKind{Group: crd.Spec.Group, Kind: crd.Spec.Names.Kind})
	if meta.IsNoMatchError(err) {
		return false, nil
	}
	return err == nil, err
}

func newClient(cluster *rest.Config) (client.Client, error) {
	scheme := runtime.NewScheme()
	if err := apiextensionsv1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	c, err := client.New(cluster, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("making a client for %s: %w", cluster.Host, err)
	}
	return c, nil
}
