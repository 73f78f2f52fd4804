// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricscope_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/dpufabric"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/tenantvpc"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// startControllers runs both controllers as the fabric wing does, until the test ends.
func startControllers(t *testing.T) {
	t.Helper()
	g := NewWithT(t)
	mgr, err := ctrl.NewManager(world.HubConfig, ctrl.Options{
		Scheme: world.Hub.Scheme(), Logger: logr.Discard(), Metrics: metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: ptr.To(true), UsePriorityQueue: ptr.To(false)},
	})
	g.Expect(err).NotTo(HaveOccurred())
	fabrics := scope.NewFabrics(scope.FabricsOptions{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Namespace: wingNamespace, Installation: installation,
	})
	const poll = 100 * time.Millisecond
	g.Expect((&tenantvpc.Reconciler{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Fabrics: fabrics, Recorder: mgr.GetEventRecorder("tenantvpc"),
		Clock: clock.RealClock{}, Installation: installation, PollInterval: poll,
	}).SetupWithManager(t.Context(), mgr, controller.Options{})).To(Succeed())
	g.Expect((&dpufabric.Reconciler{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Fabrics: fabrics, Recorder: mgr.GetEventRecorder("dpufabric"),
		Clock: clock.RealClock{}, Installation: installation, PollInterval: poll,
	}).SetupWithManager(t.Context(), mgr, controller.Options{})).To(Succeed())

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("manager: %v", err)
		}
	})
}

// life is a TenantVPC on a fabric, and what can be asked of it.
type life struct {
	*WithT
	t      *testing.T
	place  vpc.Place
	tenant *infrav1.TenantVPC
	looks  int
}

func newLife(t *testing.T, fabric *infrav1.DPUFabric, namespace, name string, subnets ...infrav1.VPCSubnet) *life {
	t.Helper()
	l := &life{WithT: expect(t), t: t, place: vpc.PlaceOf(installation, fabric)}
	l.tenant = &infrav1.TenantVPC{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       infrav1.TenantVPCSpec{FabricName: fabric.Name, Subnets: subnets},
	}
	l.Expect(world.Hub.Create(t.Context(), l.tenant)).To(Succeed())
	t.Cleanup(func() {
		_ = world.Hub.Delete(afterwards(t), l.tenant)
		_ = world.Hub.Patch(afterwards(t), l.tenant, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`)))
	})
	return l
}

// read returns the TenantVPC as it is now; nil when it is gone.
func (l *life) read() *infrav1.TenantVPC {
	now := &infrav1.TenantVPC{}
	err := world.Hub.Get(l.t.Context(), client.ObjectKeyFromObject(l.tenant), now)
	if apierrors.IsNotFound(err) {
		return nil
	}
	l.Expect(err).NotTo(HaveOccurred())
	return now
}

// condition is "<status> <reason>" of a condition at the present generation.
func (l *life) condition(name string) func() string {
	return func() string {
		now := l.read()
		if now == nil {
			return "gone"
		}
		if c := conditions.Get(now, name); c != nil && c.ObservedGeneration == now.Generation {
			return fmt.Sprintf("%s %s", c.Status, c.Reason)
		}
		return ""
	}
}

func (l *life) message(name string) string { return conditions.GetMessage(l.read(), name) }

func (l *life) used(subnet string) func() int32 {
	return func() int32 {
		for _, s := range l.read().Status.Subnets {
			if s.Name == subnet {
				return ptr.Deref(s.Used, -1)
			}
		}
		return -2
	}
}

func (l *life) change(edit func(*infrav1.TenantVPC)) {
	l.t.Helper()
	l.Eventually(func() error {
		now := l.read()
		edit(now)
		return world.Hub.Update(l.t.Context(), now)
	}).Should(Succeed())
}

// attachment asks for PF 0 on a subnet, as the machine wing would.
func (l *life) attachment(name, fabric, subnet string) *infrav1.DPUAttachment {
	l.t.Helper()
	a := &infrav1.DPUAttachment{
		ObjectMeta: metav1.ObjectMeta{Namespace: l.tenant.Namespace, Name: name},
		Spec: infrav1.DPUAttachmentSpec{
			State: infrav1.AttachmentStateAttached, MachineName: "m", VPCName: l.tenant.Name,
			Server: infrav1.AttachmentServer{Source: fabric + "-maas", SystemID: "abc123", Token: "v1.0123456789abcdef0123456789abcdef.0123456789abcdef0123456789abcdef"},
			Ports:  []infrav1.MachinePort{{Name: "eth0", Subnet: subnet}},
		},
	}
	l.Expect(world.Hub.Create(l.t.Context(), a)).To(Succeed())
	l.t.Cleanup(func() { _ = world.Hub.Delete(afterwards(l.t), a) })
	return a
}

// plug writes the labels of dpu-1, as the attachment's controller would.
func (l *life) plug(labels map[string]any) {
	l.t.Helper()
	dpu := &provisioningv1alpha1.DPU{ObjectMeta: metav1.ObjectMeta{Namespace: dpfNamespace, Name: "dpu-1"}}
	for key, value := range labels {
		path := "/spec/cluster/nodeLabels/" + escaped(key)
		step := operation("remove", path, "")
		if value != nil {
			step = operation("add", path, fmt.Sprintf("%q", value))
		}
		l.Expect(world.Account.Get(l.t.Context(), client.ObjectKeyFromObject(dpu), dpu)).To(Succeed())
		steps := []string{step}
		if dpu.Spec.Cluster.NodeLabels == nil {
			steps = []string{operation("add", "/spec/cluster/nodeLabels", "{}"), step}
		}
		l.Expect(world.Account.Patch(l.t.Context(), dpu, patchOf(steps...))).To(Succeed())
	}
}

func (l *life) dpfHas(object client.Object, name string) func() bool {
	return func() bool {
		err := world.DPFAdmin.Get(l.t.Context(), client.ObjectKey{Namespace: dpfNamespace, Name: name}, object)
		l.Expect(client.IgnoreNotFound(err)).To(Succeed())
		return err == nil
	}
}

func TestTenantVPCLife(t *testing.T) {
	startControllers(t)
	fabric := newFabric(t, "life")
	fabric.Spec.Backend.OVNVPC.Namespace = dpfNamespace
	l := newLife(t, fabric, "red", "main",
		infrav1.VPCSubnet{Name: "a", CIDR: "10.64.0.0/24", ExternallyRouted: ptr.To(true), ExcludeIPs: []string{"10.64.0.10-10.64.0.19"}},
		infrav1.VPCSubnet{Name: "b", CIDR: "10.64.1.0/29"})
	l.Eventually(l.condition(infrav1.ReadyCondition)).Should(Equal("True Ready"))
	vpcName := l.place.VPCName(l.tenant)
	networkA, networkB := l.place.NetworkName(l.tenant, "a"), l.place.NetworkName(l.tenant, "b")
	now := l.read()
	l.Expect(now.Status.VPCName).To(Equal(vpcName))
	l.Expect(now.Status.Subnets).To(HaveLen(2))
	l.Expect(now.Status.Subnets[0].NetworkName).To(Equal(networkA))
	l.Expect(*now.Status.Subnets[0].Ready).To(BeTrue())
	l.Expect(*now.Status.Subnets[0].Capacity).To(Equal(int32(243)))
	l.Expect(*now.Status.Subnets[1].Capacity).To(Equal(int32(5)))

	// An attachment brings its interface; a port on the fabric is what counts as use.
	asked := l.attachment("x", fabric.Name, "b")
	interfaceB := l.place.InterfaceName(l.tenant, "b", 0)
	l.Eventually(l.dpfHas(&svcv1alpha1.DPUServiceInterface{}, interfaceB)).Should(BeTrue())
	l.plug(map[string]any{vpc.VPCKey: vpcName})
	l.plug(map[string]any{vpc.PortKey(0): networkB})
	l.Eventually(func() int {
		list := &svcv1alpha1.ServiceInterfaceList{}
		l.Expect(world.DPU.List(t.Context(), list, client.InNamespace(dpfNamespace))).To(Succeed())
		return len(list.Items)
	}).Should(Equal(1))
	l.change(func(v *infrav1.TenantVPC) { v.Spec.InterNetworkAccess = ptr.To(true) })
	l.Eventually(l.used("b")).Should(Equal(int32(1)))
	l.Eventually(func() bool {
		v := &vpcv1alpha1.DPUVPC{}
		return l.dpfHas(v, vpcName)() && v.Spec.InterNetworkAccess
	}).Should(BeTrue())
	dsi := &svcv1alpha1.DPUServiceInterface{}
	l.Eventually(func() map[string]string {
		l.dpfHas(dsi, interfaceB)()
		return dsi.Spec.Template.ObjectMeta.Labels
	}).Should(HaveKey(vpcv1alpha1.ProvisionerLabel), "DPF writes into the template, and is let to")

	// A subnet in use stays, and says who uses it.
	l.change(func(v *infrav1.TenantVPC) { v.Spec.Subnets = v.Spec.Subnets[:1] })
	l.Eventually(l.condition(infrav1.SubnetsRemovedCondition)).Should(Equal("False " + infrav1.InUseReason))
	l.Expect(l.message(infrav1.SubnetsRemovedCondition)).To(And(ContainSubstring("subnet b"), ContainSubstring("DPUAttachment x"), ContainSubstring("dpu-1")))
	l.Expect(l.condition(infrav1.ReadyCondition)()).To(Equal("True Ready"))

	// Deletion waits for the attachment.
	l.Expect(world.Hub.Delete(t.Context(), l.tenant.DeepCopy())).To(Succeed())
	l.Eventually(l.condition(infrav1.ReadyCondition)).Should(Equal("False " + infrav1.DeletingReason))
	l.Expect(l.message(infrav1.ReadyCondition)).To(ContainSubstring("DPUAttachments x"))
	l.Consistently(l.dpfHas(dsi, interfaceB), "500ms").Should(BeTrue())

	// Without the attachment it still waits for the port on the fabric.
	l.Expect(world.Hub.Delete(t.Context(), asked)).To(Succeed())
	l.Eventually(func() string { return l.message(infrav1.ReadyCondition) }).Should(ContainSubstring("on DPU dpu-1"))
	l.Expect(dsi.DeletionTimestamp).To(BeNil())
	l.plug(map[string]any{vpc.PortKey(0): nil})
	l.plug(map[string]any{vpc.VPCKey: nil})
	l.Eventually(l.read).Should(BeNil())
	l.Expect(l.dpfHas(dsi, interfaceB)()).To(BeFalse())
	l.Expect(l.dpfHas(&vpcv1alpha1.DPUVirtualNetwork{}, networkA)()).To(BeFalse())
	l.Expect(l.dpfHas(&vpcv1alpha1.DPUVirtualNetwork{}, networkB)()).To(BeFalse())
	l.Expect(l.dpfHas(&vpcv1alpha1.DPUVPC{}, vpcName)()).To(BeFalse())
}

func TestTenantVPCsRefused(t *testing.T) {
	startControllers(t)
	fabric := newFabric(t, "refused")
	fabric.Spec.Backend.OVNVPC.Namespace = dpfNamespace
	good := infrav1.VPCSubnet{Name: "a", CIDR: "10.64.0.0/24"}

	blue := newLife(t, fabric, "blue", "not-allowed", good)
	outside := newLife(t, fabric, "red", "outside", infrav1.VPCSubnet{Name: "a", CIDR: "10.99.0.0/24"})
	nowhere := newLife(t, &infrav1.DPUFabric{ObjectMeta: metav1.ObjectMeta{Name: "none"}, Spec: fabric.Spec}, "red", "no-fabric", good)
	taken := &infrav1.TenantVPC{ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "taken"}}
	theirs := &vpcv1alpha1.DPUVPC{
		ObjectMeta: metav1.ObjectMeta{Namespace: dpfNamespace, Name: blue.place.VPCName(taken)},
		Spec:       vpcv1alpha1.DPUVPCSpec{Tenant: "them", IsolationClassName: dpfsimClass},
	}
	blue.Expect(world.DPFAdmin.Create(t.Context(), theirs)).To(Succeed())
	t.Cleanup(func() { _ = world.DPFAdmin.Delete(afterwards(t), theirs) })
	occupied := newLife(t, fabric, "red", "taken", good)

	for _, c := range []struct {
		*life
		want    string
		forever bool
	}{
		{life: blue, want: "False " + infrav1.NamespaceNotAllowedReason},
		{life: outside, want: "False " + infrav1.CIDROutsidePoolsReason},
		{life: nowhere, want: "False " + infrav1.FabricNotFoundReason},
		{life: occupied, want: "False " + infrav1.NameTakenReason},
	} {
		c.Eventually(c.condition(infrav1.ReadyCondition)).Should(Equal(c.want), c.tenant.Name)
		c.Expect(world.Hub.Delete(t.Context(), c.tenant.DeepCopy())).To(Succeed())
		c.Eventually(c.read).Should(BeNil(), c.tenant.Name)
	}
	blue.Expect(blue.dpfHas(theirs, theirs.Name)()).To(BeTrue())
	blue.Expect(theirs.DeletionTimestamp).To(BeNil(), "what is not ours is not touched")
}

func TestDPUFabricLife(t *testing.T) {
	startControllers(t)
	g := expect(t)
	fabric := newFabric(t, "whole")
	condition := func(fabric *infrav1.DPUFabric, name string) func() string {
		return func() string {
			now := &infrav1.DPUFabric{}
			if err := world.Hub.Get(t.Context(), client.ObjectKeyFromObject(fabric), now); apierrors.IsNotFound(err) {
				return "gone"
			}
			c := conditions.Get(now, name)
			if c == nil {
				return ""
			}
			return fmt.Sprintf("%s %s", c.Status, c.Reason)
		}
	}
	g.Eventually(condition(fabric, infrav1.ReadyCondition)).Should(Equal("True Ready"))
	server := &infrav1.DPUServer{
		ObjectMeta: metav1.ObjectMeta{Name: "whole-maas.abc123", Labels: map[string]string{infrav1.DPUServerFabricLabel: fabric.Name}},
		Spec:       infrav1.DPUServerSpec{FabricName: fabric.Name, Source: "whole-maas", SystemID: "abc123"},
	}
	g.Expect(world.Hub.Create(t.Context(), server)).To(Succeed())
	server.Status.Eligibility = infrav1.Eligible
	server.Status.Holder = &infrav1.DPUServerHolder{Namespace: "red", Name: "x", TokenHash: "h"}
	g.Expect(world.Hub.Status().Update(t.Context(), server)).To(Succeed())
	g.Eventually(func() string {
		now := &infrav1.DPUFabric{}
		g.Expect(world.Hub.Get(t.Context(), client.ObjectKeyFromObject(fabric), now)).To(Succeed())
		return fmt.Sprintf("%d of %d", ptr.Deref(now.Status.EligibleServers, -1), ptr.Deref(now.Status.Servers, -1))
	}).Should(Equal("1 of 1"))

	// A later fabric with a source of the same name loses it.
	later := fabric.DeepCopy()
	later.ObjectMeta = metav1.ObjectMeta{Name: "whole-later"}
	// Creation times have seconds; of two equal ones the name decides, and whole sorts before whole-later.
	g.Expect(world.Hub.Create(t.Context(), later)).To(Succeed())
	g.Eventually(condition(later, infrav1.ClaimSourcesReadyCondition)).Should(Equal("False " + infrav1.SourceNameTakenReason))
	g.Expect(world.Hub.Delete(t.Context(), later)).To(Succeed())
	g.Eventually(condition(later, infrav1.ReadyCondition)).Should(Equal("gone"))

	g.Expect(world.Hub.Delete(t.Context(), fabric)).To(Succeed())
	g.Eventually(condition(fabric, infrav1.ReadyCondition)).Should(Equal("False " + infrav1.InUseReason))
	g.Expect(world.Hub.Get(t.Context(), client.ObjectKeyFromObject(server), server)).To(Succeed())
	server.Status.Holder = nil
	g.Expect(world.Hub.Status().Update(t.Context(), server)).To(Succeed())
	g.Eventually(condition(fabric, infrav1.ReadyCondition)).Should(Equal("gone"))
	g.Expect(world.Hub.Get(t.Context(), client.ObjectKeyFromObject(server), server)).To(Satisfy(apierrors.IsNotFound))

	orphan := newFabric(t, "no-secret")
	g.Expect(world.Hub.Delete(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: wingNamespace, Name: "no-secret-dpf"}})).To(Succeed())
	g.Eventually(condition(orphan, infrav1.CredentialsValidCondition)).Should(Equal("False " + infrav1.SecretNotFoundReason))
}
