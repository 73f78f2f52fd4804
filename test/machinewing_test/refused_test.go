// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"context"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

func TestNamespaceTakenOffTheList(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 1, ports: true})
	w.until(w.provisioned, "up")
	w.changeIdentity(func(i *infrav1.MaasClusterIdentity) { i.Spec.AllowedNamespaces = nil })
	w.quiet()
	w.expectUp()
	w.remove()
	w.until(w.gone, "a running machine still goes down as it should")
	w.expectDown()
}

func TestNamespaceNotAllowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 1, ports: true, identity: func(i *infrav1.MaasClusterIdentity) { i.Spec.AllowedNamespaces = nil }})
	w.until(w.says(infrav1.ReadyCondition, infrav1.NamespaceNotAllowedReason), "said")
	w.quiet()
	w.remove()
	w.until(w.gone, "down")
}

func TestSecretGoneKeepsTheFinalizer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 1, ports: true})
	w.until(w.provisioned, "up")
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: wing, Name: "maas"}}
	w.Expect(w.objects.Delete(w.Context(), secret)).To(Succeed())
	w.restart(0)
	w.remove()
	w.until(w.says(infrav1.ReadyCondition, infrav1.SecretNotFoundReason), "said")
	w.quiet()
	secret = &corev1.Secret{ObjectMeta: secret.ObjectMeta, Data: map[string][]byte{scope.IdentitySecretKey: []byte(accountKey)}}
	secret.ResourceVersion = ""
	w.Expect(w.objects.Create(w.Context(), secret)).To(Succeed())
	w.until(w.gone, "down")
	w.expectDown()
}

func TestBootstrapSecretForbidden(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 1, ports: true})
	w.process.reconciler.APIReader = interceptor.NewClient(w.objects.(client.WithWatch), interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if _, ok := o.(*corev1.Secret); ok && key.Namespace == tenant {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, key.Name, nil)
			}
			return c.Get(ctx, key, o, opts...)
		},
	})
	w.until(w.says(infrav1.ReadyCondition, infrav1.BootstrapSecretForbiddenReason), "said")
	w.Expect(conditions.GetMessage(w.machine(), infrav1.ReadyCondition)).To(ContainSubstring("kubectl create rolebinding"))
	w.quiet()
	w.Expect(w.owned()).To(BeEmpty())
}

func TestDeletedWithoutClusterOrMachine(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 1, ports: true})
	w.until(w.provisioned, "up")
	for _, o := range []client.Object{&clusterv1.Cluster{}, &infrav1.MaasCluster{}, &clusterv1.Machine{}} {
		o.SetNamespace(tenant)
		o.SetName("red")
		if _, ok := o.(*clusterv1.Machine); ok {
			o.SetName(machineName)
		}
		w.Expect(w.objects.Delete(w.Context(), o)).To(Succeed())
	}
	w.remove()
	w.until(w.gone, "down")
	w.expectDown()
}

func TestCopiedClaimIsInert(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 2, ports: true})
	token, err := maas.NewToken(zeroes{}, "blue", "other")
	w.Expect(err).NotTo(HaveOccurred())
	_, err = w.as(accountKey).Allocate(w.Context(), token, maas.Constraints{}, "")
	w.Expect(err).NotTo(HaveOccurred())
	m := w.machine()
	m.Spec.Claim = &infrav1.MachineClaim{Token: token, IdentityName: "identity", Source: source}
	w.Expect(w.objects.Update(w.Context(), m)).To(Succeed())
	w.until(w.says(infrav1.ReadyCondition, infrav1.TokenMismatchReason), "said")
	w.quiet()
	w.remove()
	w.until(w.gone, "down")
	w.Expect(w.owned()).To(HaveLen(1), "the other machine's server is left alone")
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestPaused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 1, ports: true})
	m := w.machine()
	m.Annotations = map[string]string{clusterv1.PausedAnnotation: ""}
	w.Expect(w.objects.Update(w.Context(), m)).To(Succeed())
	w.until(func() bool { return conditions.IsTrue(w.machine(), clusterv1.PausedCondition) }, "paused")
	w.quiet()
	w.Expect(w.machine().Spec.Claim).To(BeNil())
}
