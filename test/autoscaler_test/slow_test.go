// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package autoscaler_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/autoscaler"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const (
	poolSlow  = "slow"
	poolHasty = "hasty"
)

// TestSlowServer deploys a server for 20 minutes of the autoscaler's clock, in a group that allows 60: it is waited for, and becomes a
// Node.
func TestSlowServer(t *testing.T) {
	t.Parallel()
	begin(t)
	slow(t, poolSlow)
	g := newGroup(t, "slow", poolSlow, map[string]string{minSize: "0", maxSize: "1", provisionTime: "60m"})
	d := newDriver(t, "slow", autoscaler.Options{}, g)

	d.did(d.turn(pods(1)...), action(autoscaler.ScaledUp, g, 1))
	machine := g.waitDeploying()
	for _, minutes := range []time.Duration{5, 14, 16, 20} {
		d.skipTo(minutes * time.Minute)
		d.did(d.turn(pods(1)...))
	}
	finish(t, poolSlow)
	if up := g.waitNodes(1); up[0].Name != g.waitMachines(1)[0].Status.NodeRef.Name || len(effects(machine.Name, "deploy")) != 1 {
		t.Errorf("%s is not the machine that was waited for", up[0].Name)
	}
	d.did(d.turn(pods(1)...))
	// Nothing of the request is left that could time out.
	d.skipTo(2 * time.Hour)
	d.did(d.turn(pods(1)...))
	g.tidy()
	waitBack(t, poolSlow)
}

// TestSlowServerGivenUp is the same in a group that says nothing of its time: after the autoscaler's own 15 minutes its machine is
// deleted in the middle of the deployment, and the server goes back clean, for nothing.
func TestSlowServerGivenUp(t *testing.T) {
	t.Parallel()
	begin(t)
	slow(t, poolHasty)
	g := newGroup(t, "hasty", poolHasty, map[string]string{minSize: "0", maxSize: "1"})
	d := newDriver(t, "hasty", autoscaler.Options{KeepsTimedOutSize: true}, g)

	d.did(d.turn(pods(1)...), action(autoscaler.ScaledUp, g, 1))
	machine := g.waitDeploying()
	d.did(d.turn(pods(1)...))
	// The scale-up was at 10 s, the machine was first seen at 20 s; each has 15 minutes.
	d.skipTo(15 * time.Minute)
	d.did(d.turn(pods(1)...))
	d.did(d.turn(pods(1)...))
	d.did(d.turn(pods(1)...), action(autoscaler.TimedOut, g, 1))
	d.did(d.turn(pods(1)...), action(autoscaler.DeletedUnregistered, g, 1))
	g.waitMachines(0)
	waitBack(t, poolHasty)
	if deployed, released := effects(machine.Name, "deployed"), effects(machine.Name, "release"); len(deployed) > 0 || len(released) != 1 || released[0].Erase == "" {
		t.Errorf("the server was deployed %d times, and released with %+v", len(deployed), released)
	}
	// The group is left alone, and there is no other.
	d.did(d.turn(pods(1)...))
	if size := g.replicas(); size != 0 {
		t.Errorf("%d replicas, want 0", size)
	}
}

// slow has MAAS deploy the pool's only server until finish says that it has.
func slow(t *testing.T, pool string) {
	t.Helper()
	t.Cleanup(world.MAAS.Inject(maassim.Fault{Kind: maassim.FaultDeployHangs, Operation: "deploy", SystemID: onlyServer(t, pool), Count: 1}))
}

func onlyServer(t *testing.T, pool string) string {
	t.Helper()
	at := slices.IndexFunc(world.MAAS.Machines(), func(s maassim.MachineState) bool { return poolOf(s.SystemID) == pool })
	if at < 0 {
		t.Fatalf("pool %s has no server", pool)
	}
	return world.MAAS.Machines()[at].SystemID
}

func finish(t *testing.T, pool string) {
	t.Helper()
	form := url.Values{"system_id": {onlyServer(t, pool)}}.Encode()
	request := httptest.NewRequestWithContext(suite, http.MethodPost, "/driver/deployed", strings.NewReader(form))
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer := httptest.NewRecorder()
	world.MAAS.Handler().ServeHTTP(answer, request)
	if answer.Code != http.StatusNoContent {
		t.Fatalf("finish the deployment: %d %s", answer.Code, answer.Body)
	}
}

// waitDeploying waits until the group's only machine is claimed, attached and being deployed, and the installer writes to the disk:
// what a server does before it is switched on is nothing it could end.
func (g *group) waitDeploying() *clusterv1.Machine {
	g.Helper()
	machine := &g.waitMachines(1)[0]
	eventually(g.T, machine.Name+" is being deployed", func(ctx context.Context) string {
		of := g.maasMachine(ctx, machine.Name)
		if of != nil && conditions.IsTrue(of, infrav1.DPUAttachedCondition) && conditions.GetReason(of, infrav1.DeployedCondition) == infrav1.DeployingReason &&
			len(effects(machine.Name, "deploy")) == 1 && installs(of.Status.SystemID) {
			return ""
		}
		return g.describe(ctx)
	})
	return machine
}

func installs(systemID string) bool {
	return slices.ContainsFunc(world.MAAS.Machines(), func(s maassim.MachineState) bool { return s.SystemID == systemID && s.PoweredOn && s.OSInstalled })
}
