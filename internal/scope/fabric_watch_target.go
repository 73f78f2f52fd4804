// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// listTimeout bounds one list that a watch begins with.
	listTimeout = 30 * time.Second
	// watchTimeout bounds how long an API server takes to accept a watch.
	watchTimeout = 15 * time.Second
)

var errNoCredentials = errors.New("there are no credentials yet")

// watchTarget watches one API server. Its credentials may change while it runs: the streams end and go on with the new ones
// from where they stopped.
type watchTarget struct {
	fabric    *fabricWatch
	cluster   types.NamespacedName
	namespace string
	kinds     []*kindWatch
	running   sync.WaitGroup
	// life ends with the target, current with the credentials.
	life, current   context.Context
	cancel, replace context.CancelFunc

	mu     sync.Mutex // guards client, current and replace
	client WatchClient
}

// kindWatch watches the objects of one kind.
type kindWatch struct {
	watchedKind
	target   *watchTarget
	informer cache.SharedIndexInformer

	mu      sync.Mutex
	told    bool
	isUp    bool
	everUp  bool
	problem error
}

func newWatchTarget(ctx context.Context, fabric *fabricWatch, cluster types.NamespacedName, namespace string, kinds []watchedKind) *watchTarget {
	t := &watchTarget{fabric: fabric, cluster: cluster, namespace: namespace}
	t.life, t.cancel = context.WithCancel(ctx)
	t.current, t.replace = context.WithCancel(t.life)
	for _, kind := range kinds {
		k := &kindWatch{watchedKind: kind, target: t}
		k.informer = cache.NewSharedIndexInformer(streams{k}, kind.object, 0, nil)
		t.kinds = append(t.kinds, k)
		// None of these can fail before the informer runs.
		_ = k.informer.SetTransform(trim)
		_ = k.informer.SetWatchErrorHandlerWithContext(func(context.Context, *cache.Reflector, error) {})
		_, _ = k.informer.AddEventHandler(k.handler())
	}
	return t
}

// connect gives the watches credentials. The first start them.
func (t *watchTarget) connect(watching WatchClient) {
	t.mu.Lock()
	first, same := t.client.WithWatch == nil, t.client.Version == watching.Version
	if same && !first {
		t.mu.Unlock()
		return
	}
	t.client = watching
	ended := t.replace
	t.current, t.replace = context.WithCancel(t.life)
	t.mu.Unlock()
	ended()
	if !first {
		return
	}
	for _, k := range t.kinds {
		k.report(false, nil)
		t.running.Go(func() { k.informer.RunWithContext(t.life) })
	}
}

// end ends all watches and waits until they have ended.
func (t *watchTarget) end() {
	t.cancel()
	t.mu.Lock()
	t.replace()
	t.mu.Unlock()
	t.running.Wait()
	for _, k := range t.kinds {
		k.gone()
	}
}

func (t *watchTarget) connection() (WatchClient, context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.client, t.current
}

func (t *watchTarget) up() bool {
	for _, k := range t.kinds {
		k.mu.Lock()
		up := k.isUp
		k.mu.Unlock()
		if !up {
			return false
		}
	}
	return true
}

// listUnwatched adds the kinds that are not watched now.
func (t *watchTarget) listUnwatched(unwatched map[string]error) {
	for _, k := range t.kinds {
		k.mu.Lock()
		up, problem := k.isUp, k.problem
		k.mu.Unlock()
		if up {
			continue
		}
		name := k.name + " of DPF"
		if t.cluster.Name != "" {
			name = k.name + " of DPUCluster " + t.cluster.String()
		}
		unwatched[name] = problem
	}
}

func (t *watchTarget) known(kind, namespace, name string) any {
	for _, k := range t.kinds {
		if k.name != kind {
			continue
		}
		key := name
		if namespace != "" {
			key = namespace + "/" + name
		}
		if object, exists, err := k.informer.GetStore().GetByKey(key); err == nil && exists {
			return object
		}
	}
	return nil
}

// streams lists and watches one kind for its informer.
type streams struct{ *kindWatch }

// IsWatchListSemanticsUnSupported keeps the informer to a list and a watch, which every API server knows.
func (streams) IsWatchListSemanticsUnSupported() bool { return true }

// List implements cache.ListerWatcher.
func (s streams) List(options metav1.ListOptions) (runtime.Object, error) {
	return s.ListWithContext(context.Background(), options)
}

// Watch implements cache.ListerWatcher.
func (s streams) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return s.WatchWithContext(context.Background(), options)
}

// ListWithContext implements cache.ListerWatcherWithContext.
func (s streams) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	connected, _ := s.target.connection()
	if connected.WithWatch == nil {
		return nil, errNoCredentials
	}
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	list := s.list()
	err := connected.List(ctx, list, &client.ListOptions{
		Namespace: s.scope(), Raw: &options, Limit: options.Limit, Continue: options.Continue,
	})
	if err != nil {
		s.broke(fmt.Errorf("list: %w", steadyCause(err)))
		return nil, err
	}
	return list, nil
}

// WatchWithContext implements cache.ListerWatcherWithContext. The stream ends with the credentials it was opened with.
func (s streams) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	connected, until := s.target.connection()
	if connected.WithWatch == nil {
		return nil, errNoCredentials
	}
	ctx, cancel := context.WithCancel(ctx)
	forget := context.AfterFunc(until, cancel)
	late := time.AfterFunc(watchTimeout, cancel)
	opened, err := connected.Watch(ctx, s.list(), &client.ListOptions{Namespace: s.scope(), Raw: &options})
	if !late.Stop() && err == nil {
		opened.Stop()
		err = context.DeadlineExceeded
	}
	if err != nil {
		forget()
		cancel()
		s.broke(fmt.Errorf("watch: %w", steadyCause(err)))
		return nil, err
	}
	s.report(true, nil)
	return &stream{Interface: opened, end: func() { forget(); cancel() }}, nil
}

// stream is a watch that frees what it was opened with.
type stream struct {
	watch.Interface
	end func()
}

// Stop implements watch.Interface.
func (s *stream) Stop() {
	s.end()
	s.Interface.Stop()
}

func (k *kindWatch) scope() string {
	if k.everywhere {
		return ""
	}
	return k.target.namespace
}

// broke notes that nothing is seen now. Where credentials are refused they are read again.
func (k *kindWatch) broke(err error) {
	if k.target.life.Err() != nil {
		return
	}
	k.report(false, err)
	if apierrors.IsUnauthorized(err) {
		k.target.fabric.look()
	}
}

// report tells once of each change. What happened before a watch came up for the first time may have gone unseen: everybody
// looks once.
func (k *kindWatch) report(up bool, err error) {
	k.mu.Lock()
	first := up && !k.everUp
	changed := !k.told || k.isUp != up || (!up && k.problem == nil && err != nil)
	k.told, k.isUp, k.everUp, k.problem = true, up, k.everUp || up, err
	k.mu.Unlock()
	if changed {
		k.tell(WatchState{Up: up, Err: err})
	}
	if first {
		k.target.fabric.wakeAll(k.target.life)
	}
}

func (k *kindWatch) gone() {
	k.mu.Lock()
	k.isUp = false
	k.mu.Unlock()
	k.tell(WatchState{Gone: true})
}

func (k *kindWatch) tell(state WatchState) {
	state.Fabric, state.Kind = k.target.fabric.name, k.name
	if k.target.cluster.Name != "" {
		state.Cluster = k.target.cluster.String()
	}
	log := ctrl.LoggerFrom(k.target.life).WithValues("kind", state.Kind, "DPUCluster", state.Cluster)
	switch {
	case state.Up:
		log.V(1).Info("Watching the fabric")
	case state.Err != nil:
		log.Info("A watch on the fabric broke: until it is back, changes are noticed by polling only", "error", state.Err.Error())
	}
	if observe := k.target.fabric.owner.options.Observe; observe != nil {
		observe(state)
	}
}
