// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package fabricscope_test runs the fabric wing's clients and its controllers of DPUFabrics and TenantVPCs against the DPF
// simulator, with the rights and policies of config/dpf as they are shipped.
package fabricscope_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/fabriclab"
)

const (
	dpfNamespace  = fabriclab.DPFNamespace
	wingNamespace = fabriclab.WingNamespace
	installation  = "fabricscope"
	patience      = time.Minute
	interval      = 50 * time.Millisecond
)

// world is what all tests of the package share: the provider's management cluster, and DPF's two.
var world struct {
	*fabriclab.Lab
	nodeLabelsOfDPUDeviceAreHere bool
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	options := fabriclab.Options{
		Repo: "../..", CRDDir: os.Getenv("DPF_CRD_DIR"), Tenants: []string{"red", "blue"},
		DPUs: []dpfsim.DPU{{Name: "dpu-1", Serial: "MT1", SystemID: "abc123", PF0MAC: "58:A2:E1:00:00:01", StandbyPower: true}},
	}
	if options.CRDDir == "" {
		options.LabelPlace, world.nodeLabelsOfDPUDeviceAreHere = dpfsim.LabelsOnDPUDevice, true
	}
	var err error
	if world.Lab, err = fabriclab.Start(context.Background(), options); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := world.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	return m.Run()
}

// expect returns assertions that wait as long as DPF needs.
func expect(t *testing.T) *WithT {
	g := NewWithT(t)
	g.SetDefaultEventuallyTimeout(patience)
	g.SetDefaultEventuallyPollingInterval(interval)
	return g
}

// afterwards is for clean-ups, which run when a test's own context has ended.
func afterwards(t *testing.T) context.Context { return context.WithoutCancel(t.Context()) }
