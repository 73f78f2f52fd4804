// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package checker

import (
	"context"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// Watch checks again and again while something goes on, because what is wrong for a moment is wrong.
type Watch struct {
	checker *Checker
	stop    context.CancelFunc
	stopped chan struct{}

	mu      sync.Mutex
	verdict Verdict
}

// Watch starts checking every interval until Stop.
func (c *Checker) Watch(ctx context.Context, interval time.Duration) *Watch {
	ctx, stop := context.WithCancel(ctx)
	w := &Watch{checker: c, stop: stop, stopped: make(chan struct{}), verdict: Verdict{Observations: map[string]int{}}}
	go func() {
		defer close(w.stopped)
		wait.UntilWithContext(ctx, func(context.Context) { w.Verdict() }, interval)
	}()
	return w
}

// Verdict checks once more and returns all that was found so far: every finding of any check, and of each invariant the most
// observations of one check.
func (w *Watch) Verdict() Verdict {
	now := w.checker.Check()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.verdict.Sampled = now.Sampled
	for invariant, count := range now.Observations {
		w.verdict.Observations[invariant] = max(w.verdict.Observations[invariant], count)
	}
	for _, finding := range now.Findings {
		if !slices.Contains(w.verdict.Findings, finding) {
			w.verdict.Findings = append(w.verdict.Findings, finding)
		}
	}
	all := Verdict{Observations: map[string]int{}, Findings: slices.Clone(w.verdict.Findings), Sampled: now.Sampled}
	for invariant, count := range w.verdict.Observations {
		all.Observations[invariant] = count
	}
	return all
}

// Stop ends the checking and returns the last verdict.
func (w *Watch) Stop() Verdict {
	w.stop()
	<-w.stopped
	return w.Verdict()
}
