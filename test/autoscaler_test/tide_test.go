// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package autoscaler_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/autoscaler"
)

const poolTide = "tide"

// TestFromZeroAndBack scales a group, of which the template alone tells what its servers offer, from zero to its upper bound, takes exactly the Node that is named, holds the lower bound, goes back
// to zero, and comes from zero again.
func TestFromZeroAndBack(t *testing.T) {
	t.Parallel()
	begin(t)
	g := newGroup(t, "zero", poolTide, map[string]string{minSize: "0", maxSize: "2", provisionTime: "60m"})
	d := newDriver(t, "zero", autoscaler.Options{}, g)

	// Three Pods need three servers, and three are free; two are allowed.
	l := follow(t)
	d.did(d.turn(pods(3)...), action(autoscaler.ScaledUp, g, 2))
	d.did(d.turn(pods(3)...))
	if err := d.group(g.name).IncreaseSize(suite, 1); err == nil {
		t.Error("the group grew beyond its upper bound")
	}
	up := g.waitNodes(2)
	l.print(g)
	d.did(d.turn(pods(3)...))

	// The last by name is the one Cluster API would take last.
	going, staying := up[1], up[0]
	d.remove(going)
	eventually(t, "one machine is left", func(ctx context.Context) string {
		if len(g.machines(ctx)) == 1 {
			return ""
		}
		return g.describe(ctx)
	})
	if left := g.waitNodes(1); left[0].Name != staying.Name {
		t.Fatalf("%s was to go, and %s went", going.Name, staying.Name)
	}

	// The lower bound holds, also against a Node that is named.
	g.annotate(map[string]string{minSize: "1"})
	eventually(t, "the autoscaler sees the lower bound", func(context.Context) string {
		if d.group(g.name).MinSize() == 1 {
			return ""
		}
		return "not yet"
	})
	d.did(d.turn())
	d.skipTo(time.Hour)
	d.did(d.turn())
	if err := d.autoscaler.Remove(suite, staying); !errors.Is(err, autoscaler.ErrMinSize) {
		t.Errorf("a Node below the lower bound: %v", err)
	}
	if node := g.waitNodes(1)[0]; node.Spec.Unschedulable || len(node.Spec.Taints) != len(staying.Spec.Taints) {
		t.Errorf("the Node that stays keeps the taint %v", node.Spec.Taints)
	}

	// Unneeded for long enough, the last one goes.
	g.annotate(map[string]string{minSize: "0"})
	eventually(t, "the autoscaler sees that the lower bound went", func(context.Context) string {
		if d.group(g.name).MinSize() == 0 {
			return ""
		}
		return "not yet"
	})
	d.did(d.turn(), action(autoscaler.ScaledDown, g, 1))
	g.waitMachines(0)
	waitBack(t, poolTide)
	if size := g.replicas(); size != 0 {
		t.Errorf("%d replicas, want 0", size)
	}

	d.did(d.turn(pods(1)...), action(autoscaler.ScaledUp, g, 1))
	g.waitNodes(1)
	d.did(d.turn(pods(1)...))
	g.tidy()
	waitBack(t, poolTide)
}

// remove takes a Node off as the autoscaler does, and holds that its Machine, and no other, is deleted.
func (d *driver) remove(node *corev1.Node) {
	d.Helper()
	if err := d.autoscaler.Remove(suite, node); err != nil {
		d.Fatal(err)
	}
	tainted := &corev1.Node{}
	err := nodes.Get(suite, client.ObjectKeyFromObject(node), tainted)
	if client.IgnoreNotFound(err) != nil {
		d.Fatal(err)
	}
	if err == nil && !slices.ContainsFunc(tainted.Spec.Taints, func(taint corev1.Taint) bool { return taint.Key == "ToBeDeletedByClusterAutoscaler" }) {
		d.Errorf("%s has the taints %v", node.Name, tainted.Spec.Taints)
	}
}
