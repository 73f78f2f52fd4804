// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package troubles

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const (
	nsNamespaceGone = "namespace-gone"
	nsClusterGone   = "cluster-gone"

	// quickErase is how MAAS' journal has a quick erase.
	quickErase = "erase+quick_erase"
)

// testNamespaceDeleted deletes the namespace while MAAS deploys one machine and another runs: Secrets, RoleBindings and all that
// has no finalizer go at once, in no order.
func testNamespaceDeleted(t *testing.T) {
	n := newReadyTenant(t, nsNamespaceGone)
	running := n.up("running")
	deploying := n.createMachine("deploying", port(subnet))
	eventually(t, upWithin, "MAAS deploys the second machine", func(context.Context) string {
		if len(effects(n.name, "deploying", "deploy")) == 0 {
			return "not yet"
		}
		return ""
	})
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: n.name}}
	if err := world.Operator.Delete(suite, namespace); err != nil {
		t.Fatal(err)
	}
	waitNamespaceGone(t, namespace)
	running.backErased()
	deploying.backErased()
}

// testClusterDeleted takes everything away that stands above the machines, as people do who force what hangs: the MaasCluster and
// the TenantVPC are asked to go first, Machine and Cluster lose their finalizers.
func testClusterDeleted(t *testing.T) {
	n := newReadyTenant(t, nsClusterGone)
	running := n.up("running")
	deploying := n.createMachine("deploying", port(subnet))
	eventually(t, upWithin, "MAAS deploys the second machine", func(context.Context) string {
		if len(effects(n.name, "deploying", "deploy")) == 0 {
			return "not yet"
		}
		return ""
	})
	for _, o := range []client.Object{n.cluster(), n.vpc()} {
		if err := world.Operator.Delete(suite, o); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, n.cluster(), no(infrav1.ReadyCondition, infrav1.MachinesRemainReason))
	for _, o := range []client.Object{
		&clusterv1.Cluster{ObjectMeta: n.meta(clusterName)},
		&clusterv1.Machine{ObjectMeta: n.meta("running")}, &clusterv1.Machine{ObjectMeta: n.meta("deploying")},
	} {
		forceAway(t, o)
	}
	// The MaasMachines follow their Machines, which are gone.
	running.waitDown(upWithin)
	deploying.waitDown(upWithin)
	running.backErased()
	deploying.backErased()
	deleteAll(t, n.vpc())
}

// forceAway deletes an object without what its controllers would still do.
func forceAway(t *testing.T, o client.Object) {
	t.Helper()
	if err := world.Operator.Delete(suite, o); err != nil {
		t.Fatal(err)
	}
	eventually(t, soon, o.GetName()+" is forced away", func(ctx context.Context) string {
		err := world.Operator.Get(ctx, client.ObjectKeyFromObject(o), o)
		if err == nil {
			o.SetFinalizers(nil)
			err = world.Operator.Update(ctx, o)
		}
		if apierrors.IsNotFound(err) {
			return ""
		}
		if err != nil {
			return err.Error()
		}
		return "its finalizers were removed"
	})
}

// backErased holds that the machine's server came back to the pool, erased after it had been deployed.
func (m *machine) backErased() {
	m.Helper()
	m.once("allocate", "deploy", "release")
	for _, e := range effects(m.tenant.name, m.name, "release") {
		if e.Erase != quickErase {
			m.Errorf("server %s of %s/%s was released with %q, want a quick erase", e.SystemID, m.tenant.name, m.name, e.Erase)
		}
	}
	for _, e := range effects(m.tenant.name, m.name, "allocate") {
		if s := server(m.T, e.SystemID); s.Claim == e.AgentName && s.Status != maassim.StatusReady || s.Owner == "" && s.Dirty {
			m.Errorf("server %s of %s/%s is %s, dirty=%t", e.SystemID, m.tenant.name, m.name, s.StatusName, s.Dirty)
		}
	}
}

func waitNamespaceGone(t *testing.T, namespace *corev1.Namespace) {
	t.Helper()
	eventually(t, upWithin, "the namespace is gone", func(ctx context.Context) string {
		err := world.Operator.Get(ctx, client.ObjectKeyFromObject(namespace), namespace)
		switch {
		case apierrors.IsNotFound(err):
			return ""
		case err != nil:
			return err.Error()
		}
		text := "it is " + string(namespace.Status.Phase)
		for _, c := range namespace.Status.Conditions {
			text += "\n" + string(c.Type) + ": " + c.Message
		}
		return text
	})
}
