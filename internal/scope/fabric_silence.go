// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"errors"
	"net/http"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// silentAfter is how long a request was under way without any answer when its API server counts as silent.
const silentAfter = 5 * time.Second

// ErrSilent is the cause when an API server was not asked, because it has left another request without an answer and a further
// one is under way.
var ErrSilent = errors.New("it has not answered for some time; one request at a time tries again")

// silence keeps an API server that hangs from holding all workers, those of other fabrics included: from the first request
// that it leaves unanswered until it answers again, it is asked one thing at a time.
type silence struct {
	mu      sync.Mutex
	silent  bool
	probing bool
}

// enter lets a request be sent; probe says that it is the one that finds out.
func (s *silence) enter() (probe bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.silent:
		return false, nil
	case s.probing:
		return false, ErrSilent
	}
	s.probing = true
	return true, nil
}

// leave notes how a request ended. One that was refused at once, or given up early, says nothing about silence.
func (s *silence) leave(probe, answered bool, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if probe {
		s.probing = false
	}
	switch {
	case answered:
		s.silent = false
	case took >= silentAfter:
		s.silent = true
	}
}

// silentTransport asks an API server by the rules of silence.
type silentTransport struct {
	next    http.RoundTripper
	silence *silence
	clock   clock.PassiveClock
}

func (t *silentTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	probe, err := t.silence.enter()
	if err != nil {
		return nil, err
	}
	start := t.clock.Now()
	response, err := t.next.RoundTrip(request)
	t.silence.leave(probe, response != nil, t.clock.Since(start))
	return response, err
}
