// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package fabriclab starts what tests of the fabric wing need around it: the provider's management cluster and the two
// clusters of a simulated DPF, each a real API server, with the rights and policies of config/dpf as they are shipped.
package fabriclab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab"
)

const (
	// DPFNamespace is DPF's own in both its clusters.
	DPFNamespace = "dpf-operator-system"
	// WingNamespace is the fabric wing's in the management cluster, where its Secrets are.
	WingNamespace = "maas-dpu-fabric-system"

	// accountName is the service account that config/dpf makes for the wing.
	accountName = "maas-dpu-fabric"
)

// Options of a Lab.
type Options struct {
	// Repo is the checkout, whose manifests are installed.
	Repo string
	// CRDDir holds upstream's DPF CRDs; empty means the project's own minimal ones.
	CRDDir string
	// LabelPlace is the release of DPF; the simulator's default when empty.
	LabelPlace dpfsim.LabelPlace
	// Timing, Jitter and Seed are dpfsim's: how long things take in DPF. Zero is fast and even.
	Timing dpfsim.Timing
	Jitter float64
	Seed   uint64
	// OVN is what DPF drives; the simulator plays it, too, when nil.
	OVN dpfsim.OVN
	// DPUs are there from the beginning.
	DPUs []dpfsim.DPU
	// Tenants are the namespaces in the management cluster besides the wing's.
	Tenants []string
}

// Lab is a running lab. Its clients read without a cache.
type Lab struct {
	// DPF is the simulator of both DPF clusters.
	DPF *dpfsim.Fabric
	// HubConfig and Hub are an administrator's of the provider's management cluster.
	HubConfig *rest.Config
	Hub       client.Client
	// DPFConfig and DPFAdmin are an administrator's of the cluster that manages DPF.
	DPFConfig *rest.Config
	DPFAdmin  client.Client
	// DPU is an administrator's client of the cluster of the DPUs.
	DPU client.Client
	// Account is the wing in the cluster that manages DPF, with the rights it is shipped with; AccountKubeconfig logs in as it.
	Account           client.Client
	AccountKubeconfig []byte

	repo  string
	stops []func() error
}

// Start starts a lab. Its binaries are those of `make controlplane`, or in KUBEBUILDER_ASSETS. The lab outlives ctx, which
// bounds the start only: end it with Stop. A lab that failed to start has stopped.
func Start(ctx context.Context, options Options) (*Lab, error) {
	l := &Lab{repo: options.Repo}
	if err := l.start(ctx, options); err != nil {
		return nil, errors.Join(fmt.Errorf("start the fabric lab (run `make controlplane`, or set KUBEBUILDER_ASSETS, if a binary is missing): %w", err), l.Stop())
	}
	return l, nil
}

// Stop stops everything, last started first, and returns what went wrong meanwhile, such as a simulator that ended early.
// Calling it again does nothing.
func (l *Lab) Stop() error {
	var errs []error
	for _, stop := range slices.Backward(l.stops) {
		errs = append(errs, stop())
	}
	l.stops = nil
	return errors.Join(errs...)
}

func (l *Lab) start(ctx context.Context, options Options) error {
	servers, err := l.startServers("hub", "dpf", "dpu")
	if err != nil {
		return err
	}
	hub, dpf, dpu := servers[0], servers[1], servers[2]
	if err := l.startHub(ctx, hub.admin, options.Tenants); err != nil {
		return fmt.Errorf("management cluster: %w", err)
	}
	if err := l.startDPF(ctx, dpf.admin, dpu.admin, options); err != nil {
		return fmt.Errorf("DPF: %w", err)
	}
	if err := l.addAccount(dpf.plane); err != nil {
		return fmt.Errorf("account of the wing: %w", err)
	}
	return nil
}

// server is an API server and its administrator.
type server struct {
	plane *envtest.ControlPlane
	admin *rest.Config
}

// startServers starts API servers that share one etcd.
func (l *Lab) startServers(names ...string) ([]server, error) {
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		assets = filepath.Join(l.repo, "bin", "lab")
	}
	etcd := &envtest.Etcd{Path: filepath.Join(assets, "etcd")}
	if err := etcd.Start(); err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	l.stops = append(l.stops, etcd.Stop)
	var servers []server
	for _, name := range names {
		apiServer := &envtest.APIServer{Path: filepath.Join(assets, "kube-apiserver"), EtcdURL: etcd.URL}
		apiServer.Configure().Set("etcd-prefix", "/"+name)
		if err := apiServer.Start(); err != nil {
			return nil, fmt.Errorf("%s API server: %w", name, err)
		}
		l.stops = append(l.stops, apiServer.Stop)
		plane := &envtest.ControlPlane{APIServer: apiServer, Etcd: etcd}
		admin, err := plane.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, nil)
		if err != nil {
			return nil, fmt.Errorf("%s API server: %w", name, err)
		}
		servers = append(servers, server{plane: plane, admin: admin.Config()})
	}
	return servers, nil
}

// startHub installs the provider's CRDs and makes the namespaces.
func (l *Lab) startHub(ctx context.Context, config *rest.Config, tenants []string) error {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, infrav1.AddToScheme} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	if _, err := envtest.InstallCRDs(config, envtest.CRDInstallOptions{Paths: []string{filepath.Join(l.repo, "config", "crd", "bases")}}); err != nil {
		return fmt.Errorf("install the provider's CRDs: %w", err)
	}
	var err error
	if l.Hub, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	l.HubConfig = config
	for _, name := range append([]string{WingNamespace}, tenants...) {
		if err := l.Hub.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			return fmt.Errorf("create namespace %s: %w", name, err)
		}
	}
	return nil
}

func (l *Lab) startDPF(ctx context.Context, management, dpu *rest.Config, options Options) error {
	fabric, err := dpfsim.New(dpfsim.Options{
		Management: management, DPUCluster: dpu, Namespace: DPFNamespace, CRDDir: options.CRDDir, LabelPlace: options.LabelPlace,
		Timing: options.Timing, Jitter: options.Jitter, Seed: options.Seed, OVN: options.OVN,
	})
	if err != nil {
		return err
	}
	if err := fabric.InstallCRDs(ctx); err != nil {
		return err
	}
	if err := fabric.Seed(ctx, options.DPUs); err != nil {
		return err
	}
	l.DPF, l.DPFConfig = fabric, management
	l.runDPF(context.WithoutCancel(ctx))

	scheme, err := scope.NewFabricScheme()
	if err != nil {
		return err
	}
	if l.DPFAdmin, err = client.New(management, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	if l.DPU, err = client.New(dpu, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	if err := l.ApplyToDPF(ctx, "config/dpf/management"); err != nil {
		return err
	}
	return lab.ApplyKustomization(ctx, dpu, filepath.Join(l.repo, "config/dpf/dpucluster"))
}

// runDPF runs the simulator until the lab stops.
func (l *Lab) runDPF(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- l.DPF.Run(ctx) }()
	l.stops = append(l.stops, func() error {
		cancel()
		if err := <-ended; err != nil {
			return fmt.Errorf("DPF simulator: %w", err)
		}
		return nil
	})
}

// ApplyToDPF applies a kustomization of the checkout to the cluster that manages DPF, as its administrator.
func (l *Lab) ApplyToDPF(ctx context.Context, path string) error {
	return lab.ApplyKustomization(ctx, l.DPFConfig, filepath.Join(l.repo, path))
}

// addAccount makes a certificate in place of the token that the wing's service account has in production.
func (l *Lab) addAccount(plane *envtest.ControlPlane) error {
	user, err := plane.AddUser(envtest.User{
		Name:   "system:serviceaccount:" + DPFNamespace + ":" + accountName,
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + DPFNamespace},
	}, nil)
	if err != nil {
		return err
	}
	if l.AccountKubeconfig, err = user.KubeConfig(); err != nil {
		return err
	}
	scheme, err := scope.NewFabricScheme()
	if err != nil {
		return err
	}
	l.Account, err = client.New(user.Config(), client.Options{Scheme: scheme})
	return err
}
