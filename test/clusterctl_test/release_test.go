// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package clusterctl_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// TestReleaseIsReproducible builds a release twice, the second time where and how it should make no difference.
func TestReleaseIsReproducible(t *testing.T) {
	g := NewWithT(t)
	dir := filepath.Join(t.TempDir(), "elsewhere")
	g.Expect(os.MkdirAll(dir, 0o700)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(dir, "cluster-template-gone.yaml"), []byte("old"), 0o600)).To(Succeed())
	usual := t.TempDir()
	g.Expect(makeRelease(t.Context(), usual, first)).To(Succeed())
	g.Expect(makeRelease(t.Context(), dir, first, "LC_ALL=C", "TZ=Asia/Tokyo", "HOME=/nonexistent")).To(Succeed())
	again, once := contents(t, dir), contents(t, usual)
	g.Expect(slices.Sorted(maps.Keys(again))).To(Equal(slices.Sorted(maps.Keys(once))), "files")
	for name, content := range once {
		g.Expect(again[name] == content).To(BeTrue(), "%s differs", name)
		t.Logf("%-40s %6d bytes, %2d objects", name, len(content), strings.Count("\n"+content, "\nkind: "))
	}
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, entry := range entries {
		files[entry.Name()] = read(t, filepath.Join(dir, entry.Name()))
	}
	return files
}

// TestReleaseRefuses what clusterctl would stumble over later.
func TestReleaseRefuses(t *testing.T) {
	for name, c := range map[string]struct{ version, env, says string }{
		"no semantic version":     {"0.1.0", "", "write a semantic version"},
		"a series of no contract": {"v0.11.0", "", "metadata.yaml has no release series"},
		"an image without tag":    {first, "IMG=" + image, "write an image with a tag or digest"},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(makeRelease(t.Context(), t.TempDir(), c.version, c.env)).To(MatchError(ContainSubstring(c.says)))
		})
	}
}

// TestReleaseFiles: clusterctl's contract for the files, and that the fabric wing is none of clusterctl's.
func TestReleaseFiles(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	g.Expect(makeRelease(t.Context(), dir, first)).To(Succeed())
	files := contents(t, dir)
	templates, err := filepath.Glob(filepath.Join(repo, "templates", "cluster*.yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(templates).NotTo(BeEmpty())
	for _, template := range templates {
		g.Expect(files[filepath.Base(template)] == read(t, template)).To(BeTrue(), template)
	}
	g.Expect(files["metadata.yaml"]).To(Equal(read(t, filepath.Join(repo, "metadata.yaml"))))

	machine := parse(t, files[componentOf])
	g.Expect(named(machine, "Namespace")).To(ConsistOf(machineNamespace))
	g.Expect(named(machine, "Deployment")).To(ConsistOf(machineAccount))
	crds, err := filepath.Glob(filepath.Join(repo, "config", "crd", "bases", "*.yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(named(machine, "CustomResourceDefinition")).To(HaveLen(len(crds)))
	g.Expect(named(machine, "ValidatingAdmissionPolicy")).NotTo(BeEmpty())
	g.Expect(named(machine, "ClusterRole")).To(ContainElements("maas-dpu-tenant", "maas-dpu-operator", "maas-dpu-bootstrap-secrets"))
	for _, kind := range []string{"ValidatingWebhookConfiguration", "Certificate", "Issuer", "Service"} {
		g.Expect(named(machine, kind)).To(HaveLen(1), kind)
	}
	for _, object := range machine {
		g.Expect(object.GetLabels()).To(HaveKeyWithValue("cluster.x-k8s.io/provider", provider), describe(object))
	}
	g.Expect(managerOf(g, machine)).To(HaveKeyWithValue("image", image+":"+first))

	fabric := parse(t, files["fabric-components.yaml"])
	g.Expect(named(fabric, "Namespace")).To(ConsistOf(fabricNamespace))
	g.Expect(named(fabric, "CustomResourceDefinition")).To(BeEmpty())
	g.Expect(managerOf(g, fabric)).To(HaveKeyWithValue("image", image+":"+first))
	shared := map[string]bool{}
	for _, object := range machine {
		shared[describe(object)] = true
	}
	for _, object := range fabric {
		g.Expect(object.GetLabels()).NotTo(HaveKey("cluster.x-k8s.io/provider"), describe(object))
		g.Expect(shared).NotTo(HaveKey(describe(object)), "an object of both components would be deleted with the machine wing")
	}
	g.Expect(files["fabric-components.yaml"]).NotTo(ContainSubstring("${"), "kubectl fills in no variables")

	g.Expect(named(parse(t, files["crds.yaml"]), "CustomResourceDefinition")).To(HaveLen(len(crds)))
	for name, content := range files {
		g.Expect(content).NotTo(ContainSubstring(":dev\n"), name)
	}
}

// named returns the names of the objects of a kind.
func named(objects []*unstructured.Unstructured, kind string) []string {
	var names []string
	for _, object := range objects {
		if object.GetKind() == kind {
			names = append(names, object.GetName())
		}
	}
	return names
}

// managerOf returns the one container of the one Deployment, which clusterctl expects under the name manager.
func managerOf(g Gomega, objects []*unstructured.Unstructured) map[string]any {
	deployments := slices.DeleteFunc(slices.Clone(objects), func(o *unstructured.Unstructured) bool { return o.GetKind() != "Deployment" })
	g.ExpectWithOffset(1, deployments).To(HaveLen(1))
	containers, _, err := unstructured.NestedSlice(deployments[0].Object, "spec", "template", "spec", "containers")
	g.ExpectWithOffset(1, err).NotTo(HaveOccurred())
	g.ExpectWithOffset(1, containers).To(HaveLen(1))
	g.ExpectWithOffset(1, containers[0]).To(HaveKeyWithValue("name", "manager"))
	return containers[0].(map[string]any)
}

// describe names an object across clusters.
func describe(object *unstructured.Unstructured) string {
	return strings.TrimSpace(object.GetKind() + " " + strings.TrimPrefix(object.GetNamespace()+"/"+object.GetName(), "/"))
}
