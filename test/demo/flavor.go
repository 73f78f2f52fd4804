// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	controlplanev1 "sigs.k8s.io/cluster-api/api/controlplane/kubeadm/v1beta2"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	providerLabel = "infrastructure-maas-dpu"
	release       = "v0.1.99"
	// yamlBuffer is how much a YAML decoder looks at to tell YAML from JSON.
	yamlBuffer = 4096
)

func (w *World) clusterctlDir() string { return filepath.Join(w.Lab.Dir(), "clusterctl") }

// fillRepository writes a local repository of clusterctl with what generating clusters takes of a release.
func (w *World) fillRepository(_, _ context.Context) error {
	dir := filepath.Join(w.clusterctlDir(), providerLabel, release)
	if err := os.MkdirAll(filepath.Dir(dir), 0o750); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(w.repo(), "templates"))); err != nil {
		return err
	}
	config := fmt.Sprintf("providers:\n- name: maas-dpu\n  type: InfrastructureProvider\n  url: %s\n", filepath.Join(dir, "infrastructure-components.yaml"))
	return os.WriteFile(filepath.Join(w.clusterctlDir(), "clusterctl.yaml"), []byte(config), 0o600)
}

// CreateCluster renders the template of the tenant's flavour as its users do and applies it as the tenant.
func (t *Tenant) CreateCluster(ctx context.Context, workers int) error {
	manifest, err := t.generate(ctx, workers)
	if err != nil {
		return err
	}
	t.manifest = manifest
	if err := t.world.Lab.ApplyFiles(ctx, t.config, manifest); err != nil {
		return fmt.Errorf("apply cluster %s: %w", t.Name, err)
	}
	return t.skipAddons(ctx)
}

// generate runs the real clusterctl, with no more than the tenant's rights. The endpoint is a port of this machine: what a load
// balancer or virtual IP outside the tenant pools is in a datacentre.
func (t *Tenant) generate(ctx context.Context, workers int) (string, error) {
	host, port, err := t.world.Lab.FreeEndpoint()
	if err != nil {
		return "", err
	}
	kubeconfig, err := t.world.Lab.UserKubeconfig(ctx, administrator(t.Name))
	if err != nil {
		return "", err
	}
	dir := t.world.clusterctlDir()
	command := exec.CommandContext(ctx, filepath.Join(t.world.Lab.Bin(), "clusterctl"), "generate", "cluster", t.Name,
		"--config", filepath.Join(dir, "clusterctl.yaml"), "--infrastructure", "maas-dpu:"+release, "--flavor", t.Flavor,
		"--target-namespace", t.Name, "--kubernetes-version", KubernetesVersion,
		"--control-plane-machine-count", strconv.Itoa(t.ControlPlanes), "--worker-machine-count", strconv.Itoa(workers))
	command.Env = append(os.Environ(), "XDG_CONFIG_HOME="+dir, "KUBECONFIG="+kubeconfig, "CLUSTERCTL_DISABLE_VERSIONCHECK=true")
	variables := map[string]string{
		"MAAS_DPU_IDENTITY": t.Identity, "MAAS_DPU_IMAGE": "ubuntu/noble", "MAAS_DPU_NAMESERVERS": "192.0.2.53",
		"MAAS_DPU_FABRIC": fabricName, "MAAS_DPU_VPC": t.Name, "MAAS_DPU_SUBNET": subnetName, "MAAS_DPU_SUBNET_CIDR": subnetCIDR,
		"MAAS_DPU_CONTROL_PLANE_HOST": host, "MAAS_DPU_CONTROL_PLANE_PORT": strconv.Itoa(int(port)),
	}
	maps.Copy(variables, t.Variables)
	for name, value := range variables {
		command.Env = append(command.Env, name+"="+value)
	}
	var complaint bytes.Buffer
	command.Stderr = &complaint
	manifest, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("clusterctl generate cluster %s --flavor %q: %w: %s", t.Name, t.Flavor, err, strings.TrimSpace(complaint.String()))
	}
	path := filepath.Join(t.world.Lab.Dir(), t.Name+".yaml")
	return path, os.WriteFile(path, manifest, 0o600)
}

// skipAddons says that nobody runs kube-proxy and CoreDNS on simulated servers.
func (t *Tenant) skipAddons(ctx context.Context) error {
	cluster := &clusterv1.Cluster{}
	if err := t.client.Get(ctx, t.key(), cluster); err != nil {
		return err
	}
	skip := map[string]string{controlplanev1.SkipCoreDNSAnnotation: "", controlplanev1.SkipKubeProxyAnnotation: ""}
	if cluster.Spec.Topology.IsDefined() {
		before := cluster.DeepCopy()
		cluster.Spec.Topology.ControlPlane.Metadata.Annotations = skip
		return t.client.Patch(ctx, cluster, client.MergeFrom(before))
	}
	controlPlanes := &controlplanev1.KubeadmControlPlaneList{}
	if err := t.client.List(ctx, controlPlanes, client.InNamespace(t.Name)); err != nil {
		return err
	}
	for i := range controlPlanes.Items {
		kcp := &controlPlanes.Items[i]
		before := kcp.DeepCopy()
		for name, value := range skip {
			metav1.SetMetaDataAnnotation(&kcp.ObjectMeta, name, value)
		}
		if err := t.client.Patch(ctx, kcp, client.MergeFrom(before)); err != nil {
			return err
		}
	}
	return nil
}

// DeleteRest deletes as the tenant what was applied with the cluster and outlives it, and waits until it is gone.
func (t *Tenant) DeleteRest(ctx context.Context) error {
	objects, err := t.applied()
	if err != nil {
		return err
	}
	for _, object := range objects {
		if err := client.IgnoreNotFound(t.client.Delete(ctx, object)); err != nil {
			return fmt.Errorf("delete %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	return eventually(ctx, 2*time.Minute, "all that was applied for "+t.Name+" is gone", func(ctx context.Context) (bool, string, error) {
		for _, object := range objects {
			err := t.client.Get(ctx, client.ObjectKeyFromObject(object), object)
			if !apierrors.IsNotFound(err) {
				return false, object.GetKind() + " " + object.GetName() + " is left", err
			}
		}
		return true, "", nil
	})
}

// applied are the objects of the manifest.
func (t *Tenant) applied() ([]*unstructured.Unstructured, error) {
	content, err := os.ReadFile(t.manifest)
	if err != nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), yamlBuffer)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); errors.Is(err, io.EOF) {
			return objects, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", t.manifest, err)
		}
		objects = append(objects, object)
	}
}
