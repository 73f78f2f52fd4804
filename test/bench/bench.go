// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package bench measures the machine wing against its budgets: the shipped manager on a real API server, the MAAS simulator
// with every call on record, and a fabric that proves each attachment at once, so that what is measured is the wing's own.
// Ratios are taken within one run: what a machine's other load does to one side it does to the other.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-logr/logr"
)

// Scenarios are the names of all scenarios, in the order they run.
var Scenarios = []string{ScenarioFifty, ScenarioHung, ScenarioPolls}

// Options say what is run and where; see DefaultOptions.
type Options struct {
	// Repo is the checkout, Manager the binary under test, Dir scratch for labs, logs and profiles.
	Repo, Manager, Dir string
	// ManagerArgs are added to the manager's.
	ManagerArgs []string
	// PollInterval is the manager's.
	PollInterval time.Duration
	// Details is the folder for CPU profiles of the manager and the list of all calls; empty means that nobody wants them.
	Details string

	Fifty Fifty
	Polls Polls
	Hung  Hung

	// Progress receives a line per step; nil is silent.
	Progress io.Writer
	Log      logr.Logger
}

// shippedPollInterval is the manager's default.
const shippedPollInterval = 5 * time.Second

// DefaultOptions are those the budgets are meant for.
func DefaultOptions(repo, dir string) Options {
	return Options{
		Repo: repo, Manager: filepath.Join(repo, "bin", "manager"), Dir: dir, PollInterval: shippedPollInterval,
		Fifty: DefaultFifty(), Polls: DefaultPolls(), Hung: DefaultHung(), Log: logr.Discard(),
	}
}

// Run runs the scenarios named, all if none is. A missed budget is no error; what could not be measured is.
func Run(ctx context.Context, o Options, scenarios ...string) (*Report, error) {
	known := map[string]func(context.Context, Options, *Report) error{ScenarioFifty: runFifty, ScenarioPolls: runPolls, ScenarioHung: runHung}
	for _, name := range scenarios {
		if known[name] == nil {
			return nil, fmt.Errorf("%s is no scenario: there are %v", name, Scenarios)
		}
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	if err := os.MkdirAll(o.Dir, 0o750); err != nil {
		return nil, err
	}
	report := &Report{Started: time.Now().UTC().Truncate(time.Second)}
	var errs []error
	for _, name := range Scenarios {
		if len(scenarios) > 0 && !slices.Contains(scenarios, name) {
			continue
		}
		started := time.Now()
		fmt.Fprintf(o.Progress, "── %s\n", name)
		if err := errors.Join(report.addLoad(name), known[name](ctx, o, report)); err != nil {
			errs = append(errs, fmt.Errorf("scenario %s: %w", name, err))
		}
		fmt.Fprintf(o.Progress, "   %s took %s\n", name, time.Since(started).Round(time.Second))
	}
	report.Seconds = time.Since(report.Started).Seconds()
	return report, errors.Join(errs...)
}

func (o Options) step(format string, args ...any) {
	fmt.Fprintf(o.Progress, "   "+format+"\n", args...)
}
