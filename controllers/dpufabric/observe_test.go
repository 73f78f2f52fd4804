// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpufabric

import (
	"context"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/event"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
)

// noFabrics counts how often it is asked.
type noFabrics struct {
	scope.Fabrics
	asked int
}

func (f *noFabrics) Get(context.Context, string) (*scope.Fabric, error) {
	f.asked++
	return nil, &scope.UnusableError{Reason: infrav1.SecretNotFoundReason}
}

// TestServersAreCountedWithoutProbing: the fabric's systems are asked once in a while, and when somebody changed the fabric; its
// servers are counted each time.
func TestServersAreCountedWithoutProbing(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := infrav1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	objects := fake.NewClientBuilder().WithScheme(scheme).Build()
	clock := clocktesting.NewFakeClock(time.Now())
	fabrics := &noFabrics{}
	r := &Reconciler{Client: objects, APIReader: objects, Fabrics: fabrics, Clock: clock}
	object := &infrav1.DPUFabric{ObjectMeta: metav1.ObjectMeta{Name: "f", UID: "1", Generation: 1}}
	observe := func(servers, asked int) {
		t.Helper()
		seen, err := r.observe(t.Context(), object, time.Minute)
		if err != nil || seen.unusable == nil || len(seen.servers) != servers || fabrics.asked != asked {
			t.Errorf("%+v, %v: asked %d times; want %d servers, asked %d times", seen, err, fabrics.asked, servers, asked)
		}
	}
	observe(0, 1)
	server := &infrav1.DPUServer{ObjectMeta: metav1.ObjectMeta{Name: "s.a"}, Spec: infrav1.DPUServerSpec{FabricName: "f", Source: "s", SystemID: "a"}}
	if err := objects.Create(t.Context(), server); err != nil {
		t.Fatal(err)
	}
	clock.Step(59 * time.Second)
	observe(1, 1)
	clock.Step(time.Second)
	observe(1, 2)
	object.Generation++
	observe(1, 3)
	object.UID = "2"
	observe(1, 4)
}

// TestOnlyWhatIsCountedWakes: a server is written every few seconds.
func TestOnlyWhatIsCountedWakes(t *testing.T) {
	before := &infrav1.DPUServer{Status: infrav1.DPUServerStatus{Eligibility: infrav1.Eligible}}
	after := before.DeepCopy()
	after.ResourceVersion = "2"
	if counted.Update(event.UpdateEvent{ObjectOld: before, ObjectNew: after}) {
		t.Error("a write that changes nothing counted wakes the fabric")
	}
	after.Status.Eligibility = infrav1.Ineligible
	if !counted.Update(event.UpdateEvent{ObjectOld: before, ObjectNew: after}) {
		t.Error("a server that became ineligible does not wake the fabric")
	}
	after = before.DeepCopy()
	after.Status.Holder = &infrav1.DPUServerHolder{}
	if !counted.Update(event.UpdateEvent{ObjectOld: before, ObjectNew: after}) || !counted.Create(event.CreateEvent{Object: after}) {
		t.Error("a server that is held, or new, does not wake the fabric")
	}
}
