// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/controllers/clustercache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// The networks of the scene: nodes is 10.64.0.0/24, storage 10.65.0.0/24; MAAS' own is 10.0.0.0/24.
var (
	hostname     = clusterv1.MachineAddress{Type: clusterv1.MachineHostName, Address: "srv"}
	fqdn         = clusterv1.MachineAddress{Type: clusterv1.MachineInternalDNS, Address: "srv.maas"}
	provisioning = clusterv1.MachineAddress{Type: clusterv1.MachineExternalIP, Address: "10.0.0.5"}
)

func internal(address string) clusterv1.MachineAddress {
	return clusterv1.MachineAddress{Type: clusterv1.MachineInternalIP, Address: address}
}

func TestAddresses(t *testing.T) {
	ports := []string{"tenant", "storage"}
	for name, c := range map[string]struct {
		// ports of the machine, of which tenant is the primary one; evidence of them, and addresses of the Node.
		ports    []string
		evidence map[string]string
		node     []string
		maas     []string
		before   []clusterv1.MachineAddress
		want     []clusterv1.MachineAddress
		known    bool
	}{
		"from evidence": {ports: ports, evidence: map[string]string{"tenant": "10.64.0.7"}, maas: []string{"10.0.0.5"},
			want: []clusterv1.MachineAddress{hostname, internal("10.64.0.7"), provisioning, fqdn}, known: true},
		"evidence of all ports": {ports: ports, evidence: map[string]string{"tenant": "10.64.0.7", "storage": "10.65.0.7"}, maas: []string{"10.0.0.5"},
			want: []clusterv1.MachineAddress{hostname, internal("10.64.0.7"), internal("10.65.0.7"), provisioning, fqdn}, known: true},
		"from the Node": {ports: ports, node: []string{"10.0.0.5", "10.65.0.8", "no address", "10.64.0.8"}, maas: []string{"10.0.0.5"},
			want: []clusterv1.MachineAddress{hostname, internal("10.64.0.8"), provisioning, fqdn}, known: true},
		"evidence before the Node": {ports: ports, evidence: map[string]string{"tenant": "10.64.0.7"}, node: []string{"10.64.0.8"},
			want: []clusterv1.MachineAddress{hostname, internal("10.64.0.7"), fqdn}, known: true},
		"another port's never first": {ports: ports, evidence: map[string]string{"storage": "10.65.0.7"}, maas: []string{"10.0.0.5"},
			want: []clusterv1.MachineAddress{hostname, provisioning, fqdn}},
		"the provisioning address never": {ports: ports, node: []string{"10.0.0.5"}, maas: []string{"10.0.0.5", "10.0.0.5", ""},
			want: []clusterv1.MachineAddress{hostname, provisioning, fqdn}},
		"the Node is silent": {ports: ports, evidence: map[string]string{"storage": "10.65.0.7"},
			before: []clusterv1.MachineAddress{internal("10.64.0.8"), internal("10.65.0.1")},
			want:   []clusterv1.MachineAddress{hostname, internal("10.64.0.8"), internal("10.65.0.7"), fqdn}, known: true},
		"one address twice": {ports: ports, evidence: map[string]string{"tenant": "10.64.0.7", "storage": "10.64.0.7"}, maas: []string{"10.64.0.7"},
			want: []clusterv1.MachineAddress{hostname, internal("10.64.0.7"), fqdn}, known: true},
		"without ports": {maas: []string{"10.0.0.5", "10.0.0.6", "10.0.0.5"}, node: []string{"10.64.0.8"},
			want: []clusterv1.MachineAddress{hostname, internal("10.0.0.5"), internal("10.0.0.6"), fqdn}, known: true},
		"nothing": {want: []clusterv1.MachineAddress{hostname, fqdn}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := newScene(t)
			p := s.addressPass(c.ports, c.node)
			for port, address := range c.evidence {
				p.attachment.Status.Ports = append(p.attachment.Status.Ports, infrav1.AttachmentPortStatus{Name: port, Address: address})
			}
			p.machine.Status.Addresses = c.before
			o := Observation{Provisioned: true, Ports: len(c.ports) > 0, Server: ServerView{
				Held: maas.Yes, Machine: maas.Machine{Hostname: "srv", FQDN: "srv.maas", IPAddresses: c.maas},
			}}
			g.Expect(p.reportAddresses(t.Context(), o)).To(Equal(c.known))
			g.Expect(p.machine.Status.Addresses).To(Equal(c.want))
		})
	}
}

// addressPass is one of a machine whose workload cluster has one Node with these addresses.
func (s *scene) addressPass(ports, node []string) *pass {
	s.Helper()
	workload := fake.NewClientBuilder().WithScheme(s.objects.Scheme()).
		WithIndex(&corev1.Node{}, clustercache.NodeProviderIDIndex.Field, clustercache.NodeProviderIDIndex.ExtractValue).Build()
	object := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}, Spec: corev1.NodeSpec{ProviderID: ProviderID("a")}}
	object.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeExternalIP, Address: "10.64.0.99"}}
	for _, address := range node {
		object.Status.Addresses = append(object.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: address})
	}
	s.Expect(workload.Create(s.Context(), object)).To(Succeed())
	other := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "other"}, Spec: corev1.NodeSpec{ProviderID: ProviderID("b")}}
	other.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.64.0.66"}}
	s.Expect(workload.Create(s.Context(), other)).To(Succeed())

	cluster := client.ObjectKey{Namespace: tenant, Name: "c"}
	s.reconciler.ClusterCache = clustercache.NewFakeClusterCache(workload, cluster)
	p := &pass{r: s.reconciler, machine: &infrav1.MaasMachine{ObjectMeta: metav1.ObjectMeta{Namespace: tenant}}, attachment: &infrav1.DPUAttachment{}}
	p.machine.Spec.ProviderID, p.machine.Spec.PrimaryPort = ProviderID("a"), "tenant"
	for _, port := range ports {
		subnet := map[string]string{"tenant": "nodes", "storage": "storage"}[port]
		p.machine.Spec.Ports = append(p.machine.Spec.Ports, infrav1.MachinePort{Name: port, Subnet: subnet})
	}
	p.cluster, p.maasCluster = &clusterv1.Cluster{}, &infrav1.MaasCluster{}
	s.Expect(s.objects.Get(s.Context(), cluster, p.cluster)).To(Succeed())
	s.Expect(s.objects.Get(s.Context(), cluster, p.maasCluster)).To(Succeed())
	access, err := s.reconciler.Scope.FabricAccess(s.Context(), nil)
	s.Expect(err).NotTo(HaveOccurred())
	p.fabric = access
	return p
}
