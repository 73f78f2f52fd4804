// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	defaultReadyTimeout = 90 * time.Second
	defaultStopTimeout  = 15 * time.Second
	readyInterval       = 50 * time.Millisecond
	killTimeout         = 5 * time.Second
	logTailBytes        = 4096
	logTailLines        = 12
)

// ErrAddressInUse is wrapped by Start's error when the child ended because one of its ports was taken meanwhile. Starting
// it again with new ports is the remedy.
var ErrAddressInUse = errors.New("a port was taken by another process")

// Spec describes a child process.
type Spec struct {
	// Name is unique among the living children of a Supervisor; log and pid file are named after it.
	Name string
	// Path is the binary, Args its arguments without the name.
	Path string
	Args []string
	// Env is added to a minimal environment (PATH, TMPDIR and HOME in the supervisor's directory): nothing of the caller's
	// shell, such as KUBECONFIG or a proxy, reaches the child.
	Env []string
	// Tier orders Supervisor.Stop: higher tiers end first, equal tiers end together.
	Tier int
	// Ready is polled until it returns nil. Without it the child counts as ready once started.
	Ready func(ctx context.Context) error
	// ReadyTimeout limits the wait for Ready; default 90 s, for a machine that is compiling beside the lab.
	ReadyTimeout time.Duration
	// StopTimeout is what the child gets between SIGTERM and SIGKILL; default 15 s.
	StopTimeout time.Duration
}

// ExitError says that a child ended although nobody stopped it.
type ExitError struct {
	Name string
	// Cause is how it ended, as os/exec reports it; nil for exit code 0.
	Cause error
	// LogFile holds all of its output, LogTail the last lines.
	LogFile, LogTail string
}

// Error implements error.
func (e *ExitError) Error() string {
	how := "exited with code 0"
	if e.Cause != nil {
		how = e.Cause.Error()
	}
	return fmt.Sprintf("%s ended early (%s), log %s ends:\n%s", e.Name, how, e.LogFile, e.LogTail)
}

// Unwrap makes errors.Is(err, ErrAddressInUse) work. A child's log is the only place where it says why it ended.
func (e *ExitError) Unwrap() error {
	if strings.Contains(e.LogTail, "address already in use") {
		return ErrAddressInUse
	}
	return e.Cause
}

// Process is a running or ended child.
type Process struct {
	spec    Spec
	cmd     *exec.Cmd
	logFile string
	pidFile string
	done    chan struct{}
	waitErr error // set before done is closed
	// asked is set once somebody wants it to end: an end before that is news.
	asked atomic.Bool
}

// Name returns the Spec's name.
func (p *Process) Name() string { return p.spec.Name }

// PID returns the process ID; it stays the same after the end.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// LogFile returns the path of the child's combined output.
func (p *Process) LogFile() string { return p.logFile }

// RSS returns the resident memory in bytes, 0 once the child has ended.
func (p *Process) RSS() uint64 {
	if !p.Running() {
		return 0
	}
	return residentMemory(p.PID())
}

// Done is closed when the child has ended, for whatever reason.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running says whether the child has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Stop asks the child to end, kills its process group after the Spec's StopTimeout or when ctx ends, and returns once it
// is gone. Stopping an ended child does nothing.
func (p *Process) Stop(ctx context.Context) error {
	if !p.Running() {
		return nil
	}
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	graceful := time.NewTimer(p.spec.StopTimeout)
	defer graceful.Stop()
	select {
	case <-p.done:
		return nil
	case <-graceful.C:
	case <-ctx.Done():
	}
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	killed := time.NewTimer(killTimeout)
	defer killed.Stop()
	select {
	case <-p.done:
		return nil
	case <-killed.C:
		return fmt.Errorf("%s (pid %d) is still there %s after SIGKILL", p.Name(), p.PID(), killTimeout)
	}
}

// Kill ends the child's process group at once, as pulling the plug would, and waits until it is gone.
func (p *Process) Kill(ctx context.Context) error {
	if !p.Running() {
		return nil
	}
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the end of %s: %w", p.Name(), ctx.Err())
	}
}

// signal reaches the whole group. ESRCH means that it ended meanwhile.
func (p *Process) signal(sig syscall.Signal) error {
	p.asked.Store(true)
	if err := syscall.Kill(-p.PID(), sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("sending %s to %s (pid %d): %w", sig, p.Name(), p.PID(), err)
	}
	return nil
}

// waitReady polls Ready and fails at once when the child ends before.
func (p *Process) waitReady(ctx context.Context) error {
	if p.spec.Ready == nil {
		return nil
	}
	var last error
	err := wait.PollUntilContextTimeout(ctx, readyInterval, p.spec.ReadyTimeout, true, func(ctx context.Context) (bool, error) {
		if !p.Running() {
			return false, p.exitError()
		}
		last = p.spec.Ready(ctx)
		return last == nil, nil
	})
	if wait.Interrupted(err) {
		return fmt.Errorf("%s is not ready after %s (last answer: %w), log %s ends:\n%s",
			p.Name(), p.spec.ReadyTimeout, errors.Join(last, ctx.Err()), p.logFile, logTail(p.logFile))
	}
	return err
}

func (p *Process) exitError() error {
	return &ExitError{Name: p.Name(), Cause: p.waitErr, LogFile: p.logFile, LogTail: logTail(p.logFile)}
}

// logTail returns the last lines of a log; a log that cannot be read is named instead.
func logTail(path string) string {
	file, err := os.Open(path) //nolint:gosec // a log that this package has created
	if err != nil {
		return "(unreadable: " + err.Error() + ")"
	}
	defer func() { _ = file.Close() }()
	if size, err := file.Seek(0, io.SeekEnd); err == nil {
		_, _ = file.Seek(max(0, size-logTailBytes), io.SeekStart)
	}
	tail, err := io.ReadAll(file)
	if err != nil {
		return "(unreadable: " + err.Error() + ")"
	}
	lines := strings.Split(strings.TrimSpace(string(tail)), "\n")
	return strings.Join(lines[max(0, len(lines)-logTailLines):], "\n")
}
