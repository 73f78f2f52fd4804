// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

func TestFabricInventory(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := infrav1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	read := &infrav1.DPUFabric{ObjectMeta: metav1.ObjectMeta{Name: "read"}, Status: infrav1.DPUFabricStatus{
		Servers: ptr.To[int32](5), EligibleServers: ptr.To[int32](3), Orphans: []infrav1.OrphanPort{{DPUDevice: "a"}, {DPUDevice: "b"}},
		Conditions: []metav1.Condition{{Type: infrav1.InventoryReadCondition, Status: metav1.ConditionTrue}},
	}}
	unread := &infrav1.DPUFabric{ObjectMeta: metav1.ObjectMeta{Name: "unread"}, Status: infrav1.DPUFabricStatus{
		Conditions: []metav1.Condition{{Type: infrav1.InventoryReadCondition, Status: metav1.ConditionUnknown}},
	}}
	reader := fake.NewClientBuilder().WithScheme(scheme).WithObjects(read, unread).Build()
	want := `# HELP maas_dpu_fabric_inventory_read 1 while the fabric's servers can be read in DPF.
# TYPE maas_dpu_fabric_inventory_read gauge
maas_dpu_fabric_inventory_read{fabric="read"} 1
maas_dpu_fabric_inventory_read{fabric="unread"} 0
# HELP maas_dpu_fabric_orphans DPUs whose ports are attached with nobody who asked for it, as far as they are listed, by fabric.
# TYPE maas_dpu_fabric_orphans gauge
maas_dpu_fabric_orphans{fabric="read"} 2
maas_dpu_fabric_orphans{fabric="unread"} 0
`
	want = strings.ReplaceAll(want, "maas_dpu_", namespace+"_")
	if err := testutil.CollectAndCompare(NewFabricInventory(reader), strings.NewReader(want), namespace+"_fabric_inventory_read", namespace+"_fabric_orphans"); err != nil {
		t.Error(err)
	}
}
