// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/proc"
)

const labTimeout = 3 * time.Minute

// TestLab starts everything once: the sub-tests share it because a start costs seconds on two cores.
func TestLab(t *testing.T) {
	g := NewWithT(t)
	ctx, cancel := context.WithTimeout(t.Context(), labTimeout)
	defer cancel()
	dir := t.TempDir()
	started := time.Now()
	l, err := lab.Start(ctx, lab.Options{Dir: dir, Log: testr.New(t), WithCAPI: true, WithDPF: true})
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = l.Stop(context.WithoutCancel(ctx)) })
	t.Logf("ready after %s", time.Since(started).Round(100*time.Millisecond))
	var total uint64
	for _, p := range l.Processes() {
		total += p.RSS()
		t.Logf("%-40s pid %d, %d MB", p.Name(), p.PID(), p.RSS()>>20)
	}
	t.Logf("together %d MB", total>>20)

	t.Run("clusters are separate", func(t *testing.T) { testIsolation(ctx, t, l) })
	t.Run("webhooks refuse an invalid Cluster", func(t *testing.T) { testWebhooks(ctx, t, l) })
	t.Run("RBAC limits service accounts and users", func(t *testing.T) { testAccess(ctx, t, l) })
	t.Run("a provider runs as its manifests say", func(t *testing.T) { testProvider(ctx, t, l) })
	t.Run("a second lab in the same directory is refused", func(t *testing.T) {
		g := NewWithT(t)
		_, err := lab.Start(ctx, lab.Options{Dir: dir})
		g.Expect(err).To(MatchError(ContainSubstring("in use")))
	})
	t.Run("stop leaves nothing", func(t *testing.T) {
		g := NewWithT(t)
		processes := l.Processes()
		g.Expect(len(processes)).To(BeNumerically(">=", 8))
		stopping := time.Now()
		g.Expect(l.Stop(ctx)).To(Succeed())
		t.Logf("stopped after %s", time.Since(stopping).Round(100*time.Millisecond))
		g.Expect(l.Processes()).To(BeEmpty())
		for _, p := range processes {
			g.Expect(fmt.Sprintf("/proc/%d", p.PID())).NotTo(BeAnExistingFile(), "%s is still there", p.Name())
		}
		records, err := os.ReadDir(dir + "/pids")
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(records).To(BeEmpty())
	})
}

func TestTheEndOfTheContextStopsTheLab(t *testing.T) {
	g := NewWithT(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	l, err := lab.Start(ctx, lab.Options{Dir: t.TempDir()})
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { g.Expect(l.Stop(context.WithoutCancel(ctx))).To(Succeed()) })
	processes := l.Processes()
	g.Expect(processes).To(HaveLen(3))
	interrupt()
	g.Eventually(l.Processes, 30*time.Second, 50*time.Millisecond).Should(BeEmpty())
	_, err = l.Supervisor().Start(context.WithoutCancel(ctx), proc.Spec{Name: "late", Path: "/bin/true"})
	g.Expect(err).To(MatchError(proc.ErrStopping))
}

func TestStartInterruptedLeavesNothing(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := lab.Start(ctx, lab.Options{Dir: dir})
	g.Expect(err).To(HaveOccurred())
	g.Expect(proc.Living(dir)).To(BeEmpty())
}

func testIsolation(ctx context.Context, t *testing.T, l *lab.Lab) {
	g := NewWithT(t)
	here := kubernetes.NewForConfigOrDie(l.DPFManagement())
	_, err := here.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "mark"}}, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	for _, other := range []*rest.Config{l.Management(), l.DPUCluster()} {
		_, err := kubernetes.NewForConfigOrDie(other).CoreV1().ConfigMaps("default").Get(ctx, "mark", metav1.GetOptions{})
		g.Expect(apierrors.IsNotFound(err)).To(BeTrue(), "%v", err)
	}
}

func testWebhooks(ctx context.Context, t *testing.T, l *lab.Lab) {
	g := NewWithT(t)
	scheme := runtime.NewScheme()
	g.Expect(clusterv1.AddToScheme(scheme)).To(Succeed())
	c, err := client.New(l.Management(), client.Options{Scheme: scheme})
	g.Expect(err).NotTo(HaveOccurred())
	deployment := &clusterv1.MachineDeployment{
		ObjectMeta: metav1.ObjectMeta{Name: "mismatch", Namespace: "default"},
		Spec: clusterv1.MachineDeploymentSpec{
			ClusterName: "none",
			Replicas:    ptr.To[int32](0),
			Selector:    metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}},
			Template: clusterv1.MachineTemplateSpec{
				ObjectMeta: clusterv1.ObjectMeta{Labels: map[string]string{"a": "c"}},
				Spec: clusterv1.MachineSpec{
					ClusterName:       "none",
					Bootstrap:         clusterv1.Bootstrap{DataSecretName: ptr.To("x")},
					InfrastructureRef: clusterv1.ContractVersionedObjectReference{APIGroup: "infrastructure.cluster.x-k8s.io", Kind: "MaasMachineTemplate", Name: "x"},
				},
			},
		},
	}
	err = c.Create(ctx, deployment)
	g.Expect(apierrors.IsInvalid(err)).To(BeTrue(), "%v", err)
	g.Expect(err).To(MatchError(ContainSubstring("selector")))
}

func testAccess(ctx context.Context, t *testing.T, l *lab.Lab) {
	g := NewWithT(t)
	admin := kubernetes.NewForConfigOrDie(l.DPUCluster())
	path, err := l.ServiceAccountKubeconfig(ctx, l.DPUCluster(), "wings", "fabric")
	g.Expect(err).NotTo(HaveOccurred())
	limited := clientsOf(g, path)
	_, err = limited.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	g.Expect(apierrors.IsForbidden(err)).To(BeTrue(), "%v", err)

	_, err = admin.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "nodes"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"list"}}},
	}, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	_, err = admin.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "nodes"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "nodes"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "wings", Name: "fabric"}},
	}, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(func() error {
		_, err := limited.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		return err
	}, 10*time.Second, 50*time.Millisecond).Should(Succeed())

	path, err = l.UserKubeconfig(ctx, "red", "tenants")
	g.Expect(err).NotTo(HaveOccurred())
	review, err := clientsOf(g, path).AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "get", Resource: "secrets"}},
	}, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(review.Status.Allowed).To(BeFalse())
}

// testProvider installs Cluster API's bootstrap manager as if it were ours: a manager whose webhook is known to refuse.
func testProvider(ctx context.Context, t *testing.T, l *lab.Lab) {
	g := NewWithT(t)
	here, err := filepath.Abs("testdata/provider")
	g.Expect(err).NotTo(HaveOccurred())
	options := lab.ProviderOptions{Kustomizations: []string{here}, Binary: filepath.Join(l.Bin(), "capi-kubeadm-bootstrap")}
	g.Expect(l.InstallProvider(ctx, options)).To(Succeed())
	first := processNamed(l, "fake-wing")
	g.Expect(first).NotTo(BeNil())

	c, err := client.New(l.Management(), client.Options{})
	g.Expect(err).NotTo(HaveOccurred())
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	g.Expect(c.Get(ctx, client.ObjectKey{Name: "fake-validation"}, configuration)).To(Succeed())
	target := configuration.Webhooks[0].ClientConfig
	g.Expect(target.Service).To(BeNil())
	g.Expect(*target.URL).To(MatchRegexp(`^https://127\.0\.0\.1:\d+/validate-bootstrap-cluster-x-k8s-io-v1beta2-kubeadmconfig$`))
	widget := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "fake.example/v1", "kind": "Widget"}}
	widget.SetNamespace("fake-system")
	widget.SetName("widget")
	err = c.Create(ctx, widget)
	// The manager decodes only its own kind: that answer can only come from its webhook, over TLS with the lab's CA.
	g.Expect(err).To(MatchError(ContainSubstring("fake.validation.example")))

	arguments, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", first.PID()))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(arguments)).To(ContainSubstring("--sync-period=7m"))
	g.Expect(string(arguments)).NotTo(ContainSubstring("--webhook-cert-dir=/tmp/k8s"))
	environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", first.PID()))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(environment)).To(And(ContainSubstring("POD_NAMESPACE=fake-system"), ContainSubstring("PLAIN=value")))
	response, err := http.Get(l.MetricsURL("fake-wing"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(response.Body.Close()).To(Succeed())
	g.Expect(response.StatusCode).To(Equal(http.StatusOK))

	g.Expect(l.InstallProvider(ctx, options)).To(Succeed(), "installing again replaces the process")
	second := processNamed(l, "fake-wing")
	g.Expect(second.PID()).NotTo(Equal(first.PID()))
	g.Expect(first.Running()).To(BeFalse())
}

func processNamed(l *lab.Lab, name string) *proc.Process {
	for _, p := range l.Processes() {
		if p.Name() == name {
			return p
		}
	}
	return nil
}

func clientsOf(g Gomega, kubeconfig string) *kubernetes.Clientset {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	g.Expect(err).NotTo(HaveOccurred())
	clients, err := kubernetes.NewForConfig(config)
	g.Expect(err).NotTo(HaveOccurred())
	return clients
}
