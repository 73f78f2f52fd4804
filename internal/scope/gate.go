// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"errors"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

const (
	// patience is for how long somebody waits for the answer another asks for: a MAAS that hangs must not keep all workers.
	patience = 15 * time.Second
	// longestPause bounds what MAAS may ask for by Retry-After.
	longestPause = 5 * time.Minute
)

var errSlow = errors.New("MAAS has not answered yet what others asked")

// gate lets one ask MAAS for all. Who comes meanwhile waits for the answer; a failure counts for all who waited, and for those
// who come before it is time to try again.
type gate struct {
	clock clock.WithTicker
	// pause is for how long a failure counts at least.
	pause time.Duration
	slot  chan struct{}

	mu      sync.Mutex
	failure error
	retryAt time.Time
}

func newGate(clock clock.WithTicker, pause time.Duration) *gate {
	return &gate{clock: clock, pause: pause, slot: make(chan struct{}, 1)}
}

// enter waits until nobody else asks; who got in calls leave. It returns the failure that counts instead, if there is one.
func (g *gate) enter(ctx context.Context, call maas.Call) error {
	if err := g.fails(); err != nil {
		return err
	}
	if err := g.wait(ctx, call, true); err != nil {
		return err
	}
	if err := g.fails(); err != nil {
		g.pass()
		return err
	}
	return nil
}

// wait takes the slot. Who does not insist returns at once where the last attempt failed and somebody tries already.
func (g *gate) wait(ctx context.Context, call maas.Call, yields bool) error {
	select {
	case g.slot <- struct{}{}:
		return nil
	default:
	}
	if err := g.last(); yields && err != nil {
		return err
	}
	timer := g.clock.NewTimer(patience)
	defer timer.Stop()
	select {
	case g.slot <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &maas.UnavailableError{Call: call, Err: ctx.Err()}
	case <-timer.C():
		return &maas.UnavailableError{Call: call, Err: errSlow}
	}
}

// pass lets the next one in; nothing was asked.
func (g *gate) pass() { <-g.slot }

// leave lets the next one in. A failure that is only the caller's own, whose context ended, does not count.
func (g *gate) leave(ctx context.Context, err error) {
	switch {
	case err == nil:
		g.reset()
	case ctx.Err() == nil:
		g.postpone(err)
	}
	g.pass()
}

// postpone makes a failure count until it is time to try again.
func (g *gate) postpone(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.failure, g.retryAt = err, g.clock.Now().Add(max(g.pause, min(maas.RetryAfter(err), longestPause)))
}

// reset forgets failures.
func (g *gate) reset() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.failure = nil
}

func (g *gate) last() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failure
}

// fails returns the failure that counts as long as it is not time to try again.
func (g *gate) fails() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failure != nil && g.clock.Now().Before(g.retryAt) {
		return g.failure
	}
	return nil
}
