// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricwatch_test

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	ctrlsource "sigs.k8s.io/controller-runtime/pkg/source"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
)

// watcher runs the watches, and notes whom they wake.
type watcher struct {
	*WithT
	t       *testing.T
	watches *scope.FabricWatches
	stop    func()

	mu     sync.Mutex
	woken  map[string]bool
	last   time.Time
	states []scope.WatchState
}

// newWatcher starts the watches and waits until they cover the fabric and nobody is woken any more.
func newWatcher(t *testing.T) *watcher {
	t.Helper()
	w := &watcher{WithT: NewWithT(t), t: t, woken: map[string]bool{}, last: time.Now()}
	w.SetDefaultEventuallyTimeout(patience)
	w.SetDefaultEventuallyPollingInterval(interval)
	mgr := newManager(w.WithT)
	fabrics := scope.NewFabrics(scope.FabricsOptions{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Namespace: wingNamespace, Installation: installation,
	})
	w.Expect(mgr.GetFieldIndexer().IndexField(t.Context(), &infrav1.DPUAttachment{}, scope.AttachmentServerIndex, scope.AttachmentServer)).To(Succeed())
	w.Expect(scope.IndexFabricWatches(t.Context(), mgr.GetFieldIndexer())).To(Succeed())
	w.watches = scope.NewFabricWatches(scope.FabricWatchesOptions{
		Fabrics: fabrics, Client: mgr.GetClient(), Installation: installation, Interval: 100 * time.Millisecond,
		GatherServers: 200 * time.Millisecond, Observe: w.observe,
	})
	w.Expect(mgr.Add(w.watches)).To(Succeed())
	for kind, from := range map[string]ctrlsource.Source{
		"attachment": w.watches.Attachments(), "tenant": w.watches.TenantVPCs(), "fabric": w.watches.DPUFabrics(),
	} {
		c, err := controller.New(kind, mgr, controller.Options{Reconciler: w.noting(kind)})
		w.Expect(err).NotTo(HaveOccurred())
		w.Expect(c.Watch(from)).To(Succeed())
	}
	w.stop = runManager(t, mgr)
	t.Cleanup(w.stop)
	w.Eventually(func() bool { return w.watches.CoversAll(fabricName) && w.watches.Covers(fabricName, theDPUCluster) }).Should(BeTrue())
	w.settle()
	return w
}

func newManager(g *WithT) ctrl.Manager {
	mgr, err := ctrl.NewManager(world.hub.config, ctrl.Options{
		Scheme: world.hub.client.Scheme(), Logger: logr.Discard(), Metrics: metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: ptr.To(true), UsePriorityQueue: ptr.To(false)},
	})
	g.Expect(err).NotTo(HaveOccurred())
	return mgr
}

// runManager runs it until the function returned is called, which returns when everything has ended.
func runManager(t *testing.T, mgr ctrl.Manager) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("manager: %v", err)
		}
	})
}

func (w *watcher) noting(kind string) reconcile.Func {
	return func(_ context.Context, request reconcile.Request) (reconcile.Result, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.woken[kind+" "+request.String()] = true
		w.last = time.Now()
		return reconcile.Result{}, nil
	}
}

func (w *watcher) observe(state scope.WatchState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states = append(w.states, state)
}

// settle waits until nobody was woken for longer than wakes are gathered from now on, and forgets who was.
func (w *watcher) settle() {
	w.t.Helper()
	w.mu.Lock()
	w.last = time.Now()
	w.mu.Unlock()
	w.Eventually(func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return time.Since(w.last) > gathered
	}).Should(BeTrue())
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.woken)
}

func (w *watcher) names() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.woken))
}

// reported returns the last that was said of a watch.
func (w *watcher) reported(fabric, kind string) func() scope.WatchState {
	return func() scope.WatchState {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, state := range slices.Backward(w.states) {
			if state.Fabric == fabric && state.Kind == kind {
				return state
			}
		}
		return scope.WatchState{}
	}
}

// create makes an object that goes when the test ends.
func create(t *testing.T, c client.Client, object client.Object) {
	t.Helper()
	NewWithT(t).Expect(c.Create(t.Context(), object)).To(Succeed())
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		NewWithT(t).Expect(client.IgnoreNotFound(c.Delete(ctx, object))).To(Succeed())
	})
}

// patch changes an object's current version.
func patch[T client.Object](t *testing.T, c client.Client, object T, change func(T)) {
	t.Helper()
	g := NewWithT(t)
	g.Expect(c.Get(t.Context(), client.ObjectKeyFromObject(object), object)).To(Succeed())
	before := object.DeepCopyObject().(client.Object)
	change(object)
	g.Expect(c.Patch(t.Context(), object, client.MergeFrom(before))).To(Succeed())
}

func patchStatus[T client.Object](t *testing.T, c client.Client, object T, change func(T)) {
	t.Helper()
	g := NewWithT(t)
	g.Expect(c.Get(t.Context(), client.ObjectKeyFromObject(object), object)).To(Succeed())
	before := object.DeepCopyObject().(client.Object)
	change(object)
	g.Expect(c.Status().Patch(t.Context(), object, client.MergeFrom(before))).To(Succeed())
}

func label(key, value string) func(metav1.Object) {
	return func(object metav1.Object) {
		labels := object.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[key] = value
		object.SetLabels(labels)
	}
}
