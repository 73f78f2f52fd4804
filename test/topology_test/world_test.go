// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package topology_test runs a cluster of the ClusterClass that is shipped under Cluster API's own topology controller, in a lab
// with both wings: what its user changes rolls out once, and nothing else ever does.
package topology_test

import (
	"context"
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
)

const (
	// goodServers are the control plane's, two workers', and one more for the second control plane machine of a rollout there.
	goodServers = 4
	stopTimeout = time.Minute
)

// The one lab of the package. suite ends when the test is interrupted: everything that waits hangs on it.
var (
	suite context.Context
	world *demo.World
	repo  = filepath.Join("..", "..")
)

// startWorld starts the lab and leaves nothing behind, neither processes nor files, also when the test is interrupted.
func startWorld(t *testing.T) {
	t.Helper()
	ctrl.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.WithoutCancel(t.Context()), os.Interrupt, syscall.SIGTERM)
	t.Cleanup(stop)
	suite = ctx
	checkout, err := filepath.Abs(repo)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "lab")
	world, err = demo.Up(ctx, demo.Options{Repo: checkout, Dir: dir, GoodServers: goodServers, CRDDir: os.Getenv("DPF_CRD_DIR")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if err := world.Down(stopping); err != nil {
			t.Error(err)
		}
		keepLogs(t, dir)
	})
}

// keepLogs copies what the processes wrote into the folder that TOPOLOGY_LOGS names, which must not have such files yet.
func keepLogs(t *testing.T, dir string) {
	t.Helper()
	to := os.Getenv("TOPOLOGY_LOGS")
	if to == "" {
		return
	}
	if err := os.CopyFS(to, os.DirFS(filepath.Join(dir, "logs"))); err != nil {
		t.Error(err)
	}
}
