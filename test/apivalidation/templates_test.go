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

// flavours are the cluster templates, and what each needs to be told.
var flavours = map[string][]string{
	"cluster-template": {
		"MAAS_DPU_IDENTITY=rack-a", "MAAS_DPU_CONTROL_PLANE_HOST=192.0.2.10", "MAAS_DPU_IMAGE=custom/k8s",
		"MAAS_DPU_VPC=none-yet", "MAAS_DPU_SUBNET=nodes", "MAAS_DPU_NAMESERVERS=203.0.113.53, 203.0.113.54",
	},
	"cluster-template-plain": {"MAAS_DPU_IDENTITY=rack-a", "MAAS_DPU_CONTROL_PLANE_HOST=192.0.2.10", "MAAS_DPU_IMAGE=custom/k8s"},
}

// TestTemplates renders each flavour by the real clusterctl and lets a tenant, with the role that is shipped for tenants,
// create all of it. Fields that a kind does not know are refused.
func TestTemplates(t *testing.T) {
	bindTenant(t, "tessa", "red")
	tessa := client.WithFieldValidation(as(t, "tessa"), "Strict")
	for flavour, variables := range flavours {
		t.Run(flavour, func(t *testing.T) {
			g := NewWithT(t)
			objects := render(t, flavour, variables)
			g.Expect(kindsOf(objects)).To(ContainElements("Cluster", "RoleBinding", "MaasCluster", "KubeadmControlPlane", "MachineDeployment",
				"MachineHealthCheck", "MaasMachineTemplate", "KubeadmConfigTemplate"))
			for _, object := range objects {
				eventually(g, func() error { return tessa.Create(t.Context(), object.DeepCopy(), client.DryRunAll) }).
					Should(Succeed(), "%s %s", object.GetKind(), object.GetName())
				create(t, tessa, object)
			}
			g.Eventually(allowed(t, machineWing, secrets("get", "red"))).WithTimeout(pollTimeout).Should(BeTrue())
			g.Expect(allowed(t, machineWing, secrets("list", "red"))()).To(BeFalse())
			g.Expect(allowed(t, machineWing, secrets("get", "blue"))()).To(BeFalse())
			for _, object := range objects {
				judge(g, object)
			}
		})
	}
}

// judge checks what no schema can: that the common variables of Cluster API are honoured.
func judge(g Gomega, object *unstructured.Unstructured) {
	g.Expect(object.GetNamespace()).To(Equal("red"), object.GetKind())
	switch object.GetKind() {
	case "MachineDeployment":
		g.Expect(lookup(object.Object, "spec.replicas")).To(BeEquivalentTo(3))
		g.Expect(lookup(object.Object, "spec.template.spec.version")).To(Equal("v1.36.3"))
		g.Expect(object.GetAnnotations()).To(HaveKeyWithValue("cluster.x-k8s.io/autoscaling-options-maxnodeprovisiontime", "60m"))
	case "KubeadmControlPlane":
		g.Expect(lookup(object.Object, "spec.replicas")).To(BeEquivalentTo(1))
		g.Expect(lookup(object.Object, "spec.version")).To(Equal("v1.36.3"))
		g.Expect(object.GetAnnotations()).To(BeEmpty(), "add-ons are kubeadm's in what is shipped")
		g.Expect(lookup(object.Object, "spec.kubeadmConfigSpec.initConfiguration.nodeRegistration.kubeletExtraArgs[0]")).
			To(Equal(map[string]any{"name": "provider-id", "value": "maas:///{{ v1.instance_id }}"}))
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
	var objects []*unstructured.Unstructured
	for _, document := range bytes.Split(rendered, []byte("\n---\n")) {
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
