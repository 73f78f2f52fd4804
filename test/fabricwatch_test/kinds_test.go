// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricwatch_test

import (
	"context"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
)

// machine is a server with one DPU and an attachment, and the TenantVPC it is for; all of them called by one letter.
type machine struct {
	namespace, name string
	dpu             dpfsim.DPU
	tenant          *infrav1.TenantVPC
	vpc             *vpcv1alpha1.DPUVPC
	network         *vpcv1alpha1.DPUVirtualNetwork
	dsi             *svcv1alpha1.DPUServiceInterface
}

var place = vpc.Place{Installation: installation, Namespace: dpfNamespace, IsolationClassName: dpfsim.IsolationClassName}

// newMachine makes everything of a server: what DPF has of it, and what the wing's own cluster has.
func newMachine(t *testing.T, namespace, name string, number byte) *machine {
	t.Helper()
	g := NewWithT(t)
	m := &machine{namespace: namespace, name: name}
	m.dpu = dpfsim.DPU{
		Name: "dpu-" + name, Serial: "MT" + name, SystemID: "sys" + name, Device: "mt" + name, Node: "server-" + name, PF0MAC: "58:A2:E1:00:01:0" + string('0'+rune(number)),
	}
	g.Expect(world.sim.Seed(t.Context(), []dpfsim.DPU{m.dpu})).To(Succeed())
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		for _, object := range []client.Object{
			&provisioningv1alpha1.DPU{ObjectMeta: inDPF(m.dpu.Name)}, &provisioningv1alpha1.DPUNode{ObjectMeta: inDPF(m.dpu.Node)},
			&provisioningv1alpha1.DPUDevice{ObjectMeta: inDPF(m.dpu.Device)},
		} {
			_ = world.dpf.client.Delete(ctx, object)
		}
	})
	create(t, world.dpu.client, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: m.dpu.Name, Labels: map[string]string{"of": name}}})

	m.tenant = &infrav1.TenantVPC{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       infrav1.TenantVPCSpec{FabricName: fabricName, Subnets: []infrav1.VPCSubnet{{Name: "workers", CIDR: "10.64.0.0/24"}}},
	}
	create(t, world.hub.client, m.tenant)
	network, err := vpc.DesiredNetwork(place, m.tenant, m.tenant.Spec.Subnets[0])
	g.Expect(err).NotTo(HaveOccurred())
	m.vpc, m.network, m.dsi = vpc.DesiredVPC(place, m.tenant), network, vpc.DesiredInterface(place, m.tenant, "workers", 0)
	for _, object := range []client.Object{m.vpc, m.network, m.dsi} {
		create(t, world.dpf.client, object)
	}

	token, err := maas.NewToken(random(number), namespace, name)
	g.Expect(err).NotTo(HaveOccurred())
	create(t, world.hub.client, &infrav1.DPUAttachment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: infrav1.DPUAttachmentSpec{
			State: infrav1.AttachmentStateAttached, MachineName: name, VPCName: name,
			Server: infrav1.AttachmentServer{Source: source, SystemID: m.dpu.SystemID, Token: token},
			Ports:  []infrav1.MachinePort{{Name: "p0", Subnet: "workers"}},
		},
	})
	server := &infrav1.DPUServer{
		ObjectMeta: metav1.ObjectMeta{Name: infrav1.DPUServerName(source, m.dpu.SystemID)},
		Spec:       infrav1.DPUServerSpec{FabricName: fabricName, Source: source, SystemID: m.dpu.SystemID},
	}
	create(t, world.hub.client, server)
	patchStatus(t, world.hub.client, server, func(s *infrav1.DPUServer) {
		s.Status.DPUs = []infrav1.BoundDPU{{DPUDevice: m.dpu.Device, DPUNode: m.dpu.Node, DPU: m.dpu.Name}}
	})
	return m
}

type random byte

func (r random) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r)
	}
	return len(p), nil
}

func inDPF(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: dpfNamespace, Name: name}
}

func (m *machine) attachment() string { return "attachment " + m.namespace + "/" + m.name }
func (m *machine) tenancy() string    { return "tenant " + m.namespace + "/" + m.name }

const allServers = "fabric /" + fabricName

// selecting makes the selector of something of somebody else.
func selecting(m *machine) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"of": m.name}}
}

// TestEvents changes one thing at a time. Those it concerns are woken, and nobody else.
func TestEvents(t *testing.T) {
	a, b := newMachine(t, "red", "a", 1), newMachine(t, "blue", "b", 2)
	w := newWatcher(t)
	dpf, dpu := world.dpf.client, world.dpu.client
	ready := []metav1.Condition{{Type: "Ready", Status: metav1.ConditionTrue, Reason: "Success", LastTransitionTime: metav1.Now()}}
	foreignDSI := &svcv1alpha1.DPUServiceInterface{ObjectMeta: metav1.ObjectMeta{Namespace: "elsewhere", Name: "foreign"}, Spec: *b.dsi.Spec.DeepCopy()}
	foreignDSI.Spec.Template.Spec.NodeSelector = selecting(b)
	foreignVPC := &vpcv1alpha1.DPUVPC{ObjectMeta: metav1.ObjectMeta{Namespace: "elsewhere", Name: "foreign"}, Spec: *a.vpc.Spec.DeepCopy()}
	foreignVPC.Spec.NodeSelector = selecting(a)
	everywhere := foreignDSI.DeepCopy()
	everywhere.Name, everywhere.Spec.Template.Spec.NodeSelector = "everywhere", nil
	port := &svcv1alpha1.ServiceInterface{
		ObjectMeta: metav1.ObjectMeta{Namespace: dpfNamespace, Name: "port-a"},
		Spec: svcv1alpha1.InterfaceSpec{
			Node: ptr.To(a.dpu.Name), InterfaceType: svcv1alpha1.InterfaceTypePF, PF: &svcv1alpha1.PF{VirtualNetwork: ptr.To(a.network.Name)},
		},
	}
	for _, tc := range []struct {
		name   string
		change func(t *testing.T)
		woken  []string
	}{
		{"a DPU changes its phase", func(t *testing.T) {
			patchStatus(t, dpf, &provisioningv1alpha1.DPU{ObjectMeta: inDPF(a.dpu.Name)}, func(d *provisioningv1alpha1.DPU) { d.Status.Phase = provisioningv1alpha1.DPUPhaseError })
		}, []string{a.attachment(), allServers}},
		{"a DPU is relabelled", func(t *testing.T) {
			patch(t, dpf, &provisioningv1alpha1.DPU{ObjectMeta: inDPF(b.dpu.Name)}, func(d *provisioningv1alpha1.DPU) {
				d.Spec.Cluster.NodeLabels = map[string]string{vpc.VPCKey: "other"}
			})
		}, []string{b.attachment(), allServers}},
		{"a DPUDevice changes", func(t *testing.T) {
			patch(t, dpf, &provisioningv1alpha1.DPUDevice{ObjectMeta: inDPF(a.dpu.Device)}, func(d *provisioningv1alpha1.DPUDevice) { label("x", "y")(d) })
		}, []string{a.attachment(), allServers}},
		{"a DPUNode changes", func(t *testing.T) {
			patch(t, dpf, &provisioningv1alpha1.DPUNode{ObjectMeta: inDPF(b.dpu.Node)}, func(n *provisioningv1alpha1.DPUNode) { label("x", "y")(n) })
		}, []string{b.attachment(), allServers}},
		{"a DPUNode is labelled for another server", func(t *testing.T) {
			node := &provisioningv1alpha1.DPUNode{ObjectMeta: inDPF("spare")}
			create(t, dpf, node)
			patch(t, dpf, node, func(n *provisioningv1alpha1.DPUNode) { label("maas.io/system-id", a.dpu.SystemID)(n) })
		}, []string{a.attachment(), allServers}},
		{"DPF asks to disturb a server", func(t *testing.T) {
			create(t, dpf, &provisioningv1alpha1.DPUNodeMaintenance{ObjectMeta: inDPF(a.dpu.Node), Spec: provisioningv1alpha1.DPUNodeMaintenanceSpec{DPUNodeName: a.dpu.Node}})
		}, []string{a.attachment(), allServers}},
		{"a Node is relabelled", func(t *testing.T) {
			patch(t, dpu, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: b.dpu.Name}}, func(n *corev1.Node) { label("x", "y")(n) })
		}, []string{b.attachment(), allServers}},
		{"a Node stops being Ready", func(t *testing.T) {
			patchStatus(t, dpu, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: a.dpu.Name}}, func(n *corev1.Node) {
				n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionUnknown}}
			})
		}, []string{a.attachment(), allServers}},
		{"a Node only beats its heart", func(t *testing.T) {
			patchStatus(t, dpu, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: a.dpu.Name}}, func(n *corev1.Node) {
				n.Status.Conditions[0].LastHeartbeatTime = metav1.NewTime(time.Now().Add(time.Minute))
				n.Status.Images = []corev1.ContainerImage{{Names: []string{"an-image"}}}
			})
		}, nil},
		{"an interface changes that is somebody else's", func(t *testing.T) {
			create(t, dpf, foreignDSI)
		}, []string{b.attachment(), allServers}},
		{"one that takes every DPU appears", func(t *testing.T) {
			create(t, dpf, everywhere)
		}, []string{a.attachment(), b.attachment(), allServers}},
		{"somebody else's VPC appears", func(t *testing.T) {
			create(t, dpf, foreignVPC)
		}, []string{a.attachment(), allServers}},
		{"a port appears", func(t *testing.T) {
			NewWithT(t).Expect(dpu.Create(t.Context(), port.DeepCopy())).To(Succeed())
		}, []string{a.attachment(), allServers, a.tenancy()}},
		{"a port's status changes", func(t *testing.T) {
			patchStatus(t, dpu, port.DeepCopy(), func(p *svcv1alpha1.ServiceInterface) { p.Status.Conditions = ready })
		}, []string{a.attachment(), allServers}},
		{"a port goes", func(t *testing.T) {
			NewWithT(t).Expect(dpu.Delete(t.Context(), port.DeepCopy())).To(Succeed())
		}, []string{a.attachment(), allServers, a.tenancy()}},
		{"an interface's status changes, as it does with each port", func(t *testing.T) {
			patchStatus(t, dpf, a.dsi.DeepCopy(), func(d *svcv1alpha1.DPUServiceInterface) { d.Status.Conditions = ready })
		}, []string{a.tenancy()}},
		{"an interface is edited", func(t *testing.T) {
			patch(t, dpf, a.dsi.DeepCopy(), func(d *svcv1alpha1.DPUServiceInterface) { d.Spec.Template.Spec.NodeSelector = selecting(b) })
		}, []string{a.attachment(), a.tenancy()}},
		{"an interface is deleted", func(t *testing.T) {
			NewWithT(t).Expect(dpf.Delete(t.Context(), a.dsi.DeepCopy())).To(Succeed())
		}, []string{a.attachment(), a.tenancy()}},
		{"a network is deleted", func(t *testing.T) {
			NewWithT(t).Expect(dpf.Delete(t.Context(), b.network.DeepCopy())).To(Succeed())
		}, []string{b.attachment(), b.tenancy()}},
		{"a VPC is changed", func(t *testing.T) {
			patch(t, dpf, a.vpc.DeepCopy(), func(v *vpcv1alpha1.DPUVPC) { v.Spec.InterNetworkAccess = true })
		}, []string{a.attachment(), a.tenancy()}},
		{"a VPC is deleted", func(t *testing.T) {
			NewWithT(t).Expect(dpf.Delete(t.Context(), b.vpc.DeepCopy())).To(Succeed())
		}, []string{b.attachment(), b.tenancy()}},
		{"a Node goes", func(t *testing.T) {
			NewWithT(t).Expect(dpu.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: b.dpu.Name}})).To(Succeed())
		}, []string{b.attachment(), allServers}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			changed := time.Now()
			tc.change(t)
			slices.Sort(tc.woken)
			g := NewWithT(t)
			g.Eventually(w.names).WithTimeout(noticed).WithPolling(interval).Should(ContainElements(tc.woken))
			t.Logf("woken after %s", time.Since(changed).Round(time.Millisecond))
			w.only(t, tc.woken)
		})
		// What a test made goes when it ends.
		w.settle()
	}
}

// only holds for longer than wakes are gathered that nobody else was woken.
func (w *watcher) only(t *testing.T, woken []string) {
	t.Helper()
	others := func() []string {
		return slices.DeleteFunc(w.names(), func(name string) bool { return slices.Contains(woken, name) })
	}
	NewWithT(t).Consistently(others).WithTimeout(gathered).WithPolling(interval).Should(BeEmpty(), "somebody was woken whom it does not concern")
}
