// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// The manager of cluster-api-provider-maas-dpu. One binary, two wings: --wing says which rights and controllers a process has.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
	logsv1 "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/logs/json/register"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/manager"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "Unable to run the manager:", err)
		os.Exit(1)
	}
}

func run() error {
	options := manager.DefaultOptions()
	options.AddFlags(pflag.CommandLine)
	pflag.CommandLine.AddGoFlagSet(flag.CommandLine) // --kubeconfig of controller-runtime
	pflag.CommandLine.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	pflag.Parse()

	if err := options.Complete(); err != nil {
		return err
	}
	if err := logsv1.ValidateAndApply(options.Logs, nil); err != nil {
		return err
	}
	ctrl.SetLogger(klog.Background())

	return manager.Run(ctrl.SetupSignalHandler(), options)
}
