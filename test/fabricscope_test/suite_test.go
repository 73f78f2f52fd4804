// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package fabricscope_test runs the fabric wing's clients and its controllers of DPUFabrics and TenantVPCs against the DPF
// simulator, with the rights and policies of config/dpf as they are shipped.
package fabricscope_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
)

const (
	repo          = "../.."
	dpfNamespace  = "dpf-operator-system"
	wingNamespace = "maas-dpu-fabric-system"
	installation  = "fabricscope"
	accountName   = "system:serviceaccount:" + dpfNamespace + ":maas-dpu-fabric"
	patience      = 20 * time.Second
	interval      = 50 * time.Millisecond
)

// world is what all tests of the package share: the provider's management cluster, and DPF's two.
var world struct {
	dpf                          *dpfsim.Fabric
	hubConfig                    *rest.Config
	hub, dpfAdmin, dpu           client.Client
	accountConfig                *rest.Config
	accountKubeconfig            []byte
	account                      client.Client
	nodeLabelsOfDPUDeviceAreHere bool
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		assets = filepath.Join(repo, "bin", "lab")
	}
	var cleanup cleaner
	defer cleanup.run()
	ctx, cancel := context.WithCancel(context.Background())
	cleanup.add(cancel)
	if err := start(ctx, assets, &cleanup); err != nil {
		fmt.Fprintf(os.Stderr, "%v\nrun `make controlplane`, or set KUBEBUILDER_ASSETS\n", err)
		return 1
	}
	return m.Run()
}

// cleaner runs what was added, last first.
type cleaner []func()

func (c *cleaner) add(f func()) { *c = append(*c, f) }

func (c *cleaner) run() {
	for _, f := range slices.Backward(*c) {
		f()
	}
}

func start(ctx context.Context, assets string, cleanup *cleaner) error {
	etcd := &envtest.Etcd{Path: filepath.Join(assets, "etcd")}
	if err := etcd.Start(); err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	cleanup.add(func() { _ = etcd.Stop() })
	var planes []*envtest.ControlPlane
	var admins []*rest.Config
	for _, name := range []string{"hub", "dpf", "dpu"} {
		server := &envtest.APIServer{Path: filepath.Join(assets, "kube-apiserver"), EtcdURL: etcd.URL}
		server.Configure().Set("etcd-prefix", "/"+name)
		if err := server.Start(); err != nil {
			return fmt.Errorf("%s API server: %w", name, err)
		}
		cleanup.add(func() { _ = server.Stop() })
		plane := &envtest.ControlPlane{APIServer: server, Etcd: etcd}
		admin, err := plane.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, nil)
		if err != nil {
			return fmt.Errorf("%s API server: %w", name, err)
		}
		planes, admins = append(planes, plane), append(admins, admin.Config())
	}
	if err := startHub(ctx, admins[0]); err != nil {
		return err
	}
	if err := startDPF(ctx, admins[1], admins[2], cleanup); err != nil {
		return err
	}
	account, err := planes[1].AddUser(envtest.User{
		Name: accountName, Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + dpfNamespace},
	}, nil)
	if err != nil {
		return fmt.Errorf("account of the wing: %w", err)
	}
	world.accountConfig = account.Config()
	if world.accountKubeconfig, err = account.KubeConfig(); err != nil {
		return fmt.Errorf("kubeconfig of the account: %w", err)
	}
	fabricScheme, err := scope.NewFabricScheme()
	if err != nil {
		return err
	}
	world.account, err = client.New(world.accountConfig, client.Options{Scheme: fabricScheme})
	return err
}

func startHub(ctx context.Context, config *rest.Config) error {
	world.hubConfig = config
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, infrav1.AddToScheme} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	if _, err := envtest.InstallCRDs(config, envtest.CRDInstallOptions{Paths: []string{filepath.Join(repo, "config", "crd", "bases")}}); err != nil {
		return fmt.Errorf("install the provider's CRDs: %w", err)
	}
	var err error
	if world.hub, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	for _, name := range []string{wingNamespace, "red", "blue"} {
		if err := world.hub.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			return err
		}
	}
	return nil
}

func startDPF(ctx context.Context, management, dpu *rest.Config, cleanup *cleaner) error {
	options := dpfsim.Options{Management: management, DPUCluster: dpu, Namespace: dpfNamespace, CRDDir: os.Getenv("DPF_CRD_DIR")}
	if options.CRDDir == "" {
		options.LabelPlace, world.nodeLabelsOfDPUDeviceAreHere = dpfsim.LabelsOnDPUDevice, true
	}
	fabric, err := dpfsim.New(options)
	if err != nil {
		return err
	}
	if err := fabric.InstallCRDs(ctx); err != nil {
		return err
	}
	if err := fabric.Seed(ctx, []dpfsim.DPU{{
		Name: "dpu-1", Serial: "MT1", SystemID: "abc123", PF0MAC: "58:A2:E1:00:00:01", StandbyPower: true,
	}}); err != nil {
		return err
	}
	running, done := make(chan error, 1), make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	go func() { defer close(done); running <- fabric.Run(ctx) }()
	cleanup.add(func() {
		cancel()
		<-done
		if err := <-running; err != nil {
			fmt.Fprintln(os.Stderr, "dpfsim:", err)
		}
	})
	world.dpf = fabric

	scheme, err := scope.NewFabricScheme()
	if err != nil {
		return err
	}
	if world.dpfAdmin, err = client.New(management, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	if world.dpu, err = client.New(dpu, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	if err := apply(ctx, world.dpfAdmin, "config/dpf/management"); err != nil {
		return err
	}
	return apply(ctx, world.dpu, "config/dpf/dpucluster")
}

// apply builds a kustomization as an operator would, and creates its objects.
func apply(ctx context.Context, c client.Client, path string) error {
	result, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(repo, path))
	if err != nil {
		return fmt.Errorf("build %s: %w", path, err)
	}
	content, err := result.AsYaml()
	if err != nil {
		return fmt.Errorf("build %s: %w", path, err)
	}
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	var objects []*unstructured.Unstructured
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(document, &object.Object); err != nil {
			return err
		}
		if object.GetKind() == "Namespace" {
			objects = append([]*unstructured.Unstructured{object}, objects...)
		} else {
			objects = append(objects, object)
		}
	}
	for _, object := range objects {
		// The API server makes kube-node-lease a moment after it starts.
		err := wait.PollUntilContextTimeout(ctx, interval, patience, true, func(ctx context.Context) (bool, error) {
			err := c.Create(ctx, object)
			if apierrors.IsNotFound(err) {
				return false, nil
			}
			return err == nil, err
		})
		if err != nil {
			return fmt.Errorf("apply %s %s of %s: %w", object.GetKind(), object.GetName(), path, err)
		}
	}
	return nil
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
