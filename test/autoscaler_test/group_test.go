// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package autoscaler_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const (
	// testLabel tells the groups of one test from those of others.
	testLabel = "autoscaler-test"

	pollEvery = 100 * time.Millisecond
	patience  = 2 * time.Minute

	minSize = clusterv1.AutoscalerMinSizeAnnotation
	maxSize = clusterv1.AutoscalerMaxSizeAnnotation
	cpu     = "capacity.cluster-autoscaler.kubernetes.io/cpu"
	memory  = "capacity.cluster-autoscaler.kubernetes.io/memory"
	// provisionTime is the option every template of ours carries.
	provisionTime = "cluster.x-k8s.io/autoscaling-options-maxnodeprovisiontime"
)

// begin ends the test with the checker's verdict, after everything else was cleaned up.
func begin(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		verdict := world.Checker.Check()
		if !verdict.Holds() {
			t.Errorf("invariants are broken:\n%s", verdict)
		}
		if unchecked := verdict.Unchecked(); len(unchecked) > 0 {
			t.Errorf("nothing was observed for %v", unchecked)
		}
	})
}

// eventually waits until check returns "", which otherwise says why not yet.
func eventually(t *testing.T, what string, check func(ctx context.Context) (whyNot string)) {
	t.Helper()
	why := ""
	err := wait.PollUntilContextTimeout(suite, pollEvery, patience, true, func(context.Context) (bool, error) {
		why = check(suite)
		return why == "", nil
	})
	if err != nil {
		t.Fatalf("%s: not so after %s: %s", what, patience, why)
	}
}

// group is a MachineDeployment on the servers of one pool.
type group struct {
	*testing.T
	name string
}

// newGroup makes a group of the tenant's cluster at zero, which is gone with the test. Its servers join as the workers of the cluster
// template do.
func newGroup(t *testing.T, test, pool string, annotations map[string]string) *group {
	t.Helper()
	g := &group{T: t, name: test + "-" + pool}
	// Three objects of which the MachineDeployment goes first, and takes its machines with it.
	create(t, g.template(pool))
	g.bootstrap()
	labels := map[string]string{testLabel: test, "pool": g.name}
	deployment := g.deployment()
	deployment.Labels, deployment.Annotations = map[string]string{testLabel: test}, annotations
	deployment.Spec = clusterv1.MachineDeploymentSpec{
		ClusterName: tenantName, Selector: metav1.LabelSelector{MatchLabels: map[string]string{"pool": g.name}},
		Template: clusterv1.MachineTemplateSpec{
			ObjectMeta: clusterv1.ObjectMeta{Labels: labels},
			Spec: clusterv1.MachineSpec{
				ClusterName: tenantName, Version: "v1.36.3",
				Bootstrap:         clusterv1.Bootstrap{ConfigRef: clusterv1.ContractVersionedObjectReference{APIGroup: "bootstrap.cluster.x-k8s.io", Kind: "KubeadmConfigTemplate", Name: g.name}},
				InfrastructureRef: clusterv1.ContractVersionedObjectReference{APIGroup: infrav1.GroupVersion.Group, Kind: "MaasMachineTemplate", Name: g.name},
			},
		},
	}
	if len(annotations) == 0 {
		deployment.Spec.Replicas = ptr.To[int32](0)
	}
	create(t, deployment)
	t.Cleanup(g.tidy)
	return g
}

func create(t *testing.T, o client.Object) {
	t.Helper()
	if err := world.Operator.Create(suite, o); err != nil {
		t.Fatalf("create %T %s: %v", o, o.GetName(), err)
	}
	t.Cleanup(func() {
		if err := world.Operator.Delete(suite, o); client.IgnoreNotFound(err) != nil {
			t.Errorf("delete %T %s: %v", o, o.GetName(), err)
		}
	})
}

func (g *group) meta() metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: tenantName, Name: g.name}
}

func (g *group) deployment() *clusterv1.MachineDeployment {
	return &clusterv1.MachineDeployment{ObjectMeta: g.meta()}
}

// template asks for a server of the pool with its port in the tenant's VPC.
func (g *group) template(pool string) *infrav1.MaasMachineTemplate {
	template := &infrav1.MaasMachineTemplate{ObjectMeta: g.meta()}
	template.Spec.Template.Spec.Image, template.Spec.Template.Spec.ResourcePool = "ubuntu/noble", pool
	template.Spec.Template.Spec.Ports = []infrav1.MachinePort{{Name: "tenant", PF: ptr.To[int32](0), Subnet: "nodes"}}
	return template
}

// bootstrap copies what the cluster template has for its workers.
func (g *group) bootstrap() {
	g.Helper()
	config := &unstructured.Unstructured{}
	config.SetAPIVersion("bootstrap.cluster.x-k8s.io/v1beta2")
	config.SetKind("KubeadmConfigTemplate")
	if err := world.Operator.Get(suite, client.ObjectKey{Namespace: tenantName, Name: tenantName + "-workers"}, config); err != nil {
		g.Fatal(err)
	}
	copied := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": config.GetAPIVersion(), "kind": config.GetKind(), "spec": config.Object["spec"],
		"metadata": map[string]any{"namespace": tenantName, "name": g.name},
	}}
	create(g.T, copied)
}

// tidy deletes the group and waits until its machines are gone.
func (g *group) tidy() {
	g.Helper()
	if err := world.Operator.Delete(suite, g.deployment()); client.IgnoreNotFound(err) != nil {
		g.Error(err)
	}
	g.waitMachines(0)
}

// annotate changes the MachineDeployment's annotations.
func (g *group) annotate(annotations map[string]string) {
	g.Helper()
	g.change(func(deployment *clusterv1.MachineDeployment) { maps.Copy(deployment.Annotations, annotations) })
}

// scale sets the size as people do.
func (g *group) scale(replicas int32) {
	g.Helper()
	g.change(func(deployment *clusterv1.MachineDeployment) { deployment.Spec.Replicas = ptr.To(replicas) })
}

func (g *group) change(f func(*clusterv1.MachineDeployment)) {
	g.Helper()
	deployment := g.deployment()
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if err := world.Operator.Get(suite, client.ObjectKeyFromObject(deployment), deployment); err != nil {
			return err
		}
		f(deployment)
		return world.Operator.Update(suite, deployment)
	})
	if err != nil {
		g.Fatal(err)
	}
}

// replicas are the MachineDeployment's.
func (g *group) replicas() int {
	g.Helper()
	deployment := g.deployment()
	if err := world.Operator.Get(suite, client.ObjectKeyFromObject(deployment), deployment); err != nil {
		g.Fatal(err)
	}
	return int(ptr.Deref(deployment.Spec.Replicas, -1))
}

// machines are the group's Machines by name, those being deleted too.
func (g *group) machines(ctx context.Context) []clusterv1.Machine {
	g.Helper()
	list := &clusterv1.MachineList{}
	if err := world.Operator.List(ctx, list, client.InNamespace(tenantName), client.MatchingLabels{"pool": g.name}); err != nil {
		g.Fatal(err)
	}
	slices.SortFunc(list.Items, func(a, b clusterv1.Machine) int { return strings.Compare(a.Name, b.Name) })
	return list.Items
}

func (g *group) waitMachines(count int) []clusterv1.Machine {
	g.Helper()
	var machines []clusterv1.Machine
	eventually(g.T, fmt.Sprintf("%s has %d machines", g.name, count), func(ctx context.Context) string {
		if machines = g.machines(ctx); len(machines) == count {
			return ""
		}
		return g.describe(ctx)
	})
	return machines
}

// waitNodes waits until the group has exactly so many machines, each with a Node that is Ready.
func (g *group) waitNodes(count int) []*corev1.Node {
	g.Helper()
	var ready []*corev1.Node
	eventually(g.T, fmt.Sprintf("%s has %d Ready Nodes", g.name, count), func(ctx context.Context) string {
		ready = nil
		machines := g.machines(ctx)
		for i := range machines {
			if node := nodeOf(ctx, &machines[i]); node != nil && isReady(node) {
				ready = append(ready, node)
			}
		}
		if len(machines) == count && len(ready) == count {
			return ""
		}
		return g.describe(ctx)
	})
	return ready
}

// nodeOf is the Machine's Node, nil if there is none.
func nodeOf(ctx context.Context, machine *clusterv1.Machine) *corev1.Node {
	if !machine.Status.NodeRef.IsDefined() {
		return nil
	}
	node := &corev1.Node{}
	if err := nodes.Get(ctx, client.ObjectKey{Name: machine.Status.NodeRef.Name}, node); err != nil {
		return nil
	}
	return node
}

func isReady(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// maasMachine is the MaasMachine of a Machine, nil once it is gone.
func (g *group) maasMachine(ctx context.Context, name string) *infrav1.MaasMachine {
	g.Helper()
	machine := &infrav1.MaasMachine{}
	err := world.Operator.Get(ctx, client.ObjectKey{Namespace: tenantName, Name: name}, machine)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		g.Fatal(err)
	}
	return machine
}

// describe says how the group's machines are.
func (g *group) describe(ctx context.Context) string {
	g.Helper()
	var b strings.Builder
	for _, machine := range g.machines(ctx) {
		fmt.Fprintf(&b, "\n%s, deleting %t, phase %s", machine.Name, !machine.DeletionTimestamp.IsZero(), machine.Status.Phase)
		if of := g.maasMachine(ctx, machine.Name); of != nil {
			for _, c := range of.Status.Conditions {
				fmt.Fprintf(&b, "\n  %s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message)
			}
			for _, boot := range world.Rack.Boots() {
				if boot.SystemID == of.Status.SystemID {
					fmt.Fprintf(&b, "\n  booted, joined=%t %s", boot.Joined, boot.Reason)
				}
			}
		}
	}
	if b.Len() == 0 {
		return "no machines"
	}
	return b.String()
}

// effects are what was done to servers under the token of one machine.
func effects(machine, operation string) []maassim.Effect {
	return slices.DeleteFunc(world.MAAS.Journal(), func(e maassim.Effect) bool {
		token := e.AgentName
		if token == "" {
			token = e.Claim
		}
		return e.Operation != operation || !maas.Token(token).Fits(tenantName, machine)
	})
}

// waitBack waits until all servers of a pool are free and clean.
func waitBack(t *testing.T, pool string) {
	t.Helper()
	eventually(t, "the servers of pool "+pool+" are back", func(context.Context) string {
		for _, s := range world.MAAS.Machines() {
			if poolOf(s.SystemID) == pool && (s.Status != maassim.StatusReady || s.Owner != "" || s.Dirty) {
				return fmt.Sprintf("%s is %s, owner %q, dirty %t", s.SystemID, s.StatusName, s.Owner, s.Dirty)
			}
		}
		return ""
	})
}

func poolOf(systemID string) string {
	for _, s := range world.Servers {
		if s.SystemID == systemID {
			return s.Pool
		}
	}
	return ""
}
