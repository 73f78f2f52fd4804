// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package capacity_test

import (
	"context"
	"fmt"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

// tenant is one namespace with a Cluster, whose identity may use one pool of MAAS. All of it is called by one name.
type tenant struct {
	*testing.T
	*WithT
	name    string
	account *maas.Client
	cluster *clusterv1.Cluster
}

func newTenant(t *testing.T, name string, servers ...maassim.Machine) *tenant {
	t.Helper()
	n := &tenant{T: t, WithT: NewWithT(t), name: name}
	key := fmt.Sprintf("consumer%[1]s:token%[1]s:secret%[1]s", name)
	world.region.AddUser(name, key, false)
	world.region.AddPool(name)
	for _, server := range servers {
		n.rack(server)
	}
	var err error
	n.account, err = maas.New(maas.Config{Endpoint: world.endpoint, APIKey: maas.NewAPIKey(key)})
	n.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(n.account.Close)
	n.cluster = &clusterv1.Cluster{ObjectMeta: n.meta(name), Spec: clusterv1.ClusterSpec{
		InfrastructureRef: clusterv1.ContractVersionedObjectReference{APIGroup: infrav1.GroupVersion.Group, Kind: "MaasCluster", Name: name},
	}}
	n.create(
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: wingNamespace, Name: name}, StringData: map[string]string{scope.IdentitySecretKey: key}},
		&infrav1.MaasClusterIdentity{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: infrav1.MaasClusterIdentitySpec{
			Endpoint: world.endpoint, SecretRef: infrav1.LocalSecretReference{Name: name}, Source: name, Isolation: infrav1.IsolationOptional,
			AllowedNamespaces: &infrav1.AllowedNamespaces{Names: []string{name}}, AllowedPools: []string{name},
		}},
		&infrav1.MaasCluster{ObjectMeta: n.meta(name), Spec: infrav1.MaasClusterSpec{IdentityRef: infrav1.IdentityReference{Name: name}}},
		n.cluster,
	)
	return n
}

func (n *tenant) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: n.name, Name: name}
}

func (n *tenant) create(objects ...client.Object) {
	n.Helper()
	for _, object := range objects {
		n.Expect(world.admin.Create(n.Context(), object)).To(Succeed())
	}
}

// rack adds a server to the tenant's pool.
func (n *tenant) rack(server maassim.Machine) {
	n.Helper()
	server.Pool = n.name
	n.Expect(world.region.AddMachine(server)).To(Succeed())
}

// template makes a template that nobody owns.
func (n *tenant) template(name string, change func(*infrav1.MachineConstraints)) *infrav1.MaasMachineTemplate {
	n.Helper()
	template := &infrav1.MaasMachineTemplate{ObjectMeta: n.meta(name)}
	template.Spec.Template.Spec.Image = "ubuntu/noble"
	if change != nil {
		change(&template.Spec.Template.Spec.MachineConstraints)
	}
	n.create(template)
	return template
}

// own lets the Cluster own a template, as Cluster API does once something uses it.
func (n *tenant) own(template *infrav1.MaasMachineTemplate) *infrav1.MaasMachineTemplate {
	n.Helper()
	return n.ownBy(n.cluster, template)
}

func (n *tenant) ownBy(cluster *clusterv1.Cluster, template *infrav1.MaasMachineTemplate) *infrav1.MaasMachineTemplate {
	n.Helper()
	n.change(template, func() {
		template.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: clusterv1.GroupVersion.String(), Kind: "Cluster", Name: cluster.Name, UID: cluster.UID,
		}}
	})
	return template
}

// change patches an object.
func (n *tenant) change(object client.Object, change func()) {
	n.Helper()
	n.Expect(world.admin.Get(n.Context(), client.ObjectKeyFromObject(object), object)).To(Succeed())
	before := object.DeepCopyObject().(client.Object)
	change()
	n.Expect(world.admin.Patch(n.Context(), object, client.MergeFrom(before))).To(Succeed())
}

// says waits until the template says what is expected of it.
func (n *tenant) says(template *infrav1.MaasMachineTemplate, reason string, capacity corev1.ResourceList, message string) {
	n.Helper()
	n.Eventually(func(g Gomega) {
		g.Expect(world.admin.Get(n.Context(), client.ObjectKeyFromObject(template), template)).To(Succeed())
		ready := conditions.Get(template, infrav1.ReadyCondition)
		g.Expect(ready).NotTo(BeNil())
		g.Expect(ready.Reason).To(Equal(reason), ready.Message)
		g.Expect(ready.Message).To(ContainSubstring(message))
		g.Expect(equality.Semantic.DeepEqual(template.Status.Capacity, capacity)).To(BeTrue(), "capacity %v", template.Status.Capacity)
	}).WithTimeout(patience).WithPolling(poll).Should(Succeed())
}

// claim takes a server by the account's key, and by nobody's machine.
func (n *tenant) claim(ctx context.Context, systemID string) {
	n.Helper()
	_, err := n.account.Allocate(ctx, "by-hand-"+systemID, maas.Constraints{SystemIDs: []string{systemID}}, "")
	n.Expect(err).NotTo(HaveOccurred())
}

func (n *tenant) identity() *infrav1.MaasClusterIdentity {
	return &infrav1.MaasClusterIdentity{ObjectMeta: metav1.ObjectMeta{Name: n.name}}
}

// calls are those that MAAS answered the tenant's account, by operation.
func (n *tenant) calls() map[string]int {
	calls := map[string]int{}
	for _, call := range world.region.Calls() {
		if call.User == n.name {
			calls[call.Operation] += call.Count
		}
	}
	return calls
}

// dpuServer makes the fabric's memory of a server whose DPU has the functions 0 and 1.
func (n *tenant) dpuServer(systemID string, eligibility infrav1.Eligibility) *infrav1.DPUServer {
	n.Helper()
	server := &infrav1.DPUServer{
		ObjectMeta: metav1.ObjectMeta{Name: infrav1.DPUServerName(n.name, systemID)},
		Spec:       infrav1.DPUServerSpec{FabricName: "ovn", Source: n.name, SystemID: systemID},
	}
	n.create(server)
	server.Status.Eligibility = eligibility
	server.Status.DPUs = []infrav1.BoundDPU{{DPUDevice: "mt-" + systemID, Ports: []infrav1.DPUServerPort{{PF: ptr.To[int32](0)}, {PF: ptr.To[int32](1)}}}}
	n.Expect(world.admin.Status().Update(n.Context(), server)).To(Succeed())
	return server
}
