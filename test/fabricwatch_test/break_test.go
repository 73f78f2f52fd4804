// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricwatch_test

import (
	"context"
	"runtime"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
)

// administrator is a client of everything there is in a cluster.
func (s *server) administrator(t *testing.T) client.Client {
	t.Helper()
	c, err := client.New(s.config, client.Options{Scheme: clientgoscheme.Scheme})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return c
}

// grant lets a user do something with everything in a cluster, and returns what takes that back.
func (s *server) grant(t *testing.T, user string, rules ...rbacv1.PolicyRule) (revoke func()) {
	t.Helper()
	admin := s.administrator(t)
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: user}, Rules: rules}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: user}, Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: user}},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: user},
	}
	create(t, admin, role)
	create(t, admin, binding)
	return func() {
		t.Helper()
		NewWithT(t).Expect(admin.Delete(t.Context(), binding)).To(Succeed())
	}
}

// user makes a kubeconfig of somebody with no rights but those granted.
func (s *server) user(t *testing.T, name string) []byte {
	t.Helper()
	user, err := s.plane.AddUser(envtest.User{Name: name}, nil)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	kubeconfig, err := user.KubeConfig()
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return s.line.through(kubeconfig)
}

func reading(groups, resources []string, verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: groups, Resources: resources, Verbs: verbs}
}

// setDPUClusterCredentials does what DPF does when it renews them.
func setDPUClusterCredentials(t *testing.T, kubeconfig []byte) (before []byte) {
	t.Helper()
	g, ctx, secret := NewWithT(t), context.WithoutCancel(t.Context()), &corev1.Secret{ObjectMeta: inDPF(adminSecret)}
	g.Expect(world.dpf.client.Get(ctx, client.ObjectKeyFromObject(secret), secret)).To(Succeed())
	before = secret.Data[provisioningv1alpha1.AdminKubeconfigKey]
	secret.Data = map[string][]byte{provisioningv1alpha1.AdminKubeconfigKey: kubeconfig}
	g.Expect(world.dpf.client.Update(ctx, secret)).To(Succeed())
	return before
}

// away breaks all that goes on with an API server, and lets nobody in meanwhile.
func (s *server) away(t *testing.T, meanwhile func()) {
	t.Helper()
	g := NewWithT(t)
	g.Expect(s.line.cut()).To(Succeed())
	defer func() { g.Expect(s.line.mend()).To(Succeed()) }()
	meanwhile()
}

// TestRotationAndRestart replaces the credentials of the DPU cluster, takes the rights of the old ones, and breaks every
// connection there is. Nothing is missed, and it is said while nothing was seen.
func TestRotationAndRestart(t *testing.T) {
	a := newMachine(t, "red", "r", 3)
	rules := []rbacv1.PolicyRule{
		reading([]string{"", "svc.dpu.nvidia.com"}, []string{"nodes", "serviceinterfaces"}, "get", "list", "watch"),
	}
	revoke := world.dpu.grant(t, "first", rules...)
	world.dpu.grant(t, "second", rules...)
	original := setDPUClusterCredentials(t, world.dpu.user(t, "first"))
	t.Cleanup(func() { setDPUClusterCredentials(t, original) })
	w := newWatcher(t)

	setDPUClusterCredentials(t, world.dpu.user(t, "second"))
	revoke()
	world.dpu.away(t, func() {
		w.Eventually(func() bool { return w.watches.Covers(fabricName, theDPUCluster) }).Should(BeFalse())
		w.Expect(w.watches.Covers(fabricName)).To(BeTrue(), "DPF is still watched")
		w.Eventually(func() error { return w.reported(fabricName, "Node")().Err }).Should(HaveOccurred())
		patch(t, world.dpu.client, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: a.dpu.Name}}, func(n *corev1.Node) { label("x", "meanwhile")(n) })
	})
	w.Eventually(w.names).Should(ContainElement(a.attachment()), "what changed before the watch was back is seen when it is")
	w.Eventually(func() bool { return w.watches.Covers(fabricName, theDPUCluster) }).Should(BeTrue())
	w.Eventually(func() bool { return w.reported(fabricName, "Node")().Up }).Should(BeTrue())

	w.settle()
	world.dpf.away(t, func() {
		w.Eventually(func() bool { return w.watches.Covers(fabricName) }).Should(BeFalse())
	})
	w.Eventually(func() bool { return w.watches.CoversAll(fabricName) }).Should(BeTrue())
	w.settle()
	patch(t, world.dpf.client, &provisioningv1alpha1.DPUDevice{ObjectMeta: inDPF(a.dpu.Device)}, func(d *provisioningv1alpha1.DPUDevice) { label("x", "after")(d) })
	w.Eventually(w.names).WithTimeout(noticed).Should(ContainElement(a.attachment()))
}

// TestForbiddenWatch gives a second fabric an account that may read VPCs and not watch them. That is said, counts as not watched,
// and leaves the other fabric alone.
func TestForbiddenWatch(t *testing.T) {
	dpfGroups := []string{"provisioning.dpu.nvidia.com", "svc.dpu.nvidia.com", "vpc.dpu.nvidia.com"}
	world.dpf.grant(t, "narrow",
		reading(dpfGroups, []string{"*"}, "get", "list"), reading([]string{""}, []string{"secrets"}, "get"),
		reading(dpfGroups[:2], []string{"*"}, "watch"), reading(dpfGroups[2:], []string{"dpuvirtualnetworks"}, "watch"))
	w := newWatcher(t)
	g := NewWithT(t)
	g.Expect(newFabric(t.Context(), "narrow", "maas-narrow", world.dpf.user(t, "narrow"))).To(Succeed())
	remove := func() {
		ctx := context.WithoutCancel(t.Context())
		_ = world.hub.client.Delete(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: wingNamespace, Name: "narrow"}})
		_ = world.hub.client.Delete(ctx, &infrav1.DPUFabric{ObjectMeta: metav1.ObjectMeta{Name: "narrow"}})
	}
	t.Cleanup(remove)
	w.Eventually(func() bool { return apierrors.IsForbidden(w.reported("narrow", "DPUVPC")().Err) }).Should(BeTrue())
	w.Eventually(func() bool { return w.reported("narrow", "DPU")().Up }).Should(BeTrue(), "what may be watched is")
	w.Eventually(func() bool { return w.watches.Covers(fabricName) }).Should(BeTrue())
	w.Consistently(func() bool { return w.watches.Covers("narrow") }).Should(BeFalse())
	w.Eventually(func() map[string]error { return w.watches.Unwatched("narrow") }).Should(And(
		HaveKeyWithValue("DPUVPC of DPF", Satisfy(apierrors.IsForbidden)), Not(HaveKey("DPU of DPF")), Not(HaveKey("DPUVirtualNetwork of DPF"))))
	w.Expect(w.watches.Unwatched(fabricName)).To(BeEmpty())

	remove()
	w.Eventually(func() scope.WatchState { return w.reported("narrow", "DPU")() }).Should(HaveField("Gone", BeTrue()), "the watches end with their fabric")
	w.Eventually(func() bool { return w.watches.Covers(fabricName) }).Should(BeTrue())
}

// TestNothingIsLeft stops the watches, one of them on an API server that is away.
func TestNothingIsLeft(t *testing.T) {
	w := newWatcher(t)
	g := NewWithT(t)
	g.Expect(goroutines()).NotTo(BeZero())
	world.dpu.away(t, func() {
		w.Eventually(func() bool { return w.watches.Covers(fabricName, theDPUCluster) }).Should(BeFalse())
		w.stop()
		g.Expect(goroutines()).To(BeZero(), "all have ended when the manager has")
	})
}

// goroutines counts those that the watches began.
func goroutines() (count int) {
	buffer := make([]byte, 8<<20)
	for _, stack := range strings.Split(string(buffer[:runtime.Stack(buffer, true)]), "\n\n") {
		if strings.Contains(stack, "internal/scope.(*FabricWatches)") || strings.Contains(stack, "internal/scope.(*fabricWatch)") ||
			strings.Contains(stack, "internal/scope.(*watchTarget)") || strings.Contains(stack, "internal/scope.streams") {
			count++
		}
	}
	return count
}
