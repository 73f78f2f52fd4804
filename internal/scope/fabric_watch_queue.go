// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// How long changes are gathered before the pass they cause, so that a burst of them causes one.
const (
	gatherAttachment = 100 * time.Millisecond
	gatherTenant     = 500 * time.Millisecond
	gatherServers    = 2 * time.Second

	// spread is over how long those are woken who wake by the hundred, spreadStep how far apart.
	spread     = 4 * time.Second
	spreadStep = 10 * time.Millisecond

	// rememberWakes is for how long it is known when somebody was woken; longer than any reading is shared.
	rememberWakes = time.Minute
)

// wakeQueue puts requests into the queue of one controller, and remembers when. It is a source.Source.
type wakeQueue struct {
	clock  clock.PassiveClock
	gather time.Duration

	mu    sync.Mutex
	queue workqueue.TypedRateLimitingInterface[reconcile.Request]
	woken map[types.NamespacedName]time.Time
	swept time.Time
}

func newWakeQueue(c clock.PassiveClock, gather time.Duration) *wakeQueue {
	return &wakeQueue{clock: c, gather: gather, woken: map[types.NamespacedName]time.Time{}}
}

// Start implements source.Source.
func (q *wakeQueue) Start(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue = queue
	return nil
}

// String names the source in logs.
func (q *wakeQueue) String() string { return "watches on fabrics" }

// wake asks for passes: soon, and where they are many not all at once. A controller that has not started looks at everything
// when it does.
func (q *wakeQueue) wake(keys ...types.NamespacedName) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.clock.Now()
	q.sweep(now)
	for i, key := range keys {
		q.woken[key] = now
		if q.queue != nil {
			q.queue.AddAfter(reconcile.Request{NamespacedName: key}, q.gather+(time.Duration(i)*spreadStep)%spread)
		}
	}
}

func (q *wakeQueue) wokenAt(key types.NamespacedName) time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.woken[key]
}

// sweep forgets who was woken long ago. The caller holds the lock.
func (q *wakeQueue) sweep(now time.Time) {
	if now.Sub(q.swept) < rememberWakes {
		return
	}
	q.swept = now
	for key, at := range q.woken {
		if now.Sub(at) >= rememberWakes {
			delete(q.woken, key)
		}
	}
}
