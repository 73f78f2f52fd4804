// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package fabricwing_test runs the fabric wing's controllers against the DPF simulator, with the rights and policies of
// config/dpf as they are shipped. Only MAAS is a stub.
package fabricwing_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/fabriclab"
)

const (
	dpfNamespace  = fabriclab.DPFNamespace
	wingNamespace = fabriclab.WingNamespace
	installation  = "fabricwing"
	fabricName    = "ovn"
	source        = "maas-a"
	account       = "wing-red"
	// patience is for machines busy with other things: what is to be quick is measured, not waited for.
	patience = 2 * time.Minute
	// atOnce is how many rows of a table are played side by side: they wait most of the time.
	atOnce   = 8
	interval = 50 * time.Millisecond
)

// world is what all tests of the package share: the provider's management cluster, and DPF's two.
var world *fabriclab.Lab

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	ctrl.SetLogger(logr.Discard())
	flag.Parse()
	if err := flag.Set("test.parallel", strconv.Itoa(atOnce)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	options := fabriclab.Options{Repo: "../..", CRDDir: os.Getenv("DPF_CRD_DIR"), Tenants: []string{"red", "blue", "green"}}
	if os.Getenv("DPF_LABEL_PLACE") == string(dpfsim.LabelsOnDPUDevice) {
		options.LabelPlace = dpfsim.LabelsOnDPUDevice
	}
	ctx := context.Background()
	var err error
	if world, err = fabriclab.Start(ctx, options); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// The wing looks after the servers of all tests before: it is not to wait for leave to write of them.
	world.HubConfig.QPS = -1
	defer func() {
		if err := world.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	if err := registerFabric(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// registerFabric makes the fabric that all tests share, open to two of the three tenants.
func registerFabric(ctx context.Context) error {
	for _, object := range []client.Object{
		&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: wingNamespace, Name: "dpf"},
			Data:       map[string][]byte{scope.KubeconfigKey: world.AccountKubeconfig},
		},
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
				DetachTimeoutSeconds: ptr.To[int32](30), ProofMaxAgeSeconds: ptr.To[int32](30),
			},
		},
	} {
		if err := world.Hub.Create(ctx, object); err != nil {
			return fmt.Errorf("create %T %s: %w", object, object.GetName(), err)
		}
	}
	return nil
}
