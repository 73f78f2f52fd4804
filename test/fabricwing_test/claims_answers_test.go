// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricwing_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const (
	authorized      = "True/" + infrav1.AuthorizedReason
	maasUnreachable = "Unknown/" + infrav1.MaasUnreachableReason
	keyRefused      = "Unknown/" + infrav1.CredentialsRefusedReason
)

// lookAgain is long enough for a pass: one whose attachment is touched meanwhile stores nothing, and begins anew.
const lookAgain = 3 * time.Second

// looked is what a condition says once the attachment was looked at again.
func (s *site) looked(attachment *infrav1.DPUAttachment, condition string) func() string {
	return func() string {
		s.touch(attachment)
		return s.reason(attachment, condition)()
	}
}

// TestNoAnswerChangesNothing: whatever MAAS does instead of answering, what is attached stays so, what is not is not begun, and
// both say why. A list that is refused says nothing of the servers in it.
func TestNoAnswerChangesNothing(t *testing.T) {
	s := newSite(t, noAudit)
	d, id := s.rack()
	s.network("red", "mute")
	steady := s.ask("red", "mute", "mute", "m", id, s.allocate(s.red, "red", "m", id))
	s.Eventually(s.proven(steady)).Should(Equal(attachedState))
	s.Eventually(s.looked(steady, infrav1.AuthorizedCondition)).WithPolling(lookAgain).Should(Equal(authorized))
	before := writes(d)
	for i, tc := range []struct {
		name          string
		fault         maassim.Fault
		steady, begun string
	}{
		{"the key is refused", maassim.Fault{Kind: maassim.FaultStatus, Status: http.StatusUnauthorized}, keyRefused, keyRefused},
		{"lists are refused", maassim.Fault{Kind: maassim.FaultStatus, Status: http.StatusForbidden, Operation: "list_machines"}, authorized, maasUnreachable},
		{"everything is refused", maassim.Fault{Kind: maassim.FaultStatus, Status: http.StatusForbidden}, maasUnreachable, maasUnreachable},
		{"nothing is found", maassim.Fault{Kind: maassim.FaultStatus, Status: http.StatusNotFound}, maasUnreachable, maasUnreachable},
		{"it fails", maassim.Fault{Kind: maassim.FaultStatus, Status: http.StatusInternalServerError}, maasUnreachable, maasUnreachable},
		{"it asks to wait", maassim.Fault{Kind: maassim.FaultStatus, Header: http.Header{"Retry-After": {"1"}}}, maasUnreachable, maasUnreachable},
		{"it hangs", maassim.Fault{Kind: maassim.FaultHang}, maasUnreachable, maasUnreachable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := s.at(t)
			other, otherID := s.rack()
			name := fmt.Sprintf("mute-%d", i)
			token := s.allocate(s.red, "red", name, otherID)
			mend := s.region.Inject(tc.fault)
			defer mend()
			begun := s.ask("red", name, "mute", name, otherID, token)
			s.Eventually(s.reason(begun, infrav1.AuthorizedCondition)).Should(Equal(tc.begun))
			s.Eventually(s.looked(steady, infrav1.AuthorizedCondition)).WithPolling(lookAgain).Should(Equal(tc.steady))
			s.Consistently(func() bool {
				return s.proven(steady)() == attachedState && plugged(d) && writes(d) == before && writes(other) == dpfsim.WriteCount{}
			}).Should(BeTrue())
			if tc.fault.Kind != maassim.FaultHang {
				s.drop(begun) // Nothing was written: nothing has to be proven.
			}
			mend()
			if tc.fault.Kind == maassim.FaultHang {
				s.Eventually(s.proven(begun)).Should(Equal(attachedState))
			}
			s.Eventually(s.looked(steady, infrav1.AuthorizedCondition)).WithPolling(lookAgain).Should(Equal(authorized))
		})
	}
}

// TestKeys of the claim source change: a new key of the account goes on where the old one ended, one of another account is not
// asked what became of the claims.
func TestKeys(t *testing.T) {
	s := newSite(t, time.Second)
	d, id := s.rack()
	s.network("red", "keys")
	a := s.ask("red", "keys", "keys", "m", id, s.allocate(s.red, "red", "m", id))
	s.Eventually(s.proven(a)).Should(Equal(attachedState))
	fabric := s.fabric()
	s.Eventually(func() []infrav1.ClaimSourceStatus {
		s.Expect(world.Hub.Get(t.Context(), client.ObjectKeyFromObject(fabric), fabric)).To(Succeed())
		return fabric.Status.ClaimSources
	}).Should(Equal([]infrav1.ClaimSourceStatus{{Name: s.source, Account: redAccount}}))

	s.setKey(blueKey)
	s.Eventually(s.looked(a, infrav1.AuthorizedCondition)).WithPolling(lookAgain).Should(Equal("Unknown/" + infrav1.AccountChangedReason))
	s.Consistently(func() bool { return s.proven(a)() == attachedState && plugged(d) }, 3*time.Second).Should(BeTrue())

	const newKey = "consumerNew:tokenNew:secretNew"
	s.region.RotateKey(redAccount, newKey)
	s.setKey(newKey)
	s.Eventually(s.looked(a, infrav1.AuthorizedCondition)).WithPolling(lookAgain).Should(Equal(authorized))
	s.red = s.client(s.endpoint, newKey)
	s.release(id)
	s.Eventually(s.proven(a)).Should(Equal(detachedState))
	s.Expect(plugged(d)).To(BeFalse())
}

func (s *site) setKey(key string) {
	s.t.Helper()
	secret := &corev1.Secret{}
	s.Expect(world.Hub.Get(s.t.Context(), client.ObjectKey{Namespace: wingNamespace, Name: s.name}, secret)).To(Succeed())
	secret.Data[scope.APIKeyKey] = []byte(key)
	s.Expect(world.Hub.Update(s.t.Context(), secret)).To(Succeed())
}

// TestNamespaceTakenOff a list: what is attached is proven and detached as before and says what it has lost, new ones are refused.
func TestNamespaceTakenOff(t *testing.T) {
	s := newSite(t, noAudit)
	s.network("red", "list")
	refused := "False/" + infrav1.NamespaceNotAllowedReason
	for name, take := range map[string]func(*infrav1.DPUFabricSpec){
		"fabric": func(f *infrav1.DPUFabricSpec) { f.AllowedNamespaces.Names = []string{"blue"} },
		"source": func(f *infrav1.DPUFabricSpec) {
			f.ClaimSources[0].Namespaces = slices.DeleteFunc(f.ClaimSources[0].Namespaces, func(n infrav1.ClaimNamespace) bool { return n.Name == "red" })
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := s.at(t)
			var before infrav1.DPUFabricSpec
			s.change(func(f *infrav1.DPUFabricSpec) { before = *f.DeepCopy() })
			d, id := s.rack()
			a := s.ask("red", "list-"+name, "list", "m", id, s.allocate(s.red, "red", "m", id))
			s.Eventually(s.proven(a)).Should(Equal(attachedState))
			s.change(take)
			s.Eventually(s.reason(a, infrav1.AuthorizedCondition)).Should(Equal(refused))
			proven := a.Status.ProvenAt.Time
			s.Eventually(func() bool {
				s.touch(a)
				return s.proven(a)() == attachedState && a.Status.ProvenAt.After(proven)
			}).WithPolling(time.Second/2).Should(BeTrue(), "the proof is not renewed")
			s.Expect(plugged(d)).To(BeTrue())

			other, otherID := s.rack()
			late := s.ask("red", "late-"+name, "list", "late", otherID, s.allocate(s.red, "red", "late", otherID))
			s.Eventually(s.reason(late, infrav1.AuthorizedCondition)).Should(Equal(refused))
			s.Consistently(func() dpfsim.WriteCount { return writes(other) }).Should(Equal(dpfsim.WriteCount{}))

			s.detach(a)
			s.Eventually(s.proven(a)).Should(Equal(detachedState))
			s.Expect(plugged(d)).To(BeFalse())
			s.change(func(f *infrav1.DPUFabricSpec) { *f = before })
			s.Eventually(s.proven(late)).Should(Equal(attachedState), "once it is on the list again")
		})
	}
}

// TestConsentWithdrawn takes the MaasMachine away that stands behind a claim: before the end of the way on nothing further is
// written; after it the attachment goes as it is asked to.
func TestConsentWithdrawn(t *testing.T) {
	installMachines(NewWithT(t))
	s := newSite(t, noAudit)
	s.network("green", "consent")
	refused := "False/" + infrav1.MachineNotConsentingReason

	d, id := s.rack()
	token := s.allocate(s.red, "green", "stays", id)
	a := s.ask("green", "stays", "consent", "stays", id, token)
	s.Eventually(s.reason(a, infrav1.AuthorizedCondition)).Should(Equal(refused), "nobody consents yet")
	machine := s.consent("stays", token)
	s.Eventually(s.looked(a, infrav1.AuthorizedCondition)).WithPolling(lookAgain).Should(Equal(authorized))
	s.Eventually(s.proven(a)).Should(Equal(attachedState))
	s.Expect(world.Hub.Delete(t.Context(), machine)).To(Succeed())
	s.touch(a)
	s.Consistently(func() bool { return s.proven(a)() == attachedState && plugged(d) }).Should(BeTrue())
	s.detach(a)
	s.Eventually(s.proven(a)).Should(Equal(detachedState))

	d, id = s.rack()
	token = s.allocate(s.red, "green", "goes", id)
	machine = s.consent("goes", token)
	revive := world.DPF.Inject(dpfsim.Fault{Kind: dpfsim.ControllerStalled, Target: string(dpfsim.ControllerVPC)})
	defer revive()
	b := s.ask("green", "goes", "consent", "goes", id, token)
	s.Eventually(func() int { return writes(d).Attach }).Should(Equal(1))
	s.Expect(world.Hub.Delete(t.Context(), machine)).To(Succeed())
	s.Eventually(s.looked(b, infrav1.AuthorizedCondition)).WithPolling(lookAgain).Should(Equal(refused))
	revive()
	s.Consistently(func() bool { return s.proven(b)() == "" && writes(d).Attach == 1 && !plugged(d) }, 2*time.Second).Should(BeTrue())
	s.detach(b)
	s.Eventually(s.proven(b)).Should(Equal(detachedState))
}

// installMachines makes Machines known to the management cluster; nothing of them counts here but their references.
func installMachines(g *WithT) {
	g.Expect(clusterv1.AddToScheme(world.Hub.Scheme())).To(Succeed())
	_, err := envtest.InstallCRDs(world.HubConfig, envtest.CRDInstallOptions{CRDs: []*apiextensionsv1.CustomResourceDefinition{{
		ObjectMeta: metav1.ObjectMeta{Name: "machines." + clusterv1.GroupVersion.Group},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: clusterv1.GroupVersion.Group, Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Kind: "Machine", ListKind: "MachineList", Plural: "machines", Singular: "machine"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: clusterv1.GroupVersion.Version, Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
					Type: "object", XPreserveUnknownFields: ptr.To(true),
				}},
			}},
		},
	}}})
	g.Expect(err).NotTo(HaveOccurred())
}

// consent makes the MaasMachine behind a claim, and the Machine that owns it and refers back to it.
func (s *site) consent(name, token string) *infrav1.MaasMachine {
	s.t.Helper()
	owner := &clusterv1.Machine{
		ObjectMeta: metav1.ObjectMeta{Namespace: "green", Name: name},
		Spec: clusterv1.MachineSpec{ClusterName: "green", InfrastructureRef: clusterv1.ContractVersionedObjectReference{
			APIGroup: infrav1.GroupVersion.Group, Kind: "MaasMachine", Name: name,
		}},
	}
	s.Expect(world.Hub.Create(s.t.Context(), owner)).To(Succeed())
	machine := &infrav1.MaasMachine{
		ObjectMeta: metav1.ObjectMeta{Namespace: "green", Name: name, OwnerReferences: []metav1.OwnerReference{{
			APIVersion: clusterv1.GroupVersion.String(), Kind: "Machine", Name: name, UID: owner.UID, Controller: ptr.To(true),
		}}},
		Spec: infrav1.MaasMachineSpec{
			MachineConstraints: infrav1.MachineConstraints{Image: "custom/capi"},
			Claim:              &infrav1.MachineClaim{Token: token, IdentityName: "lab", Source: s.source},
		},
	}
	s.Expect(world.Hub.Create(s.t.Context(), machine)).To(Succeed())
	return machine
}
