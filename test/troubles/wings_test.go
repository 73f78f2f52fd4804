// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package troubles

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/demo"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/proc"
)

const (
	lookEvery = 250 * time.Millisecond
	// patience is for how long a wing may be too busy to answer.
	patience = 5 * time.Second
)

// wingWatch sees to it that both wings live on as the same processes and stay ready, whatever happens to what they talk to.
type wingWatch struct {
	mu         sync.Mutex
	running    map[string]*proc.Process
	away       map[string]bool
	unreadyAt  map[string]time.Time
	complaints []string
}

func watchWings(ctx context.Context) *wingWatch {
	w := &wingWatch{running: map[string]*proc.Process{}, away: map[string]bool{}, unreadyAt: map[string]time.Time{}}
	for _, p := range world.Lab.Processes() {
		if p.Name() == demo.MachineWing || p.Name() == demo.FabricWing {
			w.running[p.Name()] = p
		}
	}
	go wait.UntilWithContext(ctx, w.look, lookEvery)
	return w
}

func (w *wingWatch) look(ctx context.Context) {
	for _, name := range []string{demo.MachineWing, demo.FabricWing} {
		w.mu.Lock()
		process, away := w.running[name], w.away[name]
		w.mu.Unlock()
		if away {
			continue
		}
		if process == nil {
			w.complain(fmt.Errorf("%s was never started", name))
			continue
		}
		w.note(ctx, process, process.Ready(ctx))
	}
}

func (w *wingWatch) note(ctx context.Context, process *proc.Process, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	name := process.Name()
	if ctx.Err() != nil || w.away[name] || w.running[name] != process || err == nil {
		delete(w.unreadyAt, name)
		return
	}
	since, unready := w.unreadyAt[name]
	if !unready {
		w.unreadyAt[name] = time.Now()
	}
	if !process.Running() || unready && time.Since(since) > patience {
		w.complaints = append(w.complaints, fmt.Sprintf("%s, %s: %v", name, time.Now().Format(time.TimeOnly), err))
		w.away[name] = true // Once is enough.
	}
}

func (w *wingWatch) complain(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.complaints = append(w.complaints, err.Error())
}

// steady fails the test if a wing was not ready, or ended by itself, since the watch began.
func (w *wingWatch) steady(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, complaint := range w.complaints {
		t.Errorf("not steady: %s", complaint)
	}
	w.complaints = nil
}

// kill pulls the plug of wings, which the lab restarts at once. What they were doing stays half done.
func (w *wingWatch) kill(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		w.stop(t, name)
	}
	w.start(t, names...)
}

// stop pulls the plug of a wing.
func (w *wingWatch) stop(t *testing.T, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(suite, time.Minute)
	defer cancel()
	w.mu.Lock()
	process := w.running[name]
	w.away[name] = true
	w.mu.Unlock()
	if err := process.Kill(ctx); err != nil {
		t.Fatal(err)
	}
}

func (w *wingWatch) stopped(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.away[name]
}

// start starts wings again that were stopped.
func (w *wingWatch) start(t *testing.T, names ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(suite, time.Minute)
	defer cancel()
	var errs []error
	for _, name := range names {
		process, err := world.Lab.Supervisor().Restart(ctx, name)
		errs = append(errs, err)
		w.mu.Lock()
		w.running[name], w.away[name] = process, false
		w.mu.Unlock()
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatalf("restart after SIGKILL: %v", err)
	}
}
