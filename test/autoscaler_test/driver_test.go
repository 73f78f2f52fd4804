// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package autoscaler_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	clocktesting "k8s.io/utils/clock/testing"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/autoscaler"
)

// scanInterval is between two turns of the autoscaler.
const scanInterval = 10 * time.Second

// driver is an autoscaler on a clock of its own, for the groups of one test.
type driver struct {
	*testing.T
	provider   *autoscaler.Provider
	autoscaler *autoscaler.Autoscaler
	clock      *clocktesting.FakePassiveClock
	started    time.Time
}

func newDriver(t *testing.T, test string, options autoscaler.Options, groups ...*group) *driver {
	t.Helper()
	provider, err := autoscaler.Open(suite, management, workload, discovery(test))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(provider.Close)
	now := time.Now()
	clock := clocktesting.NewFakePassiveClock(now)
	d := &driver{T: t, provider: provider, autoscaler: autoscaler.New(provider, clock, options), clock: clock, started: now}
	d.sees(groups...)
	return d
}

// sees waits until the autoscaler has exactly these groups: at zero it has none whose capacity nobody told it.
func (d *driver) sees(groups ...*group) {
	d.Helper()
	var want []string
	for _, g := range groups {
		want = append(want, g.name)
	}
	slices.Sort(want)
	eventually(d.T, "the autoscaler has the groups", func(ctx context.Context) string {
		found, err := d.provider.Groups(ctx)
		if err != nil {
			return err.Error()
		}
		var names []string
		for _, group := range found {
			names = append(names, group.Name)
		}
		if slices.Sort(names); !slices.Equal(names, want) {
			return fmt.Sprintf("it has %v, want %v", names, want)
		}
		return ""
	})
}

// turn is one turn of the autoscaler, ten seconds after the last. What the last one did has been done by then.
func (d *driver) turn(pods ...autoscaler.Pod) []autoscaler.Action {
	d.Helper()
	d.settle()
	d.clock.SetTime(d.clock.Now().Add(scanInterval))
	actions, err := d.autoscaler.RunOnce(suite, pods)
	if err != nil {
		d.Fatal(err)
	}
	for _, action := range actions {
		d.Logf("%6s %s", d.clock.Now().Sub(d.started).Round(time.Second), action)
	}
	return actions
}

// skipTo lets so much time have passed for the autoscaler, and for nobody else, at the next turn.
func (d *driver) skipTo(sinceStart time.Duration) {
	d.clock.SetTime(d.started.Add(sinceStart - scanInterval))
}

// settle waits until the autoscaler's caches have what there is, and Cluster API has made what was asked for: it takes much less than
// the ten seconds between two turns, which nobody waits for here.
func (d *driver) settle() {
	d.Helper()
	eventually(d.T, "Cluster API has done what it was asked for, and the autoscaler has seen it", func(ctx context.Context) string {
		groups, err := d.provider.Groups(ctx)
		if err != nil {
			return err.Error()
		}
		for _, group := range groups {
			if why := behind(ctx, group); why != "" {
				return group.Name + ": " + why
			}
		}
		return ""
	})
}

func behind(ctx context.Context, group *autoscaler.Group) string {
	size, err := group.Replicas(ctx)
	if err != nil {
		return err.Error()
	}
	if target, err := group.TargetSize(); err != nil || target != size {
		return fmt.Sprintf("the cache has %d replicas of %d, %v", target, size, err)
	}
	list := &clusterv1.MachineList{}
	if err := world.Operator.List(ctx, list, client.InNamespace(group.Namespace), client.MatchingLabels{"pool": group.Name}); err != nil {
		return err.Error()
	}
	living, withNode := 0, 0
	for i := range list.Items {
		if list.Items[i].DeletionTimestamp.IsZero() {
			living++
			if list.Items[i].Status.NodeRef.IsDefined() {
				withNode++
			}
		}
	}
	instances, err := group.Instances()
	if err != nil {
		return err.Error()
	}
	count := map[autoscaler.State]int{}
	for _, instance := range instances {
		count[instance.State]++
	}
	if living != size || len(instances) != len(list.Items) || count[autoscaler.Running] != withNode || count[autoscaler.Creating] != living-withNode {
		return fmt.Sprintf("%d replicas, %d Machines of which %d live and %d are Nodes; the cache has %v", size, len(list.Items), living, withNode, count)
	}
	return ""
}

// group is one of the driver's, as it sees it now.
func (d *driver) group(name string) *autoscaler.Group {
	d.Helper()
	groups, err := d.provider.Groups(suite)
	if err != nil {
		d.Fatal(err)
	}
	at := slices.IndexFunc(groups, func(g *autoscaler.Group) bool { return g.Name == name })
	if at < 0 {
		d.Fatalf("the autoscaler has no group %s among %d", name, len(groups))
	}
	return groups[at]
}

// pods are Pods that each fill most of a server.
func pods(count int) []autoscaler.Pod {
	var all []autoscaler.Pod
	for i := range count {
		all = append(all, autoscaler.Pod{Name: fmt.Sprintf("pod-%d", i), CPU: resource.MustParse("40"), Memory: resource.MustParse("256Gi")})
	}
	return all
}

// did fails unless exactly this was done, in this order.
func (d *driver) did(actions []autoscaler.Action, want ...autoscaler.Action) {
	d.Helper()
	same := slices.EqualFunc(actions, want, func(a, b autoscaler.Action) bool {
		return a.Kind == b.Kind && a.Group == b.Group && a.Count == b.Count && a.Err == nil
	})
	if !same {
		d.Fatalf("the autoscaler did %v, want %v", actions, want)
	}
}

func action(kind autoscaler.Kind, g *group, count int) autoscaler.Action {
	return autoscaler.Action{Kind: kind, Group: g.name, Count: count}
}
