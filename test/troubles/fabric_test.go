// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package troubles

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/demo"
)

const (
	laterFabric  = "later"
	laterSecret  = "later-kubeconfig"
	laterMaasKey = "later-maas"
	execConfig   = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:6443"}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
users: [{name: u, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: touch, args: ["PROOF"]}}}]
`
)

// newFabric is one more fabric on the lab's DPF, with Secrets of its own.
func newFabric(name string) *infrav1.DPUFabric {
	known := &infrav1.DPUFabric{}
	if err := world.Operator.Get(suite, client.ObjectKey{Name: demo.Fabric}, known); err != nil {
		panic(err)
	}
	fabric := &infrav1.DPUFabric{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: *known.Spec.DeepCopy()}
	fabric.Spec.Backend.OVNVPC.KubeconfigSecretRef.Name = laterSecret
	fabric.Spec.ClaimSources[0].Name, fabric.Spec.ClaimSources[0].SecretRef.Name = name, laterMaasKey
	fabric.Spec.ClaimSources[0].Namespaces = nil
	fabric.Spec.AllowedNamespaces = &infrav1.AllowedNamespaces{Names: []string{"somebody-else"}}
	return fabric
}

func secretValue(t *testing.T, namespace, name, key string) string {
	t.Helper()
	secret := &corev1.Secret{}
	if err := world.Operator.Get(suite, client.ObjectKey{Namespace: namespace, Name: name}, secret); err != nil {
		t.Fatal(err)
	}
	return string(secret.Data[key])
}

// testFabricLate goes through everything the Secrets of a fabric can be; its TenantVPC says so, and is made in the end.
func testFabricLate(t *testing.T) {
	n := newTenant(t, nsFabricLate)
	vpc := n.vpc()
	vpc.Spec.FabricName = laterFabric
	create(t, vpc)
	expect(t, vpc, no(infrav1.FabricReadyCondition, infrav1.FabricNotFoundReason, "there is no DPUFabric later"))
	fabric := newFabric(laterFabric)
	create(t, fabric)
	kube := func(key, value string) func() {
		return func() { setSecret(t, demo.FabricNamespace, laterSecret, key, value) }
	}
	maas := func(key, value string) func() {
		return func() { setSecret(t, demo.FabricNamespace, laterMaasKey, key, value) }
	}
	credentials, sources := infrav1.CredentialsValidCondition, infrav1.ClaimSourcesReadyCondition
	for _, step := range []struct {
		what string
		do   func()
		want says
	}{
		{"kubeconfig missing", func() {}, no(credentials, infrav1.SecretNotFoundReason, laterSecret+", which does not exist", "create it with key kubeconfig")},
		{"kubeconfig empty", kube("", ""), no(credentials, infrav1.SecretInvalidReason, "has no key kubeconfig: write it")},
		{"kubeconfig malformed", kube(kubeconfig, "{[nonsense"), no(credentials, infrav1.SecretInvalidReason, "is no valid kubeconfig: write one as kubectl config view")},
		{"kubeconfig runs a program", kube(kubeconfig, execConfig), no(credentials, infrav1.SecretInvalidReason, "users[].user.exec is not taken", "write a token, or client-certificate-data")},
		{"MAAS key missing", kube(kubeconfig, secretValue(t, demo.FabricNamespace, demo.KubeconfigSecret, kubeconfig)), no(sources, infrav1.SecretNotFoundReason, laterMaasKey+", which does not exist", "create it with key apiKey")},
		{"MAAS key empty", maas("", ""), no(sources, infrav1.SecretInvalidReason, "has no key apiKey: write it")},
		{"MAAS key malformed", maas(apiKey, "not-a-key"), no(sources, infrav1.SecretInvalidReason, "cannot be used", "consumer:token:secret")},
		{"MAAS key unknown", maas(apiKey, wrongKey), no(sources, infrav1.CredentialsRefusedReason, "MAAS refuses the key of claim source later", "renew key apiKey of its Secret")},
	} {
		step.do()
		expect(t, fabric, step.want)
		if ready := no(infrav1.ReadyCondition, step.want.reason); step.want.condition == credentials {
			expect(t, fabric, ready)
			expect(t, vpc, no(infrav1.FabricReadyCondition, step.want.reason, step.want.message...))
		}
		if t.Failed() {
			t.Fatalf("at %s", step.what)
		}
	}
	maas(apiKey, secretValue(t, demo.FabricNamespace, demo.MaasSecret, apiKey))()
	expect(t, fabric, yes(infrav1.ReadyCondition))
	expect(t, vpc, no(infrav1.WithinAllowedNamespacesCondition, infrav1.NamespaceNotAllowedReason, "does not admit namespace fabric-late", "adds it to allowedNamespaces"))
	second := n.vpc()
	second.Name, second.Spec.FabricName = "second", laterFabric
	refused(t, second, `"later" does not allow namespace "fabric-late"`, "spec.allowedNamespaces")

	change(t, fabric, func() { fabric.Spec.AllowedNamespaces.Names = []string{nsFabricLate} })
	expect(t, vpc, yes(infrav1.ReadyCondition))
}
