// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package clusterctl_test

import (
	"fmt"
	"testing"

	. "github.com/onsi/gomega"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const infraGroup = "infrastructure.cluster.x-k8s.io"

// TestElsewhere installs the machine wing in a namespace of the user's choice, with the fabric wing as it is released beside it:
// rights and policies must follow the wing's ServiceAccount, and nothing may stay with the account of the usual namespace.
func TestElsewhere(t *testing.T) {
	g := NewWithT(t)
	c := newCluster(t, "elsewhere")
	c.clusterctl(t, "init", "--infrastructure", "maas-dpu:"+first, "--target-namespace", elsewhere)
	c.kubectl(t, "apply", "-f", releases.file(first, "fabric-components.yaml"))
	g.Expect(c.inventory(g)).To(HaveKeyWithValue(elsewhere+"/"+provider, first))
	g.Expect(apierrors.IsNotFound(c.Get(t.Context(), client.ObjectKey{Name: machineNamespace}, object("v1", "Namespace", "", machineNamespace)))).
		To(BeTrue(), "nothing of the component is in the usual namespace")

	c.kubectl(t, "create", "namespace", "tenant-red")
	moved, usual := account(elsewhere), account(machineNamespace)
	for _, right := range []authorizationv1.ResourceAttributes{
		{Group: infraGroup, Resource: "maasmachines", Verb: "patch", Namespace: "tenant-red"},
		{Group: infraGroup, Resource: "maasmachines", Subresource: "status", Verb: "control"},
		{Group: infraGroup, Resource: "maasmachines", Subresource: "finalizers", Verb: "control"},
		{Group: infraGroup, Resource: "dpuattachments", Verb: "control"},
		{Group: "coordination.k8s.io", Resource: "leases", Verb: "update", Namespace: elsewhere},
		{Resource: "secrets", Verb: "get", Namespace: elsewhere},
	} {
		g.Eventually(func() (bool, error) { return c.may(t, moved, right) }).WithTimeout(patience).Should(BeTrue(), "%+v", right)
		g.Expect(c.may(t, usual, right)).To(BeFalse(), "%+v", right)
	}
	g.Expect(c.may(t, moved, authorizationv1.ResourceAttributes{Resource: "secrets", Verb: "get", Namespace: fabricNamespace})).To(BeFalse())

	t.Run("its webhooks", func(t *testing.T) {
		g := NewWithT(t)
		configuration := object("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "", "maas-dpu-machine-validating-webhook-configuration")
		g.Expect(c.Get(t.Context(), client.ObjectKeyFromObject(configuration), configuration)).To(Succeed())
		g.Expect(configuration.GetAnnotations()).To(HaveKeyWithValue("cert-manager.io/inject-ca-from", elsewhere+"/maas-dpu-machine-serving-cert"))
		certificate := object("cert-manager.io/v1", "Certificate", elsewhere, "maas-dpu-machine-serving-cert")
		g.Expect(c.Get(t.Context(), client.ObjectKeyFromObject(certificate), certificate)).To(Succeed())
		names, _, err := unstructured.NestedStringSlice(certificate.Object, "spec", "dnsNames")
		g.Expect(err).NotTo(HaveOccurred())
		hooks, _, err := unstructured.NestedSlice(configuration.Object, "webhooks")
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(hooks).NotTo(BeEmpty())
		for _, hook := range hooks {
			service, _, err := unstructured.NestedMap(hook.(map[string]any), "clientConfig", "service")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(names).To(ContainElement(fmt.Sprintf("%s.%s.svc", service["name"], elsewhere)))
			g.Expect(service).To(HaveKeyWithValue("namespace", elsewhere))
			found := object("v1", "Service", elsewhere, service["name"].(string))
			g.Expect(c.Get(t.Context(), client.ObjectKeyFromObject(found), found)).To(Succeed())
		}
	})
	t.Run("the policies", func(t *testing.T) { attachesAsBefore(t, c) })
	t.Run("a tenant's bootstrap data", func(t *testing.T) { readsBootstrapData(t, c) })
}

// attachesAsBefore has the moved wing write what the policies let it alone write.
func attachesAsBefore(t *testing.T, c *cluster) {
	g := NewWithT(t)
	c.kubectl(t, "delete", "validatingwebhookconfigurations", "--all") // nobody serves webhooks here
	attachment := object(infraGroup+"/v1beta1", "DPUAttachment", "tenant-red", "probe")
	attachment.Object["spec"] = map[string]any{
		"state": "Attached", "vpcName": "red", "machineName": "red-1",
		"server": map[string]any{"source": "rack-a", "systemID": "abc123", "token": "v1.00112233445566778899aabbccddeeff.ffeeddccbbaa99887766554433221100"},
		"ports":  []any{map[string]any{"name": "tenant", "subnet": "nodes"}},
	}
	c.kubectl(t, "create", "clusterrole", "attaches", "--verb=create,patch", "--resource=dpuattachments."+infraGroup)
	c.kubectl(t, "create", "clusterrolebinding", "attaches", "--clusterrole=attaches", "--user=tessa", "--user="+account(machineNamespace))
	for _, other := range []string{"tessa", account(machineNamespace)} {
		g.Eventually(func() error { return c.as(t, other).Create(t.Context(), attachment.DeepCopy(), client.DryRunAll) }).
			WithTimeout(patience).Should(MatchError(ContainSubstring("DPUAttachments are written by the machine wing alone")), other)
	}
	g.Eventually(func() error {
		return c.as(t, account(elsewhere), "system:serviceaccounts", "system:serviceaccounts:"+elsewhere).Create(t.Context(), attachment.DeepCopy())
	}).WithTimeout(patience).Should(Succeed())
}

// readsBootstrapData: the RoleBinding that templates carry must be told where the wing is. Left at its default it names an account
// that does not exist, and machines say BootstrapSecretForbidden.
func readsBootstrapData(t *testing.T, c *cluster) {
	g := NewWithT(t)
	var env []string
	for name, value := range examples {
		env = append(env, name+"="+value)
	}
	read := authorizationv1.ResourceAttributes{Resource: "secrets", Verb: "get", Namespace: "tenant-red"}
	for flavour := range flavours(t) {
		args := []string{"generate", "cluster", "red", "--infrastructure", "maas-dpu:" + first, "--target-namespace", "tenant-red", "--flavor", flavour}
		for namespace, other := range map[string]string{machineNamespace: elsewhere, elsewhere: machineNamespace} {
			told := env
			if namespace != machineNamespace {
				told = append([]string{"MAAS_DPU_MACHINE_NAMESPACE=" + namespace}, env...)
			}
			bindings := of(parse(t, clusterctl(t, told, args...)), "RoleBinding")
			g.Expect(bindings).To(HaveLen(1), flavour)
			g.Expect(c.Create(t.Context(), bindings[0].DeepCopy())).To(Succeed())
			g.Eventually(func() (bool, error) { return c.may(t, account(namespace), read) }).WithTimeout(patience).Should(BeTrue(), flavour)
			g.Eventually(func() (bool, error) { return c.may(t, account(other), read) }).WithTimeout(patience).Should(BeFalse(), flavour)
			g.Expect(c.Delete(t.Context(), bindings[0])).To(Succeed())
		}
	}
}

// account is the user name of the machine wing's ServiceAccount in a namespace.
func account(namespace string) string {
	return "system:serviceaccount:" + namespace + ":" + machineAccount
}

// may asks the authorizer.
func (c *cluster) may(t *testing.T, user string, right authorizationv1.ResourceAttributes) (bool, error) {
	t.Helper()
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: user, ResourceAttributes: &right}}
	err := c.Create(t.Context(), review)
	return review.Status.Allowed, err
}
