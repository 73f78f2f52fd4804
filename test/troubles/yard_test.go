// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package troubles

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/demo"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

// yard is a MAAS account with a resource pool of servers without DPUs, and the identity for both, all of one name. Nobody else
// uses them: what goes wrong there meets no other test, and costs none of DPF's time.
type yard struct {
	name    string
	servers int
	// unchecked keeps the account from the package's checker, for tests in which people use the account by hand.
	unchecked bool
}

// yards are racked before the first test.
var yards = []yard{breakerYard, orphanYard, fairYard, rotatingYard, replicaYard, killedYard}

func (y yard) key() string { return y.name + "-consumer:" + y.name + "-token:" + y.name + "-secret" }

// systemIDs are the yard's servers.
func (y yard) systemIDs() []string {
	var ids []string
	for i := range y.servers {
		ids = append(ids, fmt.Sprintf("%s%d", y.name, i+1))
	}
	return ids
}

// rack puts the account and its servers into MAAS.
func (y yard) rack() error {
	world.MAAS.AddUser(y.name, y.key(), false)
	world.MAAS.AddPool(y.name)
	for _, id := range y.systemIDs() {
		if err := world.MAAS.AddMachine(maassim.Machine{SystemID: id, Pool: y.name}); err != nil {
			return err
		}
	}
	if !y.unchecked {
		world.Checker.Inventory.Accounts = append(world.Checker.Inventory.Accounts, y.name)
	}
	return nil
}

// identity is the yard's, to be read, or to be created.
func (y yard) identity(namespaces ...string) *infrav1.MaasClusterIdentity {
	identity := newIdentity(y.name)
	identity.Spec.Source, identity.Spec.Isolation = "", infrav1.IsolationOptional
	identity.Spec.SecretRef.Name = y.name
	identity.Spec.CircuitBreaker = infrav1.CircuitBreaker{}
	identity.Spec.AllowedZones, identity.Spec.AllowedPools = nil, []string{y.name}
	identity.Spec.AllowedNamespaces = &infrav1.AllowedNamespaces{Names: namespaces}
	return identity
}

// open makes the identity, which it removes at the test's end, and in each namespace a cluster without ports. change may be nil.
func (y yard) open(t *testing.T, change func(*infrav1.MaasClusterIdentity), namespaces ...string) []*tenant {
	t.Helper()
	setSecret(t, demo.MachineNamespace, y.name, apiKey, y.key())
	identity := y.identity(namespaces...)
	if change != nil {
		change(identity)
	}
	createIdentity(t, identity)
	var tenants []*tenant
	for _, namespace := range namespaces {
		n := newTenant(t, namespace)
		n.createCluster(y.name, "")
		expect(t, n.cluster(), yes(infrav1.ReadyCondition))
		tenants = append(tenants, n)
	}
	return tenants
}

// createIdentity makes an identity and sees to it that nothing keeps it at the test's end.
func createIdentity(t *testing.T, identity *infrav1.MaasClusterIdentity) {
	t.Helper()
	create(t, identity)
	t.Cleanup(func() {
		eventually(t, upWithin, "identity "+identity.Name+" is gone", func(ctx context.Context) string {
			// It is refused as long as a server is listed as held.
			err := world.Operator.Delete(ctx, identity)
			switch {
			case apierrors.IsNotFound(err):
				return ""
			case err != nil:
				return err.Error()
			}
			return "it is being deleted"
		})
	})
}

// free are the yard's servers that anybody could have.
func (y yard) free(t *testing.T) []string {
	t.Helper()
	return slices.DeleteFunc(y.systemIDs(), func(id string) bool { return server(t, id).Status != maassim.StatusReady })
}

// upPlain makes a machine without ports and waits until it is provisioned.
func (n *tenant) upPlain(name string) *machine {
	n.Helper()
	m := n.createMachine(name)
	m.waitUpPlain()
	return m
}

// waitUpPlain waits until a machine without ports is Ready on one server.
func (m *machine) waitUpPlain() {
	m.Helper()
	expectWithin(m.T, upWithin, m.object(), yes(infrav1.ReadyCondition))
	if got := m.holding(); len(got) != 1 {
		m.Fatalf("%s/%s holds %d servers, want 1: %v", m.tenant.name, m.name, len(got), got)
	}
}

// createDeployment makes a MachineDeployment of the cluster, whose machines have no ports and all the same bootstrap data.
func (n *tenant) createDeployment(name string, replicas int32) *clusterv1.MachineDeployment {
	n.Helper()
	template := &infrav1.MaasMachineTemplate{ObjectMeta: n.meta(name)}
	template.Spec.Template.Spec.Image = "ubuntu/noble"
	labels := map[string]string{clusterv1.ClusterNameLabel: clusterName, "deployment": name}
	deployment := &clusterv1.MachineDeployment{ObjectMeta: n.meta(name), Spec: clusterv1.MachineDeploymentSpec{
		ClusterName: clusterName, Replicas: ptr.To(replicas), Selector: metav1.LabelSelector{MatchLabels: labels},
		Template: clusterv1.MachineTemplateSpec{
			ObjectMeta: clusterv1.ObjectMeta{Labels: labels},
			Spec: clusterv1.MachineSpec{
				ClusterName: clusterName, Bootstrap: clusterv1.Bootstrap{DataSecretName: ptr.To(name)},
				InfrastructureRef: clusterv1.ContractVersionedObjectReference{APIGroup: infrav1.GroupVersion.Group, Kind: "MaasMachineTemplate", Name: name},
			},
		},
	}}
	create(n.T, &corev1.Secret{ObjectMeta: n.meta(name), Data: map[string][]byte{"value": []byte(userData)}}, template, deployment)
	return deployment
}

// scale is what a tenant does to the deployment.
func scale(t *testing.T, deployment *clusterv1.MachineDeployment, replicas int32) {
	t.Helper()
	change(t, deployment, func() { deployment.Spec.Replicas = ptr.To(replicas) })
}

// machines are the namespace's MaasMachines.
func (n *tenant) machines(ctx context.Context) []infrav1.MaasMachine {
	n.Helper()
	list := &infrav1.MaasMachineList{}
	if err := world.Operator.List(ctx, list, client.InNamespace(n.name)); err != nil {
		n.Fatal(err)
	}
	return list.Items
}

// ready are those of the namespace's machines that say so.
func (n *tenant) ready(ctx context.Context) []*machine {
	n.Helper()
	var ready []*machine
	for _, m := range n.machines(ctx) {
		if conditions.IsTrue(&m, infrav1.ReadyCondition) {
			ready = append(ready, &machine{tenant: n, name: m.Name})
		}
	}
	return ready
}

// waitReady waits until exactly so many machines exist and are Ready.
func (n *tenant) waitReady(count int) {
	n.Helper()
	n.waitReadyWithin(upWithin, count)
}

func (n *tenant) waitReadyWithin(within time.Duration, count int) {
	n.Helper()
	eventually(n.T, within, fmt.Sprintf("%s has %d machines, all Ready", n.name, count), func(ctx context.Context) string {
		if ready := len(n.ready(ctx)); ready != count || len(n.machines(ctx)) != count {
			list := &infrav1.MaasMachineList{Items: n.machines(ctx)}
			return fmt.Sprintf("%d of %d are Ready: %s", ready, len(list.Items), say(list))
		}
		return ""
	})
}

// effectsOf are what an account did to servers, by operation.
func effectsOf(account, operation string) []maassim.Effect {
	return slices.DeleteFunc(world.MAAS.Journal(), func(e maassim.Effect) bool { return e.User != account || e.Operation != operation })
}
