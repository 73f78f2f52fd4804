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
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/checker"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

// realServer is a real API server with our kinds and Cluster API's.
func realServer(t *testing.T) *rest.Config {
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

// newRealWorld is a world without tenants on a real API server.
func newRealWorld(t *testing.T, o options) *world {
	t.Helper()
	// The recorder hears of a stored token later than MAAS does of the claim if that takes no time.
	o.timing = func(timing *maassim.Timing) { timing.Call, timing.Allocate = 10*time.Millisecond, 0 }
	w := newVoid(t, o)
	w.config = realServer(t)
	objects, err := client.New(w.config, client.Options{Scheme: w.scheme})
	w.Expect(err).NotTo(HaveOccurred())
	w.objects = objects
	recorder, err := checker.Record(w.Context(), w.config, fabricSpace)
	w.Expect(err).NotTo(HaveOccurred())
	w.fabric = newFabric(w)
	w.background(func(ctx context.Context) {
		ticker := time.NewTicker(poll)
		defer ticker.Stop()
		for ctx.Err() == nil {
			w.fabric.wake()
			select {
			case <-ctx.Done():
			case <-ticker.C:
			}
		}
	})
	w.hold(recorder)
	for _, name := range []string{tenant, wing} {
		w.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	w.operate()
	return w
}

// background runs something until the test ends, and waits for its end.
func (w *world) background(run func(context.Context)) {
	ctx, cancel := context.WithCancel(w.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); run(ctx) }()
	w.Cleanup(func() { cancel(); <-ended })
}

// TestRealAPIServer runs the wing as a manager on a real API server: six machines want four servers, two wait, and get what the
// first give back.
func TestRealAPIServer(t *testing.T) {
	t.Parallel()
	w := newRealWorld(t, options{servers: 4, ports: true, allocateSeconds: 10, poll: 5 * poll})
	w.addCluster(tenant, tenant, "identity")
	w.supervise()
	w.until(func() bool {
		made := &infrav1.MaasCluster{}
		err := w.objects.Get(w.Context(), client.ObjectKey{Namespace: tenant, Name: tenant}, made)
		return err == nil && ptr.Deref(made.Status.Initialization.Provisioned, false) && len(made.Status.FailureDomains) == 1
	}, "the MaasCluster is provisioned")
	for i := range 6 {
		w.addMachine(tenant, tenant, fmt.Sprintf("red-%d", i))
	}
	w.until(func() bool { return w.ready(infrav1.ReadyReason) == 4 && w.ready(infrav1.NoServerAvailableReason) == 2 }, "four up, two wait")
	w.expectDistinct()
	deleted := 0
	for _, m := range w.machines() {
		if conditions.IsTrue(&m, infrav1.ReadyCondition) && deleted < 2 {
			deleted++
			w.removeMachine(&m)
		}
	}
	w.until(func() bool { return len(w.machines()) == 4 && w.ready(infrav1.ReadyReason) == 4 }, "two down, two up")
	w.expectDistinct()
	for _, m := range w.machines() {
		w.removeMachine(&m)
	}
	w.until(func() bool { return len(w.machines()) == 0 }, "down")
	w.expectDown()
	for _, object := range []client.Object{
		&infrav1.MaasCluster{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: tenant}},
		&infrav1.MaasClusterIdentity{ObjectMeta: metav1.ObjectMeta{Name: "identity"}},
	} {
		w.Expect(w.objects.Delete(w.Context(), object)).To(Succeed())
		w.until(func() bool {
			return apierrors.IsNotFound(w.objects.Get(w.Context(), client.ObjectKeyFromObject(object), object))
		}, fmt.Sprintf("%T goes", object))
	}
}

// ready counts the machines that stay and whose Ready has a reason.
func (w *world) ready(reason string) int {
	n := 0
	for _, m := range w.machines() {
		if m.DeletionTimestamp.IsZero() && conditions.GetReason(&m, infrav1.ReadyCondition) == reason {
			n++
		}
	}
	return n
}

// expectDistinct holds what each machine says of its server against MAAS, and lets the checker look.
func (w *world) expectDistinct() {
	w.Helper()
	byToken := map[string]string{}
	for _, m := range w.machines() {
		if m.Status.SystemID != "" {
			byToken[m.Spec.Claim.Token] = m.Status.SystemID
		}
	}
	owned := w.owned(w.options.account)
	w.Expect(owned).To(HaveLen(len(byToken)))
	for _, s := range owned {
		w.Expect(byToken).To(HaveKeyWithValue(s.Claim, s.SystemID))
		w.Expect(s.Status).To(Equal(maassim.StatusDeployed))
	}
	w.checkNow()
}
