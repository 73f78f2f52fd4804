// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func TestCredentialRequest(t *testing.T) {
	t.Parallel()
	ten := v26_4.newTenant(t, "credentials", 0, nil)
	g := ten.g
	ten.make(kindCredentialRequest, "reader", map[string]any{
		"serviceAccount": map[string]any{"name": "fabric-reader", "namespace": ten.namespace},
		"targetCluster":  map[string]any{"name": ten.options.DPUClusterName, "namespace": ten.options.Namespace},
		"type":           "kubeconfig", "duration": "30m",
		"secret": map[string]any{"name": "reader", "namespace": ten.namespace},
	})
	g.Eventually(ten.true(kindCredentialRequest, "reader", "Ready")).Should(BeTrue())
	written, _, _ := unstructured.NestedString(ten.get(kindCredentialRequest, "reader").Object, "status", "expirationTimestamp")
	expires, err := time.Parse(time.RFC3339, written)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(time.Until(expires)).To(BeNumerically("~", 30*time.Minute, time.Minute))

	secret := &corev1.Secret{}
	key := client.ObjectKey{Namespace: ten.namespace, Name: "reader"}
	g.Expect(ten.Fabric.management.Get(t.Context(), key, secret)).To(Succeed())
	config, err := clientcmd.RESTConfigFromKubeConfig(secret.Data[kubeconfigKey])
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(config.CertData).To(BeEmpty(), "the administrator's certificate must not get out")
	reader, err := client.New(config, client.Options{Scheme: ten.scheme})
	g.Expect(err).NotTo(HaveOccurred())
	review := &authenticationv1.SelfSubjectReview{}
	g.Expect(reader.Create(t.Context(), review)).To(Succeed())
	g.Expect(review.Status.UserInfo.Username).To(Equal("system:serviceaccount:" + ten.namespace + ":fabric-reader"))
	g.Expect(apierrors.IsForbidden(reader.List(t.Context(), &corev1.NodeList{}))).To(BeTrue(), "rights are granted by others")

	old := string(secret.Data[kubeconfigKey])
	g.Expect(ten.Fabric.management.Delete(t.Context(), secret)).To(Succeed())
	g.Expect(annotate(t.Context(), ten.Fabric.management, ten.get(kindCredentialRequest, "reader"), map[string]string{"touched": "yes"})).To(Succeed())
	g.Eventually(func() error { return ten.Fabric.management.Get(t.Context(), key, secret) }).Should(Succeed())
	g.Expect(string(secret.Data[kubeconfigKey])).NotTo(Equal(old))

	ten.remove(kindCredentialRequest, "reader")
	g.Eventually(ten.gone(kindCredentialRequest, "reader")).Should(BeTrue())
	account := &corev1.ServiceAccount{}
	accountKey := client.ObjectKey{Namespace: ten.namespace, Name: "fabric-reader"}
	g.Expect(apierrors.IsNotFound(ten.Fabric.dpuCluster.Get(t.Context(), accountKey, account))).To(BeTrue(), "its tokens end with it")
	g.Expect(apierrors.IsNotFound(ten.Fabric.management.Get(t.Context(), key, secret))).To(BeTrue())
}

func TestCredentialsRotate(t *testing.T) {
	t.Parallel()
	ten := v26_4.newTenant(t, "rotating", 0, nil)
	g := ten.g
	ten.make(kindCredentialRequest, "reader", map[string]any{
		"serviceAccount": map[string]any{"name": "rotating-reader", "namespace": ten.namespace},
		"targetCluster":  map[string]any{"name": ten.options.DPUClusterName, "namespace": ten.options.Namespace},
		"type":           "kubeconfig", "duration": "72h",
		"secret": map[string]any{"name": "reader", "namespace": ten.namespace},
	})
	g.Eventually(ten.true(kindCredentialRequest, "reader", "Ready")).Should(BeTrue())
	written, _, _ := unstructured.NestedString(ten.get(kindCredentialRequest, "reader").Object, "status", "expirationTimestamp")
	expires, err := time.Parse(time.RFC3339, written)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(time.Until(expires)).To(BeNumerically("<=", 24*time.Hour), "a token lives a day at most")
	read := func() []byte {
		secret := &corev1.Secret{}
		g.Expect(ten.Fabric.management.Get(t.Context(), client.ObjectKey{Namespace: ten.namespace, Name: "reader"}, secret)).To(Succeed())
		return secret.Data[kubeconfigKey]
	}
	answers := func(kubeconfig []byte) func() error {
		config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
		g.Expect(err).NotTo(HaveOccurred())
		reader, err := client.New(config, client.Options{Scheme: ten.scheme})
		g.Expect(err).NotTo(HaveOccurred())
		return func() error { return reader.Create(t.Context(), &authenticationv1.SelfSubjectReview{}) }
	}
	first := read()
	g.Expect(answers(first)()).To(Succeed())
	ten.Inject(Fault{Kind: CredentialsRotated, Target: ten.namespace + "/reader"})
	g.Eventually(read).ShouldNot(Equal(first))
	g.Expect(answers(first)()).To(Succeed(), "an earlier token is good until it expires")
	second := read()
	ten.Inject(Fault{Kind: CredentialsRotated, Target: ten.namespace + "/reader", Value: "revoke"})
	g.Eventually(read).ShouldNot(Equal(second))
	g.Eventually(func() bool { return apierrors.IsUnauthorized(answers(second)()) }, "30s").Should(BeTrue())
	g.Eventually(answers(read())).Should(Succeed())
}
