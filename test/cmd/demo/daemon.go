// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// daemon is the process that stays when a lab is left up: the simulators live in it, and the lab's processes die with it.
type daemon struct{ dir string }

func (d daemon) path(name string) string { return filepath.Join(d.dir, name) }

const (
	pidFile   = "lab.pid"
	stateFile = "lab.state"
	logFile   = "lab.log"
	stateUp   = "up"
)

// start runs this command again in a session of its own, shows what it prints until the lab is up, and leaves it.
func (d daemon) start(ctx context.Context, args []string) error {
	if pid, err := d.pid(); err == nil {
		return fmt.Errorf("a lab is up already (process %d): stop it with make lab-down", pid)
	}
	if err := os.MkdirAll(d.dir, 0o750); err != nil {
		return err
	}
	if err := os.Remove(d.path(stateFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	output, err := os.Create(d.path(logFile))
	if err != nil {
		return err
	}
	defer func() { _ = output.Close() }()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	command := exec.Command(self, append(args, "--background")...) //nolint:noctx // ourselves; it outlives this process
	command.Stdout, command.Stderr = output, output
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return err
	}
	if err := os.WriteFile(d.path(pidFile), []byte(strconv.Itoa(command.Process.Pid)), 0o600); err != nil { //nolint:gosec // inside the checkout
		return errors.Join(err, command.Process.Kill())
	}
	return d.follow(ctx)
}

// follow shows the log until the state is known; Ctrl-C stops the process that was to stay.
func (d daemon) follow(ctx context.Context) error {
	log, err := os.Open(d.path(logFile))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	state := ""
	err = wait.PollUntilContextCancel(ctx, 200*time.Millisecond, true, func(context.Context) (bool, error) {
		content, readErr := os.ReadFile(d.path(stateFile))
		if _, err := io.Copy(os.Stdout, log); err != nil {
			return false, err
		}
		state = string(content)
		if readErr != nil && !d.alive() {
			return false, errors.New("the lab's process ended without a word; see " + d.path(logFile))
		}
		return readErr == nil, nil
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return errors.Join(err, d.stop(context.WithoutCancel(ctx)))
	case err != nil:
		return err
	case state != stateUp:
		return errors.New(state)
	}
	return nil
}

// serve is what the process that stays does: it installs the provider again on SIGHUP, until it is told to stop.
func (d daemon) serve(ctx context.Context, reinstall func() error) error {
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGHUP)
	defer signal.Stop(again)
	if err := os.WriteFile(d.path(stateFile), []byte(stateUp), 0o600); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again:
			if err := reinstall(); err != nil {
				fmt.Println("the provider could not be replaced:", err)
				continue
			}
			fmt.Println("the provider was replaced")
		}
	}
}

// finished says how the process that was to stay ended.
func (d daemon) finished(err error) {
	state := "stopped"
	if err != nil {
		state = err.Error()
	}
	_ = os.WriteFile(d.path(stateFile), []byte(state), 0o600)
	_ = os.Remove(d.path(pidFile))
}

func (d daemon) reinstall() error {
	pid, err := d.pid()
	if err != nil {
		return errors.New("no lab is up: start one with make lab-up")
	}
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		return err
	}
	fmt.Println("the provider is being replaced; see", d.path(logFile))
	return nil
}

// stop ends the process that stays and waits until it is gone; none is no error.
func (d daemon) stop(ctx context.Context) error {
	pid, err := d.pid()
	if err != nil {
		return nil //nolint:nilerr // nothing is up
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return err
	}
	err = wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, 2*stopTimeout, true, func(context.Context) (bool, error) { return !d.alive(), nil })
	if err != nil {
		return fmt.Errorf("the lab's process %d does not stop: %w", pid, err)
	}
	return nil
}

func (d daemon) alive() bool {
	_, err := d.pid()
	return err == nil
}

// pid returns the process that stays, if the one recorded still is this command.
func (d daemon) pid() (int, error) {
	content, err := os.ReadFile(d.path(pidFile))
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		return 0, err
	}
	commandLine, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return 0, err
	}
	if !bytes.Contains(commandLine, []byte("--background")) {
		return 0, fs.ErrNotExist
	}
	return pid, nil
}
