// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package troubles

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/demo"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const (
	// vpcName, clusterName and subnet are the same in all namespaces, and so is the CIDR.
	vpcName     = "vpc"
	clusterName = "cluster"
	subnet      = "nodes"
	subnetCIDR  = "10.64.0.0/24"
	userData    = "#cloud-config\n{}\n"
)

// claiming serializes the tests that meddle with allocations, whose fault cannot name the server.
var claiming sync.Mutex

// tenant is a namespace with what the templates bring besides machines.
type tenant struct {
	*testing.T
	name string
}

// newTenant makes the namespace, and lets the machine wing read its bootstrap Secrets.
func newTenant(t *testing.T, name string) *tenant {
	t.Helper()
	create(t,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "bootstrap-secrets"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "maas-dpu-bootstrap-secrets"},
			Subjects: []rbacv1.Subject{{
				APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "system:serviceaccount:" + demo.MachineNamespace + ":" + demo.MachineWing,
			}},
		})
	n := &tenant{T: t, name: name}
	t.Cleanup(n.tidy)
	return n
}

// newReadyTenant has a TenantVPC and a cluster under the lab's identity, both Ready.
func newReadyTenant(t *testing.T, name string) *tenant {
	t.Helper()
	n := newTenant(t, name)
	create(t, n.vpc())
	n.createCluster(demo.Identity, vpcName)
	expect(t, n.vpc(), yes(infrav1.ReadyCondition))
	expect(t, n.cluster(), yes(infrav1.ReadyCondition))
	return n
}

func (n *tenant) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: n.name, Name: name, Labels: map[string]string{clusterv1.ClusterNameLabel: clusterName}}
}

func (n *tenant) vpc() *infrav1.TenantVPC {
	vpc := &infrav1.TenantVPC{ObjectMeta: metav1.ObjectMeta{Namespace: n.name, Name: vpcName}}
	vpc.Spec.FabricName = demo.Fabric
	vpc.Spec.Subnets = []infrav1.VPCSubnet{{Name: subnet, CIDR: subnetCIDR, ExternallyRouted: ptr.To(true)}}
	return vpc
}

// cluster is the MaasCluster, to be read.
func (n *tenant) cluster() *infrav1.MaasCluster {
	return &infrav1.MaasCluster{ObjectMeta: n.meta(clusterName)}
}

// createCluster makes a cluster without control plane: its machines bring their own bootstrap data.
func (n *tenant) createCluster(identity, vpc string) {
	n.Helper()
	maasCluster := n.cluster()
	maasCluster.Spec.IdentityRef.Name, maasCluster.Spec.VPCName = identity, vpc
	maasCluster.Spec.ControlPlaneEndpoint = clusterv1.APIEndpoint{Host: "192.0.2.10", Port: 6443}
	create(n.T, maasCluster, &clusterv1.Cluster{ObjectMeta: n.meta(clusterName), Spec: clusterv1.ClusterSpec{
		InfrastructureRef: clusterv1.ContractVersionedObjectReference{APIGroup: infrav1.GroupVersion.Group, Kind: "MaasCluster", Name: clusterName},
	}})
}

// machine is one Machine with its MaasMachine, of the same name.
type machine struct {
	*tenant
	name string
}

func port(subnet string) infrav1.MachinePort {
	return infrav1.MachinePort{Name: "tenant", PF: ptr.To[int32](0), Subnet: subnet}
}

// createMachine makes a machine with its bootstrap data.
func (n *tenant) createMachine(name string, ports ...infrav1.MachinePort) *machine {
	n.Helper()
	maasMachine := &infrav1.MaasMachine{ObjectMeta: n.meta(name)}
	maasMachine.Spec.Image, maasMachine.Spec.Ports = "ubuntu/noble", ports
	create(n.T,
		&corev1.Secret{ObjectMeta: n.meta(name), Data: map[string][]byte{"value": []byte(userData)}},
		maasMachine,
		&clusterv1.Machine{ObjectMeta: n.meta(name), Spec: clusterv1.MachineSpec{
			ClusterName: clusterName, Bootstrap: clusterv1.Bootstrap{DataSecretName: ptr.To(name)},
			InfrastructureRef: clusterv1.ContractVersionedObjectReference{APIGroup: infrav1.GroupVersion.Group, Kind: "MaasMachine", Name: name},
		}})
	return &machine{tenant: n, name: name}
}

// claim makes a machine with a port and waits for its server. Faults of its allocation meet no other test's.
func (n *tenant) claim(name string, faults ...maassim.Fault) *machine {
	n.Helper()
	claiming.Lock()
	defer claiming.Unlock()
	for _, fault := range faults {
		defer world.MAAS.Inject(fault)()
	}
	m := n.createMachine(name, port(subnet))
	m.waitClaimed()
	return m
}

// up makes a machine with a port and waits until it is provisioned.
func (n *tenant) up(name string, faults ...maassim.Fault) *machine {
	n.Helper()
	m := n.claim(name, faults...)
	m.waitUp()
	return m
}

func (m *machine) waitClaimed() {
	m.Helper()
	eventually(m.T, upWithin, m.name+" has a server", func(ctx context.Context) string {
		o := m.object()
		if err := world.Operator.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
			return err.Error()
		}
		if o.Status.SystemID == "" {
			return describe(o)
		}
		return ""
	})
}

// waitUp waits until the machine is Ready, isolated, on exactly one server, claimed once and deployed once.
func (m *machine) waitUp() {
	m.Helper()
	m.waitUpWithin(upWithin)
}

func (m *machine) waitUpWithin(timeout time.Duration) {
	m.Helper()
	expectWithin(m.T, timeout, m.object(), yes(infrav1.ReadyCondition))
	expect(m.T, m.object(), yes(infrav1.IsolatedCondition))
	if got := m.holding(); len(got) != 1 {
		m.Fatalf("%s/%s holds %d servers, want 1: %v", m.tenant.name, m.name, len(got), got)
	}
	if deploys := effects(m.tenant.name, m.name, "deploy"); len(deploys) != 1 {
		m.Errorf("%s/%s was deployed %d times, want once", m.tenant.name, m.name, len(deploys))
	}
}

// object is the MaasMachine, to be read.
func (m *machine) object() *infrav1.MaasMachine {
	return &infrav1.MaasMachine{ObjectMeta: metav1.ObjectMeta{Namespace: m.tenant.name, Name: m.name}}
}

// now is the MaasMachine as it is.
func (m *machine) now() *infrav1.MaasMachine {
	m.Helper()
	o := m.object()
	if err := world.Operator.Get(suite, client.ObjectKeyFromObject(o), o); err != nil {
		m.Fatal(err)
	}
	return o
}

// holding are the servers allocated for the machine.
func (m *machine) holding() []string {
	var held []string
	for _, e := range effects(m.tenant.name, m.name, "allocate") {
		for _, s := range world.MAAS.Machines() {
			if s.SystemID == e.SystemID && s.Claim == e.AgentName {
				held = append(held, s.SystemID)
			}
		}
	}
	return held
}

// unclaimed fails if any server was ever taken for the machine.
func (m *machine) unclaimed() {
	m.Helper()
	if taken := effects(m.tenant.name, m.name, "allocate"); len(taken) > 0 {
		m.Errorf("server %s was taken for %s/%s", taken[0].SystemID, m.tenant.name, m.name)
	}
	if claim := m.now().Spec.Claim; claim != nil {
		m.Errorf("%s/%s has a claim", m.tenant.name, m.name)
	}
}

// attachment returns the machine's DPUAttachment.
func (m *machine) attachment() *infrav1.DPUAttachment {
	m.Helper()
	list := &infrav1.DPUAttachmentList{}
	if err := world.Operator.List(suite, list, client.InNamespace(m.tenant.name)); err != nil {
		m.Fatal(err)
	}
	for i := range list.Items {
		if list.Items[i].Spec.MachineName == m.name {
			return &list.Items[i]
		}
	}
	m.Fatalf("%s/%s has no attachment", m.tenant.name, m.name)
	return nil
}

// dpu is the DPU the machine's port is on.
func (m *machine) dpu() string {
	m.Helper()
	ports := m.attachment().Status.Ports
	if len(ports) != 1 || ports[0].DPU == "" {
		m.Fatalf("%s/%s is on no DPU: %+v", m.tenant.name, m.name, ports)
	}
	return ports[0].DPU
}

// ask deletes the Machine, as Cluster API does when it scales down, and waits for nothing.
func (m *machine) ask() {
	m.Helper()
	if err := world.Operator.Delete(suite, &clusterv1.Machine{ObjectMeta: m.meta(m.name)}); client.IgnoreNotFound(err) != nil {
		m.Fatal(err)
	}
}

// down deletes the machine and waits until its server is back.
func (m *machine) down() {
	m.Helper()
	m.ask()
	m.waitDown(upWithin)
}

// waitDown waits until the machine is gone, and holds that its server was given back clean.
func (m *machine) waitDown(timeout time.Duration) {
	m.Helper()
	eventually(m.T, timeout, m.name+" is gone", func(ctx context.Context) string {
		o := m.object()
		err := world.Operator.Get(ctx, client.ObjectKeyFromObject(o), o)
		switch {
		case apierrors.IsNotFound(err):
			return ""
		case err != nil:
			return err.Error()
		}
		return describe(o)
	})
	if left := m.holding(); len(left) > 0 {
		m.Errorf("%s/%s is gone and still holds %v", m.tenant.name, m.name, left)
	}
	for _, e := range effects(m.tenant.name, m.name, "allocate") {
		if s := server(m.T, e.SystemID); s.Owner == "" && s.Dirty {
			m.Errorf("server %s went back to the pool dirty", e.SystemID)
		}
	}
}

// tidy takes everything down, so that servers are free for other tests.
func (n *tenant) tidy() {
	n.Helper()
	for _, o := range []client.Object{&clusterv1.Machine{}, &clusterv1.Cluster{}, &infrav1.TenantVPC{}} {
		if err := world.Operator.DeleteAllOf(suite, o, client.InNamespace(n.name)); err != nil {
			n.Errorf("delete all %T of %s: %v", o, n.name, err)
		}
	}
	eventually(n.T, upWithin, "everything in "+n.name+" is gone", func(ctx context.Context) string {
		for _, list := range []client.ObjectList{
			&infrav1.MaasMachineList{}, &infrav1.DPUAttachmentList{}, &infrav1.MaasClusterList{}, &infrav1.TenantVPCList{},
		} {
			if err := world.Operator.List(ctx, list, client.InNamespace(n.name)); err != nil {
				return err.Error()
			}
			if left := say(list); left != "" {
				return left
			}
		}
		return ""
	})
}

// say describes the objects of a list; empty if there are none.
func say(list client.ObjectList) string {
	text := ""
	add := func(o object) { text += fmt.Sprintf("\n%T %s:%s", o, o.GetName(), describe(o)) }
	switch l := list.(type) {
	case *infrav1.MaasMachineList:
		for i := range l.Items {
			add(&l.Items[i])
		}
	case *infrav1.DPUAttachmentList:
		for i := range l.Items {
			add(&l.Items[i])
		}
	case *infrav1.MaasClusterList:
		for i := range l.Items {
			add(&l.Items[i])
		}
	case *infrav1.TenantVPCList:
		for i := range l.Items {
			add(&l.Items[i])
		}
	}
	return text
}
