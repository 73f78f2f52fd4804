// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	pidDirectory = "pids"
	ownerName    = "owner"
	// ownerTier is above every child's: whoever started the lab is asked first, and stops its children in order.
	ownerTier       = 1 << 30
	cleanupInterval = 50 * time.Millisecond
	ownerTimeout    = 60 * time.Second
)

// record is the content of a pid file. All fields but Name and Tier identify the process beyond its number.
type record struct {
	Name      string `json:"name"`
	Tier      int    `json:"tier"`
	PID       int    `json:"pid"`
	StartTime uint64 `json:"startTime"`
	BootID    string `json:"bootID"`
}

func newRecord(name string, tier, pid int) (record, error) {
	started, err := startTime(pid)
	if err != nil {
		return record{}, fmt.Errorf("identifying %s: %w", name, err)
	}
	boot, err := bootID()
	if err != nil {
		return record{}, err
	}
	return record{Name: name, Tier: tier, PID: pid, StartTime: started, BootID: boot}, nil
}

// write stores the record in dir and returns the file's path.
func (r record) write(dir string) (string, error) {
	content, err := json.Marshal(r)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, pidDirectory, r.Name+".json")
	if err := os.WriteFile(path, content, 0o600); err != nil { //nolint:gosec // below the directory the caller has named
		return "", fmt.Errorf("recording process %s: %w", r.Name, err)
	}
	return path, nil
}

// alive says whether exactly the recorded process still runs.
func (r record) alive() bool {
	boot, err := bootID()
	if err != nil || boot != r.BootID {
		return false
	}
	started, err := startTime(r.PID)
	return err == nil && started == r.StartTime
}

// end asks the process to end and kills it when it does not. Children lead a process group, the owner does not.
func (r record) end(ctx context.Context, graceful time.Duration) error {
	target := -r.PID
	if r.Name == ownerName {
		target = r.PID
	}
	for _, step := range []struct {
		signal  syscall.Signal
		timeout time.Duration
	}{{syscall.SIGTERM, graceful}, {syscall.SIGKILL, killTimeout}} {
		if !r.alive() {
			return nil
		}
		if err := syscall.Kill(target, step.signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("sending %s to %s (pid %d): %w", step.signal, r.Name, r.PID, err)
		}
		err := wait.PollUntilContextTimeout(ctx, cleanupInterval, step.timeout, true, func(context.Context) (bool, error) {
			return !r.alive(), nil
		})
		if err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s (pid %d) does not end", r.Name, r.PID)
}

// load reads all records in dir.
func load(dir string) ([]record, error) {
	files, err := filepath.Glob(filepath.Join(dir, pidDirectory, "*.json"))
	if err != nil {
		return nil, err
	}
	var records []record
	for _, file := range files {
		content, err := os.ReadFile(file)   //nolint:gosec // below the directory the caller has named
		if errors.Is(err, os.ErrNotExist) { // its process ended meanwhile
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading a process record: %w", err)
		}
		var r record
		if err := json.Unmarshal(content, &r); err != nil {
			return nil, fmt.Errorf("process record %s is malformed: %w", file, err)
		}
		records = append(records, r)
	}
	return records, nil
}

// Living returns the names of the processes recorded in dir that still run; the process that supervises them is "owner".
func Living(dir string) ([]string, error) {
	records, err := load(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, r := range records {
		if r.alive() {
			names = append(names, r.Name)
		}
	}
	return names, nil
}

// Cleanup ends the processes recorded in dir by a supervisor that did not live to do it: the supervising process first,
// then what is left, in the order of their tiers. A process is touched only if number, start time and boot agree with the
// record, and never the caller itself. It returns the names of those it ended. A dir without records is clean.
func Cleanup(ctx context.Context, dir string) ([]string, error) {
	records, err := load(dir)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(records, func(a, b record) int { return b.Tier - a.Tier })
	var ended []string
	var errs []error
	for _, r := range records {
		if r.PID != os.Getpid() && r.PID > 1 && r.alive() {
			graceful := defaultStopTimeout
			if r.Name == ownerName {
				graceful = ownerTimeout
			}
			if err := r.end(ctx, graceful); err != nil {
				errs = append(errs, err)
				continue
			}
			ended = append(ended, r.Name)
		}
		if err := os.Remove(filepath.Join(dir, pidDirectory, r.Name+".json")); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return ended, errors.Join(errs...)
}
