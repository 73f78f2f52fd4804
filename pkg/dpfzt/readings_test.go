// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfzt

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
)

// dpuCluster is a DPU cluster that notes what it is asked for.
type dpuCluster struct {
	client.Client
	asked []string
	hangs bool
}

func newDPUCluster(t *testing.T, objects ...client.Object) *dpuCluster {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, coordinationv1.AddToScheme, svcv1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	c := &dpuCluster{}
	c.Client = interceptor.NewClient(fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build(), interceptor.Funcs{
		List: func(ctx context.Context, inner client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			if c.hangs {
				<-ctx.Done()
				return ctx.Err()
			}
			kind, err := inner.GroupVersionKindFor(list)
			c.asked = append(c.asked, strings.TrimSuffix(kind.Kind, "List"))
			return errors.Join(err, inner.List(ctx, list, options...))
		},
	})
	return c
}

func memberOn(name string) Member {
	dpu := &provisioningv1alpha1.DPU{ObjectMeta: metav1.ObjectMeta{Namespace: "dpf", Name: name}}
	dpu.Spec.Cluster.Name = "a"
	return Member{DPU: dpu}
}

func lease(node string, renewed time.Time) *coordinationv1.Lease {
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: node},
		Spec:       coordinationv1.LeaseSpec{RenewTime: ptr.To(metav1.NewMicroTime(renewed))},
	}
}

// A Node must be read after the interfaces, and its lease last: else a Node that lives says nothing about interfaces that went.
func TestStateOrder(t *testing.T) {
	cluster := newDPUCluster(t,
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "dpu-1"}}, lease("dpu-1", time.Now()),
		&svcv1alpha1.ServiceInterface{ObjectMeta: metav1.ObjectMeta{Namespace: "dpf", Name: "one"}, Spec: svcv1alpha1.InterfaceSpec{Node: ptr.To("dpu-1")}},
		&svcv1alpha1.ServiceInterface{ObjectMeta: metav1.ObjectMeta{Namespace: "other", Name: "two"}, Spec: svcv1alpha1.InterfaceSpec{Node: ptr.To("dpu-2")}})
	clusters := func(context.Context, types.NamespacedName) (client.Reader, error) { return cluster, nil }
	readings := NewReadings(clock.RealClock{}, nil)
	state := readings.State(t.Context(), "ovn", clusters, types.NamespacedName{Name: "a"}, time.Now())
	if want := []string{"ServiceInterface", "Node", "Lease"}; !slices.Equal(cluster.asked, want) {
		t.Errorf("asked for %v, want %v", cluster.asked, want)
	}
	evidence := state.Evidence(memberOn("dpu-1"), LabelsOnDPU)
	if evidence.ClusterError != nil || evidence.Node == nil || evidence.Lease == nil || len(evidence.Interfaces) != 1 {
		t.Errorf("evidence of dpu-1: %+v", evidence)
	}
	if found := state.Interfaces("dpf"); len(found) != 1 || found[0].Name != "one" {
		t.Errorf("interfaces of namespace dpf: %v", found)
	}
}

func TestSlowClusterDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good, bad := newDPUCluster(t), newDPUCluster(t)
		bad.hangs = true
		clusters := func(_ context.Context, key types.NamespacedName) (client.Reader, error) {
			if key.Name != "good" {
				return bad, nil
			}
			return good, nil
		}
		readings := NewReadings(clock.RealClock{}, nil)
		go readings.State(t.Context(), "ovn", clusters, types.NamespacedName{Name: "bad"}, time.Now())
		synctest.Wait()
		begun := time.Now()
		if state := readings.State(t.Context(), "ovn", clusters, types.NamespacedName{Name: "good"}, begun); state.Err() != nil || time.Since(begun) > 0 {
			t.Errorf("the good cluster was read after %s: %v", time.Since(begun), state.Err())
		}
		if state := readings.State(t.Context(), "other", clusters, types.NamespacedName{Name: "good"}, begun); state.Err() != nil || time.Since(begun) > 0 {
			t.Errorf("the good cluster of another fabric was read after %s: %v", time.Since(begun), state.Err())
		}
		after(readingTimeout)
		all := []types.NamespacedName{{Name: "bad"}, {Name: "worse"}, {Name: "good"}}
		begun = time.Now()
		states := readings.States(t.Context(), "ovn", clusters, all, begun)
		if states[all[0]].Err() == nil || states[all[1]].Err() == nil || states[all[2]].Err() != nil {
			t.Errorf("bad: %v, worse: %v, good: %v", states[all[0]].Err(), states[all[1]].Err(), states[all[2]].Err())
		}
		if took := time.Since(begun); took != readingTimeout {
			t.Errorf("two that hang took %s", took)
		}
		if evidence := states[all[0]].Evidence(memberOn("dpu-1"), LabelsOnDPU); evidence.ClusterError == nil {
			t.Error("evidence of a cluster that could not be read does not say so")
		}
	})
}

// No watch shows that a kubelet fell silent: the reading tells.
func TestLapsedLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := newDPUCluster(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "dpu-1"}}, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "dpu-2"}},
			lease("dpu-1", time.Now()), lease("dpu-2", time.Now()))
		clusters := func(context.Context, types.NamespacedName) (client.Reader, error) { return cluster, nil }
		var told [][]string
		readings := NewReadings(clock.RealClock{}, func(fabric string, nodes []string) { told = append(told, append([]string{fabric}, nodes...)) })
		read := func() {
			after(time.Millisecond)
			readings.State(t.Context(), "ovn", clusters, types.NamespacedName{Name: "a"}, time.Now())
		}
		renew := func(node string) {
			renewed := lease(node, time.Now())
			if err := errors.Join(cluster.Delete(t.Context(), lease(node, time.Now())), cluster.Create(t.Context(), renewed)); err != nil {
				t.Fatal(err)
			}
		}
		read()
		after(time.Minute)
		renew("dpu-1")
		read()
		read()
		renew("dpu-2")
		read()
		if want := []string{"ovn", "dpu-2"}; len(told) != 2 || !slices.Equal(told[0], want) || !slices.Equal(told[1], want) {
			t.Errorf("told %v, want twice %v: that it fell silent, and that it speaks again", told, want)
		}
	})
}

// after waits, in the time of a synctest bubble.
func after(d time.Duration) { <-time.After(d) }
