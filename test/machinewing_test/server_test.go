// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/maascluster"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/maasclusteridentity"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/maasmachine"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const patience = 30 * time.Second

// server is a real API server with our kinds and Cluster API's.
func server(t *testing.T) *rest.Config {
	t.Helper()
	repo := filepath.Join("..", "..")
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		assets = filepath.Join(repo, "bin", "lab")
	}
	env := &envtest.Environment{
		BinaryAssetsDirectory: assets,
		ErrorIfCRDPathMissing: true,
		CRDDirectoryPaths:     []string{filepath.Join(repo, "config", "crd", "bases"), filepath.Join(assets, "config", "capi-core", "crd")},
	}
	config, err := env.Start()
	if err != nil {
		t.Fatalf("start the API server (make controlplane builds its binaries into bin/lab): %v", err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Errorf("stop the API server: %v", err)
		}
	})
	return config
}

// startManager runs all controllers of the wing until the test ends.
func (w *world) startManager(restConfig *rest.Config) {
	w.Helper()
	mgr, err := ctrl.NewManager(restConfig, ctrl.Options{
		Scheme:     w.objects.Scheme(),
		Metrics:    metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: ptr.To(true)},
		Client:     client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}},
	})
	w.Expect(err).NotTo(HaveOccurred())
	identities := scope.NewIdentities(scope.IdentityOptions{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Namespace: wing, PollInterval: 10 * poll,
	})
	w.Expect(mgr.Add(identities.Poller())).To(Succeed())
	options := controller.Options{MaxConcurrentReconciles: 10}
	recorder := mgr.GetEventRecorder("maas-dpu")
	w.Expect((&maasclusteridentity.Reconciler{
		Client: mgr.GetClient(), Scope: identities, Recorder: recorder, PollInterval: 10 * poll,
	}).SetupWithManager(w.Context(), mgr, options)).To(Succeed())
	w.Expect((&maascluster.Reconciler{
		Client: mgr.GetClient(), Scope: identities, Recorder: recorder, PollInterval: 10 * poll,
	}).SetupWithManager(w.Context(), mgr, options)).To(Succeed())
	w.Expect((&maasmachine.Reconciler{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Scope: identities, Recorder: recorder,
		PollInterval: 10 * poll, RefusalGrace: time.Millisecond,
	}).SetupWithManager(w.Context(), mgr, options)).To(Succeed())
	w.background(mgr.Start)
}

// background runs something until the test ends, and waits for its end.
func (w *world) background(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(w.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	w.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.Errorf("background: %v", err)
		}
	})
}

// fabricWing proves what is asked for until the context ends.
func (w *world) fabricWing(ctx context.Context) error {
	ticker := time.NewTicker(5 * poll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if err := w.prove(ctx); err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
				return err
			}
		}
	}
}

func (w *world) create(objects ...client.Object) {
	w.Helper()
	for _, object := range objects {
		wanted := object.DeepCopyObject().(client.Object)
		w.Expect(w.objects.Create(w.Context(), object)).To(Succeed(), "%T %s", object, object.GetName())
		switch wanted := wanted.(type) {
		case *infrav1.TenantVPC:
			made := object.(*infrav1.TenantVPC)
			made.Status = wanted.Status
			w.Expect(w.objects.Status().Update(w.Context(), made)).To(Succeed())
		case *infrav1.DPUServer:
			made := object.(*infrav1.DPUServer)
			made.Status = wanted.Status
			w.Expect(w.objects.Status().Update(w.Context(), made)).To(Succeed())
		}
	}
}

// TestRealAPIServer runs the wing as a manager on a real API server: six machines want four servers, two wait, and get what the
// first give back.
func TestRealAPIServer(t *testing.T) {
	restConfig := server(t)
	w := newEmptyWorld(t, options{servers: 4, ports: true})
	objects, err := client.New(restConfig, client.Options{Scheme: scheme(t)})
	w.Expect(err).NotTo(HaveOccurred())
	w.objects = objects
	w.create(
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: tenant}}, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: wing}},
		w.identity(), w.secret(), w.bootstrapSecret(),
	)
	w.create(w.fabricObjects(4)...)

	cluster := &clusterv1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: "red"}, Spec: clusterv1.ClusterSpec{
		InfrastructureRef:    clusterv1.ContractVersionedObjectReference{APIGroup: infrav1.GroupVersion.Group, Kind: "MaasCluster", Name: "red"},
		ControlPlaneEndpoint: clusterv1.APIEndpoint{Host: "192.0.2.10", Port: 6443},
	}}
	w.create(cluster)
	w.create(&infrav1.MaasCluster{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: tenant, Name: "red", Labels: map[string]string{clusterv1.ClusterNameLabel: "red"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: clusterv1.GroupVersion.String(), Kind: "Cluster", Name: "red", UID: cluster.UID}},
		},
		Spec: infrav1.MaasClusterSpec{IdentityRef: infrav1.IdentityReference{Name: "identity"}, VPCName: "vpc"},
	})
	w.startManager(restConfig)
	w.background(w.fabricWing)

	w.Eventually(func() bool {
		made := &infrav1.MaasCluster{}
		err := w.objects.Get(w.Context(), client.ObjectKey{Namespace: tenant, Name: "red"}, made)
		return err == nil && ptr.Deref(made.Status.Initialization.Provisioned, false) && len(made.Status.FailureDomains) == 1
	}).WithTimeout(patience).Should(BeTrue(), "the MaasCluster is provisioned")
	cluster.Status.Initialization.InfrastructureProvisioned = ptr.To(true)
	w.Expect(w.objects.Status().Update(w.Context(), cluster)).To(Succeed())

	for i := range 6 {
		w.createMachine(fmt.Sprintf("red-%d", i))
	}
	w.Eventually(func() int { return w.ready(infrav1.ReadyReason) }).WithTimeout(patience).Should(Equal(4))
	w.Eventually(func() int { return w.ready(infrav1.NoServerAvailableReason) }).WithTimeout(patience).Should(Equal(2))
	w.expectDistinct()

	for _, m := range w.machines() {
		if conditions.IsTrue(&m, infrav1.ReadyCondition) && w.deleted < 2 {
			w.deleted++
			w.Expect(w.objects.Delete(w.Context(), &m)).To(Succeed())
		}
	}
	w.Eventually(func() int { return len(w.machines()) }).WithTimeout(patience).Should(Equal(4))
	w.Eventually(func() int { return w.ready(infrav1.ReadyReason) }).WithTimeout(patience).Should(Equal(4))
	w.expectDistinct()

	for _, m := range w.machines() {
		w.Expect(w.objects.Delete(w.Context(), &m)).To(Succeed())
	}
	w.Eventually(func() int { return len(w.machines()) }).WithTimeout(patience).Should(BeZero())
	w.expectDown()

	w.Expect(w.region.Calls()).To(ContainElement(And(HaveField("Operation", "query_events"), HaveField("Code", 200))), "MAAS' events are followed")
	for _, object := range []client.Object{
		&infrav1.MaasCluster{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: "red"}},
		&infrav1.MaasClusterIdentity{ObjectMeta: metav1.ObjectMeta{Name: "identity"}},
	} {
		w.Expect(w.objects.Delete(w.Context(), object)).To(Succeed())
		w.Eventually(func() bool {
			return apierrors.IsNotFound(w.objects.Get(w.Context(), client.ObjectKeyFromObject(object), object))
		}).WithTimeout(patience).Should(BeTrue(), "%T goes", object)
	}
}

// createMachine makes a Machine and its MaasMachine as Cluster API does.
func (w *world) createMachine(name string) {
	w.Helper()
	labels := map[string]string{clusterv1.ClusterNameLabel: "red"}
	machine := &clusterv1.Machine{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: name, Labels: labels}, Spec: clusterv1.MachineSpec{
		ClusterName: "red", Bootstrap: clusterv1.Bootstrap{DataSecretName: ptr.To("bootstrap")},
		InfrastructureRef: clusterv1.ContractVersionedObjectReference{APIGroup: infrav1.GroupVersion.Group, Kind: "MaasMachine", Name: name},
	}}
	w.create(machine)
	w.create(&infrav1.MaasMachine{
		ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: name, Labels: labels, OwnerReferences: []metav1.OwnerReference{{
			APIVersion: clusterv1.GroupVersion.String(), Kind: "Machine", Name: name, UID: machine.UID, Controller: ptr.To(true),
		}}},
		Spec: infrav1.MaasMachineSpec{MachineConstraints: infrav1.MachineConstraints{
			Image: "ubuntu/noble", Ports: []infrav1.MachinePort{{Name: "net0", Subnet: "nodes"}},
		}},
	})
}

func (w *world) machines() []infrav1.MaasMachine {
	w.Helper()
	list := &infrav1.MaasMachineList{}
	w.Expect(w.objects.List(w.Context(), list)).To(Succeed())
	return list.Items
}

// ready counts the machines whose Ready has a reason.
func (w *world) ready(reason string) int {
	n := 0
	for _, m := range w.machines() {
		if m.DeletionTimestamp.IsZero() && conditions.GetReason(&m, infrav1.ReadyCondition) == reason {
			n++
		}
	}
	return n
}

// expectDistinct holds MAAS against I1 and I2: each server held carries the claim of one machine, which names it.
func (w *world) expectDistinct() {
	w.Helper()
	byToken := map[string]string{}
	for _, m := range w.machines() {
		if m.Status.SystemID != "" {
			byToken[m.Spec.Claim.Token] = m.Status.SystemID
		}
	}
	owned := w.owned()
	w.Expect(owned).To(HaveLen(len(byToken)))
	for _, s := range owned {
		w.Expect(byToken).To(HaveKeyWithValue(s.Claim, s.SystemID))
		w.Expect(s.Status).To(Equal(maassim.StatusDeployed))
	}
}
