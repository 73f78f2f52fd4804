// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package proc runs the lab's child processes: each with a log and a pid file, watched while it becomes ready, stopped in
// order, and gone when the parent is gone. It needs Linux (/proc and the parent-death signal).
package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"

	"github.com/go-logr/logr"
)

// Supervisor starts children whose files lie in one directory, and stops them. It is safe for concurrent use.
type Supervisor struct {
	dir   string
	log   logr.Logger
	owner string

	mu       sync.Mutex
	stopping bool
	children []*Process
}

// ErrStopping is returned by Start after Stop was called.
var ErrStopping = errors.New("the lab is being stopped")

// NewSupervisor uses dir (created if missing, with logs/ and pids/ below it). It fails if dir belongs to another living
// process: two labs need two directories.
func NewSupervisor(dir string, log logr.Logger) (*Supervisor, error) {
	for _, sub := range []string{"logs", pidDirectory, "home"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil { //nolint:gosec // the caller names it
			return nil, fmt.Errorf("creating the lab's directory: %w", err)
		}
	}
	if err := refuseLiving(dir); err != nil {
		return nil, err
	}
	me, err := newRecord(ownerName, ownerTier, os.Getpid())
	if err != nil {
		return nil, err
	}
	owner, err := me.write(dir)
	if err != nil {
		return nil, err
	}
	return &Supervisor{dir: dir, log: log, owner: owner}, nil
}

// refuseLiving fails if a recorded process still runs, and forgets the records of those that do not.
func refuseLiving(dir string) error {
	living, err := Living(dir)
	if err != nil {
		return err
	}
	if len(living) > 0 {
		return fmt.Errorf("%s is in use by %v: stop that lab first (make lab-down), or use another directory", dir, living)
	}
	files, err := filepath.Glob(filepath.Join(dir, pidDirectory, "*.json"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) { //nolint:gosec // below the caller's directory
			return err
		}
	}
	return nil
}

// Start starts a child and waits until it is ready. On failure the child is gone, and the error quotes its log.
func (s *Supervisor) Start(ctx context.Context, spec Spec) (*Process, error) {
	process, err := s.launch(spec)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", spec.Name, err)
	}
	if err := process.waitReady(ctx); err != nil {
		return nil, errors.Join(err, process.Stop(context.WithoutCancel(ctx)))
	}
	s.log.V(1).Info("ready", "process", spec.Name, "pid", process.PID())
	return process, nil
}

// launch starts the child and records it, or leaves nothing behind.
func (s *Supervisor) launch(spec Spec) (*Process, error) {
	if spec.ReadyTimeout == 0 {
		spec.ReadyTimeout = defaultReadyTimeout
	}
	if spec.StopTimeout == 0 {
		spec.StopTimeout = defaultStopTimeout
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return nil, ErrStopping
	}
	if slices.ContainsFunc(s.children, func(p *Process) bool { return p.Name() == spec.Name && p.Running() }) {
		return nil, fmt.Errorf("a process of that name is running")
	}
	logFile := filepath.Join(s.dir, "logs", spec.Name+".log")
	output, err := os.OpenFile(logFile, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600) //nolint:gosec // below the caller's directory
	if err != nil {
		return nil, err
	}
	defer func() { _ = output.Close() }()        // the child has its own descriptor
	cmd := exec.Command(spec.Path, spec.Args...) //nolint:noctx // running what it is told is its purpose; Stop ends it, in order
	cmd.Stdout, cmd.Stderr = output, output
	cmd.Dir = s.dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(), "HOME=" + filepath.Join(s.dir, "home")}, spec.Env...)
	if err := spawn(cmd); err != nil {
		return nil, err
	}
	process := &Process{spec: spec, cmd: cmd, logFile: logFile, done: make(chan struct{})}
	if r, err := newRecord(spec.Name, spec.Tier, cmd.Process.Pid); err == nil {
		process.pidFile, err = r.write(s.dir)
		if err != nil {
			return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
		}
	} // else it has ended already, which waitReady reports with its log
	go s.reap(process)
	s.children = slices.DeleteFunc(s.children, func(p *Process) bool { return p.Name() == spec.Name })
	s.children = append(s.children, process)
	return process, nil
}

// reap waits for the child's end and forgets its record.
func (s *Supervisor) reap(p *Process) {
	p.waitErr = p.cmd.Wait()
	if !p.asked.Load() {
		s.log.Info("a process has ended by itself", "process", p.Name(), "how", p.cmd.ProcessState.String(), "log", p.logFile)
	}
	if p.pidFile != "" {
		if err := os.Remove(p.pidFile); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.log.Error(err, "removing the process record", "process", p.Name())
		}
	}
	close(p.done)
}

// Processes returns the children that were started and not replaced by one of the same name, in start order.
func (s *Supervisor) Processes() []*Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.children)
}

// Stop ends all children, higher tiers first, and refuses further ones. It can be called more than once.
func (s *Supervisor) Stop(ctx context.Context) error {
	s.mu.Lock()
	s.stopping = true
	tiers := map[int][]*Process{}
	for _, p := range s.children {
		tiers[p.spec.Tier] = append(tiers[p.spec.Tier], p)
	}
	s.mu.Unlock()
	var order []int
	for tier := range tiers {
		order = append(order, tier)
	}
	slices.Sort(order)
	slices.Reverse(order)
	var errs []error
	for _, tier := range order {
		errs = append(errs, stopTogether(ctx, tiers[tier]))
	}
	if err := os.Remove(s.owner); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func stopTogether(ctx context.Context, processes []*Process) error {
	errs := make([]error, len(processes))
	var group sync.WaitGroup
	for i, p := range processes {
		group.Go(func() { errs[i] = p.Stop(ctx) })
	}
	group.Wait()
	return errors.Join(errs...)
}
