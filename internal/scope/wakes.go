// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// wakes hands objects that are to be reconciled now to one reader. Who wakes never waits; an object that is woken again
// before the reader took it is handed over once.
type wakes struct {
	// named makes an object of which only namespace and name are set.
	named  func(types.NamespacedName) client.Object
	out    chan event.GenericEvent
	signal chan struct{}

	mu     sync.Mutex
	queued map[types.NamespacedName]bool
	order  []types.NamespacedName
}

func newWakes(named func(types.NamespacedName) client.Object) *wakes {
	return &wakes{
		named: named,
		out:   make(chan event.GenericEvent), signal: make(chan struct{}, 1), queued: map[types.NamespacedName]bool{},
	}
}

func (w *wakes) wake(object types.NamespacedName) {
	w.mu.Lock()
	if !w.queued[object] {
		w.queued[object] = true
		w.order = append(w.order, object)
	}
	w.mu.Unlock()
	select {
	case w.signal <- struct{}{}:
	default:
	}
}

// run hands over until the context ends.
func (w *wakes) run(ctx context.Context) {
	for {
		object, ok := w.take()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-w.signal:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case w.out <- event.GenericEvent{Object: w.named(object)}:
		}
	}
}

func namedMachine(key types.NamespacedName) client.Object {
	return &infrav1.MaasMachine{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
}

func namedAttachment(key types.NamespacedName) client.Object {
	return &infrav1.DPUAttachment{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
}

func (w *wakes) take() (types.NamespacedName, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.order) == 0 {
		return types.NamespacedName{}, false
	}
	object := w.order[0]
	w.order = w.order[1:]
	delete(w.queued, object)
	return object, true
}
