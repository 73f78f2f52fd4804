// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricscope_test

import (
	"fmt"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// onDPF reads an object of DPF's namespace; its zero value where there is none.
func onDPF[T client.Object](l *life, object T, name string) T {
	object.SetUID("")
	object.SetDeletionTimestamp(nil)
	err := world.DPFAdmin.Get(l.t.Context(), client.ObjectKey{Namespace: dpfNamespace, Name: name}, object)
	l.Expect(client.IgnoreNotFound(err)).To(Succeed())
	return object
}

func (l *life) spoil(object client.Object, patch string) {
	l.t.Helper()
	l.Expect(world.DPFAdmin.Patch(l.t.Context(), object, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
}

// replaced says whether an object is there, not in deletion, and another one than before.
func (l *life) replaced(object client.Object, name string, before types.UID) func() bool {
	return func() bool {
		l.look()
		now := onDPF(l, object, name)
		return now.GetUID() != "" && now.GetUID() != before && now.GetDeletionTimestamp() == nil
	}
}

// TestWhatIsOursIsRepaired edits and deletes the TenantVPC's objects on DPF, whose controllers and admission let whatever they let.
func TestWhatIsOursIsRepaired(t *testing.T) {
	startControllers(t)
	fabric := newFabric(t, "repair")
	fabric.Spec.Backend.OVNVPC.Namespace = dpfNamespace
	l := newLife(t, fabric, "red", "repaired", infrav1.VPCSubnet{Name: "a", CIDR: "10.64.8.0/24"})
	l.Eventually(l.condition(infrav1.ReadyCondition)).Should(Equal("True Ready"))
	l.attachment("repaired", fabric.Name, "a")
	vpcName, network, name := l.place.VPCName(l.tenant), l.place.NetworkName(l.tenant, "a"), l.place.InterfaceName(l.tenant, "a", 0)
	dsi := &svcv1alpha1.DPUServiceInterface{}
	l.Eventually(l.dpfHas(dsi, name)).Should(BeTrue())

	// An interface of every DPU, on another function, is set back in place: its ports stay where they are.
	same := func() bool {
		l.look()
		return vpc.SameInterface(onDPF(l, dsi, name), vpc.DesiredInterface(l.place, l.tenant, "a", 0))
	}
	l.Eventually(same).Should(BeTrue())
	before := dsi.UID
	l.spoil(dsi.DeepCopy(), `{"spec":{"template":{"spec":{"nodeSelector":null}}}}`)
	l.Eventually(same).Should(BeTrue(), "the selector")
	l.spoil(dsi.DeepCopy(), `{"spec":{"template":{"spec":{"template":{"spec":{"pf":{"pfID":3}}}}}}}`)
	l.Eventually(same).Should(BeTrue(), "the function")
	l.Expect(dsi.UID).To(Equal(before), "it was replaced, which unplugs its ports")

	// One that is deleted is made again.
	l.Expect(world.DPFAdmin.Delete(t.Context(), dsi.DeepCopy())).To(Succeed())
	l.Eventually(l.replaced(dsi, name, before)).Should(BeTrue())

	// So is a network, as long as no port is on it, whoever asks for one; and its interfaces after it.
	made := onDPF(l, &vpcv1alpha1.DPUVirtualNetwork{}, network)
	beforeNetwork := made.UID
	l.Expect(world.DPFAdmin.Delete(t.Context(), made)).To(Succeed())
	l.Eventually(l.replaced(made, network, beforeNetwork)).Should(BeTrue())
	l.Eventually(same).Should(BeTrue())
	l.Eventually(l.condition(infrav1.ReadyCondition)).Should(Equal("True Ready"))

	// So is the VPC, with all that is in it.
	whole := onDPF(l, &vpcv1alpha1.DPUVPC{}, vpcName)
	beforeVPC := whole.UID
	l.Expect(world.DPFAdmin.Delete(t.Context(), whole)).To(Succeed())
	l.Eventually(l.replaced(whole, vpcName, beforeVPC)).Should(BeTrue())
	l.Eventually(l.condition(infrav1.ReadyCondition)).Should(Equal("True Ready"))

	// What was changed in the one field that DPF lets anybody change is changed back.
	l.spoil(onDPF(l, whole, vpcName).DeepCopy(), `{"spec":{"interNetworkAccess":true}}`)
	l.Eventually(func() bool { l.look(); return onDPF(l, whole, vpcName).Spec.InterNetworkAccess }).Should(BeFalse())
}

// TestWhatCannotBeRepairedIsSaid swaps what DPF lets an editor swap, with a port on it.
func TestWhatCannotBeRepairedIsSaid(t *testing.T) {
	startControllers(t)
	fabric := newFabric(t, "beyond")
	fabric.Spec.Backend.OVNVPC.Namespace = dpfNamespace
	l := newLife(t, fabric, "red", "beyond", infrav1.VPCSubnet{Name: "a", CIDR: "10.64.9.0/24"})
	l.attachment("beyond", fabric.Name, "a")
	name, network := l.place.InterfaceName(l.tenant, "a", 0), l.place.NetworkName(l.tenant, "a")
	dsi := &svcv1alpha1.DPUServiceInterface{}
	l.Eventually(l.dpfHas(dsi, name)).Should(BeTrue())
	l.plug(map[string]any{vpc.VPCKey: l.place.VPCName(l.tenant)})
	l.plug(map[string]any{vpc.PortKey(0): network})
	defer func() { l.plug(map[string]any{vpc.VPCKey: nil}) }()
	l.Eventually(func() int32 { l.look(); return l.used("a")() }).Should(Equal(int32(1)))
	l.spoil(onDPF(l, dsi, name).DeepCopy(), `{"spec":{"template":{"spec":{"template":{"metadata":{"annotations":{"ovn.vpc.dpu.nvidia.com/unknown-mac":"true"}}}}}}}`)
	l.Eventually(l.looking(infrav1.NetworksReadyCondition)).Should(Equal("False " + infrav1.DriftedReason))
	l.Expect(l.message(infrav1.NetworksReadyCondition)).To(And(ContainSubstring(name), ContainSubstring("set it back, or delete it")))
	l.Expect(onDPF(l, dsi, name).DeletionTimestamp).To(BeNil())
	l.Expect(dsi.Spec.Template.Spec.Template.ObjectMeta.Annotations).NotTo(BeEmpty())
	l.spoil(onDPF(l, dsi, name).DeepCopy(), `{"spec":{"template":{"spec":{"template":{"metadata":{"annotations":null}}}}}}`)
	l.Eventually(l.looking(infrav1.NetworksReadyCondition)).Should(HavePrefix("True"))

	// A network that somebody deletes under a port stays in deletion: that is said, with who is on it.
	made := onDPF(l, &vpcv1alpha1.DPUVirtualNetwork{}, network)
	before := made.UID
	l.Expect(world.DPFAdmin.Delete(t.Context(), made)).To(Succeed())
	l.Eventually(l.looking(infrav1.NetworksReadyCondition)).Should(Equal("False " + infrav1.DriftedReason))
	l.Expect(l.message(infrav1.NetworksReadyCondition)).To(And(ContainSubstring("subnet a is being deleted"), ContainSubstring("on DPU dpu-1")))
	l.Expect(onDPF(l, dsi, name).DeletionTimestamp).To(BeNil())
	l.plug(map[string]any{vpc.PortKey(0): nil})
	l.Eventually(l.replaced(made, network, before)).Should(BeTrue(), "once it is off, the network is made again")
}

// looking is a condition, with the TenantVPC looked at each time.
func (l *life) looking(name string) func() string {
	return func() string { l.look(); return l.condition(name)() }
}

// look has the TenantVPC looked at now: nothing here watches DPF.
func (l *life) look() {
	l.t.Helper()
	l.looks++
	patch := fmt.Sprintf(`{"metadata":{"annotations":{"test/looked":"%d"}}}`, l.looks)
	l.Expect(world.Hub.Patch(l.t.Context(), l.tenant.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
}

// TestDeletionWithoutAFabric deletes TenantVPCs whose fabric cannot be asked: one that never made anything goes, also with a Secret
// that was bad from the start; one that did stays until the fabric answers.
func TestDeletionWithoutAFabric(t *testing.T) {
	startControllers(t)
	good := infrav1.VPCSubnet{Name: "a", CIDR: "10.64.10.0/24"}
	for name, spoil := range map[string]func(*corev1.Secret){
		"no-such-secret": nil,
		"nonsense":       func(s *corev1.Secret) { s.Data[scope.KubeconfigKey] = []byte("nonsense") },
		"away": func(s *corev1.Secret) {
			s.Data[scope.KubeconfigKey] = []byte(`{"apiVersion":"v1","kind":"Config","current-context":"x","contexts":[{"name":"x","context":{"cluster":"x","user":"x"}}],
				"clusters":[{"name":"x","cluster":{"server":"http://127.0.0.1:1"}}],"users":[{"name":"x","user":{"token":"x"}}]}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			fabric := newFabric(t, "bad-"+name)
			secret := &corev1.Secret{}
			g := expect(t)
			g.Expect(world.Hub.Get(t.Context(), client.ObjectKey{Namespace: wingNamespace, Name: fabric.Name + "-dpf"}, secret)).To(Succeed())
			if spoil == nil {
				g.Expect(world.Hub.Delete(t.Context(), secret)).To(Succeed())
			} else {
				spoil(secret)
				g.Expect(world.Hub.Update(t.Context(), secret)).To(Succeed())
			}
			fabric.Spec.Backend.OVNVPC.Namespace = dpfNamespace
			l := newLife(t, fabric, "red", "on-"+name, good)
			l.Eventually(l.condition(infrav1.FabricReadyCondition)).ShouldNot(Or(BeEmpty(), HavePrefix("True")))
			l.Expect(world.Hub.Delete(t.Context(), l.tenant.DeepCopy())).To(Succeed())
			l.Eventually(l.read).Should(BeNil())
		})
	}

	fabric := newFabric(t, "lost")
	fabric.Spec.Backend.OVNVPC.Namespace = dpfNamespace
	l := newLife(t, fabric, "red", "made", good)
	l.Eventually(l.condition(infrav1.ReadyCondition)).Should(Equal("True Ready"))
	l.Expect(l.read().Annotations).To(HaveKeyWithValue(infrav1.TenantVPCMadeAnnotation, l.place.VPCName(l.tenant)))
	secret := &corev1.Secret{}
	l.Expect(world.Hub.Get(t.Context(), client.ObjectKey{Namespace: wingNamespace, Name: "lost-dpf"}, secret)).To(Succeed())
	kept := secret.Data[scope.KubeconfigKey]
	secret.Data[scope.KubeconfigKey] = []byte("nonsense")
	l.Expect(world.Hub.Update(t.Context(), secret)).To(Succeed())
	// A move to another management cluster loses the status, and not what was made.
	l.Eventually(func() error {
		now := l.read()
		now.Status.VPCName = ""
		return world.Hub.Status().Update(t.Context(), now)
	}).Should(Succeed())
	l.Expect(world.Hub.Delete(t.Context(), l.tenant.DeepCopy())).To(Succeed())
	l.Eventually(func() string { return l.message(infrav1.ReadyCondition) }).Should(ContainSubstring("waits until it can be asked"))
	l.Consistently(l.read, "1s").ShouldNot(BeNil())
	l.Expect(l.dpfHas(&vpcv1alpha1.DPUVPC{}, l.place.VPCName(l.tenant))()).To(BeTrue())
	secret.Data[scope.KubeconfigKey] = kept
	l.Expect(world.Hub.Update(t.Context(), secret)).To(Succeed())
	l.Eventually(l.read).Should(BeNil())
	l.Expect(l.dpfHas(&vpcv1alpha1.DPUVPC{}, l.place.VPCName(l.tenant))()).To(BeFalse())
}

// TestFullSubnetIsSaid asks for all addresses of a subnet, and for one less.
func TestFullSubnetIsSaid(t *testing.T) {
	startControllers(t)
	fabric := newFabric(t, "full")
	fabric.Spec.Backend.OVNVPC.Namespace = dpfNamespace
	l := newLife(t, fabric, "red", "full", infrav1.VPCSubnet{Name: "a", CIDR: "10.64.11.0/29", ExcludeIPs: []string{"10.64.11.5-10.64.11.6"}})
	l.Eventually(l.condition(infrav1.AddressesAvailableCondition)).Should(Equal("True Ready"))
	var all []*infrav1.DPUAttachment
	for i := range 3 {
		all = append(all, l.attachment(fmt.Sprintf("full-%d", i), fabric.Name, "a"))
	}
	l.Eventually(l.condition(infrav1.AddressesAvailableCondition)).Should(Equal("False " + infrav1.SubnetFullReason))
	l.Expect(l.message(infrav1.AddressesAvailableCondition)).To(ContainSubstring("subnet a has no address left: 3 ports of 3"))
	l.Expect(*l.read().Status.Subnets[0].Capacity).To(Equal(int32(3)))
	l.Expect(ptr.Deref(l.read().Status.Subnets[0].Used, -1)).To(Equal(int32(0)), "asked for is not plugged")
	l.Eventually(l.condition(infrav1.ReadyCondition)).Should(Equal("True Ready"), "a full subnet is no fault")
	l.Expect(world.Hub.Delete(t.Context(), all[0])).To(Succeed())
	l.Eventually(l.condition(infrav1.AddressesAvailableCondition)).Should(Equal("True Ready"))
}

// TestDeletionAfterTheVPCWentFirst takes the DPUVPC away by force, without which DPF lets go of no network.
func TestDeletionAfterTheVPCWentFirst(t *testing.T) {
	startControllers(t)
	fabric := newFabric(t, "first")
	fabric.Spec.Backend.OVNVPC.Namespace = dpfNamespace
	l := newLife(t, fabric, "red", "first", infrav1.VPCSubnet{Name: "a", CIDR: "10.64.12.0/24"})
	l.Eventually(l.condition(infrav1.ReadyCondition)).Should(Equal("True Ready"))
	vpcName, network := l.place.VPCName(l.tenant), l.place.NetworkName(l.tenant, "a")
	l.change(func(v *infrav1.TenantVPC) {
		metav1.SetMetaDataAnnotation(&v.ObjectMeta, clusterv1.PausedAnnotation, "")
	})
	l.Eventually(l.condition(clusterv1.PausedCondition)).Should(HavePrefix("True"))
	made := onDPF(l, &vpcv1alpha1.DPUVPC{}, vpcName)
	l.Expect(world.DPFAdmin.Delete(t.Context(), made)).To(Succeed())
	l.Eventually(func() string {
		if now := onDPF(l, &vpcv1alpha1.DPUVPC{}, vpcName); now.UID != "" {
			l.spoil(now, `{"metadata":{"finalizers":null}}`)
		}
		return string(onDPF(l, &vpcv1alpha1.DPUVPC{}, vpcName).UID)
	}).Should(BeEmpty())
	l.Expect(world.Hub.Delete(t.Context(), l.tenant.DeepCopy())).To(Succeed())
	l.Expect(l.dpfHas(&vpcv1alpha1.DPUVirtualNetwork{}, network)()).To(BeTrue())
	l.Expect(world.Hub.Patch(t.Context(), l.tenant.DeepCopy(), client.RawPatch(types.MergePatchType,
		[]byte(`{"metadata":{"annotations":{"`+clusterv1.PausedAnnotation+`":null}}}`)))).To(Succeed())
	l.Eventually(l.read).Should(BeNil())
	l.Expect(l.dpfHas(&vpcv1alpha1.DPUVirtualNetwork{}, network)()).To(BeFalse())
	l.Expect(l.dpfHas(&vpcv1alpha1.DPUVPC{}, vpcName)()).To(BeFalse())
}
