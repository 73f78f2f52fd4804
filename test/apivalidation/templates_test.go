// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package apivalidation

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// Kinds that flavours have in common.
var (
	every = []string{"Cluster", "RoleBinding"}
	own   = slices.Concat(every, []string{"MaasCluster", "MachineDeployment", "MachineHealthCheck", "MaasMachineTemplate", "KubeadmConfigTemplate"})
)

// flavours are the cluster templates, what each needs to be told, and the kinds in it.
var flavours = map[string]struct {
	variables []string
	kinds     []string
}{
	"cluster-template":                      {slices.Concat(basics, endpoint, port, vpc), slices.Concat(own, []string{"KubeadmControlPlane", "TenantVPC"})},
	"cluster-template-autoscaler":           {slices.Concat(basics, endpoint, port, vpc), slices.Concat(own, []string{"KubeadmControlPlane", "TenantVPC"})},
	"cluster-template-existing-vpc":         {slices.Concat(basics, endpoint, port, existing), slices.Concat(own, []string{"KubeadmControlPlane"})},
	"cluster-template-ha":                   {slices.Concat(basics, endpoint, port, vpc, domains), slices.Concat(own, []string{"KubeadmControlPlane", "TenantVPC"})},
	"cluster-template-hosted-control-plane": {slices.Concat(basics, port, vpc, hosted), slices.Concat(own, []string{"TenantVPC"})},
	"cluster-template-plain":                {slices.Concat(basics, endpoint), slices.Concat(own, []string{"KubeadmControlPlane"})},
	"cluster-template-topology":             {slices.Concat(basics, endpoint, port, existing), every},
}

// What flavours are told.
var (
	basics   = []string{"MAAS_DPU_IDENTITY=rack-a", "MAAS_DPU_IMAGE=custom/k8s"}
	endpoint = []string{"MAAS_DPU_CONTROL_PLANE_HOST=192.0.2.10"}
	port     = []string{"MAAS_DPU_NAMESERVERS=203.0.113.53, 203.0.113.54"}
	existing = []string{"MAAS_DPU_VPC=none-yet", "MAAS_DPU_SUBNET=nodes"}
	vpc      = []string{"MAAS_DPU_FABRIC=dpf", "MAAS_DPU_SUBNET_CIDR=10.64.0.0/24"}
	domains  = []string{"MAAS_DPU_FAILURE_DOMAINS=[rack-a, rack-b]"}
	hosted   = []string{"MAAS_DPU_CONTROL_PLANE_KIND=HostedControlPlane"}
)

// TestTemplates renders each flavour by the real clusterctl and lets a tenant, with the role that is shipped for tenants,
// create all of it. Fields that a kind does not know are refused.
func TestTemplates(t *testing.T) {
	bindTenant(t, "tessa", "red")
	tessa := client.WithFieldValidation(as(t, "tessa"), "Strict")
	for flavour, want := range flavours {
		t.Run(flavour, func(t *testing.T) {
			g := NewWithT(t)
			objects := render(t, flavour, want.variables)
			kinds := kindsOf(objects)
			slices.Sort(kinds)
			g.Expect(slices.Compact(kinds)).To(ConsistOf(want.kinds))
			for _, object := range objects {
				eventually(g, func() error { return tessa.Create(t.Context(), object.DeepCopy(), client.DryRunAll) }).
					Should(Succeed(), "%s %s", object.GetKind(), object.GetName())
				create(t, tessa, object)
			}
			g.Eventually(allowed(t, machineWing, secrets("get", "red"))).WithTimeout(pollTimeout).Should(BeTrue())
			g.Expect(allowed(t, machineWing, secrets("list", "red"))()).To(BeFalse())
			g.Expect(allowed(t, machineWing, secrets("get", "blue"))()).To(BeFalse())
			for _, object := range objects {
				judge(g, flavour, object)
			}
		})
	}
}

// TestClusterClass lets a tenant create the ClusterClass and its templates as they are shipped, in a namespace of its choice.
func TestClusterClass(t *testing.T) {
	bindTenant(t, "tessa", "red")
	tessa := client.WithFieldValidation(as(t, "tessa"), "Strict")
	g := NewWithT(t)
	file, err := os.ReadFile(filepath.Join(repo, "templates", "clusterclass-maas-dpu.yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(file)).NotTo(ContainSubstring("${"), "clusterctl substitutes nothing in ClusterClass files")
	for _, object := range parse(t, file) {
		g.Expect(object.GetNamespace()).To(BeEmpty())
		object.SetNamespace("red")
		eventually(g, func() error { return tessa.Create(t.Context(), object.DeepCopy(), client.DryRunAll) }).
			Should(Succeed(), "%s %s", object.GetKind(), object.GetName())
		create(t, tessa, object)
	}
}

// judge checks what no schema can: that the common variables of Cluster API are honoured.
func judge(g Gomega, flavour string, object *unstructured.Unstructured) {
	g.Expect(object.GetNamespace()).To(Equal("red"), object.GetKind())
	switch object.GetKind() {
	case "MachineDeployment":
		if flavour == "cluster-template-autoscaler" {
			_, given, _ := unstructured.NestedFieldNoCopy(object.Object, "spec", "replicas")
			g.Expect(given).To(BeFalse(), "replicas are cluster-autoscaler's")
			g.Expect(object.GetAnnotations()).To(And(
				HaveKeyWithValue("cluster.x-k8s.io/cluster-api-autoscaler-node-group-min-size", "0"),
				HaveKeyWithValue("cluster.x-k8s.io/cluster-api-autoscaler-node-group-max-size", "3")))
		} else {
			g.Expect(lookup(object.Object, "spec.replicas")).To(BeEquivalentTo(3))
		}
		g.Expect(lookup(object.Object, "spec.template.spec.version")).To(Equal("v1.36.3"))
		g.Expect(object.GetAnnotations()).To(HaveKeyWithValue("cluster.x-k8s.io/autoscaling-options-maxnodeprovisiontime", "60m"))
	case "KubeadmControlPlane":
		g.Expect(lookup(object.Object, "spec.replicas")).To(BeEquivalentTo(1))
		g.Expect(lookup(object.Object, "spec.version")).To(Equal("v1.36.3"))
		g.Expect(object.GetAnnotations()).To(BeEmpty(), "add-ons are kubeadm's in what is shipped")
		g.Expect(lookup(object.Object, "spec.kubeadmConfigSpec.initConfiguration.nodeRegistration.kubeletExtraArgs[0]")).
			To(Equal(map[string]any{"name": "provider-id", "value": "maas:///{{ v1.instance_id }}"}))
	case "MaasMachineTemplate":
		g.Expect(object.GetLabels()).To(HaveKeyWithValue("cluster.x-k8s.io/cluster-name", "demo"))
	case "Cluster":
		g.Expect(object.GetName()).To(Equal("demo"))
	}
}

func render(t *testing.T, flavour string, variables []string) []*unstructured.Unstructured {
	t.Helper()
	command := exec.CommandContext(t.Context(), filepath.Join(testEnv.BinaryAssetsDirectory, "clusterctl"), "generate", "cluster", "demo",
		"--from", filepath.Join(repo, "templates", flavour+".yaml"), "--target-namespace", "red",
		"--kubernetes-version", "v1.36.3", "--control-plane-machine-count", "1", "--worker-machine-count", "3")
	home := t.TempDir()
	command.Env = slices.Concat(variables, []string{"HOME=" + home, "XDG_CONFIG_HOME=" + home, "CLUSTERCTL_DISABLE_VERSIONCHECK=true", "PATH=" + os.Getenv("PATH")})
	var problem bytes.Buffer
	command.Stderr = &problem
	rendered, err := command.Output()
	if err != nil {
		t.Fatalf("clusterctl: %v\n%s", err, problem.String())
	}
	return parse(t, rendered)
}

func parse(t *testing.T, file []byte) []*unstructured.Unstructured {
	t.Helper()
	var objects []*unstructured.Unstructured
	for _, document := range bytes.Split(file, []byte("\n---\n")) {
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(document, &object.Object); err != nil {
			t.Fatal(err)
		}
		objects = append(objects, object)
	}
	return objects
}

func kindsOf(objects []*unstructured.Unstructured) []string {
	kinds := make([]string, 0, len(objects))
	for _, object := range objects {
		kinds = append(kinds, object.GetKind())
	}
	return kinds
}
