// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package capacity_test runs the controller of MaasMachineTemplates on a real API server, with the rights and under the policies
// that are shipped, against the MAAS simulator. No machine lives here: nothing is claimed but by hand.
package capacity_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/maasmachinetemplate"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const (
	repo          = "../.."
	wingNamespace = "maas-dpu-machine-system"
	wingAccount   = "system:serviceaccount:maas-dpu-machine-system:maas-dpu-machine-controller-manager"

	poll = 20 * time.Millisecond
	// round is how often servers are listed.
	round    = 500 * time.Millisecond
	patience = 2 * time.Minute
)

// world is what all tests share; each has its own namespace, MAAS account, pool and identity.
var world struct {
	config   *rest.Config
	scheme   *runtime.Scheme
	admin    client.Client
	region   *maassim.Region
	endpoint string
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	ctrl.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard())
	ctx, cancel := context.WithCancel(context.Background())
	environment := &envtest.Environment{}
	var stops []func() error
	defer func() {
		cancel()
		for _, stop := range slices.Backward(stops) {
			if err := stop(); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
	}()
	if err := start(ctx, environment, &stops); err != nil {
		fmt.Fprintln(os.Stderr, "start the API server (run `make controlplane`, or set KUBEBUILDER_ASSETS, if a binary is missing):", err)
		return 1
	}
	return m.Run()
}

func start(ctx context.Context, environment *envtest.Environment, stops *[]func() error) error {
	world.scheme = runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(world.scheme), clusterv1.AddToScheme(world.scheme), infrav1.AddToScheme(world.scheme)); err != nil {
		return err
	}
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		assets = filepath.Join(repo, "bin", "lab")
	}
	environment.Scheme, environment.BinaryAssetsDirectory, environment.ErrorIfCRDPathMissing = world.scheme, assets, true
	environment.CRDDirectoryPaths = []string{filepath.Join(repo, "config", "crd", "bases"), filepath.Join(assets, "config", "capi-core", "crd")}
	*stops = append(*stops, environment.Stop)
	config, err := environment.Start()
	if err != nil {
		return err
	}
	world.config = config
	if world.admin, err = client.New(config, client.Options{Scheme: world.scheme}); err != nil {
		return err
	}
	if err := ship(ctx); err != nil {
		return err
	}
	world.region = maassim.New(maassim.Options{})
	base, served, err := world.region.Serve(ctx, nil)
	if err != nil {
		return err
	}
	world.endpoint = base + "/MAAS"
	*stops = append(*stops, served)
	return manage(ctx, stops)
}

// ship applies what the machine wing comes with, but for CRDs, which are there, and what cert-manager and a kubelet would serve.
func ship(ctx context.Context) error {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(repo, "config", "default"))
	if err != nil {
		return err
	}
	var objects []*unstructured.Unstructured
	for _, resource := range built.Resources() {
		content, err := resource.AsYAML()
		if err != nil {
			return err
		}
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(content, &object.Object); err != nil {
			return err
		}
		switch object.GetKind() {
		case "CustomResourceDefinition", "Certificate", "Issuer", "ValidatingWebhookConfiguration", "Deployment":
		case "Namespace":
			objects = append([]*unstructured.Unstructured{object}, objects...)
		default:
			objects = append(objects, object)
		}
	}
	for _, object := range objects {
		if err := world.admin.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner("capacity")); err != nil {
			return fmt.Errorf("apply %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	return nil
}

// manage runs the controller as the machine wing's account.
func manage(ctx context.Context, stops *[]func() error) error {
	config := rest.CopyConfig(world.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: wingAccount, Groups: []string{"system:serviceaccounts", "system:authenticated"}}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: world.scheme, Metrics: server.Options{BindAddress: "0"}, Controller: ctrlconfig.Controller{UsePriorityQueue: ptr.To(false)},
	})
	if err != nil {
		return err
	}
	identities := scope.NewIdentities(scope.IdentityOptions{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Namespace: wingNamespace, PollInterval: poll,
	})
	if err := (&maasmachinetemplate.Reconciler{
		Client: mgr.GetClient(), Scope: identities, PollInterval: poll, AuditInterval: round,
	}).SetupWithManager(ctx, mgr, controller.Options{MaxConcurrentReconciles: 10}); err != nil {
		return err
	}
	stopped := make(chan error, 1)
	go func() { stopped <- mgr.Start(ctx) }()
	*stops = append(*stops, func() error { return <-stopped })
	return nil
}
