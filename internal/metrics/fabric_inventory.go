// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// FabricInventory is what the fabrics know of their servers and DPUs, read from the objects at each scrape: nothing is counted
// along the way that could drift, and what is gone is no longer told. A scrape that cannot read the objects tells nothing.
type FabricInventory struct {
	reader client.Reader
	gauges []fabricGauge
}

// fabricGauge is one number of a fabric.
type fabricGauge struct {
	desc  *prometheus.Desc
	value func(*infrav1.DPUFabric) int
}

// NewFabricInventory returns a collector that reads DPUFabrics from reader, a cache that is not to be changed.
func NewFabricInventory(reader client.Reader) *FabricInventory {
	describe := func(name, help string, value func(*infrav1.DPUFabric) int) fabricGauge {
		return fabricGauge{prometheus.NewDesc(prometheus.BuildFQName(namespace, "fabric", name), help, []string{"fabric"}, nil), value}
	}
	return &FabricInventory{reader: reader, gauges: []fabricGauge{
		describe("servers", "Servers the fabric knows, by fabric.",
			func(f *infrav1.DPUFabric) int { return int(ptr.Deref(f.Status.Servers, 0)) }),
		describe("eligible_servers", "Servers that may be claimed for isolated machines, by fabric.",
			func(f *infrav1.DPUFabric) int { return int(ptr.Deref(f.Status.EligibleServers, 0)) }),
		describe("orphans", "DPUs whose ports are attached with nobody who asked for it, as far as they are listed, by fabric.",
			func(f *infrav1.DPUFabric) int { return len(f.Status.Orphans) }),
		describe("inventory_read", "1 while the fabric's servers can be read in DPF.",
			func(f *infrav1.DPUFabric) int {
				if c := conditions.Get(f, infrav1.InventoryReadCondition); c != nil && c.Status == metav1.ConditionTrue {
					return 1
				}
				return 0
			}),
	}}
}

// Describe implements prometheus.Collector.
func (c *FabricInventory) Describe(descriptions chan<- *prometheus.Desc) {
	for _, g := range c.gauges {
		descriptions <- g.desc
	}
}

// Collect implements prometheus.Collector.
func (c *FabricInventory) Collect(collected chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	fabrics := &infrav1.DPUFabricList{}
	// An error means that the cache is not there yet, or no longer: an invalid metric would spoil the scrape for all others.
	if c.reader.List(ctx, fabrics, client.UnsafeDisableDeepCopy) != nil {
		return
	}
	for i := range fabrics.Items {
		fabric := &fabrics.Items[i]
		for _, g := range c.gauges {
			collected <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, float64(g.value(fabric)), fabric.Name)
		}
	}
}
