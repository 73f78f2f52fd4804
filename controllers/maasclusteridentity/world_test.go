// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasclusteridentity

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/cluster-api/util/conditions"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/event"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

var errAway = errors.New("MAAS is away")

// region is a MAAS that holds servers and counts what it is asked.
type region struct {
	scope.MAAS
	servers map[string]maas.Machine
	// tokens are the system IDs of servers by the token they were allocated under.
	tokens map[string]string
	zones  []string
	calls  map[string]int
	// away are operations that are not answered.
	away map[string]bool
}

func (r *region) asked(operation string) error {
	r.calls[operation]++
	if r.away[operation] {
		return errAway
	}
	return nil
}

func (r *region) Zones(context.Context) ([]string, error) {
	return slices.Clone(r.zones), r.asked("zones")
}

func (r *region) MachinesOwnedBy(_ context.Context, account string) ([]maas.Machine, error) {
	owned := slices.DeleteFunc(slices.Collect(maps.Values(r.servers)), func(m maas.Machine) bool { return m.Owner != account })
	return copied(owned), r.asked("list")
}

func (r *region) MachinesByID(_ context.Context, ids ...string) ([]maas.Machine, error) {
	var found []maas.Machine
	for _, id := range ids {
		if m, ok := r.servers[id]; ok {
			found = append(found, m)
		}
	}
	return copied(found), r.asked("look")
}

func (r *region) MachinesByTokens(_ context.Context, tokens ...string) ([]maas.Machine, error) {
	var found []maas.Machine
	for _, token := range tokens {
		if m, ok := r.servers[r.tokens[token]]; ok {
			found = append(found, m)
		}
	}
	return copied(found), r.asked("tokens")
}

func copied(machines []maas.Machine) []maas.Machine {
	for i := range machines {
		machines[i].Annotations = maps.Clone(machines[i].Annotations)
	}
	return machines
}

// world is a management cluster with one identity, and its MAAS.
type world struct {
	*testing.T
	scope.Identities
	region   *region
	clock    *testclock.FakeClock
	objects  client.WithWatch
	readings *scope.Readings
	r        *Reconciler
	recorder *events.FakeRecorder
}

// Get implements scope.Identities.
func (w *world) Get(ctx context.Context, name string) (*scope.Identity, error) {
	object := &infrav1.MaasClusterIdentity{}
	if err := w.objects.Get(ctx, client.ObjectKey{Name: name}, object); err != nil {
		return nil, err
	}
	return &scope.Identity{Object: object, MAAS: w.region, Account: capi, Readings: w.readings}, nil
}

func newWorld(t *testing.T, servers ...maas.Machine) *world {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := infrav1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, clock: testclock.NewFakeClock(time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)), recorder: events.NewFakeRecorder(100)}
	w.region = &region{servers: list(servers...), tokens: map[string]string{}, zones: []string{"z1", "z2"}, calls: map[string]int{}, away: map[string]bool{}}
	w.readings = scope.NewReadings(w.region, 5*time.Second, w.clock)
	identity := &infrav1.MaasClusterIdentity{
		ObjectMeta: metav1.ObjectMeta{Name: rackA, Generation: 1, Finalizers: []string{infrav1.MaasClusterIdentityFinalizer}},
		Spec:       infrav1.MaasClusterIdentitySpec{Endpoint: "https://maas/MAAS"},
	}
	conditions.Set(identity, metav1.Condition{Type: "Paused", Status: metav1.ConditionFalse, Reason: "NotPaused"})
	w.objects = fake.NewClientBuilder().WithScheme(scheme).
		WithStatusSubresource(&infrav1.MaasMachine{}, &infrav1.MaasClusterIdentity{}).WithObjects(identity).Build()
	w.r = &Reconciler{Client: w.objects, Scope: w, Recorder: w.recorder, Clock: w.clock}
	return w
}

// pass reconciles once.
func (w *world) pass() ctrl.Result {
	w.Helper()
	result, err := w.r.Reconcile(w.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Name: rackA}})
	if err != nil {
		w.Fatal(err)
	}
	return result
}

// later lets time pass, and the passes in it that nobody asked for.
func (w *world) later(d time.Duration) {
	w.Helper()
	for end := w.clock.Now().Add(d); ; {
		after := w.pass().RequeueAfter
		if after <= 0 {
			w.Fatal("the identity is never looked at again")
		}
		if w.clock.Now().Add(after).After(end) {
			w.clock.SetTime(end)
			return
		}
		w.clock.Step(after)
	}
}

func (w *world) identity() *infrav1.MaasClusterIdentity {
	w.Helper()
	object := &infrav1.MaasClusterIdentity{}
	if err := w.objects.Get(w.Context(), client.ObjectKey{Name: rackA}, object); err != nil {
		w.Fatal(err)
	}
	return object
}

// add creates machines.
func (w *world) add(machines ...infrav1.MaasMachine) {
	w.Helper()
	for i := range machines {
		if err := w.objects.Create(w.Context(), &machines[i]); err != nil {
			w.Fatal(err)
		}
	}
}

// change changes a machine, and tells the controller's watch as a manager would; it reports whether that wakes the controller.
func (w *world) change(name string, change func(*infrav1.MaasMachine)) bool {
	w.Helper()
	m := &infrav1.MaasMachine{}
	if err := w.objects.Get(w.Context(), client.ObjectKey{Namespace: "red", Name: name}, m); err != nil {
		w.Fatal(err)
	}
	before := m.DeepCopy()
	change(m)
	if err := w.objects.Status().Update(w.Context(), m); err != nil {
		w.Fatal(err)
	}
	return w.r.machineMatters().Update(event.UpdateEvent{ObjectOld: before, ObjectNew: m})
}

func (w *world) remove(name string) {
	w.Helper()
	m := &infrav1.MaasMachine{}
	if err := w.objects.Get(w.Context(), client.ObjectKey{Namespace: "red", Name: name}, m); err != nil {
		w.Fatal(err)
	}
	if err := w.objects.Delete(w.Context(), m); err != nil {
		w.Fatal(err)
	}
	if !w.r.machineMatters().Delete(event.DeleteEvent{Object: m}) {
		w.Error("a machine that goes wakes nobody")
	}
}

// put changes what MAAS has.
func (w *world) put(servers ...maas.Machine) {
	for _, s := range servers {
		w.region.servers[s.SystemID] = s
	}
}

func (w *world) free(id string) {
	w.put(maas.Machine{SystemID: id, Status: maas.StatusReady})
}

// held are the held servers and why.
func (w *world) held() string {
	w.Helper()
	var all []string
	for _, s := range w.identity().Status.Held {
		all = append(all, s.SystemID+" "+s.Reason)
	}
	return strings.Join(all, ", ")
}

func (w *world) orphans() string {
	w.Helper()
	var all []string
	for _, o := range w.identity().Status.Orphans {
		all = append(all, fmt.Sprintf("%s %s %s", o.SystemID, o.Reason, o.Machine))
	}
	return strings.Join(all, ", ")
}

func (w *world) suspects() string {
	w.Helper()
	var all []string
	for _, s := range w.identity().Status.Suspects {
		all = append(all, fmt.Sprintf("%s %v", s.SystemID, s.Machines))
	}
	return strings.Join(all, ", ")
}

func (w *world) says(condition string) string {
	w.Helper()
	said := conditions.Get(w.identity(), condition)
	if said == nil {
		return ""
	}
	return string(said.Status) + " " + said.Reason
}

// told are the events since the last call.
func (w *world) told() []string {
	var all []string
	for {
		select {
		case e := <-w.recorder.Events:
			all = append(all, e)
		default:
			return all
		}
	}
}

// want compares.
func (w *world) want(what, got, want string) {
	w.Helper()
	if got != want {
		w.Errorf("%s: got %q, want %q", what, got, want)
	}
}
