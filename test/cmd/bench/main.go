// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Bench measures the manager against its budgets and writes out/bench.txt and out/bench.json. A missed budget is a result, not a
// failure: it says MISSED.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/bench"
)

type flags struct {
	scenarios, manager, managerArgs, out string
	machines, servers                    int
	details, keep                        bool
}

func main() {
	var f flags
	flag.StringVar(&f.scenarios, "scenario", "", "comma-separated scenarios: "+strings.Join(bench.Scenarios, ", ")+"; empty means all")
	flag.IntVar(&f.machines, "machines", 0, "how many machines are created at once (fifty), or measured (hung)")
	flag.IntVar(&f.servers, "servers", 0, "how many servers the region has (polls)")
	flag.StringVar(&f.manager, "manager", "", "the manager's binary; default bin/manager")
	flag.StringVar(&f.managerArgs, "manager-args", "", "further arguments of the manager, separated by spaces")
	flag.StringVar(&f.out, "out", "", "folder of the results; default out")
	flag.BoolVar(&f.details, "details", false, "leave CPU profiles of the manager and all calls to MAAS (CSV) beside the results")
	flag.BoolVar(&f.keep, "keep", false, "keep the labs' folders with all logs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, f)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\nbench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, f flags) (err error) {
	repo, err := findRepo()
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	if f.out == "" {
		f.out = filepath.Join(repo, "out")
	}
	if err := os.MkdirAll(f.out, 0o750); err != nil {
		return err
	}
	options := f.options(repo, scratch)
	logFile, err := os.Create(filepath.Join(scratch, "bench.log"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, logFile.Close()) }()
	klog.LogToStderr(false)
	klog.SetOutput(logFile)
	ctrllog.SetLogger(klog.Background())
	options.Log = klog.Background()

	report, err := bench.Run(ctx, options, scenarios(f.scenarios)...)
	if report != nil {
		err = errors.Join(err, report.Save(f.out), report.WriteText(os.Stdout))
	}
	if err != nil || f.keep {
		fmt.Fprintln(os.Stderr, "logs are in", scratch)
		return err
	}
	return os.RemoveAll(scratch)
}

func (f flags) options(repo, scratch string) bench.Options {
	o := bench.DefaultOptions(repo, scratch)
	o.Progress, o.ManagerArgs = os.Stderr, strings.Fields(f.managerArgs)
	if f.details {
		o.Details = f.out
	}
	if f.manager != "" {
		o.Manager = f.manager
	}
	if f.machines > 0 {
		o.Fifty.Machines, o.Fifty.Servers = f.machines, 2*f.machines
		o.Hung.Machines = f.machines
	}
	if f.servers > 0 {
		o.Polls.Servers = f.servers
	}
	return o
}

func scenarios(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

func findRepo() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "metadata.yaml")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("run it inside the checkout")
}
