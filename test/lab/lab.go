// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package lab runs real control planes on loopback without containers: etcd, kube-apiserver and kube-controller-manager
// for the management cluster and for the two clusters of DPF, the Cluster API managers with their webhooks, and the
// provider under test as its shipped manifests describe it. Binaries come from hack/build-controlplane.sh.
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/controlplane"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/pki"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/proc"
)

const (
	management    = "management"
	dpfManagement = "dpf-management"
	dpuCluster    = "dpu-cluster"

	stopTimeout = 90 * time.Second
	// collectors are the controllers Cluster API cannot do without: owned Secrets would be orphaned and a deleted
	// Namespace would hang for ever.
	collectors = "garbage-collector-controller,namespace-controller"
)

// Options say where the lab lives and what it runs. The zero value is a bare management cluster in the checkout.
type Options struct {
	// Repo is the checkout; by default it is searched for upwards from the working directory.
	Repo string
	// Dir is scratch: data, certificates, kubeconfigs, logs and pid files; default <Repo>/.lab. Its content from an
	// earlier lab is replaced. One living lab per directory.
	Dir string
	// Bin holds the binaries; default <Repo>/bin/lab.
	Bin string
	// Log receives progress; the zero value is silent.
	Log logr.Logger
	// WithCAPI starts the Cluster API core, kubeadm bootstrap and kubeadm control plane managers.
	WithCAPI bool
	// WithDPF starts the DPF management cluster and the DPU cluster.
	WithDPF bool
	// WithDPFCollectors adds a kube-controller-manager (100 MB each) to the clusters of DPF, for simulators that count
	// on owner references and namespace deletion there.
	WithDPFCollectors bool
}

// Lab is a running lab. Its methods are safe for concurrent use.
type Lab struct {
	options    Options
	supervisor *proc.Supervisor
	webhooks   *webhookServing
	clusters   map[string]*cluster // complete once Start has returned
	// stopWatching ends the watch on Start's context.
	stopWatching func() bool

	mu    sync.Mutex
	wings map[string]managerPorts // where the provider's processes listen, by name
}

// cluster is one of the lab's own API servers.
type cluster struct {
	name       string
	server     *controlplane.RunningAPIServer
	kubeconfig string
}

// Start starts the lab and returns when everything in it is ready. ctx is the lab's life: when it ends, all processes are
// stopped as by Stop. On failure nothing stays behind.
func Start(ctx context.Context, options Options) (*Lab, error) {
	l, err := prepare(options)
	if err != nil {
		return nil, err
	}
	if err := l.start(ctx); err != nil {
		return nil, errors.Join(err, l.Stop(context.WithoutCancel(ctx)))
	}
	l.stopWatching = context.AfterFunc(ctx, func() {
		if err := l.supervisor.Stop(context.WithoutCancel(ctx)); err != nil {
			l.options.Log.Error(err, "stopping the lab")
		}
	})
	return l, nil
}

func prepare(options Options) (*Lab, error) {
	if options.Repo == "" && (options.Dir == "" || options.Bin == "") {
		repo, err := findRepo()
		if err != nil {
			return nil, err
		}
		options.Repo = repo
	}
	if options.Dir == "" {
		options.Dir = filepath.Join(options.Repo, ".lab")
	}
	if options.Bin == "" {
		options.Bin = filepath.Join(options.Repo, "bin", "lab")
	}
	if options.Log.GetSink() == nil {
		options.Log = logr.Discard()
	}
	var err error
	if options.Dir, err = filepath.Abs(options.Dir); err != nil {
		return nil, err
	}
	if options.Bin, err = filepath.Abs(options.Bin); err != nil {
		return nil, err
	}
	if err := requireBinaries(options); err != nil {
		return nil, err
	}
	supervisor, err := proc.NewSupervisor(options.Dir, options.Log)
	if err != nil {
		return nil, err
	}
	l := &Lab{options: options, supervisor: supervisor, clusters: map[string]*cluster{}, wings: map[string]managerPorts{}}
	for _, stale := range []string{"data", "kubeconfigs", "webhooks"} {
		if err := os.RemoveAll(filepath.Join(options.Dir, stale)); err != nil {
			return nil, errors.Join(err, supervisor.Stop(context.Background()))
		}
	}
	return l, nil
}

func requireBinaries(options Options) error {
	needed := []string{"etcd", "kube-apiserver", "kube-controller-manager"}
	if options.WithCAPI {
		for _, provider := range capiProviders {
			needed = append(needed, provider.binary)
		}
	}
	for _, name := range needed {
		if _, err := os.Stat(filepath.Join(options.Bin, name)); err != nil {
			return fmt.Errorf("%s is missing in %s: run hack/build-controlplane.sh first: %w", name, options.Bin, err)
		}
	}
	return nil
}

// findRepo walks upwards to the directory that holds hack/build-controlplane.sh.
func findRepo() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "hack", "build-controlplane.sh")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("not inside the checkout: set Options.Repo")
		}
		dir = parent
	}
}

func (l *Lab) start(ctx context.Context) error {
	ca, err := pki.NewCA("lab-etcd")
	if err != nil {
		return err
	}
	if l.webhooks, err = newWebhookServing(filepath.Join(l.options.Dir, "webhooks")); err != nil {
		return err
	}
	store, err := controlplane.Etcd{
		Name: "etcd", Binary: l.binary("etcd"), Dir: l.data("etcd"), CA: ca,
	}.Start(ctx, l.supervisor)
	if err != nil {
		return err
	}
	names := []string{management}
	if l.options.WithDPF {
		names = append(names, dpfManagement, dpuCluster)
	}
	started := make([]*cluster, len(names))
	group, groupCtx := errgroup.WithContext(ctx)
	for i, name := range names {
		group.Go(func() error {
			var err error
			if started[i], err = l.startCluster(groupCtx, store, name); err != nil {
				return fmt.Errorf("cluster %s: %w", name, err)
			}
			if name == management && l.options.WithCAPI {
				return l.startCAPI(groupCtx, started[i])
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, c := range started {
		l.clusters[c.name] = c
	}
	return nil
}

// startCluster starts an API server and, where wanted, the collectors.
func (l *Lab) startCluster(ctx context.Context, store *controlplane.RunningEtcd, name string) (*cluster, error) {
	ca, err := pki.NewCA("lab-" + name)
	if err != nil {
		return nil, err
	}
	server, err := controlplane.APIServer{
		Name: "kube-apiserver-" + name, Binary: l.binary("kube-apiserver"), Dir: l.data(name),
		Etcd: store, Prefix: "/" + name, CA: ca,
	}.Start(ctx, l.supervisor)
	if err != nil {
		return nil, err
	}
	c := &cluster{name: name, server: server}
	if c.kubeconfig, err = l.writeKubeconfig(name, server.Admin()); err != nil {
		return nil, err
	}
	if name != management && !l.options.WithDPFCollectors {
		return c, nil
	}
	_, err = controlplane.ControllerManager{
		Name: "kube-controller-manager-" + name, Binary: l.binary("kube-controller-manager"), Dir: l.data(name),
		Kubeconfig: c.kubeconfig, Controllers: collectors, APIServer: server,
	}.Start(ctx, l.supervisor)
	return c, err
}

func (l *Lab) binary(name string) string { return filepath.Join(l.options.Bin, name) }
func (l *Lab) data(name string) string   { return filepath.Join(l.options.Dir, "data", name) }

// Management returns a configuration with all rights in the management cluster.
func (l *Lab) Management() *rest.Config { return l.admin(management) }

// DPFManagement returns a configuration with all rights in the cluster where DPF's controllers would run, nil without DPF.
func (l *Lab) DPFManagement() *rest.Config { return l.admin(dpfManagement) }

// DPUCluster returns a configuration with all rights in the cluster whose nodes are DPUs, nil without DPF.
func (l *Lab) DPUCluster() *rest.Config { return l.admin(dpuCluster) }

func (l *Lab) admin(name string) *rest.Config {
	if c, ok := l.clusters[name]; ok {
		return c.server.Admin()
	}
	return nil
}

// ManagementKubeconfig returns the file with all rights in the management cluster.
func (l *Lab) ManagementKubeconfig() string { return l.kubeconfig(management) }

// DPFManagementKubeconfig returns the file with all rights in the DPF management cluster, empty without DPF.
func (l *Lab) DPFManagementKubeconfig() string { return l.kubeconfig(dpfManagement) }

// DPUClusterKubeconfig returns the file with all rights in the DPU cluster, empty without DPF.
func (l *Lab) DPUClusterKubeconfig() string { return l.kubeconfig(dpuCluster) }

func (l *Lab) kubeconfig(name string) string {
	if c, ok := l.clusters[name]; ok {
		return c.kubeconfig
	}
	return ""
}

// Dir returns the scratch directory.
func (l *Lab) Dir() string { return l.options.Dir }

// Bin returns the directory of the binaries, which also holds kubectl, clusterctl and kwok.
func (l *Lab) Bin() string { return l.options.Bin }

// Supervisor runs the lab's processes. Simulators that start processes use it too, so that Stop ends theirs in order.
func (l *Lab) Supervisor() *proc.Supervisor { return l.supervisor }

// Processes returns the running children in start order.
func (l *Lab) Processes() []*proc.Process {
	return slices.DeleteFunc(l.supervisor.Processes(), func(p *proc.Process) bool { return !p.Running() })
}

// Stop ends all children: provider and managers, then API servers, then etcd. Data and logs stay. It can be called more
// than once, and returns an error only if a process is left.
func (l *Lab) Stop(ctx context.Context) error {
	if l.stopWatching != nil {
		l.stopWatching()
	}
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	return l.supervisor.Stop(ctx)
}

// Cleanup ends whatever a lab in dir has left behind, which includes the process that runs the lab, and returns the names
// of the processes it ended. It touches only processes recorded in dir by number and start time.
func Cleanup(ctx context.Context, dir string) ([]string, error) { return proc.Cleanup(ctx, dir) }

// FreeEndpoint returns host and port for a workload cluster's control plane that a simulated server will serve.
func (l *Lab) FreeEndpoint() (host string, port int32, err error) {
	port, err = proc.FreePort()
	return "127.0.0.1", port, err
}
