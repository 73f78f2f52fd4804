// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/controllers/remote"
	capiflags "sigs.k8s.io/cluster-api/util/flags"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// startTimeout bounds what is asked before the manager starts.
const startTimeout = 30 * time.Second

// NewScheme returns the kinds of the management cluster the wings read and write.
func NewScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(clusterv1.AddToScheme(scheme))
	utilruntime.Must(infrav1.AddToScheme(scheme))
	return scheme
}

// Run runs the wing until ctx ends.
func Run(ctx context.Context, options *Options) error {
	restConfig, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the management cluster: %w", err)
	}
	restConfig.QPS, restConfig.Burst = options.KubeAPIQPS, options.KubeAPIBurst
	restConfig.UserAgent = remote.DefaultClusterAPIUserAgent(options.name())

	managerOptions, err := options.managerOptions()
	if err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(restConfig, managerOptions)
	if err != nil {
		return fmt.Errorf("make the manager: %w", err)
	}
	if err := addChecks(mgr, options); err != nil {
		return err
	}

	switch options.Wing {
	case WingMachine:
		err = setupMachineWing(ctx, mgr, options)
	case WingFabric:
		err = setupFabricWing(ctx, mgr, options)
	}
	if err != nil {
		return fmt.Errorf("set up the %s wing: %w", options.Wing, err)
	}
	return mgr.Start(ctx)
}

func (o *Options) name() string { return "maas-dpu-" + string(o.Wing) + "-controller-manager" }

func (o *Options) managerOptions() (ctrl.Options, error) {
	tlsOptions, metricsOptions, err := capiflags.GetManagerOptions(o.Diagnostics)
	if err != nil {
		return ctrl.Options{}, fmt.Errorf("flags of the diagnostics endpoint: %w", err)
	}
	cacheOptions := cache.Options{SyncPeriod: &o.SyncPeriod, DefaultTransform: cache.TransformStripManagedFields()}
	if o.WatchNamespace != "" {
		cacheOptions.DefaultNamespaces = map[string]cache.Config{o.WatchNamespace: {}}
	}
	return ctrl.Options{
		Scheme:                        NewScheme(),
		LeaderElection:                o.LeaderElect,
		LeaderElectionID:              "controller-leader-election-maas-dpu-" + string(o.Wing),
		LeaderElectionNamespace:       o.WingNamespace,
		LeaderElectionResourceLock:    resourcelock.LeasesResourceLock,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 &o.LeaseDuration,
		RenewDeadline:                 &o.RenewDeadline,
		RetryPeriod:                   &o.RetryPeriod,
		HealthProbeBindAddress:        o.HealthAddr,
		PprofBindAddress:              o.ProfilerAddr,
		Metrics:                       *metricsOptions,
		Cache:                         cacheOptions,
		// Secrets are read when they are needed, one at a time: neither wing may list them.
		Client: client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}, &corev1.ConfigMap{}}}},
		// The priority queue of controller-runtime v0.24.1 can hang when it is shut down, and the lease is kept for as long as it hangs
		// (kubernetes-sigs/controller-runtime#3538, mended after that release).
		Controller: config.Controller{UsePriorityQueue: ptr.To(false)},
		WebhookServer: webhook.NewServer(webhook.Options{
			Port: o.WebhookPort, CertDir: o.WebhookCertDir, TLSOpts: tlsOptions,
		}),
	}, nil
}

func (o *Options) controllerOptions() controller.Options {
	return controller.Options{MaxConcurrentReconciles: o.Concurrency}
}

// installation returns what tells this installation from others on the same DPF control plane.
func (o *Options) installation(ctx context.Context, reader client.Reader) (string, error) {
	if o.Installation != "" {
		return o.Installation, nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	namespace := &corev1.Namespace{}
	if err := reader.Get(ctx, client.ObjectKey{Name: "kube-system"}, namespace); err != nil {
		return "", fmt.Errorf("read the namespace kube-system, whose UID identifies the installation (or set --installation): %w", err)
	}
	return string(namespace.UID), nil
}

func addChecks(mgr ctrl.Manager, options *Options) error {
	check := func(*http.Request) error { return nil }
	if options.WebhookPort > 0 {
		check = mgr.GetWebhookServer().StartedChecker()
	}
	return errors.Join(mgr.AddReadyzCheck("webhook", check), mgr.AddHealthzCheck("webhook", check))
}
