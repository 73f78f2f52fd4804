// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package apivalidation

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/types"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// as returns a client of a user: people by certificate, ServiceAccounts by impersonation.
func as(t *testing.T, user string) client.Client {
	t.Helper()
	var limited *rest.Config
	if strings.HasPrefix(user, "system:") {
		limited = rest.CopyConfig(config)
		limited.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: groupsOf(user)}
	} else {
		added, err := testEnv.AddUser(envtest.User{Name: user}, nil)
		if err != nil {
			t.Fatal(err)
		}
		limited = added.Config()
	}
	c, err := client.New(limited, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func groupsOf(user string) []string {
	groups := []string{"system:authenticated"}
	if rest, ok := strings.CutPrefix(user, "system:serviceaccount:"); ok {
		namespace, _, _ := strings.Cut(rest, ":")
		groups = append(groups, "system:serviceaccounts", "system:serviceaccounts:"+namespace)
	}
	return groups
}

// landlord is the worst tenant: somebody gave it every verb on everything in its namespace.
const landlord = "landlord"

func bindLandlord(t *testing.T) client.Client {
	t.Helper()
	create(t, admin, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: landlord},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: landlord}},
	})
	return as(t, landlord)
}

func refusedWith(sentence string) types.GomegaMatcher {
	return And(Satisfy(apierrors.IsForbidden), MatchError(ContainSubstring(sentence)))
}

// eventually waits for the policies and for the bindings of the test to be in force.
func eventually(g Gomega, ask func() error) AsyncAssertion {
	return g.Eventually(ask).WithTimeout(pollTimeout).WithPolling(pollEvery)
}

func TestAttachmentsAreTheMachineWings(t *testing.T) {
	g := NewWithT(t)
	red, machine, fabric := bindLandlord(t), as(t, machineWing), as(t, fabricWing)
	attachment := func() *unstructured.Unstructured { return base(t, "dpuattachment", unset("spec.override")) }

	eventually(g, func() error { return red.Create(t.Context(), attachment(), client.DryRunAll) }).
		Should(refusedWith("written by the machine wing alone"))
	stored := attachment()
	create(t, machine, stored)

	patch := func(c client.Client, patch string) error {
		return c.Patch(t.Context(), stored.DeepCopy(), client.RawPatch("application/merge-patch+json", []byte(patch)), client.DryRunAll)
	}
	const owned = `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"x","uid":"x"}]}}`
	const finalized = `{"metadata":{"finalizers":["` + infrav1.DPUAttachmentFinalizer + `"]}}`
	const detached = `{"spec":{"state":"Detached"}}`
	g.Expect(patch(red, owned)).To(refusedWith("written by the machine wing alone"))
	g.Expect(patch(red, detached)).To(refusedWith("delete the Machine"))
	g.Expect(red.Delete(t.Context(), stored.DeepCopy(), client.DryRunAll)).To(refusedWith("deleted by the machine wing alone"))
	g.Expect(patch(fabric, detached)).To(refusedWith("spec.state is the machine wing's to write"))
	g.Expect(patch(fabric, finalized)).To(Succeed())
	g.Expect(patch(machine, detached)).To(Succeed())
	const remembering = `{"metadata":{"annotations":{"` + infrav1.DPUAttachmentMemoryAnnotation + `":"{}"}}}`
	g.Expect(patch(fabric, remembering)).To(Succeed())
	g.Expect(patch(machine, remembering)).To(refusedWith("is the fabric wing's to write"))
	forged := attachment()
	forged.SetName("forged")
	forged.SetAnnotations(map[string]string{infrav1.DPUAttachmentMemoryAnnotation: "{}"})
	g.Expect(machine.Create(t.Context(), forged, client.DryRunAll)).To(refusedWith("is the fabric wing's to write"))
	g.Expect(machine.Delete(t.Context(), stored.DeepCopy(), client.DryRunAll)).To(Succeed())
	namespaces := as(t, "system:serviceaccount:kube-system:namespace-controller")
	g.Expect(namespaces.Delete(t.Context(), stored.DeepCopy(), client.DryRunAll)).To(Succeed())
}

func TestStatusesAreTheWings(t *testing.T) {
	g := NewWithT(t)
	red := bindLandlord(t)
	for sample, writer := range map[string]string{
		"maascluster": machineWing, "maasmachine": machineWing, "maasmachinetemplate": machineWing, "tenantvpc": fabricWing, "dpuattachment": fabricWing,
	} {
		t.Run(sample, func(t *testing.T) {
			g := NewWithT(t)
			object := base(t, sample)
			create(t, admin, object)
			write := func(c client.Client) error {
				patch := client.RawPatch("application/merge-patch+json", []byte(`{"status":{"conditions":[]}}`))
				return c.Status().Patch(t.Context(), object.DeepCopy(), patch, client.DryRunAll)
			}
			eventually(g, func() error { return write(red) }).Should(refusedWith("is written by its controller alone"))
			g.Expect(write(as(t, writer))).To(Succeed())
		})
	}
	remediation := base(t, "maasremediation")
	create(t, admin, remediation)
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"status":{"phase":"Running"}}`))
	eventually(g, func() error { return red.Status().Patch(t.Context(), remediation, patch, client.DryRunAll) }).
		Should(refusedWith("is written by its controller alone"))
}

func TestFinalizersAreTheWings(t *testing.T) {
	red := bindLandlord(t)
	for sample, wing := range map[string]struct{ user, finalizer string }{
		"maascluster":   {machineWing, infrav1.MaasClusterFinalizer},
		"maasmachine":   {machineWing, infrav1.MaasMachineFinalizer},
		"tenantvpc":     {fabricWing, infrav1.TenantVPCFinalizer},
		"dpuattachment": {fabricWing, infrav1.DPUAttachmentFinalizer},
	} {
		t.Run(sample, func(t *testing.T) {
			g := NewWithT(t)
			object := base(t, sample, set("metadata.finalizers", []any{"example.com/theirs", wing.finalizer}))
			create(t, admin, object)
			finalizers := func(c client.Client, left string) error {
				patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":`+left+`}}`))
				return c.Patch(t.Context(), object.DeepCopy(), patch, client.DryRunAll)
			}
			eventually(g, func() error { return finalizers(red, `null`) }).Should(Satisfy(apierrors.IsForbidden))
			g.Expect(finalizers(red, `["example.com/theirs"]`)).To(Satisfy(apierrors.IsForbidden))
			g.Expect(finalizers(as(t, wing.user), `["example.com/theirs"]`)).To(Succeed())
			if sample != "dpuattachment" { // of which a tenant writes nothing at all
				g.Expect(finalizers(red, `["`+wing.finalizer+`"]`)).To(Succeed(), "what others put there is theirs")
				g.Expect(finalizers(red, `["example.com/theirs"]`)).To(MatchError(ContainSubstring("finalizer " + wing.finalizer + " is removed by its controller")))
			}
		})
	}
}

func TestOverridesAreTheOperators(t *testing.T) {
	g := NewWithT(t)
	red := bindLandlord(t)
	bindCluster(t, "olga", "maas-dpu-operator")
	olga := as(t, "olga")
	for sample, action := range map[string]string{"maasmachine": "Abandon", "dpuattachment": "ForceDetach", "dpuserver": "Rebind"} {
		t.Run(sample, func(t *testing.T) {
			g := NewWithT(t)
			object := base(t, sample, unset("spec.override"))
			create(t, admin, object)
			decide := func(c client.Client, by string) error {
				patch := `{"spec":{"override":{"action":"` + action + `","by":"` + by + `","reason":"It burnt."}}}`
				return c.Patch(t.Context(), object.DeepCopy(), client.RawPatch("application/merge-patch+json", []byte(patch)), client.DryRunAll)
			}
			eventually(g, func() error { return decide(olga, "olga") }).Should(Succeed())
			g.Expect(decide(olga, "oskar")).To(refusedWith("spec.override.by must be the user who decides: write olga"))
			g.Expect(decide(as(t, machineWing), machineWing)).To(Satisfy(apierrors.IsForbidden))
			g.Expect(decide(red, landlord)).To(Satisfy(apierrors.IsForbidden))
		})
	}
	server := base(t, "dpuserver", set("metadata.name", "rack-a.rebound"), set("spec.systemID", "rebound"))
	create(t, admin, server)
	removal := client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"override":null}}`))
	g.Expect(olga.Patch(t.Context(), server.DeepCopy(), removal, client.DryRunAll)).To(Succeed(), "a server outlives its Rebind")
	g.Expect(as(t, fabricWing).Patch(t.Context(), server.DeepCopy(), removal, client.DryRunAll)).To(Satisfy(apierrors.IsForbidden))
	machine := base(t, "maasmachine")
	create(t, admin, machine)
	change := func(patch string) error {
		return olga.Patch(t.Context(), machine.DeepCopy(), client.RawPatch("application/merge-patch+json", []byte(patch)), client.DryRunAll)
	}
	g.Expect(change(`{"spec":{"override":null}}`)).To(refusedWith("stays in the object"))
	g.Expect(change(`{"spec":{"override":{"reason":"Another."}}}`)).To(refusedWith("write olga"), "of somebody else's decision")
	g.Expect(change(`{"metadata":{"labels":{"a":"b"}}}`)).To(Succeed(), "leaves the decision alone")
	g.Expect(red.Create(t.Context(), base(t, "maasmachine", set("metadata.name", "m"), unset("spec.claim"), set("spec.override.by", landlord)), client.DryRunAll)).
		To(refusedWith("only by who has the verb override"))
}
