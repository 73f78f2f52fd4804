// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"sync"
)

// bulkhead keeps the passes of one identity from taking all workers: a MAAS that hangs holds each pass until a deadline, and must
// not delay the machines of others. Nobody waits inside: who is not let in comes back later.
type bulkhead struct {
	// limit is how many passes of one identity are under way at once.
	limit int

	mu       sync.Mutex
	underWay map[string]int
}

func newBulkhead(limit int) *bulkhead {
	return &bulkhead{limit: max(limit, 1), underWay: map[string]int{}}
}

// enter lets a pass in, or does not. Who was let in calls leave once.
func (b *bulkhead) enter(identity string) (leave func(), ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.underWay[identity] >= b.limit {
		return nil, false
	}
	b.underWay[identity]++
	return func() { b.leave(identity) }, true
}

func (b *bulkhead) leave(identity string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.underWay[identity]--
	if b.underWay[identity] == 0 {
		delete(b.underWay, identity)
	}
}
