// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/ovnlab"
)

// TestShortPass is the demo's flow with fewer servers: two tenants with the same CIDR come, scale and go, and every invariant
// is held against it. DPF_CRD_DIR names a folder of upstream's CRDs to run it on instead of the project's own.
func TestShortPass(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	repo, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	level, lacks := ovnlab.Best()
	t.Logf("OVN level %s %s", level, lacks)
	world, err := Up(ctx, Options{
		Repo: repo, Dir: filepath.Join(t.TempDir(), "lab"), GoodServers: Short.GoodServers, CRDDir: os.Getenv("DPF_CRD_DIR"),
		Posture: infrav1.PostureEnforce, OVN: &level,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if err := world.Down(stopping); err != nil {
			t.Error(err)
		}
	})
	run := &Run{World: world, Scenario: Short, Out: t.Output()}
	if err := run.Play(ctx); err != nil {
		t.Fatal(err)
	}
}
