// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package apivalidation asks a real API server what it makes of our kinds: every marker and CEL rule, the admission policies, the
// webhooks over TLS, and the rights of both wings and of tenants, all as shipped in config/.
package apivalidation

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/webhooks"
)

const (
	repo        = "../.."
	pollEvery   = 50 * time.Millisecond
	pollTimeout = 30 * time.Second
	// adminUser is the user of envtest's own configuration, a member of system:masters.
	adminUser = "admin"
)

// The one API server of the package.
var (
	testEnv *envtest.Environment
	config  *rest.Config
	admin   client.Client
	scheme  = runtime.NewScheme()
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
	ctrl.SetLogger(klog.Background())
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, clusterv1.AddToScheme, infrav1.AddToScheme} {
		if err := add(scheme); err != nil {
			return 0, err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stopOnSignal()
	stopped, err := start(ctx)
	defer func() {
		cancel()
		if stopped != nil {
			<-stopped
		}
		if testEnv != nil {
			err = errors.Join(err, testEnv.Stop())
		}
	}()
	if err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// stopOnSignal takes the API server along when the test is interrupted: envtest gives it a process group of its own.
func stopOnSignal() {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		if testEnv != nil {
			if err := testEnv.Stop(); err != nil {
				fmt.Fprintln(os.Stderr, "stop the API server:", err)
			}
		}
		os.Exit(1)
	}()
}

// start brings up the API server with everything that is shipped, and the webhooks of both wings.
func start(ctx context.Context) (<-chan struct{}, error) {
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		assets = filepath.Join(repo, "bin", "lab")
	}
	shipped, hooks, err := shippedObjects("config/default", "config/fabric")
	if err != nil {
		return nil, err
	}
	testEnv = &envtest.Environment{
		Scheme:                scheme,
		BinaryAssetsDirectory: assets,
		ErrorIfCRDPathMissing: true,
		CRDDirectoryPaths: []string{
			filepath.Join(repo, "config", "crd", "bases"),
			filepath.Join(assets, "config", "capi-core", "crd"),
			filepath.Join(assets, "config", "capi-kubeadm-bootstrap", "crd"),
			filepath.Join(assets, "config", "capi-kubeadm-control-plane", "crd"),
		},
		WebhookInstallOptions: envtest.WebhookInstallOptions{ValidatingWebhooks: hooks},
	}
	if config, err = testEnv.Start(); err != nil {
		return nil, fmt.Errorf("start the API server (make controlplane builds its binaries into bin/lab): %w", err)
	}
	if admin, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return nil, err
	}
	stopped, err := serveWebhooks(ctx)
	if err != nil {
		return stopped, err
	}
	for _, object := range shipped {
		applied := client.ApplyConfigurationFromUnstructured(object)
		if err := admin.Apply(ctx, applied, client.FieldOwner("apivalidation"), client.ForceOwnership); err != nil {
			return stopped, fmt.Errorf("apply %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	for _, namespace := range []string{"red", "blue"} {
		if err := admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
			return stopped, err
		}
	}
	return stopped, nil
}

// shippedObjects builds kustomizations. CRDs are installed by envtest, and cert-manager is replaced by it.
func shippedObjects(paths ...string) ([]*unstructured.Unstructured, []*admissionregistrationv1.ValidatingWebhookConfiguration, error) {
	var objects []*unstructured.Unstructured
	var hooks []*admissionregistrationv1.ValidatingWebhookConfiguration
	for _, path := range paths {
		built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(repo, path))
		if err != nil {
			return nil, nil, fmt.Errorf("build %s: %w", path, err)
		}
		for _, resource := range built.Resources() {
			content, err := resource.AsYAML()
			if err != nil {
				return nil, nil, err
			}
			object := &unstructured.Unstructured{}
			if err := yaml.Unmarshal(content, &object.Object); err != nil {
				return nil, nil, err
			}
			switch object.GetKind() {
			case "CustomResourceDefinition", "Certificate", "Issuer":
			case "ValidatingWebhookConfiguration":
				hook := &admissionregistrationv1.ValidatingWebhookConfiguration{}
				if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, hook); err != nil {
					return nil, nil, err
				}
				hooks = append(hooks, hook)
			case "Namespace":
				objects = append([]*unstructured.Unstructured{object}, objects...)
			default:
				objects = append(objects, object)
			}
		}
	}
	return objects, hooks, nil
}

// serveWebhooks runs the webhooks of both wings over TLS until ctx ends, and returns once they answer.
func serveWebhooks(ctx context.Context) (<-chan struct{}, error) {
	options := testEnv.WebhookInstallOptions
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:  scheme,
		Metrics: metricsserver.Options{BindAddress: "0"},
		WebhookServer: webhook.NewServer(webhook.Options{
			Host: options.LocalServingHost, Port: options.LocalServingPort, CertDir: options.LocalServingCertDir,
		}),
	})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(webhooks.SetupMachineWing(mgr, webhooks.Options{}), webhooks.SetupFabricWing(mgr, webhooks.Options{})); err != nil {
		return nil, err
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if err := mgr.Start(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "the manager stopped:", err)
		}
	}()
	serving := mgr.GetWebhookServer().StartedChecker()
	return stopped, wait.PollUntilContextTimeout(ctx, pollEvery, pollTimeout, true, func(context.Context) (bool, error) {
		return serving(&http.Request{}) == nil, nil
	})
}

// create makes the object and removes it when the test ends.
func create(t *testing.T, c client.Client, object client.Object) {
	t.Helper()
	if err := c.Create(t.Context(), object); err != nil {
		t.Fatalf("create %T %s: %v", object, object.GetName(), err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), pollTimeout)
		defer cancel()
		if err := remove(ctx, object); err != nil {
			t.Errorf("remove %T %s: %v", object, object.GetName(), err)
		}
	})
}

// remove deletes an object for good, whatever finalizers a test gave it.
func remove(ctx context.Context, object client.Object) error {
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`))
	if err := admin.Patch(ctx, object, patch); err != nil {
		return client.IgnoreNotFound(err)
	}
	if err := client.IgnoreNotFound(admin.Delete(ctx, object)); err != nil {
		return err
	}
	return wait.PollUntilContextTimeout(ctx, pollEvery, pollTimeout, true, func(ctx context.Context) (bool, error) {
		err := admin.Get(ctx, client.ObjectKeyFromObject(object), object)
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	})
}

func objectMeta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}
