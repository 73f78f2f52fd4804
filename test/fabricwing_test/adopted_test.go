// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricwing_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
)

const siteKey = "site.example/vpc"

// operatorsVPC is a DPUVPC with one network that DPF's operator made by hand.
func (w *wing) operatorsVPC(name string) (*vpcv1alpha1.DPUVPC, *vpcv1alpha1.DPUVirtualNetwork) {
	w.t.Helper()
	made := &vpcv1alpha1.DPUVPC{
		ObjectMeta: metav1.ObjectMeta{Namespace: dpfNamespace, Name: name},
		Spec: vpcv1alpha1.DPUVPCSpec{
			Tenant: "site", IsolationClassName: dpfsim.IsolationClassName, NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{siteKey: name}},
		},
	}
	network := &vpcv1alpha1.DPUVirtualNetwork{
		ObjectMeta: metav1.ObjectMeta{Namespace: dpfNamespace, Name: name + "-net"},
		Spec: vpcv1alpha1.DPUVirtualNetworkSpec{
			VPCName: name, Type: vpcv1alpha1.VirtualNetworkTypeBridged, Masquerade: ptr.To(true),
			BridgedNetwork: &vpcv1alpha1.BridgedNetwork{IPAM: &vpcv1alpha1.IPAM{IPv4: &vpcv1alpha1.IPv4{DHCP: true, Subnet: "10.99.0.0/29"}}},
		},
	}
	for _, object := range []client.Object{made, network} {
		w.Expect(world.DPFAdmin.Create(w.t.Context(), object)).To(Succeed())
		w.t.Cleanup(func() { _ = world.DPFAdmin.Delete(context.WithoutCancel(w.t.Context()), object) })
	}
	return made, network
}

// grant writes the operator's grant, or takes it back.
func (w *wing) grant(made *vpcv1alpha1.DPUVPC, to string) {
	w.t.Helper()
	value := "null"
	if to != "" {
		value = fmt.Sprintf("%q", installation+"/"+to)
	}
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, vpc.GrantAnnotation, value)
	w.Expect(world.DPFAdmin.Patch(w.t.Context(), made, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
}

// permitAdoption lets the fabric adopt, and the policy on DPF's side let it; both until the test ends.
func (w *wing) permitAdoption(fabric bool, prefixes string) {
	w.t.Helper()
	write := func(ctx context.Context, object client.Object, c client.Client, patch string) {
		w.Expect(c.Patch(ctx, object, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
	}
	after := context.WithoutCancel(w.t.Context())
	if fabric {
		const path = `{"spec":{"backend":{"ovnVPC":{"adoptionKeyPrefixes":%s}}}}`
		object := &infrav1.DPUFabric{ObjectMeta: metav1.ObjectMeta{Name: fabricName}}
		write(w.t.Context(), object, world.Hub, fmt.Sprintf(path, `["`+siteKey+`"]`))
		w.t.Cleanup(func() { write(after, object, world.Hub, fmt.Sprintf(path, "null")) })
	}
	if prefixes != "" {
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: dpfNamespace, Name: "maas-dpu-fabric-adoption"}}
		write(w.t.Context(), object, world.DPFAdmin, fmt.Sprintf(`{"data":{"labelKeyPrefixes":%q}}`, prefixes))
		w.t.Cleanup(func() { write(after, object, world.DPFAdmin, `{"data":{"labelKeyPrefixes":""}}`) })
	}
}

// adopting makes a TenantVPC that adopts, and deletes it afterwards.
func (w *wing) adopting(namespace, name, adopts string) *infrav1.TenantVPC {
	w.t.Helper()
	tenant := &infrav1.TenantVPC{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       infrav1.TenantVPCSpec{FabricName: fabricName, Adopt: &infrav1.VPCAdoption{Name: adopts}},
	}
	w.Expect(world.Hub.Create(w.t.Context(), tenant)).To(Succeed())
	w.t.Cleanup(func() { w.gone(tenant) })
	return tenant
}

// gone deletes an object and waits until it is away.
func (w *wing) gone(object client.Object) {
	w.t.Helper()
	ctx := context.WithoutCancel(w.t.Context())
	w.Expect(client.IgnoreNotFound(world.Hub.Delete(ctx, object))).To(Succeed())
	w.Eventually(func() bool {
		return client.IgnoreNotFound(world.Hub.Get(ctx, client.ObjectKeyFromObject(object), object)) == nil &&
			world.Hub.Get(ctx, client.ObjectKeyFromObject(object), object) != nil
	}).Should(BeTrue(), "%T %s is still there", object, object.GetName())
}

func (w *wing) attachTo(namespace, name, vpcName, subnet string, d dpfsim.DPU) *infrav1.DPUAttachment {
	w.t.Helper()
	token := w.claim(namespace, "m-"+name, d.SystemID)
	attachment := &infrav1.DPUAttachment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: infrav1.DPUAttachmentSpec{
			State: infrav1.AttachmentStateAttached, MachineName: "m-" + name, VPCName: vpcName,
			Server: infrav1.AttachmentServer{Source: source, SystemID: d.SystemID, Token: token},
			Ports:  []infrav1.MachinePort{{Name: "p0", Subnet: subnet}},
		},
	}
	w.Expect(world.Hub.Create(w.t.Context(), attachment)).To(Succeed())
	w.t.Cleanup(func() {
		ctx := context.WithoutCancel(w.t.Context())
		_ = world.Hub.Delete(ctx, attachment)
		_ = world.Hub.Patch(ctx, attachment, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`)))
	})
	return attachment
}

// networkOf is the network the card's PF0 is on, as OVN has it.
func networkOf(d dpfsim.DPU) string {
	for _, port := range world.DPF.Ports() {
		if port.DPU == d.Name {
			return port.VirtualNetwork
		}
	}
	return ""
}

// said is what a condition of a TenantVPC says.
func (w *wing) said(tenant *infrav1.TenantVPC, kind string) string {
	w.t.Helper()
	w.Expect(world.Hub.Get(w.t.Context(), client.ObjectKeyFromObject(tenant), tenant)).To(Succeed())
	return conditions.GetMessage(tenant, kind)
}

// TestAdoptedVPC lives in a VPC of the operator's: nothing without his grant and his permission, everything with them, and nothing
// of his is changed.
func TestAdoptedVPC(t *testing.T) {
	w := newWing(t)
	d, other := w.newServer(nil), w.newServer(nil)
	w.permitAdoption(true, "")
	made, network := w.operatorsVPC("site-a")
	tenant := w.adopting("red", "adopts", "site-a")
	nowhere := w.adopting("red", "adopts-nothing", "no-such-vpc")
	ready := infrav1.NetworksReadyCondition
	for _, v := range []*infrav1.TenantVPC{tenant, nowhere} {
		w.Eventually(w.reason(v, ready)).Should(Equal("False/" + infrav1.AdoptionNotGrantedReason))
	}
	w.Expect(w.said(tenant, ready)).To(Equal(strings.ReplaceAll(w.said(nowhere, ready), "adopts-nothing", "adopts")), "it tells whether the VPC exists")
	w.Expect(tenant.Status.Subnets).To(BeEmpty())

	a := w.attachTo("red", "adopted", "adopts", network.Name, d)
	w.Eventually(w.reason(a, infrav1.AttachedCondition)).Should(Equal("False/" + infrav1.VPCNotReadyReason))
	w.grant(made, "blue/adopts")
	w.Consistently(w.reason(tenant, ready)).Should(Equal("False/" + infrav1.AdoptionNotGrantedReason))
	w.Expect(writes(d)).To(Equal(dpfsim.WriteCount{}), "without a grant")

	// The operator grants it; DPF's own operator has yet to permit the label.
	w.grant(made, "red/adopts")
	w.Eventually(w.reason(tenant, ready)).Should(Equal("True/" + infrav1.ReadyReason))
	w.Eventually(func() string {
		w.Expect(world.Hub.Get(t.Context(), client.ObjectKeyFromObject(a), a)).To(Succeed())
		return conditions.GetMessage(a, infrav1.AttachedCondition)
	}).Should(ContainSubstring("maas-dpu-fabric-adoption"))
	w.Expect(writes(d)).To(Equal(dpfsim.WriteCount{}), "without permission")
	w.permitAdoption(false, siteKey)
	w.Eventually(w.proven(a)).Should(Equal(attachedState))
	w.Expect(networkOf(d)).To(Equal(network.Name))
	w.Expect(writes(d)).To(Equal(dpfsim.WriteCount{Attach: 2}))
	w.Eventually(func() string { return w.subnet(tenant, network.Name) }).Should(Equal("1 of 5"))

	// The grant is withdrawn: nothing new, and what runs goes on.
	w.grant(made, "")
	w.Eventually(w.reason(tenant, ready)).Should(Equal("False/" + infrav1.AdoptionNotGrantedReason))
	late := w.attachTo("red", "late", "adopts", network.Name, other)
	w.Eventually(w.reason(late, infrav1.AttachedCondition)).Should(Equal("False/" + infrav1.VPCNotReadyReason))
	w.touch(a)
	w.Consistently(w.proven(a)).Should(Equal(attachedState))
	w.Expect(networkOf(d)).To(Equal(network.Name))
	w.Expect(writes(other)).To(Equal(dpfsim.WriteCount{}))

	// And it leaves, grant or not, with all labels it came with.
	w.detach(a)
	w.Eventually(w.proven(a)).Should(Equal(detachedState))
	w.Expect(networkOf(d)).To(BeEmpty())
	w.Expect(writes(d)).To(Equal(dpfsim.WriteCount{Attach: 2, Detach: 2}))
	w.Expect(w.dpu(d).Spec.Cluster.NodeLabels).NotTo(HaveKey(siteKey))
	w.Eventually(w.eligibility(d)).Should(Equal(infrav1.Eligible))
	w.detach(late)
	w.Eventually(w.proven(late)).Should(Equal(detachedState))

	interfaces := &svcv1alpha1.DPUServiceInterfaceList{}
	count := func() int {
		n := 0
		w.Expect(world.DPFAdmin.List(t.Context(), interfaces, client.InNamespace(dpfNamespace))).To(Succeed())
		for i := range interfaces.Items {
			if interfaces.Items[i].Annotations[vpc.OwnerAnnotation] == installation+"/red/adopts" {
				n++
			}
		}
		return n
	}
	w.Expect(count()).To(Equal(1))
	w.gone(tenant)
	w.Expect(count()).To(BeZero(), "our interfaces in it go")
	for _, object := range []client.Object{made, network} {
		before := object.GetGeneration()
		w.Expect(world.DPFAdmin.Get(t.Context(), client.ObjectKeyFromObject(object), object)).To(Succeed(), "and nothing else")
		w.Expect(object.GetGeneration()).To(Equal(before))
		w.Expect(object.GetDeletionTimestamp()).To(BeNil())
		w.Expect(object.GetAnnotations()).NotTo(HaveKey(vpc.OwnerAnnotation))
	}
}

// subnet is "<used> of <capacity>".
func (w *wing) subnet(tenant *infrav1.TenantVPC, name string) string {
	w.t.Helper()
	w.Expect(world.Hub.Get(w.t.Context(), client.ObjectKeyFromObject(tenant), tenant)).To(Succeed())
	for _, s := range tenant.Status.Subnets {
		if s.Name == name {
			return fmt.Sprintf("%d of %d", ptr.Deref(s.Used, -1), ptr.Deref(s.Capacity, -1))
		}
	}
	return ""
}

// TestAdoptionLeavesOthersLabelsAlone meets a DPU that the operator has put into his VPC himself.
func TestAdoptionLeavesOthersLabelsAlone(t *testing.T) {
	w := newWing(t)
	d := w.newServer(nil)
	w.permitAdoption(true, siteKey)
	made, network := w.operatorsVPC("site-b")
	w.grant(made, "red/adopts-b")
	tenant := w.adopting("red", "adopts-b", "site-b")
	w.Eventually(w.reason(tenant, infrav1.NetworksReadyCondition)).Should(Equal("True/" + infrav1.ReadyReason))
	label := func(value string) {
		patch := fmt.Sprintf(`{"spec":{"cluster":{"nodeLabels":{%q:%s}}}}`, siteKey, value)
		w.Expect(world.DPFAdmin.Patch(t.Context(), w.dpu(d), client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
	}
	label(`"elsewhere"`)
	before := dpfsim.WriteCount{Attach: 1}
	w.Eventually(func() dpfsim.WriteCount { return writes(d) }).Should(Equal(before), "the operator's own")
	a := w.attachTo("red", "adopted-b", "adopts-b", network.Name, d)
	w.Eventually(w.reason(a, infrav1.DPUResolvedCondition)).Should(Equal("False/" + infrav1.ForeignVPCReason))
	w.Expect(writes(d)).To(Equal(before), "something was written")
	w.Expect(w.dpu(d).Spec.Cluster.NodeLabels).To(HaveKeyWithValue(siteKey, "elsewhere"))
	label("null")
	w.Eventually(w.proven(a)).Should(Equal(attachedState))
	w.detach(a)
	w.Eventually(w.proven(a)).Should(Equal(detachedState))
}
