// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricscope_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// rightsOf are the rules that apply in a namespace, one line for each resource, without what every account may.
func rightsOf(t *testing.T, config *rest.Config, namespace string) []string {
	t.Helper()
	g := NewWithT(t)
	c, err := client.New(config, client.Options{})
	g.Expect(err).NotTo(HaveOccurred())
	review := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace}}
	g.Expect(c.Create(t.Context(), review)).To(Succeed())
	g.Expect(review.Status.Incomplete).To(BeFalse())
	rights := map[string][]string{}
	for _, rule := range review.Status.ResourceRules {
		for _, group := range rule.APIGroups {
			if strings.HasSuffix(group, "authorization.k8s.io") || strings.HasSuffix(group, "authentication.k8s.io") {
				continue // asking who one is and what one may
			}
			for _, resource := range rule.Resources {
				for _, name := range append(slices.Clone(rule.ResourceNames), "")[:max(1, len(rule.ResourceNames))] {
					key := strings.TrimPrefix(group+"/"+resource+" "+name, "/")
					rights[key] = append(rights[key], rule.Verbs...)
				}
			}
		}
	}
	var lines []string
	for key, verbs := range rights {
		slices.Sort(verbs)
		lines = append(lines, strings.TrimSpace(key)+": "+strings.Join(slices.Compact(verbs), " "))
	}
	slices.Sort(lines)
	return lines
}

// TestRightsOnDPF pins all that the account may: a right that is added has to be added here, with its reason.
func TestRightsOnDPF(t *testing.T) {
	g := expect(t)
	account, err := scope.RESTConfigFromKubeconfig(world.AccountKubeconfig)
	g.Expect(err).NotTo(HaveOccurred())
	reading := []string{
		// Which place a release of DPF has for labels.
		"apiextensions.k8s.io/customresourcedefinitions dpudevices.provisioning.dpu.nvidia.com: get",
		"apiextensions.k8s.io/customresourcedefinitions dpus.provisioning.dpu.nvidia.com: get",
		// From a server to its DPUs and to the cluster they are in; what DPF is about to do to them.
		"provisioning.dpu.nvidia.com/dpuclusters: get list watch",
		"provisioning.dpu.nvidia.com/dpudevices: get list watch",
		"provisioning.dpu.nvidia.com/dpunodemaintenances: get list watch",
		"provisioning.dpu.nvidia.com/dpunodes: get list watch",
		"provisioning.dpu.nvidia.com/dpus: get list watch",
		// A VPC or an interface of any namespace can take a DPU.
		"svc.dpu.nvidia.com/dpuserviceinterfaces: get list watch",
		"vpc.dpu.nvidia.com/dpuvirtualnetworks: get list watch",
		"vpc.dpu.nvidia.com/dpuvpcs: get list watch",
	}
	g.Expect(rightsOf(t, account, "default")).To(Equal(reading), "outside DPF's namespace")
	g.Expect(rightsOf(t, account, dpfNamespace)).To(Equal([]string{
		reading[0], reading[1], reading[2],
		"provisioning.dpu.nvidia.com/dpudevices: get list patch watch", // labels and the holder's record
		reading[4], reading[5],
		"provisioning.dpu.nvidia.com/dpus: get list patch watch",                      // the same, before v26.8
		"svc.dpu.nvidia.com/dpuservicecredentialrequests: create get",                 // reading DPU clusters
		"svc.dpu.nvidia.com/dpuserviceinterfaces: create delete get list patch watch", // patch: set back what was edited
		"vpc.dpu.nvidia.com/dpuvirtualnetworks: create delete get list watch",         // nothing in it can be changed
		"vpc.dpu.nvidia.com/dpuvpcs: create delete get list patch watch",              // patch: interNetworkAccess
	}), "in DPF's namespace")
	g.Expect(rightsOf(t, account, scope.CredentialNamespace)).To(Equal(slices.Sorted(slices.Values(append(slices.Clone(reading), "secrets: get")))),
		"where DPF writes credentials")
}

// dpuReader logs in to the DPU cluster with the credentials that DPF gave the wing.
func dpuReader(t *testing.T, g *WithT) *rest.Config {
	t.Helper()
	fabrics := scope.NewFabrics(scope.FabricsOptions{Client: world.Hub, APIReader: world.Hub, Namespace: wingNamespace, Installation: "rights"})
	newFabric(t, "rights")
	fabric, err := fabrics.Get(t.Context(), "rights")
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(func() error { _, err := fabric.DPUCluster(t.Context(), dpuCluster); return err }).Should(Succeed())
	secret := &corev1.Secret{}
	key := client.ObjectKey{Namespace: scope.CredentialNamespace, Name: scope.CredentialRequestName("rights", dpuCluster)}
	g.Expect(world.Account.Get(t.Context(), key, secret)).To(Succeed())
	config, err := scope.RESTConfigFromKubeconfig(secret.Data[scope.CredentialSecretKey])
	g.Expect(err).NotTo(HaveOccurred())
	return config
}

// TestDPUClusterIsReadOnly asks the API server of the DPUs itself, not the client that refuses to write anyway.
func TestDPUClusterIsReadOnly(t *testing.T) {
	g := expect(t)
	config := dpuReader(t, g)
	reading := []string{"nodes: get list watch", "svc.dpu.nvidia.com/serviceinterfaces: get list watch"}
	g.Expect(rightsOf(t, config, dpfNamespace)).To(Equal(reading))
	g.Expect(rightsOf(t, config, corev1.NamespaceNodeLease)).To(Equal(append([]string{"coordination.k8s.io/leases: get list watch"}, reading...)))

	scheme, err := scope.NewFabricScheme()
	g.Expect(err).NotTo(HaveOccurred())
	c, err := client.New(config, client.Options{Scheme: scheme})
	g.Expect(err).NotTo(HaveOccurred())
	nodes := &corev1.NodeList{}
	g.Expect(c.List(t.Context(), nodes)).To(Succeed())
	g.Expect(nodes.Items).NotTo(BeEmpty())
	node := &nodes.Items[0]
	for name, try := range map[string]func(context.Context) error{
		"label a Node": func(ctx context.Context) error {
			return c.Patch(ctx, node.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"maas-dpu.dpucloud.io/vpc":"x"}}}`)))
		},
		"delete a Node": func(ctx context.Context) error { return c.Delete(ctx, node.DeepCopy()) },
		"make an interface": func(ctx context.Context) error {
			return c.Create(ctx, &svcv1alpha1.ServiceInterface{
				ObjectMeta: metav1.ObjectMeta{Namespace: dpfNamespace, Name: "x"},
				Spec:       svcv1alpha1.InterfaceSpec{InterfaceType: svcv1alpha1.InterfaceTypePF, Node: ptr.To(node.Name), PF: &svcv1alpha1.PF{}},
			})
		},
		"renew a lease": func(ctx context.Context) error {
			return c.Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: "x"}})
		},
		"read Secrets": func(ctx context.Context) error { return c.List(ctx, &corev1.SecretList{}) },
	} {
		g.Expect(try(t.Context())).To(Satisfy(apierrors.IsForbidden), name)
	}
}

func TestAccountReadsNoSecretOfDPF(t *testing.T) {
	g := expect(t)
	for _, key := range []client.ObjectKey{
		{Namespace: dpfNamespace, Name: "dpu-cluster-admin-kubeconfig"}, {Namespace: dpfNamespace, Name: "bmc-password"},
	} {
		g.Expect(world.Account.Get(t.Context(), key, &corev1.Secret{})).To(Satisfy(apierrors.IsForbidden), key.String())
	}
	g.Expect(world.Account.List(t.Context(), &corev1.SecretList{}, client.InNamespace(scope.CredentialNamespace))).To(Satisfy(apierrors.IsForbidden))
}

// TestPoliciesHoldInAnyNamespace logs in as the account of a DPF that has another namespace, with every right there is: an overlay
// that moves the account must not leave the policies behind.
func TestPoliciesHoldInAnyNamespace(t *testing.T) {
	g := expect(t)
	config := rest.CopyConfig(world.DPFConfig)
	config.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:dpf-elsewhere:maas-dpu-fabric", Groups: []string{"system:masters"}}
	c, err := client.New(config, client.Options{Scheme: world.DPFAdmin.Scheme()})
	g.Expect(err).NotTo(HaveOccurred())
	dpu, device := policyDPU(t, g, "policy-elsewhere")
	g.Eventually(func() error {
		return c.Patch(t.Context(), dpu.DeepCopy(), patchOf(operation("replace", "/spec/bfb", `"evil"`)), client.DryRunAll)
	}).Should(Satisfy(refusedByPolicy))
	g.Expect(c.Patch(t.Context(), device.DeepCopy(), patchOf(operation("replace", "/spec/bmcIp", `"192.0.2.66"`)), client.DryRunAll)).To(Satisfy(refusedByPolicy))
	g.Expect(c.Delete(t.Context(), device.DeepCopy(), client.DryRunAll)).To(Satisfy(refusedByPolicy))
}

// TestOnePlaceNamesTheNamespace moves DPF by the one line of each kustomization that says where it is.
func TestOnePlaceNamesTheNamespace(t *testing.T) {
	g := NewWithT(t)
	for folder, file := range map[string]string{"management": "serviceaccount.yaml", "dpucluster": "role.yaml", "admin-kubeconfig": "role.yaml"} {
		copied := filepath.Join(t.TempDir(), folder)
		g.Expect(os.CopyFS(copied, os.DirFS(filepath.Join("../../config/dpf", folder)))).To(Succeed())
		path := filepath.Join(copied, file)
		content, err := os.ReadFile(path)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(os.WriteFile(path, bytes.Replace(content, []byte("namespace: "+dpfNamespace), []byte("namespace: dpf-elsewhere"), 1), 0o600)).To(Succeed())
		built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), copied)
		g.Expect(err).NotTo(HaveOccurred(), folder)
		text, err := built.AsYaml()
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(string(text)).NotTo(ContainSubstring(dpfNamespace), folder)
		g.Expect(string(text)).To(ContainSubstring("dpf-elsewhere"), folder)
	}
}

// TestAdoptionPrefixesArePermittedByDPFsOperator changes what the policy permits, as the operator of DPF does.
func TestAdoptionPrefixesArePermittedByDPFsOperator(t *testing.T) {
	g := expect(t)
	dpu, _ := policyDPU(t, g, "policy-adoption")
	join := func(key string) func() error {
		return func() error {
			return world.Account.Patch(t.Context(), dpu.DeepCopy(), patchOf(operation("add", "/spec/cluster/nodeLabels/"+escaped(key), `"x"`)), client.DryRunAll)
		}
	}
	g.Eventually(join("site.example/vpc")).Should(Satisfy(refusedByPolicy), "as shipped")
	permitPrefixes(t, g, "lab.example/, site.example/vpc, , maas-dpu.dpucloud.io/")
	g.Eventually(join("site.example/vpc")).Should(Succeed())
	g.Expect(join("site.example/vpc-2")()).To(Succeed())
	g.Expect(join("lab.example/x")()).To(Succeed())
	for _, key := range []string{"site.example/role2", "example.com/vpc", "maas-dpu.dpucloud.io/installation", "kubernetes.io/hostname"} {
		g.Expect(join(key)()).To(Satisfy(refusedByPolicy), key)
	}
	permitPrefixes(t, g, "kubernetes")
	g.Eventually(join("site.example/vpc")).Should(Satisfy(refusedByPolicy))
	g.Expect(join("kubernetes.io/hostname")()).To(Satisfy(refusedByPolicy), "a prefix without its domain")

	parameters := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: dpfNamespace, Name: "maas-dpu-fabric-adoption"}}
	g.Expect(world.Account.Patch(t.Context(), parameters, client.RawPatch(types.MergePatchType, []byte(`{"data":{"labelKeyPrefixes":"x/"}}`)))).To(Satisfy(apierrors.IsForbidden))
	g.Expect(world.DPFAdmin.Delete(t.Context(), parameters.DeepCopy())).To(Succeed())
	g.Eventually(join(vpc.VPCKey)).Should(MatchError(ContainSubstring("no params found")), "without the ConfigMap nothing is permitted")
	g.Expect(world.ApplyToDPF(t.Context(), "config/dpf/management")).To(Succeed())
	g.Eventually(join(vpc.VPCKey)).Should(Succeed())
}

// permitPrefixes writes the ConfigMap that the policy reads, and puts it back when the test ends.
func permitPrefixes(t *testing.T, g *WithT, prefixes string) {
	t.Helper()
	write := func(ctx context.Context, value string) error {
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: dpfNamespace, Name: "maas-dpu-fabric-adoption"}}
		return world.DPFAdmin.Patch(ctx, object, client.RawPatch(types.MergePatchType, []byte(`{"data":{"labelKeyPrefixes":"`+value+`"}}`)))
	}
	g.Expect(write(t.Context(), prefixes)).To(Succeed())
	t.Cleanup(func() { _ = write(afterwards(t), "") })
}
