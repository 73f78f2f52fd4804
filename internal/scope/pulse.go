// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"net/http"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

const (
	// callsInFlight is how many calls one MAAS is asked at once; it has a handful of workers. It also bounds how many of our own
	// workers one that hangs can keep.
	callsInFlight = 16
	// stalled is after how long without any answer no further call waits to be sent.
	stalled = 5 * time.Second
	// probing is the call that finds out whether MAAS answers again.
	probing = "whoami"
)

// pulse tells a MAAS that hangs from one that is slow, and from one that is asked nothing.
type pulse struct {
	clock clock.WithTicker
	slots chan struct{}

	mu       sync.Mutex
	inFlight int
	// since is when MAAS last answered, or when it was asked after a pause.
	since time.Time
	// lost says that the last call ended without an answer after a long time.
	lost bool
	// rests are until when MAAS asked not to be asked a question again, by operation. An order concerns one machine, whose own
	// matter its pause is.
	rests map[string]time.Time
}

func newPulse(clock clock.WithTicker) *pulse {
	return &pulse{clock: clock, slots: make(chan struct{}, callsInFlight), rests: map[string]time.Time{}}
}

// admit lets a call be sent once fewer than the bound are under way, unless MAAS asked for time. It fits maas.Config.Admit.
func (p *pulse) admit(ctx context.Context, operation string) error {
	if left := p.rest(operation); left > 0 {
		return &maas.RetryableError{
			Call: maas.Call{Operation: operation}, Status: http.StatusServiceUnavailable, Message: "MAAS asked to wait", RetryAfter: left,
		}
	}
	if operation != probing {
		if err := p.wait(ctx); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inFlight == 0 {
		p.since = p.clock.Now()
	}
	p.inFlight++
	return nil
}

func (p *pulse) wait(ctx context.Context) error {
	for {
		select {
		case p.slots <- struct{}{}:
			return nil
		default:
		}
		left := stalled - p.silence()
		if left <= 0 {
			return errSlow
		}
		timer := p.clock.NewTimer(left)
		select {
		case p.slots <- struct{}{}:
			timer.Stop()
			return nil
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C():
		}
	}
}

// ended notes the end of a call that was admitted. It fits maas.Config.Observe.
func (p *pulse) ended(o maas.Observation) {
	if o.Operation != probing {
		<-p.slots
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if o.Question && o.RetryAfter > 0 {
		p.rests[o.Operation] = p.clock.Now().Add(min(o.RetryAfter, longestPause))
	}
	p.inFlight--
	switch {
	case o.Code != 0:
		p.since, p.lost = p.clock.Now(), false
	case o.Duration >= stalled:
		p.lost = true
	}
}

// rest is for how long the question is not to be asked.
func (p *pulse) rest(operation string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rests[operation].Sub(p.clock.Now())
}

// hangs reports that MAAS has answered nothing for long although it was asked.
func (p *pulse) hangs() bool {
	p.mu.Lock()
	lost := p.lost
	p.mu.Unlock()
	return lost || p.silence() >= patience
}

// silence is for how long MAAS has answered nothing although it was asked.
func (p *pulse) silence() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inFlight == 0 {
		return 0
	}
	return p.clock.Now().Sub(p.since)
}

// alive notes that MAAS answered.
func (p *pulse) alive() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since, p.lost = p.clock.Now(), false
}
