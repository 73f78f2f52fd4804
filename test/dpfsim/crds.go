// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

//go:embed crds/*.yaml
var generatedCRDs embed.FS

// dpuClusterCRDs are the kinds DPF serves in the DPU cluster as well.
var dpuClusterCRDs = map[string]bool{
	"serviceinterfaces." + svcGroup:    true,
	"serviceinterfacesets." + svcGroup: true,
}

// InstallCRDs creates or updates DPF's CRDs in both clusters and waits until they are served. Those generated here are cut
// to what the chosen release has; those of Options.CRDDir are taken as they are, and must have what it needs.
func (f *Fabric) InstallCRDs(ctx context.Context) error {
	return f.installCRDs(ctx, f.labelPlace(), false)
}

// installCRDs installs those of a release; graft lets DPUDevice have what the CRDs at hand lack of it.
func (f *Fabric) installCRDs(ctx context.Context, place LabelPlace, graft bool) error {
	crds, err := f.readCRDs(place, graft)
	if err != nil {
		return err
	}
	options := client.Options{Scheme: f.scheme}
	management, err := client.New(f.options.Management, options)
	if err != nil {
		return fmt.Errorf("dpfsim: management cluster: %w", err)
	}
	dpuCluster, err := client.New(f.options.DPUCluster, options)
	if err != nil {
		return fmt.Errorf("dpfsim: DPU cluster: %w", err)
	}
	for _, crd := range crds {
		if err := applyCRD(ctx, management, crd); err != nil {
			return fmt.Errorf("dpfsim: management cluster: CRD %s: %w", crd.Name, err)
		}
		if !dpuClusterCRDs[crd.Name] {
			continue
		}
		if err := applyCRD(ctx, dpuCluster, crd); err != nil {
			return fmt.Errorf("dpfsim: DPU cluster: CRD %s: %w", crd.Name, err)
		}
	}
	for _, crd := range crds {
		if err := established(ctx, management, crd.Name); err != nil {
			return fmt.Errorf("dpfsim: management cluster: CRD %s: %w", crd.Name, err)
		}
		if !dpuClusterCRDs[crd.Name] {
			continue
		}
		if err := established(ctx, dpuCluster, crd.Name); err != nil {
			return fmt.Errorf("dpfsim: DPU cluster: CRD %s: %w", crd.Name, err)
		}
	}
	return nil
}

func (f *Fabric) readCRDs(place LabelPlace, graft bool) ([]*apiextensionsv1.CustomResourceDefinition, error) {
	var files fs.FS = generatedCRDs
	directory := "crds"
	if f.options.CRDDir != "" {
		files, directory = os.DirFS(f.options.CRDDir), "."
	}
	names, err := fs.Glob(files, path.Join(directory, "*.yaml"))
	if err != nil {
		return nil, fmt.Errorf("dpfsim: list CRDs: %w", err)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("dpfsim: no CRDs (*.yaml) in %q", f.options.CRDDir)
	}
	var out []*apiextensionsv1.CustomResourceDefinition
	for _, name := range names {
		data, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("dpfsim: read CRD: %w", err)
		}
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.Unmarshal(data, crd); err != nil {
			return nil, fmt.Errorf("dpfsim: read CRD %s: %w", name, err)
		}
		if crd.Name == "dpudevices."+provisioningGroup {
			if err := f.fitDPUDevice(crd, place, graft); err != nil {
				return nil, err
			}
		}
		out = append(out, crd)
	}
	return out, nil
}

// fitDPUDevice makes spec.cluster of DPUDevices exist exactly in the releases that have it.
func (f *Fabric) fitDPUDevice(crd *apiextensionsv1.CustomResourceDefinition, place LabelPlace, graft bool) error {
	for i := range crd.Spec.Versions {
		spec := crd.Spec.Versions[i].Schema.OpenAPIV3Schema.Properties["spec"]
		_, has := spec.Properties["cluster"]
		switch {
		case place == LabelsOnDPUDevice && !has && !graft:
			return fmt.Errorf("dpfsim: the CRD of DPUDevice in %q is of a DPF release without spec.cluster: use LabelsOnDPU, and Upgrade", f.options.CRDDir)
		case place == LabelsOnDPUDevice && !has:
			cluster, err := generatedClusterOfDPUDevice()
			if err != nil {
				return err
			}
			spec.Properties["cluster"] = cluster
		case place == LabelsOnDPU && f.options.CRDDir == "":
			delete(spec.Properties, "cluster")
		}
	}
	return nil
}

// generatedClusterOfDPUDevice is the schema of spec.cluster in this project's CRD.
func generatedClusterOfDPUDevice() (apiextensionsv1.JSONSchemaProps, error) {
	data, err := generatedCRDs.ReadFile("crds/" + provisioningGroup + "_dpudevices.yaml")
	if err != nil {
		return apiextensionsv1.JSONSchemaProps{}, fmt.Errorf("dpfsim: read CRD: %w", err)
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.Unmarshal(data, crd); err != nil {
		return apiextensionsv1.JSONSchemaProps{}, fmt.Errorf("dpfsim: read CRD of DPUDevice: %w", err)
	}
	return crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"].Properties["cluster"], nil
}

func applyCRD(ctx context.Context, c client.Client, crd *apiextensionsv1.CustomResourceDefinition) error {
	desired := crd.DeepCopy()
	err := c.Create(ctx, desired)
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	present := &apiextensionsv1.CustomResourceDefinition{}
	if err := c.Get(ctx, client.ObjectKeyFromObject(crd), present); err != nil {
		return err
	}
	present.Spec = crd.DeepCopy().Spec
	return c.Update(ctx, present)
}

func established(ctx context.Context, c client.Client, name string) error {
	return wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		crd := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if err := c.Get(ctx, client.ObjectKeyFromObject(crd), crd); err != nil {
			return false, err
		}
		for _, condition := range crd.Status.Conditions {
			if condition.Type == apiextensionsv1.Established && condition.Status == apiextensionsv1.ConditionTrue {
				return true, nil
			}
		}
		return false, nil
	})
}
