// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package autoscaler_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// timeline notes when the machines of a group first were something.
type timeline struct {
	*testing.T
	asked time.Time

	mu    sync.Mutex
	first map[string]map[string]time.Time // by step, by machine or Node
}

// steps are those of the table, in order.
var steps = []string{"Machine made", "claimed", "attached, proven", "deploy accepted", "MAAS says Deployed", "provisioned", "Node registered", "Node Ready"}

// follow begins to note, until the test ends. It notes all machines and Nodes of the lab; the table shows the group's.
func follow(t *testing.T) *timeline {
	t.Helper()
	l := &timeline{T: t, asked: time.Now(), first: map[string]map[string]time.Time{}}
	ctx, stop := context.WithCancel(suite)
	var watching sync.WaitGroup
	operator, err := client.NewWithWatch(world.Lab.Management(), client.Options{Scheme: world.Operator.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range []struct {
		from client.WithWatch
		list client.ObjectList
		in   client.InNamespace
	}{{operator, &infrav1.MaasMachineList{}, tenantName}, {nodes, &corev1.NodeList{}, ""}} {
		changes, err := source.from.Watch(ctx, source.list, source.in)
		if err != nil {
			t.Fatal(err)
		}
		watching.Go(func() {
			defer changes.Stop()
			for change := range changes.ResultChan() {
				l.take(change)
			}
		})
	}
	t.Cleanup(func() { stop(); watching.Wait() })
	return l
}

func (l *timeline) take(change watch.Event) {
	switch o := change.Object.(type) {
	case *infrav1.MaasMachine:
		l.note("Machine made", o.Name, true)
		l.note("attached, proven", o.Name, conditions.IsTrue(o, infrav1.DPUAttachedCondition))
		l.note("provisioned", o.Name, o.Status.Initialization.Provisioned != nil && *o.Status.Initialization.Provisioned)
	case *corev1.Node:
		l.note("Node registered", o.Name, true)
		l.note("Node Ready", o.Name, isReady(o))
	}
}

func (l *timeline) note(step, name string, is bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first[step] == nil {
		l.first[step] = map[string]time.Time{}
	}
	if _, known := l.first[step][name]; is && !known {
		l.first[step][name] = time.Now()
	}
}

// print logs how long after the size was asked for the first and the last of the group's machines came to each step.
func (l *timeline) print(g *group) {
	l.Helper()
	names := map[string]bool{}
	for _, machine := range g.machines(suite) {
		names[machine.Name] = true
		names[machine.Status.NodeRef.Name] = true
		for step, operation := range map[string]string{"claimed": "allocate", "deploy accepted": "deploy"} {
			for _, e := range effects(machine.Name, operation) {
				l.at(step, machine.Name, e.Time)
			}
		}
		for _, e := range effects(machine.Name, "deployed") {
			l.at("MAAS says Deployed", machine.Name, e.Time)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%s from zero to %d; MAAS deploys in 2 s here\n", g.name, len(names)/2)
	for _, step := range steps {
		var after []time.Duration
		for name, at := range l.first[step] {
			if names[name] {
				after = append(after, at.Sub(l.asked))
			}
		}
		if len(after) == 0 {
			l.Errorf("nothing was noted of %q", step)
			continue
		}
		fmt.Fprintf(&b, "  %-20s first %5.2f s, last %5.2f s\n", step, slices.Min(after).Seconds(), slices.Max(after).Seconds())
	}
	l.Log(b.String())
}

func (l *timeline) at(step, name string, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first[step] == nil {
		l.first[step] = map[string]time.Time{}
	}
	l.first[step][name] = at
}
