// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package webhooks

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	clusterctlv1 "sigs.k8s.io/cluster-api/cmd/clusterctl/api/v1alpha3"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

const namespace = "red"

// world is what exists besides the object that is judged.
func world(t *testing.T, objects ...client.Object) references {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, clusterv1.AddToScheme, infrav1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	objects = append(objects, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace, Labels: map[string]string{"rack": "a"}}})
	return references{reader: fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()}
}

// verdictCase is one request and what is said to it: refused and warned are parts of sentences, empty for none.
type verdictCase[T client.Object] struct {
	name    string
	world   []client.Object
	old     T
	object  T
	dryRun  bool
	refused string
	warned  string
}

func runCases[T client.Object](t *testing.T, validatorOf func(references) *validator[T], cases []verdictCase[T]) {
	t.Helper()
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			g := NewWithT(t)
			request := admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{DryRun: ptr.To(tt.dryRun)}}
			ctx := admission.NewContextWithRequest(t.Context(), request)
			v := validatorOf(world(t, tt.world...))

			var warnings admission.Warnings
			var err error
			if any(tt.old) == any(*new(T)) {
				warnings, err = v.ValidateCreate(ctx, tt.object)
			} else {
				warnings, err = v.ValidateUpdate(ctx, tt.old, tt.object)
			}
			if tt.refused == "" {
				g.Expect(err).NotTo(HaveOccurred())
			} else {
				g.Expect(apierrors.IsInvalid(err)).To(BeTrue(), "%v", err)
				g.Expect(err).To(MatchError(ContainSubstring(tt.refused)))
			}
			if tt.warned == "" {
				g.Expect(warnings).To(BeEmpty())
			} else {
				g.Expect(strings.Join(warnings, "\n")).To(ContainSubstring(tt.warned))
			}
		})
	}
}

// removal is one deletion and what is said to it.
type removal[T client.Object] struct {
	name    string
	world   []client.Object
	object  T
	refused string
	warned  string
}

func runRemovals[T client.Object](t *testing.T, validatorOf func(references) *validator[T], cases []removal[T]) {
	t.Helper()
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			g := NewWithT(t)
			warnings, err := validatorOf(world(t, tt.world...)).ValidateDelete(t.Context(), tt.object)
			if tt.refused == "" {
				g.Expect(err).NotTo(HaveOccurred())
			} else {
				g.Expect(err).To(MatchError(ContainSubstring(tt.refused)))
			}
			if tt.warned == "" {
				g.Expect(warnings).To(BeEmpty())
			} else {
				g.Expect(strings.Join(warnings, "\n")).To(ContainSubstring(tt.warned))
			}
		})
	}
}

// with returns a changed copy.
func with[T client.Object](object T, change func(T)) T {
	changed, ok := object.DeepCopyObject().(T)
	if !ok {
		panic("a deep copy is of another type")
	}
	change(changed)
	return changed
}

func moving(object client.Object) {
	object.SetAnnotations(map[string]string{clusterctlv1.DeleteForMoveAnnotation: ""})
}

func topologyAsks(object client.Object) {
	object.SetAnnotations(map[string]string{clusterv1.TopologyDryRunAnnotation: ""})
}

func deleting(object client.Object) {
	object.SetDeletionTimestamp(ptr.To(metav1.Now()))
	object.SetFinalizers([]string{"test/keep"})
}

func newIdentity(change func(*infrav1.MaasClusterIdentity)) *infrav1.MaasClusterIdentity {
	identity := &infrav1.MaasClusterIdentity{
		ObjectMeta: metav1.ObjectMeta{Name: "rack-a"},
		Spec: infrav1.MaasClusterIdentitySpec{
			Source: "rack-a", Isolation: infrav1.IsolationRequired,
			AllowedNamespaces: &infrav1.AllowedNamespaces{Names: []string{namespace}},
			Release:           infrav1.IdentityRelease{EraseMinimum: infrav1.ReleaseEraseSecure},
		},
	}
	if change != nil {
		change(identity)
	}
	return identity
}

func newVPC(subnets ...infrav1.VPCSubnet) *infrav1.TenantVPC {
	return &infrav1.TenantVPC{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "red"},
		Spec:       infrav1.TenantVPCSpec{FabricName: "dpf-a", Subnets: subnets},
	}
}

func nodes() infrav1.VPCSubnet { return infrav1.VPCSubnet{Name: "nodes", CIDR: "10.64.0.0/24"} }

func newFabric() *infrav1.DPUFabric {
	return &infrav1.DPUFabric{
		ObjectMeta: metav1.ObjectMeta{Name: "dpf-a"},
		Spec: infrav1.DPUFabricSpec{
			TenantPools:       []string{"10.64.0.0/16", "10.80.0.0/16"},
			AllowedNamespaces: &infrav1.AllowedNamespaces{Names: []string{namespace}},
			ClaimSources:      []infrav1.ClaimSource{{Name: "rack-a"}},
		},
	}
}

func newMaasCluster(change func(*infrav1.MaasCluster)) *infrav1.MaasCluster {
	cluster := &infrav1.MaasCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "red"},
		Spec: infrav1.MaasClusterSpec{
			IdentityRef: infrav1.IdentityReference{Name: "rack-a"}, VPCName: "red",
			ControlPlaneEndpoint: clusterv1.APIEndpoint{Host: "192.0.2.10", Port: 6443},
		},
	}
	if change != nil {
		change(cluster)
	}
	return cluster
}

func newCluster() *clusterv1.Cluster {
	return &clusterv1.Cluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "red"},
		Spec: clusterv1.ClusterSpec{InfrastructureRef: clusterv1.ContractVersionedObjectReference{
			APIGroup: infrav1.GroupVersion.Group, Kind: "MaasCluster", Name: "red",
		}},
	}
}

func newToken(t *testing.T, name string) string {
	t.Helper()
	token, err := maas.NewToken(rand.Reader, namespace, name)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func newAttachment(t *testing.T, change func(*infrav1.DPUAttachment)) *infrav1.DPUAttachment {
	t.Helper()
	attachment := &infrav1.DPUAttachment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "a-1"},
		Spec: infrav1.DPUAttachmentSpec{
			State: infrav1.AttachmentStateAttached, MachineName: "m-1", VPCName: "red",
			Server: infrav1.AttachmentServer{Source: "rack-a", SystemID: "abc123", Token: newToken(t, "m-1")},
			Ports:  []infrav1.MachinePort{{Name: "tenant", Subnet: "nodes"}},
		},
	}
	if change != nil {
		change(attachment)
	}
	return attachment
}

func newCertificate(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestUnansweredFailsClosed: what cannot be looked up is not admitted, and is no verdict on the object.
func TestUnansweredFailsClosed(t *testing.T) {
	g := NewWithT(t)
	broken := references{reader: fake.NewClientBuilder().WithScheme(runtime.NewScheme()).Build()}
	ctx := admission.NewContextWithRequest(t.Context(), admission.Request{})
	_, err := maasClusterValidator(broken).ValidateCreate(ctx, newMaasCluster(nil))
	g.Expect(apierrors.IsInternalError(err)).To(BeTrue(), "%v", err)
	_, err = maasClusterIdentityValidator(broken).ValidateDelete(ctx, newIdentity(nil))
	g.Expect(apierrors.IsInternalError(err)).To(BeTrue(), "%v", err)
	var status apierrors.APIStatus
	g.Expect(errors.As(err, &status)).To(BeTrue())
}
