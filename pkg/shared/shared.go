// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package shared reads one thing for all who ask for it.
package shared

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

const (
	// defaultTimeout bounds one reading, of several requests.
	defaultTimeout = 20 * time.Second
	// shortPatience is how long somebody waits for another's reading of what could not be read last time: a cluster that hangs
	// must not hold a worker for each DPU in it.
	shortPatience = 2 * time.Second
)

// errSlow stands for the answer to a question that another has asked and waits for.
var errSlow = errors.New("it has not answered yet what others asked")

// Reading reads one thing for all who ask for it. At most one reading is under way. Who asks gets a reading that started when it
// says or later: the last, the one under way, or else the next, which all who wait by then share.
type Reading[T any] struct {
	// Clock measures time.
	Clock clock.Clock
	// Timeout of one reading; zero means 20 seconds.
	Timeout time.Duration
	// Patience is how long somebody waits for another's reading; zero means for as long as it takes. It is 2 seconds at most where
	// the last one failed.
	Patience time.Duration

	mu             sync.Mutex
	last, underway *answer[T]
}

// answer is one reading; started is before its first question was sent. The rest is valid once done is closed.
type answer[T any] struct {
	started time.Time
	done    chan struct{}
	// abandoned says that who read gave up: nothing is known from it.
	abandoned bool
	value     T
	err       error
}

// Get returns the value and when its reading started. A failure is shared as a value is. Whoever finds no reading under way
// that will do reads for all, in its own context.
func (s *Reading[T]) Get(ctx context.Context, notBefore time.Time, read func(context.Context) (T, error)) (T, time.Time, error) {
	if now := s.Clock.Now(); notBefore.After(now) {
		notBefore = now
	}
	for {
		s.mu.Lock()
		switch {
		case s.last != nil && !s.last.started.Before(notBefore):
			r := s.last
			s.mu.Unlock()
			return r.value, r.started, r.err
		case s.underway == nil:
			r := &answer[T]{started: s.Clock.Now(), done: make(chan struct{})}
			s.underway = r
			s.mu.Unlock()
			s.read(ctx, r, read)
			return r.value, r.started, r.err
		}
		r, failing := s.underway, s.last != nil && s.last.err != nil
		s.mu.Unlock()
		if err := s.wait(ctx, r, failing); err != nil {
			var none T
			return none, r.started, err
		}
		if !r.abandoned && !r.started.Before(notBefore) {
			return r.value, r.started, r.err
		}
	}
}

func (s *Reading[T]) read(ctx context.Context, r *answer[T], read func(context.Context) (T, error)) {
	r.abandoned = true // Unless it comes to an end.
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.underway = nil
		if !r.abandoned {
			s.last = r
		}
		close(r.done)
	}()
	bounded, cancel := context.WithTimeout(ctx, cmp.Or(s.Timeout, defaultTimeout))
	defer cancel()
	r.value, r.err = read(bounded)
	r.abandoned = r.err != nil && ctx.Err() != nil
}

// Last returns what was read last, whether or not it is old; the zero value if that failed.
func (s *Reading[T]) Last() T {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		var none T
		return none
	}
	return s.last.value
}

// wait waits for the end of somebody else's reading, not for long if the one before failed.
func (s *Reading[T]) wait(ctx context.Context, r *answer[T], failing bool) error {
	var late <-chan time.Time
	limit := s.Patience
	if failing && (limit == 0 || limit > shortPatience) {
		limit = shortPatience
	}
	if limit > 0 {
		timer := s.Clock.NewTimer(limit)
		defer timer.Stop()
		late = timer.C()
	}
	select {
	case <-r.done:
		return nil
	case <-late:
		return errSlow
	case <-ctx.Done():
		return fmt.Errorf("wait for what others asked: %w", ctx.Err())
	}
}
