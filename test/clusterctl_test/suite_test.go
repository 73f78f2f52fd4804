// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package clusterctl_test does with the files of a release what users do with clusterctl: the real clusterctl, real API servers,
// Cluster API's own components, and nothing that runs Pods. cert-manager is two CRDs, so certificates are never issued, and no
// manager runs in these clusters.
package clusterctl_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/controlplane"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/pki"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/proc"
)

const (
	patience    = 2 * time.Minute
	stopTimeout = time.Minute

	machineNamespace = "maas-dpu-machine-system"
	fabricNamespace  = "maas-dpu-fabric-system"
	machineAccount   = "maas-dpu-machine-controller-manager"
)

// What the tests of the package share.
var (
	// repo is the checkout, bin the folder of its binaries.
	repo, bin string
	// releases is the repository of releases that the tests made, and clusterctl's configuration for it.
	releases *repository
	// store holds the clusters' objects; the first that is made starts it.
	store      func() (*controlplane.RunningEtcd, error)
	supervisor *proc.Supervisor
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (_ int, err error) {
	ctrl.SetLogger(logr.Discard())
	if repo, err = filepath.Abs("../.."); err != nil {
		return 0, err
	}
	bin = filepath.Join(repo, "bin", "lab")
	if assets := os.Getenv("KUBEBUILDER_ASSETS"); assets != "" {
		bin = assets
	}
	dir, err := os.MkdirTemp("", "clusterctl")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if releases, err = newRepository(ctx, filepath.Join(dir, "repository")); err != nil {
		return 0, err
	}
	if supervisor, err = proc.NewSupervisor(filepath.Join(dir, "clusters"), logr.Discard()); err != nil {
		return 0, err
	}
	defer func() {
		stopping, done := context.WithTimeout(context.Background(), stopTimeout)
		defer done()
		if problem := supervisor.Stop(stopping); problem != nil && err == nil {
			err = problem
		}
	}()
	store = sync.OnceValues(func() (*controlplane.RunningEtcd, error) { return startEtcd(ctx, filepath.Join(dir, "etcd")) })
	return m.Run(), nil
}

func startEtcd(ctx context.Context, dir string) (*controlplane.RunningEtcd, error) {
	ca, err := pki.NewCA("clusterctl-etcd")
	if err != nil {
		return nil, err
	}
	started, err := controlplane.Etcd{Name: "etcd", Binary: filepath.Join(bin, "etcd"), Dir: dir, CA: ca}.Start(ctx, supervisor)
	if err != nil {
		return nil, fmt.Errorf("starting etcd (make controlplane builds the binaries): %w", err)
	}
	return started, nil
}

// cluster is an API server without anything in it but cert-manager's kinds.
type cluster struct {
	kubeconfig string
	config     *rest.Config
	client.Client
}

// newCluster starts an API server for one test.
func newCluster(t *testing.T, name string) *cluster {
	t.Helper()
	dir := t.TempDir()
	ca, err := pki.NewCA("clusterctl-" + name)
	if err != nil {
		t.Fatal(err)
	}
	etcd, err := store()
	if err != nil {
		t.Fatal(err)
	}
	server, err := controlplane.APIServer{
		Name: "kube-apiserver-" + name, Binary: filepath.Join(bin, "kube-apiserver"), Dir: dir, Etcd: etcd, Prefix: "/" + name, CA: ca,
	}.Start(t.Context(), supervisor)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if err := server.Process.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	c := &cluster{kubeconfig: filepath.Join(dir, "kubeconfig"), config: server.Admin()}
	if err := controlplane.WriteKubeconfig(c.kubeconfig, c.config); err != nil {
		t.Fatal(err)
	}
	if c.Client, err = client.New(c.config, client.Options{}); err != nil {
		t.Fatal(err)
	}
	c.kubectl(t, "apply", "--server-side", "-f", filepath.Join("testdata", "cert-manager-crds.yaml"))
	c.kubectl(t, "wait", "--for=condition=Established", "--timeout=2m", "crd", "--all")
	return c
}
