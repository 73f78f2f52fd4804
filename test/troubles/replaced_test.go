// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package troubles

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/demo"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const (
	// nsReplaced is the tenant's namespace, its identity and its servers' pool: a control plane, two workers, and three more.
	nsReplaced      = "replaced"
	replacedServers = 6
	workersAtFirst  = 2
	// givenUpFor is for how many seconds a machine may be given up before it is replaced, instead of the template's ten minutes. Until
	// the wing says how a new machine is, Cluster API calls it the same: wings that other tests keep busy must have said so by then.
	givenUpFor = 30
	// clusterWithin is for a cluster's control plane and workers to come up on a machine that runs other tests beside.
	clusterWithin = 4 * time.Minute
)

// testReplaced is the failure policy in a tenant's real cluster, made from the template. A machine fails on two servers, says so, and
// is replaced by its MachineHealthCheck on a third; nobody touches a Machine. When the two servers fail under one more machine they
// are held, until an operator has looked at them.
func testReplaced(t *testing.T) {
	identity := newIdentity(nsReplaced)
	identity.Spec.AllowedPools = []string{nsReplaced}
	identity.Spec.AllowedNamespaces = &infrav1.AllowedNamespaces{Names: []string{nsReplaced}}
	createIdentity(t, identity)
	r := newReplaced(t)
	r.impatient(t)
	free := r.free(t)
	if len(free) != 3 {
		t.Fatalf("of the pool %v are free, want three", free)
	}
	bad, good := free[:2], free[2]
	var heal []func()
	for _, id := range bad {
		heal = append(heal, world.MAAS.Inject(maassim.Fault{Kind: maassim.FaultDeployFails, Operation: "deploy", SystemID: id}))
		defer heal[len(heal)-1]()
	}
	r.failOnce(t, bad, good)
	last := r.failTwice(t, identity, bad)
	for i, id := range bad {
		heal[i]()
		releaseErased(t, id)
	}
	r.wait(t, workersAtFirst+2)
	last.once("allocate", "deploy")
	eventually(t, soon, "nothing is held or suspected any more", func(context.Context) string {
		if why := listsHeld(identity); why != "" {
			return why
		}
		if left := identity.Status.Suspects; len(left) > 0 {
			return fmt.Sprintf("suspects are %v", left)
		}
		return ""
	})
}

// failOnce has a machine fail on the two bad servers while nothing else is free; its replacement takes the good one.
func (r *replacedCluster) failOnce(t *testing.T, bad []string, good string) {
	t.Helper()
	thief := maasClient(t, strangerKey)
	if _, err := thief.Allocate(suite, "elsewhere", maas.Constraints{SystemIDs: []string{good}}, ""); err != nil {
		t.Fatal(err)
	}
	m := r.grow(t, workersAtFirst+1)
	r.givenUp(t, m, bad)
	for _, id := range bad {
		r.erasedUnder(t, m, id)
	}
	if why := r.suspects(bad, m); why != "" {
		t.Error(why)
	}
	if err := thief.Release(suite, good, maas.ReleaseRequest{Erase: maas.EraseNone}); err != nil {
		t.Fatal(err)
	}
	replacement := r.replacementOf(t, m)
	r.wait(t, workersAtFirst+1)
	if on := replacement.now().Status.SystemID; on != good {
		t.Errorf("the replacement is on server %s; %s is the one nothing failed on", on, good)
	}
}

// failTwice has a second machine fail on the two bad servers, which are held then; its replacement, which is returned, waits.
func (r *replacedCluster) failTwice(t *testing.T, identity *infrav1.MaasClusterIdentity, bad []string) *machine {
	t.Helper()
	m := r.grow(t, workersAtFirst+2)
	r.givenUp(t, m, bad)
	eventually(t, soon, "the servers that failed twice are held", func(context.Context) string { return listsHeld(identity, bad...) })
	for _, id := range bad {
		r.suspectHeld(t, identity, m, id)
	}
	replacement := r.replacementOf(t, m)
	expect(t, replacement.object(), no(infrav1.ServerClaimedCondition, infrav1.NoServerAvailableReason))
	expect(t, replacement.object(), says{condition: infrav1.ReadyCondition, status: metav1.ConditionUnknown})
	return replacement
}

// replacedCluster is the tenant with the real cluster.
type replacedCluster struct {
	*demo.Tenant
	space *tenant
	// seen are the names of all MaasMachines so far: the next one is new, however soon it came.
	seen []string
}

// newReplaced brings the cluster up, with its two workers, and takes it down at the test's end.
func newReplaced(t *testing.T) *replacedCluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(suite, clusterWithin)
	defer cancel()
	n, err := world.NewTenant(ctx, nsReplaced)
	if err != nil {
		t.Fatal(err)
	}
	r := &replacedCluster{Tenant: n, space: &tenant{T: t, name: nsReplaced}}
	t.Cleanup(r.space.tidy)
	n.Identity = nsReplaced
	for _, step := range []func() error{
		func() error { return n.CreateVPC(ctx) },
		func() error { return n.CreateCluster(ctx, workersAtFirst) },
		func() error { return n.WaitControlPlane(ctx) },
		func() error { return n.WaitNodes(ctx, workersAtFirst+1) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	r.seen = r.names(suite)
	return r
}

// impatient shortens the template's time for a machine that was given up, and changes nothing else of its health check.
func (r *replacedCluster) impatient(t *testing.T) {
	t.Helper()
	check := &clusterv1.MachineHealthCheck{}
	if err := r.Client().Get(suite, client.ObjectKey{Namespace: nsReplaced, Name: nsReplaced + "-workers"}, check); err != nil {
		t.Fatal(err)
	}
	unhealthy := check.Spec.Checks.UnhealthyMachineConditions
	if len(unhealthy) != 1 || unhealthy[0].Type != clusterv1.MachineInfrastructureReadyCondition || unhealthy[0].Status != metav1.ConditionFalse {
		t.Fatalf("the template's health check looks at %+v, want InfrastructureReady False", unhealthy)
	}
	before := check.DeepCopy()
	unhealthy[0].TimeoutSeconds = ptr.To[int32](givenUpFor)
	if err := r.Client().Patch(suite, check, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
}

// free are the pool's servers nobody has.
func (r *replacedCluster) free(t *testing.T) []string {
	t.Helper()
	var ids []string
	for _, s := range world.MAAS.Machines() {
		if s.Pool == nsReplaced && s.Status == maassim.StatusReady {
			ids = append(ids, s.SystemID)
		}
	}
	return ids
}

// names are the tenant's MaasMachines.
func (r *replacedCluster) names(ctx context.Context) []string {
	var names []string
	for _, m := range r.space.machines(ctx) {
		names = append(names, m.Name)
	}
	return names
}

// grow scales the workers up by one and returns the new machine.
func (r *replacedCluster) grow(t *testing.T, workers int32) *machine {
	t.Helper()
	deployment := &clusterv1.MachineDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: nsReplaced, Name: nsReplaced + "-workers"}}
	scale(t, deployment, workers)
	return r.newcomer(t, soon)
}

// newcomer waits for a machine that was not there before.
func (r *replacedCluster) newcomer(t *testing.T, within time.Duration) *machine {
	t.Helper()
	var found *machine
	eventually(t, within, "there is a new machine", func(ctx context.Context) string {
		names := r.names(ctx)
		for _, name := range names {
			if !slices.Contains(r.seen, name) {
				r.seen = append(r.seen, name)
				found = &machine{tenant: r.space, name: name}
				return ""
			}
		}
		return fmt.Sprintf("there are %v, all seen before", names)
	})
	return found
}

// givenUp waits until the machine says that its deployment failed on these servers, and its Machine says the same.
func (r *replacedCluster) givenUp(t *testing.T, m *machine, servers []string) {
	t.Helper()
	expectWithin(t, upWithin, m.object(), no(infrav1.ReadyCondition, infrav1.DeployFailedReason, "2 servers"))
	var avoided []string
	for _, s := range m.now().Status.AvoidedServers {
		if s.Reason != infrav1.DeployFailedReason {
			t.Errorf("server %s is avoided because of %s", s.SystemID, s.Reason)
		}
		avoided = append(avoided, s.SystemID)
	}
	slices.Sort(avoided)
	if want := slices.Sorted(slices.Values(servers)); !slices.Equal(avoided, want) {
		t.Errorf("machine %s avoids %v, want %v", m.name, avoided, want)
	}
	owner := &clusterv1.Machine{ObjectMeta: m.meta(m.name)}
	expect(t, owner, no(clusterv1.MachineInfrastructureReadyCondition, infrav1.DeployFailedReason, "2 servers"))
	for _, written := range owner.ManagedFields {
		if strings.HasPrefix(written.Manager, "maas-dpu") {
			t.Errorf("%s wrote to the Machine", written.Manager)
		}
	}
}

// erasedUnder holds that the server was given back by the machine, with erase, and is free.
func (r *replacedCluster) erasedUnder(t *testing.T, m *machine, systemID string) {
	t.Helper()
	released := slices.ContainsFunc(effects(nsReplaced, m.name, "release"), func(e maassim.Effect) bool {
		return e.SystemID == systemID && e.Erase == quickErase
	})
	if s := server(t, systemID); !released || s.Status != maassim.StatusReady || s.Dirty {
		t.Errorf("server %s is %s, dirty=%t, released with erase=%t", systemID, s.StatusName, s.Dirty, released)
	}
}

// suspects says what is wrong with the identity's suspects; empty if they are these servers, each because of the machine.
func (r *replacedCluster) suspects(servers []string, m *machine) string {
	identity := &infrav1.MaasClusterIdentity{}
	if err := world.Operator.Get(suite, client.ObjectKey{Name: nsReplaced}, identity); err != nil {
		return err.Error()
	}
	for _, suspect := range identity.Status.Suspects {
		if !slices.Contains(servers, suspect.SystemID) || !slices.Equal(suspect.Machines, []string{nsReplaced + "/" + m.name}) {
			return fmt.Sprintf("server %s is suspected because of %v", suspect.SystemID, suspect.Machines)
		}
	}
	if len(identity.Status.Suspects) != len(servers) {
		return fmt.Sprintf("suspects are %v, want %v", identity.Status.Suspects, servers)
	}
	return ""
}

// suspectHeld holds that the server is kept from the next machine: allocated, off, marked, on no VPC, and not erased by the machine.
func (r *replacedCluster) suspectHeld(t *testing.T, identity *infrav1.MaasClusterIdentity, m *machine, systemID string) {
	t.Helper()
	s := server(t, systemID)
	if s.Owner != demo.Account || s.PoweredOn || s.Annotations[maas.AnnotationHold] != infrav1.ServerSuspectReason {
		t.Errorf("server %s is %s of %q, on=%t, annotated %v", systemID, s.StatusName, s.Owner, s.PoweredOn, s.Annotations)
	}
	if released := effects(nsReplaced, m.name, "release"); len(released) > 0 {
		t.Errorf("server %s was released", released[0].SystemID)
	}
	for _, held := range identity.Status.Held {
		if held.SystemID == systemID && (held.Reason != infrav1.ServerSuspectReason || held.Machine != nsReplaced+"/"+m.name) {
			t.Errorf("server %s is listed as held for %s because of %s", systemID, held.Machine, held.Reason)
		}
	}
	for _, rack := range world.Servers {
		if rack.SystemID == systemID && len(portsOf(rack.DPU.Name)) > 0 {
			t.Errorf("held server %s is on %v", systemID, portsOf(rack.DPU.Name))
		}
	}
}

// replacementOf waits until Cluster API has deleted the Machine because of its health check, and returns the one made in its place.
func (r *replacedCluster) replacementOf(t *testing.T, m *machine) *machine {
	t.Helper()
	found := r.newcomer(t, givenUpFor*time.Second+upWithin)
	eventually(t, upWithin, "machine "+m.name+" is gone", func(ctx context.Context) string {
		if slices.Contains(r.names(ctx), m.name) {
			return "it still exists"
		}
		return ""
	})
	return found
}

// wait waits until the cluster has so many workers, each a Ready Node, besides its control plane.
func (r *replacedCluster) wait(t *testing.T, workers int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(suite, clusterWithin)
	defer cancel()
	if err := r.WaitNodes(ctx, workers+1); err != nil {
		t.Fatal(err)
	}
}
