// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package autoscaler_test

import (
	"context"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/autoscaler"
)

const (
	poolScarce = "scarce"
	poolPlenty = "plenty"

	hook = clusterv1.PreTerminateDeleteHookAnnotationPrefix + "/test"
)

// TestGroupWithoutFreeServers asks a group whose only server is taken. Its machine says so and who must act, the autoscaler takes the
// request back, leaves the group alone and gets a server from another one. What is left of the first request does not take the
// server that becomes free, however long it hangs on; the next request does.
func TestGroupWithoutFreeServers(t *testing.T) {
	t.Parallel()
	begin(t)
	squatter := newGroup(t, "squatter", poolScarce, nil)
	squatter.scale(1)
	eventually(t, "the server of the pool is taken", func(ctx context.Context) string {
		for _, machine := range squatter.machines(ctx) {
			if len(effects(machine.Name, "deploy")) == 1 {
				return ""
			}
		}
		return squatter.describe(ctx)
	})
	// Less is wasted on the scarce servers, as far as their annotations say, so that they are asked for first.
	scarce := newGroup(t, "scarce", poolScarce, map[string]string{minSize: "0", maxSize: "3", cpu: "48", memory: "300Gi", provisionTime: "60m"})
	plenty := newGroup(t, "scarce", poolPlenty, map[string]string{minSize: "0", maxSize: "3", provisionTime: "60m"})
	d := newDriver(t, "scarce", autoscaler.Options{}, scarce, plenty)

	d.did(d.turn(pods(1)...), action(autoscaler.ScaledUp, scarce, 1))
	waiting := &scarce.waitMachines(1)[0]
	scarce.says(waiting, "no server is free", "pool "+poolScarce, "operator")
	hold(t, waiting)

	// As long as the group's own time lasts, the server is counted on.
	d.did(d.turn(pods(1)...))
	// The scale-up was at 10 s.
	d.skipTo(time.Hour)
	d.did(d.turn(pods(1)...))
	d.did(d.turn(pods(1)...))
	d.did(d.turn(pods(1)...), action(autoscaler.TimedOut, scarce, 1), action(autoscaler.TakenBack, scarce, 1), action(autoscaler.ScaledUp, plenty, 1))
	plenty.waitNodes(1)
	eventually(t, "the machine that found no server is being deleted", func(ctx context.Context) string {
		if err := world.Operator.Get(ctx, client.ObjectKeyFromObject(waiting), waiting); err != nil {
			return err.Error()
		}
		if waiting.DeletionTimestamp.IsZero() {
			return "not yet"
		}
		return ""
	})
	d.did(d.turn(pods(1)...))

	// The server becomes free while that one still waits for somebody's hook. Whoever comes now gets it.
	squatter.scale(0)
	squatter.waitMachines(0)
	waitBack(t, poolScarce)
	squatter.scale(1)
	eventually(t, "the server goes to the machine that came last", func(ctx context.Context) string {
		if taken := effects(waiting.Name, "allocate"); len(taken) > 0 {
			t.Fatalf("%s, which is being deleted, took %s", waiting.Name, taken[0].SystemID)
		}
		for _, machine := range squatter.machines(ctx) {
			if len(effects(machine.Name, "allocate")) > 0 {
				return ""
			}
		}
		return squatter.describe(ctx) + scarce.describe(ctx)
	})
	unhold(t, waiting)
	scarce.waitMachines(0)
	squatter.scale(0)
	squatter.waitMachines(0)
	waitBack(t, poolScarce)

	// The group is left alone for five minutes, and then asked again first.
	d.did(d.turn(pods(2)...), action(autoscaler.ScaledUp, plenty, 1))
	d.did(d.turn(pods(2)...))
	d.skipTo(66 * time.Minute)
	d.did(d.turn(pods(3)...), action(autoscaler.ScaledUp, scarce, 1))
	scarce.waitNodes(1)

	for _, g := range []*group{scarce, plenty} {
		g.tidy()
	}
	waitBack(t, poolScarce)
	waitBack(t, poolPlenty)
	if taken := effects(waiting.Name, "allocate"); len(taken) > 0 {
		t.Errorf("%s took %s", waiting.Name, taken[0].SystemID)
	}
}

// says waits until the MaasMachine, and through it the Machine, tells people so.
func (g *group) says(machine *clusterv1.Machine, parts ...string) {
	g.Helper()
	tells := func(c *metav1.Condition) bool {
		if c == nil || c.Status != metav1.ConditionFalse && c.Status != metav1.ConditionUnknown || c.Reason != infrav1.NoServerAvailableReason {
			return false
		}
		for _, part := range parts {
			if !strings.Contains(c.Message, part) {
				return false
			}
		}
		return true
	}
	eventually(g.T, machine.Name+" says that it has no server, and why", func(ctx context.Context) string {
		if err := world.Operator.Get(ctx, client.ObjectKeyFromObject(machine), machine); err != nil {
			return err.Error()
		}
		of := g.maasMachine(ctx, machine.Name)
		if of == nil || !tells(conditions.Get(of, infrav1.ServerClaimedCondition)) || !tells(conditions.Get(machine, clusterv1.MachineInfrastructureReadyCondition)) {
			return g.describe(ctx)
		}
		return ""
	})
}

// hold has the Machine wait once it is deleted, as an operator's hook may.
func hold(t *testing.T, machine *clusterv1.Machine) {
	t.Helper()
	patch(t, machine, func() { metav1.SetMetaDataAnnotation(&machine.ObjectMeta, hook, "") })
	t.Cleanup(func() { unhold(t, machine) })
}

func unhold(t *testing.T, machine *clusterv1.Machine) {
	t.Helper()
	patch(t, machine, func() { delete(machine.Annotations, hook) })
}

func patch(t *testing.T, machine *clusterv1.Machine, change func()) {
	t.Helper()
	err := world.Operator.Get(suite, client.ObjectKeyFromObject(machine), machine)
	if err == nil {
		before := machine.DeepCopy()
		change()
		err = world.Operator.Patch(suite, machine, client.MergeFrom(before))
	}
	if client.IgnoreNotFound(err) != nil {
		t.Fatal(err)
	}
}
