// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package fabricwatch_test holds the watches on DPF and DPU clusters to real API servers, with the rights of config/dpf. Most of
// it runs without DPF's controllers, so that nothing changes but what a test changes.
package fabricwatch_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab"
)

const (
	repo          = "../.."
	dpfNamespace  = "dpf-operator-system"
	wingNamespace = "maas-dpu-fabric-system"
	installation  = "fabricwatch"
	fabricName    = "ovn"
	source        = "maas-a"
	adminSecret   = "dpu-cluster-admin-kubeconfig"
	// noticed is how soon after an event somebody must have been woken.
	noticed  = 10 * time.Second
	patience = 60 * time.Second
	// gathered is longer than changes are gathered before anybody is woken.
	gathered = time.Second
	interval = 20 * time.Millisecond
)

var theDPUCluster = types.NamespacedName{Namespace: dpfNamespace, Name: "dpu-cluster"}

// server is an API server, which the wing reaches through a line that can be cut.
type server struct {
	plane  *envtest.ControlPlane
	line   *line
	config *rest.Config
	client client.Client
}

// world is what all tests share: the provider's management cluster, and the clusters of a DPF without controllers.
var world struct {
	hub, dpf, dpu *server
	sim           *dpfsim.Fabric
	stops         []func() error
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	ctrl.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard()) // Informers tell of each broken watch.
	defer func() {
		for _, stop := range slices.Backward(world.stops) {
			if err := stop(); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
	}()
	if err := start(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "start the lab (run `make controlplane`, or set KUBEBUILDER_ASSETS, if a binary is missing):", err)
		return 1
	}
	return m.Run()
}

func start(ctx context.Context) error {
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		assets = filepath.Join(repo, "bin", "lab")
	}
	etcd := &envtest.Etcd{Path: filepath.Join(assets, "etcd")}
	if err := etcd.Start(); err != nil {
		return err
	}
	world.stops = append(world.stops, etcd.Stop)
	scheme := runtime.NewScheme()
	fabricScheme, err := scope.NewFabricScheme()
	if err := errors.Join(err, clientgoscheme.AddToScheme(scheme), infrav1.AddToScheme(scheme)); err != nil {
		return err
	}
	for _, s := range []struct {
		name   string
		into   **server
		scheme *runtime.Scheme
	}{{"hub", &world.hub, scheme}, {"dpf", &world.dpf, fabricScheme}, {"dpu", &world.dpu, fabricScheme}} {
		if *s.into, err = startServer(assets, etcd, s.name, s.scheme); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if _, err := envtest.InstallCRDs(world.hub.config, envtest.CRDInstallOptions{Paths: []string{filepath.Join(repo, "config", "crd", "bases")}}); err != nil {
		return err
	}
	world.sim, err = dpfsim.New(dpfsim.Options{Management: world.dpf.config, DPUCluster: world.dpu.config, Namespace: dpfNamespace, CRDDir: os.Getenv("DPF_CRD_DIR")})
	if err != nil {
		return err
	}
	return errors.Join(world.sim.InstallCRDs(ctx), populate(ctx))
}

func startServer(assets string, etcd *envtest.Etcd, name string, scheme *runtime.Scheme) (*server, error) {
	apiServer := &envtest.APIServer{Path: filepath.Join(assets, "kube-apiserver"), EtcdURL: etcd.URL}
	apiServer.Configure().Set("etcd-prefix", "/"+name)
	if err := apiServer.Start(); err != nil {
		return nil, err
	}
	world.stops = append(world.stops, apiServer.Stop)
	s := &server{plane: &envtest.ControlPlane{APIServer: apiServer, Etcd: etcd}}
	admin, err := s.plane.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, nil)
	if err != nil {
		return nil, err
	}
	s.config = admin.Config()
	s.config.QPS = -1
	if s.line, err = newLine(strings.Trim(strings.TrimPrefix(s.config.Host, "https://"), "/")); err != nil {
		return nil, err
	}
	world.stops = append(world.stops, s.line.cut)
	s.client, err = client.New(s.config, client.Options{Scheme: scheme})
	return s, err
}

// kubeconfig logs in to a server as a service account of DPF's namespace.
func (s *server) kubeconfig(account string) ([]byte, error) {
	user, err := s.plane.AddUser(envtest.User{
		Name: "system:serviceaccount:" + dpfNamespace + ":" + account, Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + dpfNamespace},
	}, nil)
	if err != nil {
		return nil, err
	}
	kubeconfig, err := user.KubeConfig()
	return s.line.through(kubeconfig), err
}

func namespace(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// populate makes the fabric, and what it reaches DPF and the DPU cluster with: the rights that are shipped.
func populate(ctx context.Context) error {
	for _, object := range []client.Object{namespace(dpfNamespace), namespace("elsewhere")} {
		if err := errors.Join(world.dpf.client.Create(ctx, object), world.dpu.client.Create(ctx, namespace(object.GetName()))); err != nil {
			return err
		}
	}
	for path, cluster := range map[string]*server{
		"config/dpf/management": world.dpf, "config/dpf/admin-kubeconfig": world.dpf, "config/dpf/dpucluster": world.dpu,
	} {
		if err := lab.ApplyKustomization(ctx, cluster.config, filepath.Join(repo, path)); err != nil {
			return err
		}
	}
	dpf, err := world.dpf.kubeconfig("maas-dpu-fabric")
	if err != nil {
		return err
	}
	dpu, err := world.dpu.kubeconfig(scope.DPUClusterReaderServiceAccount)
	if err != nil {
		return err
	}
	cluster := &provisioningv1alpha1.DPUCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: theDPUCluster.Namespace, Name: theDPUCluster.Name},
		Spec:       provisioningv1alpha1.DPUClusterSpec{Type: "static", Kubeconfig: adminSecret},
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: dpfNamespace, Name: adminSecret},
		Data:       map[string][]byte{provisioningv1alpha1.AdminKubeconfigKey: dpu},
	}
	if err := errors.Join(world.dpf.client.Create(ctx, secret), world.dpf.client.Create(ctx, cluster)); err != nil {
		return err
	}
	for _, name := range []string{wingNamespace, "red", "blue"} {
		if err := world.hub.client.Create(ctx, namespace(name)); err != nil {
			return err
		}
	}
	return newFabric(ctx, fabricName, source, dpf)
}

// newFabric makes a DPUFabric that reaches DPF by a kubeconfig.
func newFabric(ctx context.Context, name, source string, kubeconfig []byte) error {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: wingNamespace, Name: name}, Data: map[string][]byte{scope.KubeconfigKey: kubeconfig}}
	fabric := &infrav1.DPUFabric{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: infrav1.DPUFabricSpec{
			Backend: infrav1.FabricBackend{Type: infrav1.FabricBackendOVNVPC, OVNVPC: &infrav1.OVNVPCBackend{
				KubeconfigSecretRef: infrav1.LocalSecretReference{Name: name}, IsolationClassName: dpfsim.IsolationClassName,
				DPUClusterAccess: infrav1.DPUClusterAccessAdminKubeconfig,
			}},
			ClaimSources: []infrav1.ClaimSource{{
				Name: source, Endpoint: "http://127.0.0.1:1/MAAS", SecretRef: infrav1.LocalSecretReference{Name: "none"},
				Namespaces: []infrav1.ClaimNamespace{{Name: "red", Consent: infrav1.ClaimConsentNamespace}},
			}},
			AllowedNamespaces: &infrav1.AllowedNamespaces{Names: []string{"red", "blue"}}, TenantPools: []string{"10.64.0.0/16"},
		},
	}
	return errors.Join(world.hub.client.Create(ctx, secret), world.hub.client.Create(ctx, fabric))
}
