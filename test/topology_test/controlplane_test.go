// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package topology_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	controlplanev1 "sigs.k8s.io/cluster-api/api/controlplane/kubeadm/v1beta2"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// surgesWithOneOnly: the class lets KubeadmControlPlane take a second server where there is one machine only, whatever the number was
// before. The cluster's identity does not exist, so that no server is asked for.
func (c *topologyCluster) surgesWithOneOnly(t *testing.T) {
	cluster := c.object(0)
	cluster.Name = "many"
	cluster.Spec.Topology.ControlPlane.Replicas = ptr.To[int32](3)
	setVariable(&cluster.Spec.Topology.Variables, "identity", "not-there-yet")
	if err := c.user.Create(suite, cluster); err != nil {
		t.Fatal(err)
	}
	c.hasSurge(t, cluster, 0)
	for _, replicas := range []int32{1, 3} {
		change(t, c.user, client.ObjectKeyFromObject(cluster), cluster, func() { cluster.Spec.Topology.ControlPlane.Replicas = ptr.To(replicas) })
		c.hasSurge(t, cluster, 1-replicas/3)
	}
	if err := c.user.Delete(suite, cluster); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "the cluster that never was is gone", func(ctx context.Context) string {
		left := &infrav1.MaasClusterList{}
		if err := c.user.List(ctx, left, client.InNamespace(c.key.Namespace)); err != nil {
			return err.Error()
		}
		if err := c.user.Get(ctx, client.ObjectKeyFromObject(cluster), cluster); client.IgnoreNotFound(err) != nil || err == nil {
			return fmt.Sprintf("%v, %d MaasClusters", err, len(left.Items))
		}
		return ""
	})
}

// hasSurge waits until the topology is reconciled with that many servers more in a rollout of the control plane.
func (c *topologyCluster) hasSurge(t *testing.T, cluster *clusterv1.Cluster, want int32) {
	t.Helper()
	eventually(t, patience, fmt.Sprintf("the control plane takes %d servers more in a rollout", want), func(ctx context.Context) string {
		if err := c.user.Get(ctx, client.ObjectKeyFromObject(cluster), cluster); err != nil {
			return err.Error()
		}
		if lack := lacks(cluster, clusterv1.ClusterTopologyReconciledCondition); lack != "" {
			return lack
		}
		list := &controlplanev1.KubeadmControlPlaneList{}
		if err := c.user.List(ctx, list, client.InNamespace(cluster.Namespace), client.MatchingLabels{clusterv1.ClusterNameLabel: cluster.Name}); err != nil {
			return err.Error()
		}
		if len(list.Items) != 1 {
			return fmt.Sprintf("%d KubeadmControlPlanes", len(list.Items))
		}
		surge := list.Items[0].Spec.Rollout.Strategy.RollingUpdate.MaxSurge
		if surge == nil || *surge != intstr.FromInt32(want) || *list.Items[0].Spec.Replicas != *cluster.Spec.Topology.ControlPlane.Replicas {
			return fmt.Sprintf("maxSurge %v of %d replicas", surge, *list.Items[0].Spec.Replicas)
		}
		return ""
	})
}

// changesControlPlaneImage changes the image of all machines whose group does not say otherwise, which the workers' does: the control
// plane's one machine is replaced, by a second server that joins before the first is given back.
func (c *topologyCluster) changesControlPlaneImage(t *testing.T) {
	c.caughtUp(t)
	before, revision, journal := c.ledger.page(), c.revision(t), len(world.MAAS.Journal())
	old := c.controlPlane(t)
	if len(old) != 1 {
		t.Fatalf("the control plane has %d machines, want 1", len(old))
	}
	c.edit(t, func(topology *clusterv1.Topology) { setVariable(&topology.Variables, "image", secondImage) })
	c.reconciled(t)
	eventually(t, rollWithin, "the control plane has the new image", func(ctx context.Context) string {
		cluster, err := c.get(ctx)
		if err != nil {
			return err.Error()
		}
		machines := c.controlPlane(t)
		if len(machines) != 1 || machines[0].Spec.Image != secondImage || machines[0].Name == old[0].Name {
			return fmt.Sprintf("control plane machines: %s", say(machines))
		}
		return lacks(cluster, clusterv1.ClusterControlPlaneAvailableCondition) + lacks(cluster, clusterv1.ClusterControlPlaneMachinesUpToDateCondition)
	})
	c.caughtUp(t)
	c.newSince(t, before, map[kind]int{machineTemplates: 1, bootstrapTemplates: 0, machineSets: 0, machines: 1, maasMachines: 1})
	if got := c.revision(t); got != revision {
		t.Errorf("the control plane's image took the MachineDeployment from revision %d to %d", revision, got)
	}
	c.wasGivenBack(t, old[0].Name, old[0].Status.SystemID, journal)
	c.leavesNoTemplates(t)
	c.quiet(t)
}

// controlPlane are the control plane's MaasMachines.
func (c *topologyCluster) controlPlane(t *testing.T) []infrav1.MaasMachine {
	t.Helper()
	list := &infrav1.MaasMachineList{}
	if err := c.user.List(suite, list, client.InNamespace(c.key.Namespace), client.HasLabels{clusterv1.MachineControlPlaneLabel}); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// say names machines with their images and conditions.
func say(machines []infrav1.MaasMachine) string {
	var said []string
	for _, m := range machines {
		ready := conditions.Get(&m, infrav1.ReadyCondition)
		said = append(said, fmt.Sprintf("%s %s deleting=%t %+v", m.Name, m.Spec.Image, !m.DeletionTimestamp.IsZero(), ready))
	}
	return strings.Join(said, "; ")
}
