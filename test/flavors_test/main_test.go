// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package flavors_test brings a cluster of every flavour up and down again in one lab: rendered by the real clusterctl and applied with
// the rights of a tenant. The checker holds all that happened against the invariants.
package flavors_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/demo"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/hosted"
)

const (
	goodServers  = 12
	plainServers = 2
	stopTimeout  = time.Minute
	// atOnce is how many clusters live at a time: their tests wait most of it.
	atOnce = 3
)

// zones are one for each control plane machine of the flavour ha.
var zones = []string{"rack-a", "rack-b", "rack-c"}

// suite ends when the tests are interrupted: everything that waits hangs on it. world is there once up has made it.
var (
	suite context.Context
	world *demo.World
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard())
	var stop context.CancelFunc
	suite, stop = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	flag.Parse()
	if err := flag.Set("test.parallel", strconv.Itoa(atOnce)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	stop()
	os.Exit(code)
}

// up starts the lab. The test leaves nothing behind, neither processes nor files, also when it is interrupted.
func up(t *testing.T) {
	t.Helper()
	repo, err := filepath.Abs(filepath.Join("..", ".."))
	must(t, err)
	dir, err := os.MkdirTemp("", "flavors-")
	must(t, err)
	t.Cleanup(func() {
		if err := errors.Join(keepLogs(dir), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	world, err = demo.Up(suite, demo.Options{
		Repo: repo, Dir: filepath.Join(dir, "lab"), GoodServers: goodServers, PlainServers: plainServers,
		Zones: zones, Tenants: tenants(),
	})
	must(t, err)
	t.Cleanup(func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(suite), stopTimeout)
		defer cancel()
		if err := world.Down(stopping); err != nil {
			t.Error(err)
		}
	})
	running, halt := context.WithCancel(suite)
	hosting, err := host(running)
	if err != nil {
		halt()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		halt()
		if err := <-hosting; err != nil {
			t.Error(err)
		}
	})
}

// host runs control planes that are on nobody's servers, until its context ends.
func host(ctx context.Context) (ended <-chan error, err error) {
	planes, err := hosted.New(hosted.Options{
		Management: world.Lab.Management(), Supervisor: world.Lab.Supervisor(), Bin: world.Lab.Bin(), Dir: world.Lab.Dir(), Kubelets: world.Rack,
	})
	if err != nil {
		return nil, err
	}
	if err := planes.Install(ctx); err != nil {
		return nil, err
	}
	end := make(chan error, 1)
	go func() { end <- planes.Run(ctx) }()
	return end, nil
}

// keepLogs copies what the processes wrote into the folder that FLAVORS_LOGS names, which must not have such files yet.
func keepLogs(dir string) error {
	to := os.Getenv("FLAVORS_LOGS")
	if to == "" {
		return nil
	}
	return os.CopyFS(to, os.DirFS(filepath.Join(dir, "lab", "logs")))
}
