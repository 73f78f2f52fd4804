// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package fabricwing_test runs the fabric wing's controllers against the DPF simulator, with the rights and policies of
// config/dpf as they are shipped. Only MAAS is a stub.
package fabricwing_test

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

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
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
	installation  = "fabricwing"
	accountName   = "system:serviceaccount:" + dpfNamespace + ":maas-dpu-fabric"
	fabricName    = "ovn"
	source        = "maas-a"
	account       = "wing-red"
	patience      = 30 * time.Second
	interval      = 50 * time.Millisecond
)

// world is what all tests of the package share: the provider's management cluster, and DPF's two.
var world struct {
	dpf           *dpfsim.Fabric
	hubConfig     *rest.Config
	hub, dpfAdmin client.Client
	dpu           client.Client
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	ctrl.SetLogger(logr.Discard())
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
	if err := startDPF(ctx, admins[1], admins[2], cleanup); err != nil {
		return err
	}
	wing, err := planes[1].AddUser(envtest.User{
		Name: accountName, Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + dpfNamespace},
	}, nil)
	if err != nil {
		return fmt.Errorf("account of the wing: %w", err)
	}
	kubeconfig, err := wing.KubeConfig()
	if err != nil {
		return fmt.Errorf("kubeconfig of the account: %w", err)
	}
	return startHub(ctx, admins[0], kubeconfig)
}

// startHub makes the wing's namespace, two tenants' namespaces, and the fabric.
func startHub(ctx context.Context, config *rest.Config, kubeconfig []byte) error {
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
	secondsOf := func(s int32) *int32 { return &s }
	objects := []client.Object{
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: wingNamespace, Name: "dpf"}, Data: map[string][]byte{scope.KubeconfigKey: kubeconfig}},
		&infrav1.DPUFabric{
			ObjectMeta: metav1.ObjectMeta{Name: fabricName},
			Spec: infrav1.DPUFabricSpec{
				Backend: infrav1.FabricBackend{Type: infrav1.FabricBackendOVNVPC, OVNVPC: &infrav1.OVNVPCBackend{
					KubeconfigSecretRef: infrav1.LocalSecretReference{Name: "dpf"}, IsolationClassName: dpfsim.IsolationClassName,
				}},
				ClaimSources: []infrav1.ClaimSource{{
					Name: source, Endpoint: "http://127.0.0.1:1/MAAS", SecretRef: infrav1.LocalSecretReference{Name: "none"},
					Namespaces: []infrav1.ClaimNamespace{
						{Name: "red", Consent: infrav1.ClaimConsentNamespace}, {Name: "blue", Consent: infrav1.ClaimConsentNamespace},
					},
				}},
				AllowedNamespaces:    &infrav1.AllowedNamespaces{Names: []string{"red", "blue"}},
				TenantPools:          []string{"10.64.0.0/16"},
				DetachTimeoutSeconds: secondsOf(30), ProofMaxAgeSeconds: secondsOf(30),
			},
		},
	}
	for _, name := range []string{wingNamespace, "red", "blue", "green"} {
		objects = slices.Insert(objects, 0, client.Object(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	}
	for _, object := range objects {
		if err := world.hub.Create(ctx, object); err != nil {
			return fmt.Errorf("create %T %s: %w", object, object.GetName(), err)
		}
	}
	return nil
}

func startDPF(ctx context.Context, management, dpu *rest.Config, cleanup *cleaner) error {
	options := dpfsim.Options{Management: management, DPUCluster: dpu, Namespace: dpfNamespace, CRDDir: os.Getenv("DPF_CRD_DIR")}
	if os.Getenv("DPF_LABEL_PLACE") == string(dpfsim.LabelsOnDPUDevice) {
		options.LabelPlace = dpfsim.LabelsOnDPUDevice
	}
	fabric, err := dpfsim.New(options)
	if err != nil {
		return err
	}
	if err := fabric.InstallCRDs(ctx); err != nil {
		return err
	}
	if err := fabric.Seed(ctx, nil); err != nil {
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
			objects = slices.Insert(objects, 0, object)
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
			return err == nil || apierrors.IsAlreadyExists(err), client.IgnoreAlreadyExists(err)
		})
		if err != nil {
			return fmt.Errorf("apply %s %s of %s: %w", object.GetKind(), object.GetName(), path, err)
		}
	}
	return nil
}
