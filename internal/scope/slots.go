// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import "sync"

// Slots bound how many of something are under way at once. Nobody waits: who gets none comes back later.
type Slots struct {
	mu          sync.Mutex
	size, taken int
}

// TryAcquire takes a slot if one is free; release gives it back and may be called once.
func (s *Slots) TryAcquire() (release func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken >= s.size {
		return nil, false
	}
	s.taken++
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.taken--
	}), true
}

func (s *Slots) resize(size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.size = size
}

// NewSlots returns that many free slots.
func NewSlots(size int) *Slots { return &Slots{size: size} }
