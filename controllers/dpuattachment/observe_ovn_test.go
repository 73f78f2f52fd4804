// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// databases are OVN's, as a test wants them.
type databases struct {
	reading   vpc.OVN
	notBefore []time.Time
	value     int64
	raises    int
	err       error
}

func (d *databases) Reading(_ context.Context, notBefore time.Time) vpc.OVN {
	d.notBefore = append(d.notBefore, notBefore)
	return d.reading
}

func (d *databases) Raise(context.Context) (int64, error) {
	d.raises++
	return d.value, d.err
}

func TestObserveOVN(t *testing.T) {
	r := &Reconciler{Clock: clocktesting.NewFakeClock(now)}
	asked := &databases{reading: vpc.OVN{Started: now.Add(-time.Second), Bindings: []vpc.Binding{{LogicalPort: "x"}}}}
	o := scene()
	o.fabric.OVN, o.notBefore = asked, now.Add(-time.Minute)
	if r.observeOVN(t.Context(), o); len(asked.notBefore) > 0 || o.cards[0].evidence.OVN != nil {
		t.Errorf("asked although the fabric names no databases: %+v", o.ovn)
	}
	o.says(false, vpc.OVN{})
	r.observeOVN(t.Context(), o)
	if len(asked.notBefore) != 1 || !asked.notBefore[0].Equal(now.Add(-time.Minute)) {
		t.Errorf("asked for readings since %v", asked.notBefore)
	}
	if e := o.cards[0].evidence.OVN; e == nil || len(e.Bindings) != 1 || !o.now.Equal(now.Add(-time.Second)) || !o.shared {
		t.Errorf("evidence %+v of %s, shared: %t", e, o.now, o.shared)
	}
	o.fabric.OVN = nil
	if r.observeOVN(t.Context(), o); o.cards[0].evidence.OVN == nil || o.cards[0].evidence.OVN.Err == nil {
		t.Error("a fabric that names databases nobody can ask is served without them")
	}
}

// TestSilentPeers says for whom nobody waits: DPUs that are known not to live.
func TestSilentPeers(t *testing.T) {
	node := func(name string, ready corev1.ConditionStatus) client.Object {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}}}
	}
	lease := func(name string, age time.Duration) client.Object {
		return &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: name},
			Spec:       coordinationv1.LeaseSpec{RenewTime: ptr.To(metav1.NewMicroTime(now.Add(-age)))},
		}
	}
	dpu := func(name, cluster string) client.Object {
		found := &provisioningv1alpha1.DPU{ObjectMeta: metav1.ObjectMeta{Namespace: "dpf", Name: name}}
		found.Spec.DPUDeviceName, found.Spec.Cluster.Name = name, cluster
		return found
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, coordinationv1.AddToScheme, svcv1alpha1.AddToScheme, provisioningv1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	build := func(objects ...client.Object) client.WithWatch {
		return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()
	}
	clusters := map[string]client.Reader{
		"near": build(node("ready", corev1.ConditionTrue), lease("ready", 0), node("dead", corev1.ConditionUnknown), lease("dead", 0),
			node("lapsed", corev1.ConditionTrue), lease("lapsed", 2*time.Minute)),
		"far": build(node("far-ready", corev1.ConditionTrue), lease("far-ready", 0)),
	}
	fabricClusters := func(_ context.Context, key types.NamespacedName) (client.Reader, error) {
		if reader := clusters[key.Name]; reader != nil {
			return reader, nil
		}
		return nil, errNoAnswer
	}
	o := scene().attached(t).bound(true)
	o.notBefore = now
	o.fabric.Object.Spec.Backend.OVNVPC.Namespace = "dpf"
	o.fabric.DPUCluster, o.fabric.DPF = fabricClusters, build(dpu("far-ready", "far"), dpu("far-gone", "far"), dpu("away", "away"), dpu("dpu-d1", "near"))
	for _, name := range []string{"ready", "dead", "lapsed", "far-ready", "far-gone", "away", "nowhere"} {
		o.ovn.Bindings = append(o.ovn.Bindings, vpc.Binding{LogicalPort: name, Switch: o.binding().Switch, Chassis: name})
	}
	o.ovn.Bindings[0].Chassis = "ready" // The scene's own peer.
	o.progress.barrier.Then = map[string]int64{"dead-before": 7}
	r := &Reconciler{Clock: clocktesting.NewFakeClock(now), Readings: dpfzt.NewReadings(clocktesting.NewFakeClock(now), nil)}
	near := types.NamespacedName{Namespace: "dpf", Name: "near"}
	o.states = r.Readings.States(t.Context(), "f", fabricClusters, []types.NamespacedName{near}, now)
	r.observePeers(t.Context(), o)
	if got, want := slices.Sorted(maps.Keys(o.silent)), []string{"dead", "dead-before", "far-gone", "lapsed", "nowhere"}; !slices.Equal(got, want) {
		t.Errorf("silent are %v, want %v", o.silent, want)
	}
	if !strings.Contains(o.silent["dead"], "Node dead is not Ready") {
		t.Errorf("dead: %s", o.silent["dead"])
	}
}

// TestRaise makes the one write that is ever made to OVN.
func TestRaise(t *testing.T) {
	for _, tc := range []struct {
		name   string
		value  int64
		err    error
		raises int
		says   string
	}{
		{"raised", 8, nil, 1, "False/WaitingForBarrier"},
		{"no answer", 0, errors.New("no route"), 0, "Unknown/FabricUnreachable"},
		{"counts anew", 3, nil, 0, "Unknown/FabricUnreachable"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fabric := &databases{value: tc.value, err: tc.err}
			r := &Reconciler{Clock: clocktesting.NewFakeClock(now.Add(time.Second)), PollInterval: DefaultPollInterval}
			o := scene().authorized().attached(t).bound(true).asked(yes)
			o.fabric.OVN = fabric
			d := decide(o)
			result, err := r.act(t.Context(), o, &d)
			if err != nil || fabric.raises != 1 || result.RequeueAfter != 250*time.Millisecond {
				t.Errorf("raised %d times, %+v, %v", fabric.raises, result, err)
			}
			barrier := d.progress.barrier
			if barrier.Raises != tc.raises || tc.raises > 0 && (barrier.Value != tc.value || !barrier.Raised.Equal(now.Add(time.Second))) {
				t.Errorf("remembers %+v", barrier)
			}
			if got := string(d.attached.status) + "/" + d.attached.reason; got != tc.says {
				t.Errorf("says %s: %s", got, d.attached.message)
			}
			r.keepProgress(o.attachment, d)
			if got := r.progresses.of(o.attachment.UID); got.barrier.Raises != tc.raises || !got.since.Equal(now) {
				t.Errorf("keeps %+v", got)
			}
		})
	}
	t.Run("detachment, late", func(t *testing.T) {
		o := leftInOVN(t, true)
		o.memory.DetachingSince = ptr.To(metav1.NewTime(now.Add(-time.Hour)))
		o.fabric.OVN = &databases{err: errNoAnswer}
		d := decide(o)
		if _, err := (&Reconciler{Clock: clocktesting.NewFakeClock(now)}).act(t.Context(), o, &d); err != nil || d.attached.reason != infrav1.DetachUnprovenReason {
			t.Errorf("said %+v, %v", d.attached, err)
		}
	})
}

// TestProgressEnds: nothing is kept of what is proven or gone.
func TestProgressEnds(t *testing.T) {
	var p progresses
	p.keep("a", progress{since: now})
	p.keep("b", progress{again: true})
	p.keep("a", progress{})
	if len(p.known) != 1 || !p.of("b").again || p.of("a").again {
		t.Errorf("keeps %+v", p.known)
	}
	r := &Reconciler{}
	o := leftInOVN(t, true).passing(infrav1.AttachmentStateDetached)
	o.attachment.DeletionTimestamp = ptr.To(metav1.NewTime(now))
	o.progress.barrier.Purpose = o.purpose(infrav1.AttachmentStateDetached)
	d := decide(o)
	if r.keepProgress(o.attachment, d); !d.finalize || len(r.progresses.known) != 0 {
		t.Errorf("keeps %+v", r.progresses.known)
	}
}
