// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"container/heap"
	"context"
	"time"
)

// Timer keys: a machine has at most one pending timer of each kind; scheduling again replaces it.
const (
	timerPower   = "power"
	timerInstall = "install"
	timerErase   = "erase"
	timerTimeout = "timeout"
	timerOther   = "other"
)

// clockJump is more than passes between two statements on a real clock, as a rule.
const clockJump = 10 * time.Millisecond

type timer struct {
	at      time.Time
	seq     int
	machine *machine
	key     string
	fire    func()
}

// Run makes time pass: it fires what is due and delivers hardware callbacks until ctx ends, then returns nil. No
// goroutine of the Region outlives it and calls waiting for injected delays are let go. It may run once.
func (r *Region) Run(ctx context.Context) error {
	defer r.stop.Do(func() { close(r.done) })
	for {
		wait, callbacks, hardware := r.turn()
		for _, callback := range callbacks {
			if hardware != nil {
				callback(hardware)
			}
		}
		if len(callbacks) > 0 {
			continue
		}
		if !r.sleepUntil(ctx, wait) {
			return nil
		}
	}
}

// turn fires what is due and returns when the next timer is due (zero for none) and the callbacks to deliver.
// It takes the lock.
func (r *Region) turn() (time.Time, []func(Hardware), Hardware) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.timers) > 0 && !r.timers[0].at.After(r.clock.Now()) {
		t, _ := heap.Pop(&r.timers).(*timer)
		if t.machine == nil {
			t.fire()
			continue
		}
		if t.machine.pending[t.key] == t.seq {
			delete(t.machine.pending, t.key)
			t.machine.changed()
			t.fire()
			t.machine.changed()
		}
	}
	callbacks := r.physical
	r.physical = nil
	if len(r.timers) == 0 {
		return time.Time{}, callbacks, r.hardware
	}
	return r.timers[0].at, callbacks, r.hardware
}

// sleepUntil waits for a time, a wake-up or the end of ctx; false means the end. It runs without the lock.
func (r *Region) sleepUntil(ctx context.Context, at time.Time) bool {
	var due <-chan time.Time
	if !at.IsZero() {
		now := r.clock.Now()
		t := r.clock.NewTimer(at.Sub(now))
		defer t.Stop()
		due = t.C()
		if !at.After(r.clock.Now()) || r.clock.Since(now) > clockJump {
			// An injected clock was stepped in between, so that the timer would come late.
			return ctx.Err() == nil
		}
	}
	select {
	case <-ctx.Done():
		return false
	case <-r.wake:
		return true
	case <-due:
		return true
	}
}

// schedule fires a function for a machine after d, replacing a pending timer of the same key; a negative d only
// cancels. A nil machine means a timer of its own that nothing cancels.
func (r *Region) schedule(m *machine, key string, d time.Duration, fire func()) {
	if m != nil {
		delete(m.pending, key)
	}
	if d < 0 {
		return
	}
	r.nextTimer++
	t := &timer{at: r.clock.Now().Add(d), seq: r.nextTimer, machine: m, key: key, fire: fire}
	if m != nil {
		m.pending[key] = t.seq
	}
	heap.Push(&r.timers, t)
	r.awaken()
}

func (r *Region) cancel(m *machine, keys ...string) {
	for _, key := range keys {
		delete(m.pending, key)
	}
}

// tell queues a callback to the hardware.
func (r *Region) tell(callback func(Hardware)) {
	r.physical = append(r.physical, callback)
	r.awaken()
}

func (r *Region) awaken() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// pause waits d of the Region's clock, or until the Region ends. It runs without the lock; a caller that went away
// does not shorten it, as a client's timeout never cancels the server's work.
func (r *Region) pause(d time.Duration) {
	if d <= 0 {
		return
	}
	t := r.clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
	case <-r.done:
	}
}

// timerQueue is a heap by due time, then by order of scheduling.
type timerQueue []*timer

func (q timerQueue) Len() int { return len(q) }
func (q timerQueue) Less(i, j int) bool {
	if q[i].at.Equal(q[j].at) {
		return q[i].seq < q[j].seq
	}
	return q[i].at.Before(q[j].at)
}
func (q timerQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push implements heap.Interface.
func (q *timerQueue) Push(x any) {
	if t, ok := x.(*timer); ok {
		*q = append(*q, t)
	}
}

// Pop implements heap.Interface.
func (q *timerQueue) Pop() any {
	old := *q
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return last
}
