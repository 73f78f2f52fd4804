// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package topology_test

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	bootstrapv1 "sigs.k8s.io/cluster-api/api/bootstrap/kubeadm/v1beta2"
	controlplanev1 "sigs.k8s.io/cluster-api/api/controlplane/kubeadm/v1beta2"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/demo"
)

// wanted is what each worker must be.
type wanted struct {
	image, subnet, cidr, portName string
	erase                         infrav1.ReleaseErase
}

var atFirst = wanted{image: firstImage, subnet: firstSubnet, cidr: "10.64.0.0/24", portName: "tenant"}

// lacked says what a worker is that was not wanted.
func (w wanted) lacked(m *infrav1.MaasMachine) string {
	spec := m.Spec.MachineConstraints
	switch {
	case spec.Image != w.image:
		return "image " + spec.Image
	case len(spec.Ports) != 1 || spec.Ports[0].Subnet != w.subnet || spec.Ports[0].Name != w.portName:
		return fmt.Sprintf("ports %+v", spec.Ports)
	case spec.Release.Erase != w.erase:
		return "erase " + string(spec.Release.Erase)
	case !m.DeletionTimestamp.IsZero():
		return "is being deleted"
	case !conditions.IsTrue(m, infrav1.ReadyCondition) || !conditions.IsTrue(m, infrav1.IsolatedCondition):
		return fmt.Sprintf("conditions %+v", m.Status.Conditions)
	}
	return ""
}

// waitWorkers waits until there are exactly so many workers, as wanted, each a Ready Node with an address of the wanted subnet,
// and until the MachineDeployment has nothing left to do.
func (c *topologyCluster) waitWorkers(t *testing.T, count int, want wanted) {
	t.Helper()
	eventually(t, rollWithin, fmt.Sprintf("%d workers are %+v", count, want), func(ctx context.Context) string {
		workers, err := c.workers(ctx)
		if err != nil {
			return err.Error()
		}
		if len(workers) != count {
			return fmt.Sprintf("workers %v", slices.Sorted(maps.Keys(workers)))
		}
		deployment, err := c.deployment(ctx)
		if err != nil {
			return err.Error()
		}
		for name, m := range workers {
			template := deployment.Spec.Template.Spec.InfrastructureRef.Name
			if got := m.Annotations[clusterv1.TemplateClonedFromNameAnnotation]; got != template {
				return fmt.Sprintf("%s was made from %s, not from %s", name, got, template)
			}
			if lack := want.lacked(m); lack != "" {
				return name + ": " + lack
			}
		}
		if deployment.Status.ObservedGeneration != deployment.Generation {
			return "the MachineDeployment's generation is not observed yet"
		}
		if lack := lacks(deployment, clusterv1.MachineDeploymentAvailableCondition) +
			lacks(deployment, clusterv1.MachineDeploymentMachinesUpToDateCondition); lack != "" {
			return lack
		}
		return ""
	})
	c.nodesMatch(t, want)
}

// nodesMatch checks that each worker is a Ready Node with an address of the subnet.
func (c *topologyCluster) nodesMatch(t *testing.T, want wanted) {
	t.Helper()
	workload, subnet := c.workload(t), netip.MustParsePrefix(want.cidr)
	eventually(t, patience, "each worker is a Ready Node of "+want.cidr, func(ctx context.Context) string {
		workers, err := c.workers(ctx)
		if err != nil {
			return err.Error()
		}
		nodes := &corev1.NodeList{}
		if err := workload.List(ctx, nodes); err != nil {
			return err.Error()
		}
		for name, m := range workers {
			at := slices.IndexFunc(nodes.Items, func(n corev1.Node) bool { return n.Spec.ProviderID == m.Spec.ProviderID })
			if at < 0 {
				return name + " is no Node"
			}
			address, err := netip.ParseAddr(internalIP(nodes.Items[at]))
			if err != nil || !subnet.Contains(address) || !nodeReady(nodes.Items[at]) {
				return fmt.Sprintf("%s: Node %s has address %s, ready %t", name, nodes.Items[at].Name, address, nodeReady(nodes.Items[at]))
			}
		}
		return ""
	})
}

func internalIP(node corev1.Node) string {
	for _, a := range node.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			return a.Address
		}
	}
	return ""
}

func nodeReady(node corev1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// rollsOutOnce makes a change and holds all that follows from it against what one rollout of the workers is: one template and one
// MachineSet more for a while, each worker replaced once, and each old server drained, detached, erased and given back.
func (c *topologyCluster) rollsOutOnce(t *testing.T, count int, want wanted, act func()) {
	t.Helper()
	c.caughtUp(t)
	before, revision, journal := c.ledger.page(), c.revision(t), len(world.MAAS.Journal())
	old, err := c.workers(suite)
	if err != nil {
		t.Fatal(err)
	}
	act()
	c.reconciled(t)
	c.waitWorkers(t, count, want)
	c.caughtUp(t)

	c.newSince(t, before, map[kind]int{machineTemplates: 1, bootstrapTemplates: 0, machineSets: 1, machines: count, maasMachines: count})
	if got := c.revision(t); got != revision+1 {
		t.Errorf("the MachineDeployment went from revision %d to %d", revision, got)
	}
	for name, m := range old {
		c.wasGivenBack(t, name, m.Status.SystemID, journal)
	}
	if most := mostHeld(journal); most > max(count, len(old))+1 {
		t.Errorf("%d servers were held at once: a new one was taken before the old one was given back", most)
	}
	c.leavesNoTemplates(t)
	c.quiet(t)
}

// newSince compares how many objects of each kind came since a page was written.
func (c *topologyCluster) newSince(t *testing.T, before page, want map[kind]int) {
	t.Helper()
	for k, count := range want {
		if got := c.ledger.since(before, k); len(got) != count {
			t.Errorf("%d new %ss, want %d: %v", len(got), k, count, got)
		}
	}
}

// leavesNoTemplates waits until only the templates in use are there: one for the control plane, which is KubeadmControlPlane's
// own for bootstrapping, and one for the workers.
func (c *topologyCluster) leavesNoTemplates(t *testing.T) {
	t.Helper()
	eventually(t, patience, "old templates are gone", func(context.Context) string {
		infrastructure, bootstrap, sets := c.ledger.livingNow(machineTemplates), c.ledger.livingNow(bootstrapTemplates), c.ledger.livingNow(machineSets)
		if len(infrastructure) != 2 || len(bootstrap) != 1 || len(sets) != 1 {
			return fmt.Sprintf("%v, %v, %v", infrastructure, bootstrap, sets)
		}
		return ""
	})
}

// caughtUp waits until the ledger tells of everything the API server does.
func (c *topologyCluster) caughtUp(t *testing.T) {
	t.Helper()
	lists := map[kind]client.ObjectList{
		machineTemplates: &infrav1.MaasMachineTemplateList{}, bootstrapTemplates: &bootstrapv1.KubeadmConfigTemplateList{},
		machineSets: &clusterv1.MachineSetList{}, machines: &clusterv1.MachineList{}, maasMachines: &infrav1.MaasMachineList{},
	}
	eventually(t, patience, "the ledger is complete", func(ctx context.Context) string {
		for k, list := range lists {
			if err := c.operator.List(ctx, list, client.InNamespace(c.key.Namespace), client.HasLabels{clusterv1.ClusterNameLabel}); err != nil {
				return err.Error()
			}
			names, err := namesOf(list)
			if err != nil {
				return err.Error()
			}
			if written := c.ledger.livingNow(k); !slices.Equal(names, written) {
				return fmt.Sprintf("%s: %v, ledger %v", k, names, written)
			}
		}
		return ""
	})
}

func namesOf(list client.ObjectList) ([]string, error) {
	items, err := meta.ExtractList(list)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, item := range items {
		object, err := meta.Accessor(item)
		if err != nil {
			return nil, err
		}
		names = append(names, object.GetName())
	}
	slices.Sort(names)
	return names, nil
}

// revision counts the rollouts of the MachineDeployment.
func (c *topologyCluster) revision(t *testing.T) int {
	t.Helper()
	deployment, err := c.deployment(suite)
	if err != nil {
		t.Fatal(err)
	}
	revision, err := strconv.Atoi(deployment.Annotations[clusterv1.RevisionAnnotation])
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

// placeGuest puts a Pod on the Node of one of the workers. Nobody but a drain takes it away, for which Cluster API looks every 20
// seconds.
func (c *topologyCluster) placeGuest(t *testing.T) *corev1.Pod {
	t.Helper()
	workload := c.workload(t)
	workers, err := c.workers(suite)
	if err != nil {
		t.Fatal(err)
	}
	nodes := &corev1.NodeList{}
	if err := workload.List(suite, nodes); err != nil {
		t.Fatal(err)
	}
	name := slices.Min(slices.Collect(maps.Keys(workers)))
	at := slices.IndexFunc(nodes.Items, func(n corev1.Node) bool { return n.Spec.ProviderID == workers[name].Spec.ProviderID })
	if at < 0 {
		t.Fatalf("%s is no Node", name)
	}
	guest := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "guest-of-" + name},
		Spec: corev1.PodSpec{
			NodeName: nodes.Items[at].Name, Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Containers: []corev1.Container{{Name: "guest", Image: "guest"}},
		},
	}
	if err := workload.Create(suite, guest); err != nil {
		t.Fatal(err)
	}
	return guest
}

// wasGivenBack checks, by what MAAS journaled since and Cluster API said last, that a machine was drained and its server erased.
// That it was detached before is the checker's.
func (c *topologyCluster) wasGivenBack(t *testing.T, name, systemID string, journal int) {
	t.Helper()
	if deletion := last[*clusterv1.Machine](c.ledger, machines, name).Status.Deletion; deletion == nil || deletion.NodeDrainStartTime.IsZero() {
		t.Errorf("Machine %s was not drained", name)
	}
	var done []string
	for _, e := range world.MAAS.JournalSince(journal) {
		switch {
		case e.SystemID != systemID || len(done) == 3:
		case e.Operation == "release" && e.Erase != "", e.Operation == "erased", e.Operation == "released":
			done = append(done, e.Operation)
		}
	}
	if !slices.Equal(done, []string{"release", "erased", "released"}) {
		t.Errorf("server %s of %s went through %v, want release, erased, released", systemID, name, done)
	}
}

// mostHeld is how many servers our account had at once at most since then.
func mostHeld(journal int) int {
	held, most := map[string]bool{}, 0
	for i, e := range world.MAAS.Journal() {
		switch {
		case e.Operation == "allocate" && e.User == demo.Account:
			held[e.SystemID] = true
		case e.Operation == "released":
			delete(held, e.SystemID)
		}
		if i >= journal {
			most = max(most, len(held))
		}
	}
	return most
}

// quiet holds that the topology controller is content: looking again and again, it writes nothing. That it did look is told by
// the generation it looked at.
func (c *topologyCluster) quiet(t *testing.T) {
	t.Helper()
	eventually(t, patience, "nobody writes any more", func(ctx context.Context) string {
		before, err := c.versions(ctx)
		if err != nil {
			return err.Error()
		}
		for i := range 4 {
			c.poke(t, i)
		}
		after, err := c.versions(ctx)
		if err != nil {
			return err.Error()
		}
		if !maps.Equal(before, after) {
			return fmt.Sprintf("from %v to %v", before, after)
		}
		return ""
	})
}

// poke changes the cluster without any effect: an annotation, and an override that says what the cluster says anyway.
func (c *topologyCluster) poke(t *testing.T, i int) {
	t.Helper()
	cluster := &clusterv1.Cluster{}
	change(t, c.user, c.key, cluster, func() {
		metav1.SetMetaDataAnnotation(&cluster.ObjectMeta, "example.com/poked", strconv.Itoa(i))
		variables := cluster.Spec.Topology.Variables
		at := slices.IndexFunc(variables, func(v clusterv1.ClusterVariable) bool { return v.Name == "nameservers" })
		overrides := &pool(&cluster.Spec.Topology).Variables.Overrides
		if i%2 == 0 {
			*overrides = append(*overrides, variables[at])
			return
		}
		setVariable(overrides, "nameservers", nil)
		if len(*overrides) == 0 {
			*overrides = nil
		}
	})
	c.reconciled(t)
}

// versions are the resource versions of all that the topology controller writes, and of the class.
func (c *topologyCluster) versions(ctx context.Context) (map[string]string, error) {
	versions := map[string]string{}
	for _, list := range []client.ObjectList{
		&infrav1.MaasClusterList{}, &infrav1.MaasClusterTemplateList{}, &infrav1.MaasMachineTemplateList{}, &bootstrapv1.KubeadmConfigTemplateList{},
		&controlplanev1.KubeadmControlPlaneList{}, &controlplanev1.KubeadmControlPlaneTemplateList{}, &clusterv1.ClusterClassList{},
		&clusterv1.MachineDeploymentList{}, &clusterv1.MachineSetList{}, &clusterv1.MachineHealthCheckList{},
	} {
		if err := c.operator.List(ctx, list, client.InNamespace(c.key.Namespace)); err != nil {
			return nil, err
		}
		items, err := meta.ExtractList(list)
		if err != nil {
			return nil, err
		}
		for _, item := range items {
			object, err := meta.Accessor(item)
			if err != nil {
				return nil, err
			}
			versions[fmt.Sprintf("%T %s", item, object.GetName())] = object.GetResourceVersion()
		}
	}
	return versions, nil
}
