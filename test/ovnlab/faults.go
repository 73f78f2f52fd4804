// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/proc"
)

// hang stops a process and returns once it no longer runs, with what lets it go on.
func hang(process *proc.Process) (func() error, error) {
	if !process.Running() {
		return nil, fmt.Errorf("%s does not run", process.Name())
	}
	if err := syscall.Kill(process.PID(), syscall.SIGSTOP); err != nil {
		return nil, fmt.Errorf("stopping %s: %w", process.Name(), err)
	}
	err := waitUntil(context.Background(), process.Name()+" to stand still", process, func(context.Context) error {
		state, err := processState(process.PID())
		if err == nil && state != "T" {
			err = fmt.Errorf("its state is %s", state)
		}
		return err
	})
	if err != nil {
		return nil, errors.Join(err, resume(process))
	}
	return func() error { return resume(process) }, nil
}

// resume lets a stopped process go on; one that has ended meanwhile needs nothing.
func resume(process *proc.Process) error {
	if !process.Running() {
		return nil
	}
	if err := syscall.Kill(process.PID(), syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("resuming %s: %w", process.Name(), err)
	}
	return nil
}

// processState is the letter of /proc that says what a process does.
func processState(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The command before it is in parentheses and may contain any character.
	_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	state, _, _ := strings.Cut(rest, " ")
	return state, nil
}

func (l *daemons) hangController(name string) (func() error, error) {
	var resume func() error
	err := l.change(name, func(d *dpu) error {
		if !d.up {
			return ErrDown
		}
		var err error
		resume, err = hang(d.controller)
		return err
	})
	return resume, err
}

func (l *daemons) killController(ctx context.Context, name string) error {
	return l.change(name, func(d *dpu) error {
		if !d.up {
			return ErrDown
		}
		return d.controller.Kill(ctx)
	})
}

func (l *daemons) killSwitch(ctx context.Context, name string) error {
	return l.change(name, func(d *dpu) error {
		if !d.up {
			return ErrDown
		}
		return d.vswitch.Kill(ctx)
	})
}

func (l *daemons) cutManagement(ctx context.Context, name string) (func(context.Context) error, error) {
	set := func(ctx context.Context, down bool) error {
		return l.change(name, func(d *dpu) error { return l.path.cut(ctx, d, down) })
	}
	if err := set(ctx, true); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return set(ctx, false) }, nil
}

func (l *daemons) hangNorthd() (func() error, error) { return hang(l.central.northd) }

func (l *daemons) restartSouthbound(ctx context.Context) error {
	return l.central.restart(ctx, l.central.southbound)
}
