// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package clusterctl_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const (
	provider    = "infrastructure-maas-dpu"
	componentOf = "infrastructure-components.yaml"
	image       = "registry.example/dpucloud/manager"
	// The releases of ours in the repository, made of this checkout.
	first, second = "v0.1.0", "v0.1.1"
)

// capiProviders are those that clusterctl init installs by default, by the folder of the module they are built from.
var capiProviders = []struct{ name, kind, label, file, dir string }{
	{"cluster-api", "CoreProvider", "cluster-api", "core-components.yaml", "core"},
	{"kubeadm", "BootstrapProvider", "bootstrap-kubeadm", "bootstrap-components.yaml", "bootstrap/kubeadm"},
	{"kubeadm", "ControlPlaneProvider", "control-plane-kubeadm", "control-plane-components.yaml", "controlplane/kubeadm"},
}

// repository is a local repository of clusterctl with two releases of ours and Cluster API's components.
type repository struct {
	dir, config, capiVersion string
}

// file returns a file of one of our releases.
func (r *repository) file(version, name string) string {
	return filepath.Join(r.dir, provider, version, name)
}

func newRepository(ctx context.Context, dir string) (*repository, error) {
	r := &repository{dir: dir, config: filepath.Join(dir, "clusterctl.yaml")}
	for _, version := range []string{first, second} {
		if err := makeRelease(ctx, filepath.Join(dir, provider, version), version); err != nil {
			return nil, err
		}
	}
	config := fmt.Sprintf("providers:\n- name: maas-dpu\n  type: InfrastructureProvider\n  url: %s\n", r.file("latest", componentOf))
	module, version, err := clusterAPI(ctx)
	if err != nil {
		return nil, err
	}
	r.capiVersion = version
	for _, p := range capiProviders {
		release := filepath.Join(dir, p.label, version)
		if err := buildComponents(filepath.Join(module, p.dir, "config", "default"), filepath.Join(release, p.file)); err != nil {
			return nil, err
		}
		metadata, err := os.ReadFile(filepath.Join(module, "metadata.yaml"))
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(release, "metadata.yaml"), metadata, 0o600); err != nil {
			return nil, err
		}
		config += fmt.Sprintf("- name: %s\n  type: %s\n  url: %s\n", p.name, p.kind, filepath.Join(dir, p.label, "latest", p.file))
	}
	return r, os.WriteFile(r.config, []byte(config), 0o600)
}

// makeRelease runs what make release-manifests runs.
func makeRelease(ctx context.Context, dir, version string, env ...string) error {
	command := exec.CommandContext(ctx, filepath.Join(repo, "hack", "release-manifests.sh"), dir)
	command.Env = slices.Concat([]string{"PATH=" + os.Getenv("PATH"), "VERSION=" + version, "IMG=" + image + ":" + version}, env)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("release-manifests %s: %w: %s", version, err, output)
	}
	return nil
}

// clusterAPI returns where the module of Cluster API lies, and its version.
func clusterAPI(ctx context.Context) (dir, version string, err error) {
	output, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}} {{.Version}}", "sigs.k8s.io/cluster-api").Output()
	if err != nil {
		return "", "", fmt.Errorf("finding the module of Cluster API: %w", err)
	}
	dir, version, _ = strings.Cut(strings.TrimSpace(string(output)), " ")
	return dir, version, nil
}

func buildComponents(kustomization, file string) error {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), kustomization)
	if err != nil {
		return fmt.Errorf("building %s: %w", kustomization, err)
	}
	content, err := built.AsYaml()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return os.WriteFile(file, content, 0o600)
}

// clusterctl runs the real one with the repository's configuration, and returns what it says.
func clusterctl(t *testing.T, env []string, args ...string) string {
	t.Helper()
	output, err := tryClusterctl(t, env, args...)
	if err != nil {
		t.Fatalf("clusterctl %s: %v", strings.Join(args, " "), err)
	}
	return output
}

func tryClusterctl(t *testing.T, env []string, args ...string) (string, error) {
	t.Helper()
	home := t.TempDir()
	command := exec.CommandContext(t.Context(), filepath.Join(bin, "clusterctl"), append(args, "--config", releases.config)...)
	command.Env = slices.Concat([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "XDG_CONFIG_HOME=" + home, "CLUSTERCTL_DISABLE_VERSIONCHECK=true",
	}, env)
	var output, progress bytes.Buffer
	command.Stdout, command.Stderr = &output, &progress
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, progress.String())
	}
	return output.String(), nil
}

// clusterctl runs it against the cluster.
func (c *cluster) clusterctl(t *testing.T, args ...string) string {
	t.Helper()
	return clusterctl(t, nil, append(args, "--kubeconfig", c.kubeconfig)...)
}

// kubectl runs it as the cluster's administrator.
func (c *cluster) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), filepath.Join(bin, "kubectl"), append([]string{"--kubeconfig", c.kubeconfig}, args...)...)
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, output)
	}
	return string(output)
}

// parse reads a YAML stream.
func parse(t *testing.T, content string) []*unstructured.Unstructured {
	t.Helper()
	var objects []*unstructured.Unstructured
	for _, document := range strings.Split("\n"+content, "\n---\n") {
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &object.Object); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		if len(object.Object) > 0 {
			objects = append(objects, object)
		}
	}
	return objects
}

func read(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
