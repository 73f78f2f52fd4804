// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package apivalidation

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// shippedPolicy is the first document of a file in config/policies.
func shippedPolicy(t *testing.T, file string) *admissionregistrationv1.ValidatingAdmissionPolicy {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "config", "policies", file))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(data), "\n---\n")
	policy := &admissionregistrationv1.ValidatingAdmissionPolicy{}
	if err := yaml.UnmarshalStrict([]byte(first), policy); err != nil {
		t.Fatal(err)
	}
	return policy
}

// TestPoliciesCoverEveryKind holds the policies to the CRDs: a kind that is added later is not forgotten.
func TestPoliciesCoverEveryKind(t *testing.T) {
	g := NewWithT(t)
	files, err := filepath.Glob(filepath.Join("..", "..", "config", "crd", "bases", "*.yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(files).NotTo(BeEmpty())
	var statuses, finalizers []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		g.Expect(err).NotTo(HaveOccurred())
		crd := &apiextensionsv1.CustomResourceDefinition{}
		g.Expect(yaml.Unmarshal(data, crd)).To(Succeed(), file)
		served := slices.ContainsFunc(crd.Spec.Versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool {
			return v.Subresources != nil && v.Subresources.Status != nil
		})
		if served {
			statuses = append(statuses, crd.Spec.Names.Plural+"/status")
		}
		if !strings.HasSuffix(crd.Spec.Names.Kind, "Template") {
			finalizers = append(finalizers, crd.Spec.Names.Plural)
		}
	}
	g.Expect(shippedPolicy(t, "statuses.yaml").Spec.MatchConstraints.ResourceRules[0].Resources).To(ConsistOf(statuses))
	g.Expect(shippedPolicy(t, "finalizers.yaml").Spec.MatchConstraints.ResourceRules[0].Resources).To(ConsistOf(finalizers))
	for _, file := range []string{"statuses.yaml", "finalizers.yaml", "attachments.yaml", "overrides.yaml"} {
		g.Expect(shippedPolicy(t, file).Spec.FailurePolicy).To(HaveValue(Equal(admissionregistrationv1.Fail)), file)
	}
}

// TestEachWingKeepsItsOwn has neither wing end what the other stands for, nor say what the other has proven, in whichever way it
// writes.
func TestEachWingKeepsItsOwn(t *testing.T) {
	for sample, theirs := range map[string]struct{ wing, finalizer string }{
		"maasmachine":   {fabricWing, infrav1.MaasMachineFinalizer},
		"maascluster":   {fabricWing, infrav1.MaasClusterFinalizer},
		"tenantvpc":     {machineWing, infrav1.TenantVPCFinalizer},
		"dpuattachment": {machineWing, infrav1.DPUAttachmentFinalizer},
	} {
		t.Run(sample, func(t *testing.T) {
			g := NewWithT(t)
			object := base(t, sample, set("metadata.finalizers", []any{theirs.finalizer}))
			if sample == "dpuattachment" {
				object = base(t, sample, set("metadata.finalizers", []any{theirs.finalizer}), unset("spec.override"))
			}
			create(t, admin, object)
			// Other tests may have changed who may do what: only that it is refused counts, by a policy or by the lack of the right.
			wing := as(t, theirs.wing)
			for name, write := range map[string]func() error{
				"finalizers, by a patch": func() error {
					return wing.Patch(t.Context(), object.DeepCopy(), client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`)), client.DryRunAll)
				},
				"finalizers, by an update": func() error {
					whole := object.DeepCopy()
					whole.SetFinalizers(nil)
					return wing.Update(t.Context(), whole, client.DryRunAll)
				},
				"finalizers, by a JSON patch": func() error {
					return wing.Patch(t.Context(), object.DeepCopy(), client.RawPatch("application/json-patch+json", []byte(`[{"op":"remove","path":"/metadata/finalizers"}]`)), client.DryRunAll)
				},
				"status": func() error {
					return wing.Status().Patch(t.Context(), object.DeepCopy(), client.RawPatch("application/merge-patch+json", []byte(`{"status":{"conditions":[]}}`)), client.DryRunAll)
				},
			} {
				eventually(g, write).Should(Satisfy(apierrors.IsForbidden), name)
			}
		})
	}
}

// TestTenantsWriteInNoWay has the worst tenant try the ways of writing that TestFinalizersAreTheWings leaves out.
func TestTenantsWriteInNoWay(t *testing.T) {
	red := bindLandlord(t)
	for sample, finalizer := range map[string]string{
		"maasmachine": infrav1.MaasMachineFinalizer, "maascluster": infrav1.MaasClusterFinalizer,
		"tenantvpc": infrav1.TenantVPCFinalizer, "dpuattachment": infrav1.DPUAttachmentFinalizer,
	} {
		t.Run(sample, func(t *testing.T) {
			g := NewWithT(t)
			object := base(t, sample, set("metadata.finalizers", []any{finalizer}))
			create(t, admin, object)
			eventually(g, func() error {
				whole := object.DeepCopy()
				whole.SetFinalizers(nil)
				return red.Update(t.Context(), whole, client.DryRunAll)
			}).Should(Satisfy(apierrors.IsForbidden), "by an update")
			g.Expect(red.Patch(t.Context(), object.DeepCopy(), client.RawPatch("application/json-patch+json", []byte(`[{"op":"remove","path":"/metadata/finalizers/0"}]`)), client.DryRunAll)).
				To(Satisfy(apierrors.IsForbidden), "by a JSON patch")
			whole := object.DeepCopy()
			whole.Object["status"] = map[string]any{"conditions": []any{}}
			g.Expect(red.Status().Update(t.Context(), whole, client.DryRunAll)).To(Satisfy(apierrors.IsForbidden), "the status, by an update")
		})
	}
}
