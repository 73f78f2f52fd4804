// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricscope_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

func escaped(key string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
}

// policyDPU is a DPU that DPF's simulator does not act on, with somebody else's labels and annotations.
func policyDPU(t *testing.T, g *WithT, name string) (*provisioningv1alpha1.DPU, *provisioningv1alpha1.DPUDevice) {
	t.Helper()
	meta := metav1.ObjectMeta{
		Namespace: dpfNamespace, Name: name, Labels: map[string]string{"site.example/rack": "7"},
		Annotations: map[string]string{"site.example/note": "x"}, Finalizers: []string{"site.example/keep"},
	}
	labels := map[string]string{"site.example/role": "storage"}
	dpu := &provisioningv1alpha1.DPU{ObjectMeta: *meta.DeepCopy(), Spec: provisioningv1alpha1.DPUSpec{
		DPUNodeName: "none", DPUDeviceName: name, SerialNumber: name, BFB: "bfb", DPUFlavor: "flavor",
		NodeEffect: provisioningv1alpha1.NodeEffect{NoEffect: ptr.To(true)},
		Cluster:    provisioningv1alpha1.DPUClusterMembership{Name: "none", Namespace: dpfNamespace, NodeLabels: labels},
	}}
	device := &provisioningv1alpha1.DPUDevice{ObjectMeta: *meta.DeepCopy(), Spec: provisioningv1alpha1.DPUDeviceSpec{
		SerialNumber: name, BMCIP: "192.0.2.7", Cluster: &provisioningv1alpha1.DPUDeviceCluster{NodeLabels: labels},
	}}
	g.Expect(world.DPFAdmin.Create(t.Context(), dpu)).To(Succeed())
	g.Expect(world.DPFAdmin.Create(t.Context(), device)).To(Succeed())
	t.Cleanup(func() {
		patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))
		for _, object := range []client.Object{dpu, device} {
			_ = world.DPFAdmin.Patch(afterwards(t), object, patch)
			_ = world.DPFAdmin.Delete(afterwards(t), object)
		}
	})
	return dpu, device
}

// refusedByPolicy tells the policies' refusals from those of missing rights, which are Forbidden too.
func refusedByPolicy(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "ValidatingAdmissionPolicy")
}

func patchOf(operations ...string) client.Patch {
	return client.RawPatch(types.JSONPatchType, []byte("["+strings.Join(operations, ",")+"]"))
}

var recordPath = "/metadata/annotations/" + escaped(vpc.HolderAnnotation)

// record writes a holder's record.
func record(op string, holder vpc.Holder) string {
	value, err := holder.Encode()
	if err != nil {
		panic(err)
	}
	return operation(op, recordPath, strconv.Quote(value))
}

func operation(op, path, value string) string {
	if op == "remove" {
		return fmt.Sprintf(`{"op":"remove","path":%q}`, path)
	}
	return fmt.Sprintf(`{"op":%q,"path":%q,"value":%s}`, op, path, value)
}

func TestAccountPlugsDPUsAndChangesNothingElse(t *testing.T) {
	g := expect(t)
	dpu, device := policyDPU(t, g, "policy-1")
	targets := map[string]client.Object{"DPU": dpu}
	if world.nodeLabelsOfDPUDeviceAreHere {
		targets["DPUDevice"] = device
	}
	label := func(key string) string { return "/spec/cluster/nodeLabels/" + escaped(key) }

	// Policies take effect a moment after they are created.
	g.Eventually(func() error {
		return world.Account.Patch(t.Context(), dpu.DeepCopy(), patchOf(operation("replace", "/spec/bfb", `"evil"`)), client.DryRunAll)
	}).Should(Satisfy(refusedByPolicy))

	for kind, object := range targets {
		red := vpc.Holder{Installation: "i", Namespace: "red", Attachment: "claim-1", TokenHash: "h1"}
		blue := vpc.Holder{Installation: "i", Namespace: "blue", Attachment: "claim-1", TokenHash: "h2"}
		patch := func(operations ...string) error {
			return world.Account.Patch(t.Context(), object.DeepCopyObject().(client.Object), patchOf(operations...))
		}
		g.Expect(patch(
			operation("add", label(vpc.VPCKey), `"red"`), operation("add", label(vpc.PortKey(0)), `"net"`),
			operation("add", label(vpc.PortKey(11)), `"net"`), record("add", red),
		)).To(Succeed(), "%s: plug", kind)
		g.Expect(patch()).To(Succeed(), "%s: nothing", kind)
		g.Expect(patch(record("replace", blue))).To(Satisfy(refusedByPolicy), "%s: a DPU another claim holds", kind)
		g.Expect(patch(operation("replace", recordPath, `"{}"`))).To(Satisfy(refusedByPolicy), "%s: a record of nobody", kind)
		g.Expect(patch(operation("remove", recordPath, ""))).To(Satisfy(refusedByPolicy), "%s: the record taken away", kind)
		red.Plugged = true
		g.Expect(patch(record("replace", red))).To(Succeed(), "%s: the same claim goes on", kind)
		red.Detached = true
		g.Expect(patch(
			operation("remove", label(vpc.VPCKey), ""), operation("remove", label(vpc.PortKey(0)), ""), operation("remove", label(vpc.PortKey(11)), ""),
			record("replace", red),
		)).To(Succeed(), "%s: unplug", kind)
		g.Expect(patch(record("replace", blue))).To(Succeed(), "%s: a DPU that was let go", kind)

		for name, refused := range map[string]string{
			"foreign node label":     operation("add", label("kubernetes.io/hostname"), `"x"`),
			"changed node label":     operation("replace", label("site.example/role"), `"gpu"`),
			"removed node label":     operation("remove", label("site.example/role"), ""),
			"all node labels":        operation("remove", "/spec/cluster/nodeLabels", ""),
			"look-alike of our key":  operation("add", label("maas-dpuXdpucloud.io/vpc"), `"x"`),
			"another key of ours":    operation("add", label(vpc.InstallationLabel), `"x"`),
			"port key with a suffix": operation("add", label(vpc.PortKey(0)+"x"), `"x"`),
			"foreign annotation":     operation("replace", "/metadata/annotations/site.example~1note", `"y"`),
			"removed annotation":     operation("remove", "/metadata/annotations/site.example~1note", ""),
			"owner annotation":       operation("add", "/metadata/annotations/"+escaped(vpc.OwnerAnnotation), `"y"`),
			"label":                  operation("replace", "/metadata/labels/site.example~1rack", `"8"`),
			"finalizers":             operation("remove", "/metadata/finalizers", ""),
			"owner":                  operation("add", "/metadata/ownerReferences", `[{"apiVersion":"v1","kind":"ConfigMap","name":"x","uid":"x"}]`),
		} {
			err := world.Account.Patch(t.Context(), object.DeepCopyObject().(client.Object), patchOf(refused))
			g.Expect(err).To(Satisfy(refusedByPolicy), "%s: %s: %v", kind, name, err)
		}
		g.Expect(world.Account.Delete(t.Context(), object)).To(Satisfy(apierrors.IsForbidden), kind)
		g.Expect(world.Account.Status().Patch(t.Context(), object.DeepCopyObject().(client.Object), patchOf())).To(Satisfy(apierrors.IsForbidden), kind)
	}

	for name, patch := range map[string]client.Patch{
		"image":       patchOf(operation("replace", "/spec/bfb", `"evil"`)),
		"node effect": patchOf(operation("add", "/spec/nodeEffect/applyOnLabelChange", "true")),
	} {
		g.Expect(world.Account.Patch(t.Context(), dpu.DeepCopy(), patch)).To(Satisfy(refusedByPolicy), name)
	}
	g.Expect(world.Account.Patch(t.Context(), device.DeepCopy(), patchOf(operation("replace", "/spec/bmcIp", `"192.0.2.66"`)))).To(Satisfy(refusedByPolicy))
	if world.nodeLabelsOfDPUDeviceAreHere {
		g.Expect(world.Account.Patch(t.Context(), device.DeepCopy(), patchOf(operation("add", "/spec/cluster/nodeAnnotations", `{"a":"b"}`)))).To(Satisfy(refusedByPolicy))
	}
	bare := &provisioningv1alpha1.DPUDevice{
		ObjectMeta: metav1.ObjectMeta{Namespace: dpfNamespace, Name: "policy-bare"}, Spec: provisioningv1alpha1.DPUDeviceSpec{SerialNumber: "bare"},
	}
	g.Expect(world.DPFAdmin.Create(t.Context(), bare)).To(Succeed())
	t.Cleanup(func() { _ = world.DPFAdmin.Delete(afterwards(t), bare) })
	g.Expect(world.Account.Patch(t.Context(), bare.DeepCopy(), patchOf(
		operation("add", "/spec/cluster", fmt.Sprintf(`{"nodeLabels":{%q:"red"}}`, vpc.VPCKey)),
		operation("add", "/metadata/annotations", fmt.Sprintf(`{%q:"{}"}`, vpc.HolderAnnotation)),
	))).To(Succeed(), "the first label of a card without any")
	g.Expect(world.DPFAdmin.Patch(t.Context(), dpu.DeepCopy(), patchOf(operation("replace", "/spec/bfb", `"newer"`)))).To(Succeed(), "others are not limited")
}

func TestAccountMakesOnlyWhatIsItsOwn(t *testing.T) {
	g := expect(t)
	owned := metav1.ObjectMeta{Namespace: dpfNamespace, Name: "policy-own", Annotations: map[string]string{vpc.OwnerAnnotation: "i/red/main"}}
	selector := func(keys ...string) *metav1.LabelSelector {
		s := &metav1.LabelSelector{MatchLabels: map[string]string{}}
		for _, key := range keys {
			s.MatchLabels[key] = "x"
		}
		return s
	}
	dpuVPC := func(edit func(*vpcv1alpha1.DPUVPC)) *vpcv1alpha1.DPUVPC {
		v := &vpcv1alpha1.DPUVPC{ObjectMeta: *owned.DeepCopy(), Spec: vpcv1alpha1.DPUVPCSpec{Tenant: "t", IsolationClassName: dpfsimClass, NodeSelector: selector(vpc.VPCKey)}}
		if edit != nil {
			edit(v)
		}
		return v
	}
	dsi := func(s *metav1.LabelSelector) *svcv1alpha1.DPUServiceInterface {
		i := &svcv1alpha1.DPUServiceInterface{ObjectMeta: *owned.DeepCopy()}
		i.Spec.Template.Spec.NodeSelector = s
		i.Spec.Template.Spec.Template.Spec = svcv1alpha1.InterfaceSpec{InterfaceType: svcv1alpha1.InterfaceTypePF, PF: &svcv1alpha1.PF{VirtualNetwork: ptr.To("n")}}
		return i
	}
	credentials := func(edit func(*svcv1alpha1.DPUServiceCredentialRequestSpec)) *svcv1alpha1.DPUServiceCredentialRequest {
		r := &svcv1alpha1.DPUServiceCredentialRequest{ObjectMeta: *owned.DeepCopy(), Spec: svcv1alpha1.DPUServiceCredentialRequestSpec{
			ServiceAccount: svcv1alpha1.NamespacedName{Name: scope.DPUClusterReaderServiceAccount, Namespace: ptr.To(dpfNamespace)},
			TargetCluster:  &svcv1alpha1.NamespacedName{Name: "dpu-cluster", Namespace: ptr.To(dpfNamespace)},
			Type:           svcv1alpha1.CredentialTypeKubeconfig,
			Secret:         svcv1alpha1.NamespacedName{Name: "policy-own", Namespace: ptr.To(scope.CredentialNamespace)},
		}}
		if edit != nil {
			edit(&r.Spec)
		}
		return r
	}
	refused := map[string]client.Object{
		"VPC without owner":               dpuVPC(func(v *vpcv1alpha1.DPUVPC) { v.Annotations = nil }),
		"VPC that grants itself":          dpuVPC(func(v *vpcv1alpha1.DPUVPC) { v.Annotations[vpc.GrantAnnotation] = "i/red/main" }),
		"VPC of every Node":               dpuVPC(func(v *vpcv1alpha1.DPUVPC) { v.Spec.NodeSelector = &metav1.LabelSelector{} }),
		"VPC of others' Nodes":            dpuVPC(func(v *vpcv1alpha1.DPUVPC) { v.Spec.NodeSelector = selector("kubernetes.io/os") }),
		"interface on every DPU":          dsi(nil),
		"interface by port alone":         dsi(selector(vpc.PortKey(0))),
		"interface on a whole VPC":        dsi(selector(vpc.VPCKey)),
		"credentials of an administrator": credentials(func(s *svcv1alpha1.DPUServiceCredentialRequestSpec) { s.ServiceAccount.Name = "admin" }),
		"credentials of DPF's own cluster": credentials(func(s *svcv1alpha1.DPUServiceCredentialRequestSpec) {
			s.TargetCluster = nil
		}),
		"credentials over others' Secret": credentials(func(s *svcv1alpha1.DPUServiceCredentialRequestSpec) { s.Secret.Namespace = ptr.To(dpfNamespace) }),
		"credentials of another namespace": credentials(func(s *svcv1alpha1.DPUServiceCredentialRequestSpec) {
			s.ServiceAccount.Namespace = ptr.To("kube-system")
		}),
	}
	g.Eventually(func() error {
		return world.Account.Create(t.Context(), dsi(nil), client.DryRunAll)
	}).Should(Satisfy(refusedByPolicy))
	for name, object := range refused {
		err := world.Account.Create(t.Context(), object, client.DryRunAll)
		g.Expect(err).To(Satisfy(refusedByPolicy), "%s: %v", name, err)
	}
	for _, object := range []client.Object{dpuVPC(nil), dsi(selector(vpc.VPCKey, vpc.PortKey(0))), credentials(nil)} {
		g.Expect(world.Account.Create(t.Context(), object, client.DryRunAll)).To(Succeed())
	}
	elsewhere := dpuVPC(func(v *vpcv1alpha1.DPUVPC) { v.Namespace = "default" })
	g.Expect(world.Account.Create(t.Context(), elsewhere, client.DryRunAll)).To(Satisfy(apierrors.IsForbidden), "outside DPF's namespace")

	foreign := dpuVPC(func(v *vpcv1alpha1.DPUVPC) {
		v.Name, v.Annotations, v.Spec.NodeSelector = "policy-foreign", nil, selector("site.example/vpc")
	})
	g.Expect(world.DPFAdmin.Create(t.Context(), foreign)).To(Succeed())
	t.Cleanup(func() { _ = world.DPFAdmin.Delete(afterwards(t), foreign) })
	g.Expect(world.Account.Delete(t.Context(), foreign.DeepCopy(), client.DryRunAll)).To(Satisfy(refusedByPolicy))
	open := patchOf(operation("replace", "/spec/interNetworkAccess", "true"))
	g.Expect(world.Account.Patch(t.Context(), foreign.DeepCopy(), open, client.DryRunAll)).To(Satisfy(refusedByPolicy))
	take := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"i/red/main"}}}`, vpc.OwnerAnnotation))
	g.Expect(world.Account.Patch(t.Context(), foreign.DeepCopy(), take, client.DryRunAll)).To(Satisfy(refusedByPolicy), "an owner mark on what is not ours")

	// Its own interface can be set back, and nothing else be made of it.
	own := dsi(selector(vpc.VPCKey, vpc.PortKey(0)))
	own.Name, own.Finalizers = "policy-own-interface", []string{"site.example/keep"}
	g.Expect(world.Account.Create(t.Context(), own)).To(Succeed())
	t.Cleanup(func() {
		_ = world.DPFAdmin.Patch(afterwards(t), own, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`)))
		_ = world.DPFAdmin.Delete(afterwards(t), own)
	})
	const set = "/spec/template/spec"
	for name, c := range map[string]struct {
		operations []string
		may        bool
	}{
		"set back":      {[]string{operation("replace", set+"/template/spec/pf/pfID", "1"), operation("add", set+"/nodeSelector/matchLabels/x", `"y"`)}, true},
		"every DPU":     {[]string{operation("remove", set+"/nodeSelector", "")}, false},
		"another block": {[]string{operation("replace", set+"/template/spec/interfaceType", `"vf"`), operation("remove", set+"/template/spec/pf", ""), operation("add", set+"/template/spec/vf", `{"pfID":0,"vfID":0,"parentInterfaceRef":"p","virtualNetwork":"theirs"}`)}, false},
		"no finalizers": {[]string{operation("remove", "/metadata/finalizers", "")}, false},
		"another owner": {[]string{operation("replace", "/metadata/annotations/"+escaped(vpc.OwnerAnnotation), `"i/blue/main"`)}, false},
		"nobody's":      {[]string{operation("remove", "/metadata/annotations", "")}, false},
	} {
		err := world.Account.Patch(t.Context(), own.DeepCopy(), patchOf(c.operations...), client.DryRunAll)
		if c.may {
			g.Expect(err).NotTo(HaveOccurred(), name)
		} else {
			g.Expect(err).To(Satisfy(refusedByPolicy), "%s: %v", name, err)
		}
	}
}
