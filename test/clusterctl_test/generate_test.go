// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package clusterctl_test

import (
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// elsewhere is a namespace that clusterctl's user chose for the machine wing.
const elsewhere = "elsewhere"

// TestGenerateProvider: what clusterctl makes of the components is what was released, with labels and variables filled in.
func TestGenerateProvider(t *testing.T) {
	g := NewWithT(t)
	released := parse(t, read(t, releases.file(first, componentOf)))
	generated := parse(t, clusterctl(t, []string{"MAAS_DPU_LOG_LEVEL=4"}, "generate", "provider", "--infrastructure", "maas-dpu:"+first))
	g.Expect(generated).To(HaveLen(len(released)))
	by := map[string]*unstructured.Unstructured{}
	for _, object := range generated {
		g.Expect(object.GetLabels()).To(HaveKey("clusterctl.cluster.x-k8s.io"), describe(object))
		by[object.GetKind()+object.GetName()] = object
	}
	g.Expect(managerOf(g, generated)["args"]).To(ContainElement("--v=4"))
	for _, object := range released {
		g.Expect(by).To(HaveKey(object.GetKind() + object.GetName()))
		if object.GetKind() != "Deployment" {
			g.Expect(essence(by[object.GetKind()+object.GetName()])).To(Equal(essence(object)), describe(object))
		}
	}

	unset := clusterctl(t, nil, "generate", "provider", "--infrastructure", "maas-dpu")
	g.Expect(managerOf(g, parse(t, unset))).To(SatisfyAll(
		HaveKeyWithValue("args", ContainElement("--v=0")), HaveKeyWithValue("image", image+":"+second)), "the latest release by default")
	g.Expect(clusterctl(t, nil, "generate", "provider", "--infrastructure", "maas-dpu", "--describe")).To(SatisfyAll(
		ContainSubstring("MAAS_DPU_LOG_LEVEL"), ContainSubstring(image+":"+second), MatchRegexp(`TargetNamespace:\s+`+machineNamespace)))
}

// essence is an object without what clusterctl adds or a typed copy of it makes explicit.
func essence(object *unstructured.Unstructured) any {
	content := object.DeepCopy()
	content.SetLabels(nil)
	unstructured.RemoveNestedField(content.Object, "status")
	if strings.HasPrefix(content.GetKind(), "ValidatingAdmissionPolicy") {
		content.SetNamespace("") // clusterctl takes kinds it does not know for namespaced; an API server drops it
	}
	return pruned(content.Object)
}

// pruned drops what is null or empty.
func pruned(value any) any {
	switch v := value.(type) {
	case map[string]any:
		kept := map[string]any{}
		for key, field := range v {
			if field = pruned(field); field != nil {
				kept[key] = field
			}
		}
		if len(kept) > 0 {
			return kept
		}
		return nil
	case []any:
		kept := make([]any, 0, len(v))
		for _, element := range v {
			kept = append(kept, pruned(element))
		}
		return kept
	default:
		return value
	}
}

// TestGenerateProviderElsewhere: all that names the machine wing's namespace follows it.
func TestGenerateProviderElsewhere(t *testing.T) {
	g := NewWithT(t)
	usual := clusterctl(t, nil, "generate", "provider", "--infrastructure", "maas-dpu:"+first)
	moved := clusterctl(t, nil, "generate", "provider", "--infrastructure", "maas-dpu:"+first, "--target-namespace", elsewhere)
	g.Expect(strings.Count(usual, machineNamespace)).To(BeNumerically(">", 10))
	want := parse(t, strings.ReplaceAll(usual, machineNamespace, elsewhere))
	for i, object := range parse(t, moved) {
		g.Expect(object).To(Equal(want[i]), describe(object))
	}
}

// examples are values for the variables of templates that have no default.
var examples = map[string]string{
	"CLUSTER_NAME": "red", "NAMESPACE": "tenant-red",
	"KUBERNETES_VERSION": "v1.36.3", "CONTROL_PLANE_MACHINE_COUNT": "3", "WORKER_MACHINE_COUNT": "5",
	"MAAS_DPU_IDENTITY": "rack-a", "MAAS_DPU_FABRIC": "hall-one", "MAAS_DPU_VPC": "red", "MAAS_DPU_SUBNET": "nodes", "MAAS_DPU_SUBNET_CIDR": "10.10.0.0/24",
	"MAAS_DPU_CONTROL_PLANE_HOST": "192.0.2.10", "MAAS_DPU_CONTROL_PLANE_KIND": "HostedControlPlane", "MAAS_DPU_FAILURE_DOMAINS": "[zone-a, zone-b, zone-c]",
	"MAAS_DPU_IMAGE": "custom/k8s", "MAAS_DPU_NAMESERVERS": "203.0.113.53, 203.0.113.54",
}

// flavours returns the cluster templates that are released, by flavour; the default has no name.
func flavours(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob(releases.file(first, "cluster-template*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatal("no cluster template was released", err)
	}
	byFlavour := map[string]string{}
	for _, file := range files {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "cluster-template"), ".yaml")
		byFlavour[strings.TrimPrefix(name, "-")] = file
	}
	return byFlavour
}

// variable is a line of what clusterctl lists of them.
var variable = regexp.MustCompile(`(?m)^ *- ([A-Z0-9_]+)( .*)?$`)

// TestGenerateCluster renders every flavour from the repository: by name, as a plain file, and from its variables' list. That a
// template without one of its required variables is refused, clusterctl sees to.
func TestGenerateCluster(t *testing.T) {
	for flavour, file := range flavours(t) {
		t.Run("flavour "+flavour, func(t *testing.T) {
			g := NewWithT(t)
			args := []string{"generate", "cluster", "red", "--infrastructure", "maas-dpu:" + first, "--target-namespace", "tenant-red"}
			if flavour != "" {
				args = append(args, "--flavor", flavour)
			}
			listed, _, _ := strings.Cut(clusterctl(t, nil, append(args, "--list-variables")...), "Optional Variables")
			for _, match := range variable.FindAllStringSubmatch(listed, -1) {
				g.Expect(examples).To(HaveKey(match[1]), "a variable without default: give the test an example")
			}
			var env []string
			for name, value := range examples {
				env = append(env, name+"="+value)
			}
			rendered := clusterctl(t, env, args...)
			g.Expect(rendered).NotTo(ContainSubstring("${"))
			objects := parse(t, rendered)
			g.Expect(named(objects, "Cluster")).To(ConsistOf("red"))
			g.Expect(named(objects, "RoleBinding")).NotTo(BeEmpty(), "the machine wing may not read bootstrap data")
			for _, object := range objects {
				g.Expect(object.GetNamespace()).To(Equal("tenant-red"), describe(object))
			}
			g.Expect(clusterctl(t, env, "generate", "yaml", "--from", file)).
				To(WithTransform(func(text string) []string { return sorted(t, text) }, Equal(sorted(t, withoutClass(t, rendered)))))
		})
	}
}

// withoutClass drops the ClusterClass and its templates, which clusterctl adds to a topology's flavour from a file of their own.
func withoutClass(t *testing.T, rendered string) string {
	t.Helper()
	classes, err := filepath.Glob(releases.file(first, "clusterclass-*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	added := map[string]bool{}
	for _, class := range classes {
		for _, object := range parse(t, read(t, class)) {
			added[object.GetKind()+object.GetName()] = true
		}
	}
	var kept []string
	for _, object := range parse(t, rendered) {
		if !added[object.GetKind()+object.GetName()] {
			content, err := yaml.Marshal(object.Object)
			if err != nil {
				t.Fatal(err)
			}
			kept = append(kept, string(content))
		}
	}
	return strings.Join(kept, "\n---\n")
}

// sorted returns the objects of a YAML stream in an order and form of their own.
func sorted(t *testing.T, content string) []string {
	t.Helper()
	set := map[string]struct{}{}
	for _, object := range parse(t, content) {
		text, err := yaml.Marshal(object.Object)
		if err != nil {
			t.Fatal(err)
		}
		set[string(text)] = struct{}{}
	}
	return slices.Sorted(maps.Keys(set))
}
