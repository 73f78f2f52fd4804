// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuserver

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

const labelKey = "maas.io/system-id"

// region is a MAAS that knows whose MAC addresses are whose.
type region struct {
	maas.Verifier
	macs  map[string]string
	err   error
	calls int
}

func (r *region) MachinesByMAC(_ context.Context, macs ...string) ([]maas.Machine, error) {
	r.calls++
	var found []maas.Machine
	for mac, id := range r.macs {
		if slices.Contains(macs, mac) {
			found = append(found, maas.Machine{SystemID: id, Interfaces: []maas.Interface{{MAC: mac}, {MAC: "00:00:00:00:00:ff"}}})
		}
	}
	return found, r.err
}

// macWorld is a fabric of two sources with one DPUNode that has a label and two that have none.
type macWorld struct {
	*testing.T
	r       *Reconciler
	fabric  *scope.Fabric
	regions map[string]*region
	objects []client.Object
}

func newMACWorld(t *testing.T) *macWorld {
	t.Helper()
	w := &macWorld{T: t, r: &Reconciler{macs: map[powerKey]macReading{}}, regions: map[string]*region{"a": {}, "b": {}}}
	w.fabric = &scope.Fabric{
		Object: &infrav1.DPUFabric{ObjectMeta: metav1.ObjectMeta{Name: "f"}, Spec: infrav1.DPUFabricSpec{
			ServerLabelKey: labelKey, ServerMapping: infrav1.ServerMappingExplicitOrMAC, ClaimSources: []infrav1.ClaimSource{{Name: "a"}, {Name: "b"}},
		}},
		Verifier: func(_ context.Context, source string) (scope.Verifier, error) {
			return scope.Verifier{Verifier: w.regions[source]}, nil
		},
	}
	for name, label := range map[string]string{"n1": "a.labelled", "n2": "", "n3": ""} {
		card := strings.Replace(name, "n", "d", 1)
		node := &provisioningv1alpha1.DPUNode{ObjectMeta: metav1.ObjectMeta{Namespace: "dpf", Name: name}}
		if label != "" {
			node.Labels = map[string]string{labelKey: label}
		}
		node.Spec.DPUs = []provisioningv1alpha1.DPURef{{Name: card}}
		device := &provisioningv1alpha1.DPUDevice{ObjectMeta: metav1.ObjectMeta{Namespace: "dpf", Name: card}}
		device.Status.PF0MAC = "AA:BB:CC:00:00:0" + name[1:]
		w.objects = append(w.objects, node, device)
	}
	return w
}

// pass returns the servers found, as name=cards.
func (w *macWorld) pass(at time.Time, known ...server) (*observation, string) {
	w.Helper()
	scheme := runtime.NewScheme()
	if err := provisioningv1alpha1.AddToScheme(scheme); err != nil {
		w.Fatal(err)
	}
	inventory, err := dpfzt.ReadInventory(w.Context(), fake.NewClientBuilder().WithScheme(scheme).WithObjects(w.objects...).Build(), "dpf")
	if err != nil {
		w.Fatal(err)
	}
	o := &observation{now: at, fabric: w.fabric.Object, servers: known}
	w.r.observeMACs(w.Context(), w.fabric, o, inventory)
	var found []string
	for i := range o.servers {
		text := o.servers[i].name() + "="
		members, err := o.servers[i].find(w.fabric.Object, inventory)
		if err != nil {
			text += resolveFinding(err).Reason
		}
		for _, member := range members.Members {
			text += member.Device.Name
		}
		found = append(found, text)
	}
	slices.Sort(found)
	return o, strings.Join(found, " ")
}

func TestServersByMAC(t *testing.T) {
	w := newMACWorld(t)
	w.regions["a"].macs = map[string]string{"aa:bb:cc:00:00:01": "labelled", "aa:bb:cc:00:00:02": "second", "aa:bb:cc:00:00:03": "third"}
	labelled := server{source: "a", systemID: "labelled"}
	if _, got := w.pass(now, labelled); got != "a.labelled=d1 a.second=d2 a.third=d3" {
		t.Errorf("got %s", got)
	}
	if _, got := w.pass(now.Add(9*time.Minute), labelled); got != "a.labelled=d1 a.second=d2 a.third=d3" || w.regions["a"].calls != 1 {
		t.Errorf("got %s after %d calls", got, w.regions["a"].calls)
	}
	// What is pinned needs no MAAS.
	pinned := func(id, card, mac string) server {
		object := &infrav1.DPUServer{}
		object.Status.DPUs = []infrav1.BoundDPU{{DPUDevice: card, Ports: []infrav1.DPUServerPort{{MAC: mac}}}}
		return server{source: "a", systemID: id, object: object}
	}
	w.regions["a"].err = errors.New("no answer")
	second, third := pinned("second", "d2", "aa:bb:cc:00:00:02"), pinned("third", "d3", "aa:bb:cc:00:00:03")
	o, got := w.pass(now.Add(time.Hour), labelled, second, third)
	if got != "a.labelled=d1 a.second=d2 a.third=d3" || len(o.ignored) != 0 || w.regions["a"].calls != 1 {
		t.Errorf("got %s, ignored %v", got, o.ignored)
	}
	// MAAS away: nothing new, and it is said.
	o, got = w.pass(now.Add(time.Hour), labelled, second)
	if got != "a.labelled=d1 a.second=d2" || len(o.ignored) != 1 {
		t.Errorf("got %s, ignored %v", got, o.ignored)
	}
}

func TestServersByMACInDoubt(t *testing.T) {
	w := newMACWorld(t)
	w.regions["a"].macs = map[string]string{"aa:bb:cc:00:00:02": "second"}
	w.regions["b"].macs = map[string]string{"aa:bb:cc:00:00:02": "other", "aa:bb:cc:00:00:03": "third"}
	o, got := w.pass(now)
	if got != "b.third=d3" || len(o.ignored) != 1 || !strings.Contains(o.ignored[0], "several sources") {
		t.Errorf("one server in two sources: got %s, ignored %v", got, o.ignored)
	}
	w.fabric.Object.Spec.ServerMapping = infrav1.ServerMappingExplicit
	calls := w.regions["b"].calls
	if _, got := w.pass(now.Add(time.Hour)); got != "" || w.regions["b"].calls != calls {
		t.Errorf("by labels alone: got %s after %d calls", got, w.regions["b"].calls)
	}
	// The label wins over the MAC address.
	w.fabric.Object.Spec.ServerMapping = infrav1.ServerMappingExplicitOrMAC
	object := &infrav1.DPUServer{}
	object.Status.DPUs = []infrav1.BoundDPU{{DPUDevice: "d1", Ports: []infrav1.DPUServerPort{{MAC: "aa:bb:cc:00:00:01"}}}}
	if _, got := w.pass(now, server{source: "b", systemID: "pretender", object: object}); !strings.Contains(got, "b.pretender="+infrav1.AmbiguousDPUReason) {
		t.Errorf("got %s", got)
	}
}
