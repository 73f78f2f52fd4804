// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllertest"
)

// version is one write of one object; before is nil for a new one, after for one that is gone.
type version struct{ before, after client.Object }

// listener hears of every object of a kind there is, and of every change from then on, in order, and behind the writer's back.
type listener struct {
	kind    schema.GroupVersionKind
	handler toolscache.ResourceEventHandler

	mu    sync.Mutex
	queue []version
	more  chan struct{}
	// initial is how many of the objects there were are not told yet; synced is closed when none is.
	initial int
	synced  chan struct{}
}

// listen starts a listener that ends with ctx.
func (a *apiServer) listen(ctx context.Context, kind schema.GroupVersionKind, handler toolscache.ResourceEventHandler) (*listener, error) {
	l := &listener{kind: kind, handler: handler, more: make(chan struct{}, 1), synced: make(chan struct{})}
	made, err := a.raw.Scheme().New(kind.GroupVersion().WithKind(kind.Kind + "List"))
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	list := made.(client.ObjectList)
	if err := a.raw.List(ctx, list); err != nil {
		return nil, fmt.Errorf("list %s: %w", kind.Kind, err)
	}
	items, err := meta.ExtractList(list)
	if err != nil {
		return nil, err
	}
	l.initial = len(items)
	if l.initial == 0 {
		close(l.synced)
	}
	for _, item := range items {
		l.push(version{after: item.(client.Object)})
	}
	a.listeners = append(a.listeners, l)
	go l.run(ctx)
	return l, nil
}

func (l *listener) push(c version) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = append(l.queue, c)
	select {
	case l.more <- struct{}{}:
	default:
	}
}

func (l *listener) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.more:
		}
		l.mu.Lock()
		changes := l.queue
		l.queue = nil
		l.mu.Unlock()
		for _, c := range changes {
			l.handle(c)
		}
	}
}

// handle tells one change; each hearer has its own copies.
func (l *listener) handle(c version) {
	switch {
	case c.before == nil:
		l.handler.OnAdd(c.after.DeepCopyObject(), l.initial > 0)
	case c.after == nil:
		l.handler.OnDelete(c.before.DeepCopyObject())
	default:
		l.handler.OnUpdate(c.before.DeepCopyObject(), c.after.DeepCopyObject())
	}
	if l.initial > 0 {
		if l.initial--; l.initial == 0 {
			close(l.synced)
		}
	}
}

// HasSynced implements toolscache.ResourceEventHandlerRegistration.
func (l *listener) HasSynced() bool {
	select {
	case <-l.synced:
		return true
	default:
		return false
	}
}

// HasSyncedChecker implements toolscache.ResourceEventHandlerRegistration.
func (l *listener) HasSyncedChecker() toolscache.DoneChecker { return l }

// Name implements toolscache.DoneChecker.
func (l *listener) Name() string { return l.kind.Kind }

// Done implements toolscache.DoneChecker.
func (l *listener) Done() <-chan struct{} { return l.synced }

// informers are a manager's cache over the API server in memory. What they read is never behind; what they hear is.
type informers struct {
	client.Reader
	*informertest.FakeInformers
	api *apiServer
	// alive ends with the process.
	alive context.Context //nolint:containedctx // handlers are added without one
}

func newInformers(ctx context.Context, api *apiServer, reader client.Reader) *informers {
	return &informers{Reader: reader, FakeInformers: &informertest.FakeInformers{Scheme: api.raw.Scheme()}, api: api, alive: ctx}
}

// Get implements cache.Cache.
func (i *informers) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	return i.Reader.Get(ctx, key, o, opts...)
}

// List implements cache.Cache.
func (i *informers) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	return i.Reader.List(ctx, list, opts...)
}

// Start implements cache.Cache.
func (i *informers) Start(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// GetInformer implements cache.Cache.
func (i *informers) GetInformer(_ context.Context, object client.Object, _ ...cache.InformerGetOption) (cache.Informer, error) {
	return &informer{FakeInformer: controllertest.NewFakeInformer(controllertest.Synced), kind: i.api.kindOf(object), of: i}, nil
}

// informer tells the handlers of one manager of one kind.
type informer struct {
	*controllertest.FakeInformer
	kind schema.GroupVersionKind
	of   *informers
}

// AddEventHandlerWithOptions implements cache.Informer.
func (i *informer) AddEventHandlerWithOptions(handler toolscache.ResourceEventHandler, _ toolscache.HandlerOptions) (toolscache.ResourceEventHandlerRegistration, error) {
	return i.of.api.listen(i.of.alive, i.kind, handler)
}

// AddEventHandler implements cache.Informer.
func (i *informer) AddEventHandler(handler toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	return i.of.api.listen(i.of.alive, i.kind, handler)
}

// AddEventHandlerWithResyncPeriod implements cache.Informer.
func (i *informer) AddEventHandlerWithResyncPeriod(handler toolscache.ResourceEventHandler, _ time.Duration) (toolscache.ResourceEventHandlerRegistration, error) {
	return i.of.api.listen(i.of.alive, i.kind, handler)
}
