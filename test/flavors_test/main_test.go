// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package flavors_test brings a cluster of every flavour up and down again in one lab: rendered by the real clusterctl and applied with
// the rights of a tenant. The checker holds all that happened against the invariants.
package flavors_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
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
	goodServers  = 8
	plainServers = 2
	stopTimeout  = time.Minute
)

// The one lab of the package. suite ends when the tests are interrupted: everything that waits hangs on it.
var (
	suite context.Context
	world *demo.World
	repo  string
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// run leaves nothing behind, neither processes nor files, also when it is interrupted.
func run(m *testing.M) (code int, err error) {
	ctrl.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if repo, err = filepath.Abs(filepath.Join("..", "..")); err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "flavors-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, keepLogs(dir), os.RemoveAll(dir)) }()
	suite = ctx
	world, err = demo.Up(ctx, demo.Options{
		Repo: repo, Dir: filepath.Join(dir, "lab"), GoodServers: goodServers, PlainServers: plainServers, Tenants: tenants(),
	})
	if err != nil {
		return 0, err
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		err = errors.Join(err, world.Down(stopping))
	}()
	running, halt := context.WithCancel(ctx)
	hosting, err := host(running)
	if err != nil {
		halt()
		return 0, err
	}
	defer func() {
		halt()
		err = errors.Join(err, <-hosting)
	}()
	return m.Run(), nil
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
