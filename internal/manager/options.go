// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package manager assembles the controllers and webhooks of one wing into a running manager.
package manager

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/component-base/logs"
	logsv1 "k8s.io/component-base/logs/api/v1"
	capiflags "sigs.k8s.io/cluster-api/util/flags"
)

// Wing is the half of the provider a process is: it decides on rights, controllers and webhooks.
type Wing string

// The wings.
const (
	// WingMachine claims, deploys and releases servers. It has rights on MAAS and none on DPF.
	WingMachine Wing = "machine"
	// WingFabric attaches and detaches DPU ports and proves it. It has rights on DPF and reads MAAS.
	WingFabric Wing = "fabric"
)

// Options are the flags of the manager.
type Options struct {
	Wing             Wing
	WingNamespace    string
	Installation     string
	WatchNamespace   string
	WatchFilterValue string

	LeaderElect   bool
	LeaseDuration time.Duration
	RenewDeadline time.Duration
	RetryPeriod   time.Duration

	SyncPeriod    time.Duration
	PollInterval  time.Duration
	AuditInterval time.Duration
	Concurrency   int
	KubeAPIQPS    float32
	KubeAPIBurst  int

	ClusterCacheQPS         float32
	ClusterCacheBurst       int
	ClusterCacheConcurrency int

	WebhookPort    int
	WebhookCertDir string
	HealthAddr     string
	ProfilerAddr   string

	Diagnostics capiflags.ManagerOptions
	Logs        *logs.Options
}

// DefaultOptions returns options that are complete but for the wing.
func DefaultOptions() *Options {
	return &Options{Logs: logs.NewOptions()}
}

// AddFlags binds the options to flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	logsv1.AddFlags(o.Logs, fs)
	capiflags.AddManagerOptions(fs, &o.Diagnostics)

	fs.StringVar((*string)(&o.Wing), "wing", "", "Which wing this process is: machine or fabric. Required.")
	fs.StringVar(&o.WingNamespace, "wing-namespace", os.Getenv("POD_NAMESPACE"),
		"The namespace of this wing, where its Secrets and its leader election lease live. Default: the environment variable POD_NAMESPACE.")
	fs.StringVar(&o.Installation, "installation", "",
		"What tells this installation from others that share a DPF control plane; part of every name made there, so never change it. Default: the UID of the namespace kube-system.")
	fs.StringVar(&o.WatchNamespace, "namespace", "", "The namespace whose objects are reconciled. Default: all namespaces.")
	fs.StringVar(&o.WatchFilterValue, "watch-filter", "",
		"Only objects whose label cluster.x-k8s.io/watch-filter has this value are reconciled. Default: all objects.")

	fs.BoolVar(&o.LeaderElect, "leader-elect", false, "Let one of several replicas be active.")
	fs.DurationVar(&o.LeaseDuration, "leader-elect-lease-duration", 15*time.Second, "How long others wait before they take over a leader's lease.")
	fs.DurationVar(&o.RenewDeadline, "leader-elect-renew-deadline", 10*time.Second, "How long the leader tries to renew its lease before it gives up.")
	fs.DurationVar(&o.RetryPeriod, "leader-elect-retry-period", 2*time.Second, "How long to wait between tries to get or renew the lease.")

	fs.DurationVar(&o.SyncPeriod, "sync-period", 10*time.Minute, "How often all objects are reconciled again.")
	fs.DurationVar(&o.PollInterval, "poll-interval", 5*time.Second, "How often MAAS and DPF are asked about what is under way.")
	fs.DurationVar(&o.AuditInterval, "audit-interval", 10*time.Minute,
		"How often all servers of an account are listed, to find what nobody waits for: lost servers, orphans, lost claims.")
	fs.IntVar(&o.Concurrency, "concurrency", 50, "How many objects of a kind are reconciled at once.")
	fs.Float32Var(&o.KubeAPIQPS, "kube-api-qps", 100, "Queries a second to the management cluster's API server.")
	fs.IntVar(&o.KubeAPIBurst, "kube-api-burst", 200, "Queries in one burst to the management cluster's API server.")
	fs.Float32Var(&o.ClusterCacheQPS, "clustercache-client-qps", 20, "Queries a second to a workload cluster's API server.")
	fs.IntVar(&o.ClusterCacheBurst, "clustercache-client-burst", 30, "Queries in one burst to a workload cluster's API server.")
	fs.IntVar(&o.ClusterCacheConcurrency, "clustercache-concurrency", 100, "How many workload clusters are connected to at once.")

	fs.IntVar(&o.WebhookPort, "webhook-port", 9443, "The port of the webhook server. 0 serves no webhooks.")
	fs.StringVar(&o.WebhookCertDir, "webhook-cert-dir", "/tmp/k8s-webhook-server/serving-certs/", "The folder of the webhook server's tls.crt and tls.key.")
	fs.StringVar(&o.HealthAddr, "health-addr", ":9440", "The address of /healthz and /readyz.")
	fs.StringVar(&o.ProfilerAddr, "profiler-address", "", "The address of pprof, for example localhost:6060. Default: none.")
}

// Complete checks the flags; its errors say what to write instead.
func (o *Options) Complete() error {
	switch o.Wing {
	case WingMachine, WingFabric:
	case "":
		return errors.New("--wing is required: write --wing=machine or --wing=fabric")
	default:
		return fmt.Errorf("--wing=%s is no wing: write --wing=machine or --wing=fabric", o.Wing)
	}
	if o.WingNamespace == "" {
		return errors.New("--wing-namespace is required where the environment variable POD_NAMESPACE is not set: name the namespace of the wing's Secrets")
	}
	if o.PollInterval <= 0 {
		return errors.New("--poll-interval must be greater than 0")
	}
	if o.AuditInterval <= 0 {
		return errors.New("--audit-interval must be greater than 0")
	}
	if o.Concurrency <= 0 {
		return errors.New("--concurrency must be greater than 0")
	}
	return nil
}
