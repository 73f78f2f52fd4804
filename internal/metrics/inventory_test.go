// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

func machine(name, identity, server, reason string) *infrav1.MaasMachine {
	m := &infrav1.MaasMachine{ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: name}}
	if identity != "" {
		m.Spec.Claim = &infrav1.MachineClaim{IdentityName: identity}
	}
	m.Status.SystemID = server
	if reason != "" {
		conditions.Set(m, metav1.Condition{Type: infrav1.ServerClaimedCondition, Status: metav1.ConditionFalse, Reason: reason})
	}
	return m
}

func inventoryWorld(t *testing.T) *fake.ClientBuilder {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := infrav1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	busy := &infrav1.MaasClusterIdentity{ObjectMeta: metav1.ObjectMeta{Name: "busy"}, Status: infrav1.MaasClusterIdentityStatus{
		Held:     []infrav1.HeldServer{{SystemID: "a"}, {SystemID: "b"}, {SystemID: "c"}},
		Suspects: []infrav1.SuspectServer{{SystemID: "a"}, {SystemID: "b"}},
		Orphans:  []infrav1.OrphanServer{{SystemID: "d"}},
		Breaker:  &infrav1.BreakerStatus{Open: ptr.To(true)},
	}}
	quiet := &infrav1.MaasClusterIdentity{ObjectMeta: metav1.ObjectMeta{Name: "quiet"}, Status: infrav1.MaasClusterIdentityStatus{
		Breaker: &infrav1.BreakerStatus{Open: ptr.To(false)},
	}}
	going := machine("going", "busy", "", "")
	going.Finalizers, going.DeletionTimestamp = []string{"test/keep"}, ptr.To(metav1.Now())
	moved := machine("moved", "busy", "", "")
	moved.Spec.ProviderID = "maas:///x"
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(busy, quiet, going, moved,
		machine("up", "busy", "e", ""), machine("lost", "busy", "f", infrav1.ServerLostReason),
		machine("waits", "busy", "", infrav1.NoServerAvailableReason), machine("new", "busy", "", ""), machine("stopped", "busy", "", infrav1.CircuitBreakerOpenReason),
		machine("failed", "busy", "", infrav1.DeployFailedReason), machine("unclaimed", "", "", infrav1.WaitingForBootstrapDataReason),
		machine("elsewhere", "gone", "", ""))
}

func TestInventory(t *testing.T) {
	want := `
# HELP maas_dpu_identity_breaker_open 1 while the identity's circuit breaker stops new claims.
# TYPE maas_dpu_identity_breaker_open gauge
maas_dpu_identity_breaker_open{identity="busy"} 1
maas_dpu_identity_breaker_open{identity="quiet"} 0
# HELP maas_dpu_identity_claims MaasMachines that have a server, by identity.
# TYPE maas_dpu_identity_claims gauge
maas_dpu_identity_claims{identity="busy"} 3
maas_dpu_identity_claims{identity="quiet"} 0
# HELP maas_dpu_identity_held Servers that stay allocated because they are not proven clean, by identity.
# TYPE maas_dpu_identity_held gauge
maas_dpu_identity_held{identity="busy"} 3
maas_dpu_identity_held{identity="quiet"} 0
# HELP maas_dpu_identity_orphans Servers about which MAAS and the MaasMachines do not agree, by identity.
# TYPE maas_dpu_identity_orphans gauge
maas_dpu_identity_orphans{identity="busy"} 1
maas_dpu_identity_orphans{identity="quiet"} 0
# HELP maas_dpu_identity_suspects Servers under which deployments failed, by identity.
# TYPE maas_dpu_identity_suspects gauge
maas_dpu_identity_suspects{identity="busy"} 2
maas_dpu_identity_suspects{identity="quiet"} 0
# HELP maas_dpu_identity_waiting MaasMachines with a claim that want a server and have none, by identity.
# TYPE maas_dpu_identity_waiting gauge
maas_dpu_identity_waiting{identity="busy"} 3
maas_dpu_identity_waiting{identity="quiet"} 0
`
	inventory := NewInventory(inventoryWorld(t).Build())
	if err := testutil.CollectAndCompare(inventory, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.CollectAndLint(inventory); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
}

// TestInventoryWithoutObjects: a cache that cannot be read spoils no scrape and tells no zeros.
func TestInventoryWithoutObjects(t *testing.T) {
	for _, missing := range []client.ObjectList{&infrav1.MaasClusterIdentityList{}, &infrav1.MaasMachineList{}, nil} {
		reader := inventoryWorld(t).WithInterceptorFuncs(interceptor.Funcs{
			List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
				if reflect.TypeOf(list) == reflect.TypeOf(missing) {
					return errors.New("the cache is not started")
				}
				return c.List(ctx, list, opts...)
			},
		}).Build()
		want := 0
		if missing == nil {
			want = 12
		}
		if got := testutil.CollectAndCount(NewInventory(reader)); got != want {
			t.Errorf("without %T: %d metrics, want %d", missing, got, want)
		}
	}
}
