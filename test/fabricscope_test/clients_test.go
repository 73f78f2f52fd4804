// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricscope_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const (
	dpfsimClass = dpfsim.IsolationClassName
	maasKey     = "consumerFabric:tokenFabric:secretFabric"
	otherKey    = "consumerOther:tokenOther:secretOther"
)

var dpuCluster = types.NamespacedName{Namespace: dpfNamespace, Name: "dpu-cluster"}

// startMAAS serves a region with two accounts.
func startMAAS(t *testing.T) string {
	t.Helper()
	region := maassim.New(maassim.Options{})
	region.AddUser("fabric-red", maasKey, false)
	region.AddUser("fabric-other", otherKey, false)
	base, wait, err := region.Serve(t.Context(), nil)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() {
		if err := wait(); err != nil {
			t.Errorf("region: %v", err)
		}
	})
	return base + "/MAAS"
}

func secret(t *testing.T, name, key string, value []byte) *corev1.Secret {
	t.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: wingNamespace, Name: name}, Data: map[string][]byte{key: value}}
	NewWithT(t).Expect(world.Hub.Create(t.Context(), s)).To(Succeed())
	t.Cleanup(func() { _ = world.Hub.Delete(afterwards(t), s) })
	return s
}

// newFabric makes a DPUFabric with its Secrets, all named after the test.
func newFabric(t *testing.T, name string) *infrav1.DPUFabric {
	t.Helper()
	secret(t, name+"-dpf", scope.KubeconfigKey, world.AccountKubeconfig)
	secret(t, name+"-maas", scope.APIKeyKey, []byte(maasKey))
	fabric := &infrav1.DPUFabric{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: infrav1.DPUFabricSpec{
			Backend: infrav1.FabricBackend{Type: infrav1.FabricBackendOVNVPC, OVNVPC: &infrav1.OVNVPCBackend{
				KubeconfigSecretRef: infrav1.LocalSecretReference{Name: name + "-dpf"}, IsolationClassName: dpfsimClass,
			}},
			ClaimSources: []infrav1.ClaimSource{{
				Name: name + "-maas", Endpoint: startMAAS(t), SecretRef: infrav1.LocalSecretReference{Name: name + "-maas"},
			}},
			AllowedNamespaces: &infrav1.AllowedNamespaces{Names: []string{"red"}},
			TenantPools:       []string{"10.64.0.0/16"},
		},
	}
	NewWithT(t).Expect(world.Hub.Create(t.Context(), fabric)).To(Succeed())
	t.Cleanup(func() {
		_ = world.Hub.Patch(afterwards(t), fabric, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`)))
		_ = world.Hub.Delete(afterwards(t), fabric)
	})
	return fabric
}

func reason(err error) string {
	if unusable, ok := scope.AsUnusable(err); ok {
		return unusable.Reason
	}
	return ""
}

func TestFabricOpensClients(t *testing.T) {
	g := expect(t)
	var dpfCalls, dpuCalls atomic.Int32
	fabrics := scope.NewFabrics(scope.FabricsOptions{
		Client: world.Hub, APIReader: world.Hub, Namespace: wingNamespace, Installation: installation,
		Observe: func(call scope.FabricCall) {
			if call.Target == scope.TargetDPUCluster {
				dpuCalls.Add(1)
			} else {
				dpfCalls.Add(1)
			}
		},
	})
	_, err := fabrics.Get(t.Context(), "none")
	g.Expect(reason(err)).To(Equal(infrav1.FabricNotFoundReason))
	_, err = fabrics.ForSource(t.Context(), "none")
	g.Expect(reason(err)).To(Equal(infrav1.SourceUnknownReason))

	object := newFabric(t, "clients")
	fabric, err := fabrics.ForSource(t.Context(), "clients-maas")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(fabric.Object.Name).To(Equal(object.Name))
	g.Expect(fabric.DPF.List(t.Context(), &provisioningv1alpha1.DPUList{}, client.InNamespace(fabric.Namespace()))).To(Succeed())
	g.Expect(dpfCalls.Load()).To(BeNumerically(">", 0))

	var reader client.Reader
	g.Eventually(func() (err error) {
		reader, err = fabric.DPUCluster(t.Context(), dpuCluster)
		return err
	}).Should(Succeed(), "DPF's credential request")
	g.Expect(reader.List(t.Context(), &corev1.NodeList{})).To(Succeed())
	g.Expect(reader.List(t.Context(), &svcv1alpha1.ServiceInterfaceList{})).To(Succeed())
	g.Expect(reader.List(t.Context(), &corev1.SecretList{})).To(Satisfy(apierrors.IsForbidden))
	_, writes := reader.(client.Writer)
	g.Expect(writes).To(BeFalse(), "the reader of a DPU cluster can be made to write")
	g.Expect(dpuCalls.Load()).To(BeNumerically(">", 0))

	verifier, err := fabric.Verifier(t.Context(), "clients-maas")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(verifier.Account).To(Equal("fabric-red"))
	_, err = fabric.Verifier(t.Context(), "other")
	g.Expect(reason(err)).To(Equal(infrav1.SourceUnknownReason))
}

// TestClaimSourceKeepsItsAccount swaps the key for one of another account, to which MAAS would show every claim as lost.
func TestClaimSourceKeepsItsAccount(t *testing.T) {
	g := expect(t)
	fabrics := scope.NewFabrics(scope.FabricsOptions{Client: world.Hub, APIReader: world.Hub, Namespace: wingNamespace, Installation: installation})
	const source = "pinned-maas"
	object := newFabric(t, "pinned")
	account := func() (string, error) {
		fabric, err := fabrics.Get(t.Context(), object.Name)
		g.Expect(err).NotTo(HaveOccurred())
		verifier, err := fabric.Verifier(t.Context(), source)
		return verifier.Account, err
	}
	key := &corev1.Secret{}
	g.Expect(world.Hub.Get(t.Context(), client.ObjectKey{Namespace: wingNamespace, Name: source}, key)).To(Succeed())
	useKey := func(value string) {
		key.Data[scope.APIKeyKey] = []byte(value)
		g.Expect(world.Hub.Update(t.Context(), key)).To(Succeed())
	}

	useKey(otherKey)
	g.Expect(account()).To(Equal("fabric-other"), "nothing is pinned before the first account is known")
	useKey(maasKey)
	g.Expect(account()).To(Equal("fabric-red"))
	object.Status.ClaimSources = []infrav1.ClaimSourceStatus{{Name: source, Account: "fabric-red"}}
	g.Expect(world.Hub.Status().Update(t.Context(), object)).To(Succeed())
	g.Expect(account()).To(Equal("fabric-red"))

	useKey(otherKey)
	_, err := account()
	g.Expect(reason(err)).To(Equal(infrav1.AccountChangedReason), "%v", err)
	g.Expect(err).To(MatchError(And(ContainSubstring("fabric-other"), ContainSubstring("put a key of fabric-red"))), "says what to do")
	g.Expect(err).NotTo(MatchError(ContainSubstring("secretOther")))
	useKey(maasKey)
	g.Expect(account()).To(Equal("fabric-red"))
}

// TestDPUClusterCredentialsRotate breaks the Secret DPF writes: only who reads it anew notices, and what DPF gives obeys the
// same rule as what the operator gives.
func TestDPUClusterCredentialsRotate(t *testing.T) {
	g := expect(t)
	fabrics := scope.NewFabrics(scope.FabricsOptions{Client: world.Hub, APIReader: world.Hub, Namespace: wingNamespace, Installation: "rotate"})
	newFabric(t, "rotate")
	fabric, err := fabrics.Get(t.Context(), "rotate")
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(func() error { _, err := fabric.DPUCluster(t.Context(), dpuCluster); return err }).Should(Succeed())

	name := scope.CredentialRequestName("rotate", dpuCluster)
	written := &corev1.Secret{}
	key := client.ObjectKey{Namespace: scope.CredentialNamespace, Name: name}
	// DPF's controllers may be writing to what is theirs.
	change := func(object client.Object, key client.ObjectKey, edit func()) {
		g.Eventually(func() error {
			if err := world.DPFAdmin.Get(t.Context(), key, object); err != nil {
				return err
			}
			edit()
			return world.DPFAdmin.Update(t.Context(), object)
		}).Should(Succeed())
	}
	g.Expect(world.DPFAdmin.Get(t.Context(), key, written)).To(Succeed())
	good := written.Data[scope.CredentialSecretKey]
	change(written, key, func() {
		written.Data[scope.CredentialSecretKey] = []byte(strings.Replace(string(good), "token:", "tokenFile:", 1))
	})
	_, err = fabric.DPUCluster(t.Context(), dpuCluster)
	var refused *scope.KubeconfigError
	g.Expect(errors.As(err, &refused)).To(BeTrue(), "%v", err)
	g.Expect(reason(err)).To(Equal(infrav1.SecretInvalidReason))

	change(written, key, func() { written.Data[scope.CredentialSecretKey] = good })
	_, err = fabric.DPUCluster(t.Context(), dpuCluster)
	g.Expect(err).NotTo(HaveOccurred())

	// Somebody else's request of the same name is not used.
	request := &svcv1alpha1.DPUServiceCredentialRequest{}
	change(request, client.ObjectKey{Namespace: dpfNamespace, Name: name}, func() { request.Annotations = nil })
	g.Expect(world.DPFAdmin.Delete(t.Context(), written)).To(Succeed())
	_, err = fabric.DPUCluster(t.Context(), dpuCluster)
	g.Expect(err).To(MatchError(ContainSubstring("somebody else")))
}

func TestAdminKubeconfigIsAnExplicitChoice(t *testing.T) {
	g := expect(t)
	fabrics := scope.NewFabrics(scope.FabricsOptions{Client: world.Hub, APIReader: world.Hub, Namespace: wingNamespace, Installation: installation})
	object := newFabric(t, "admin")
	object.Spec.Backend.OVNVPC.DPUClusterAccess = infrav1.DPUClusterAccessAdminKubeconfig
	g.Expect(world.Hub.Update(t.Context(), object)).To(Succeed())
	fabric, err := fabrics.Get(t.Context(), "admin")
	g.Expect(err).NotTo(HaveOccurred())
	_, err = fabric.DPUCluster(t.Context(), dpuCluster)
	g.Expect(reason(err)).To(Equal(infrav1.CredentialsRefusedReason))
	g.Expect(err).To(MatchError(ContainSubstring("config/dpf/admin-kubeconfig")), "says what to apply")

	g.Expect(world.ApplyToDPF(t.Context(), "config/dpf/admin-kubeconfig")).To(Succeed())
	t.Cleanup(func() {
		binding := &metav1.PartialObjectMetadata{}
		binding.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("RoleBinding"))
		binding.APIVersion, binding.Namespace, binding.Name = "rbac.authorization.k8s.io/v1", dpfNamespace, "maas-dpu-fabric-admin-kubeconfig"
		_ = world.DPFAdmin.Delete(afterwards(t), binding)
	})
	var reader client.Reader
	g.Eventually(func() (err error) { reader, err = fabric.DPUCluster(t.Context(), dpuCluster); return err }).Should(Succeed())
	g.Expect(reader.List(t.Context(), &corev1.NodeList{})).To(Succeed())
}

func TestFabricSaysWhatIsWrong(t *testing.T) {
	g := expect(t)
	clock := clocktesting.NewFakePassiveClock(time.Now())
	var whoAmI atomic.Int32
	fabrics := scope.NewFabrics(scope.FabricsOptions{
		Client: world.Hub, APIReader: world.Hub, Namespace: wingNamespace, Installation: installation, Clock: clock,
		ObserveMaas: func(maas.Observation) { whoAmI.Add(1) },
	})
	object := newFabric(t, "wrong")
	dpf, key := &corev1.Secret{}, &corev1.Secret{}
	g.Expect(world.Hub.Get(t.Context(), client.ObjectKey{Namespace: wingNamespace, Name: "wrong-dpf"}, dpf)).To(Succeed())
	g.Expect(world.Hub.Get(t.Context(), client.ObjectKey{Namespace: wingNamespace, Name: "wrong-maas"}, key)).To(Succeed())
	fabric, err := fabrics.Get(t.Context(), object.Name)
	g.Expect(err).NotTo(HaveOccurred())
	for range 3 {
		_, err = fabric.Verifier(t.Context(), "wrong-maas")
		g.Expect(err).NotTo(HaveOccurred())
	}
	g.Expect(whoAmI.Load()).To(Equal(int32(1)), "whose key it is, is asked once per Secret")

	for _, c := range []struct {
		name, value, want string
	}{
		{"empty", "", infrav1.SecretInvalidReason},
		{"malformed", "secret-but-no-key", infrav1.SecretInvalidReason},
		{"refused", "consumerX:tokenX:secretX", infrav1.CredentialsRefusedReason},
	} {
		key.Data[scope.APIKeyKey] = []byte(c.value)
		g.Expect(world.Hub.Update(t.Context(), key)).To(Succeed())
		_, err = fabric.Verifier(t.Context(), "wrong-maas")
		g.Expect(reason(err)).To(Equal(c.want), c.name)
		if c.value != "" {
			g.Expect(err.Error()).NotTo(ContainSubstring(c.value), c.name)
		}
	}
	asked := whoAmI.Load()
	_, err = fabric.Verifier(t.Context(), "wrong-maas")
	g.Expect(reason(err)).To(Equal(infrav1.CredentialsRefusedReason))
	g.Expect(whoAmI.Load()).To(Equal(asked), "a failure is repeated for a while without asking")
	clock.SetTime(clock.Now().Add(10 * time.Second))
	_, _ = fabric.Verifier(t.Context(), "wrong-maas")
	g.Expect(whoAmI.Load()).To(Equal(asked + 1))

	dpf.Data[scope.KubeconfigKey] = []byte("nonsense")
	g.Expect(world.Hub.Update(t.Context(), dpf)).To(Succeed())
	_, err = fabrics.Get(t.Context(), object.Name)
	g.Expect(reason(err)).To(Equal(infrav1.SecretInvalidReason))
	g.Expect(world.Hub.Delete(t.Context(), dpf)).To(Succeed())
	_, err = fabrics.Get(t.Context(), object.Name)
	g.Expect(reason(err)).To(Equal(infrav1.SecretNotFoundReason))
	g.Expect(err).To(MatchError(ContainSubstring(wingNamespace + "/wrong-dpf")))
}
