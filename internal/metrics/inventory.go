// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// scrapeTimeout bounds the reading of the cache for one scrape.
const scrapeTimeout = 5 * time.Second

// Inventory is what the identities hold, read from the objects at each scrape: nothing is counted along the way that could
// drift, and what is gone is no longer told. A scrape that cannot read the objects tells nothing.
type Inventory struct {
	reader client.Reader
	gauges []gauge
}

// gauge is one number of an identity.
type gauge struct {
	desc  *prometheus.Desc
	value func(*infrav1.MaasClusterIdentity, claims) int
}

// claims are the machines of one identity.
type claims struct{ held, waiting int }

// NewInventory returns a collector that reads MaasClusterIdentities and MaasMachines from reader, a cache that is not to be
// changed.
func NewInventory(reader client.Reader) *Inventory {
	describe := func(name, help string, value func(*infrav1.MaasClusterIdentity, claims) int) gauge {
		return gauge{prometheus.NewDesc(prometheus.BuildFQName(namespace, "identity", name), help, []string{"identity"}, nil), value}
	}
	return &Inventory{reader: reader, gauges: []gauge{
		describe("claims", "MaasMachines that have a server, by identity.",
			func(_ *infrav1.MaasClusterIdentity, c claims) int { return c.held }),
		describe("waiting", "MaasMachines with a claim that want a server and have none, by identity.",
			func(_ *infrav1.MaasClusterIdentity, c claims) int { return c.waiting }),
		describe("held", "Servers that stay allocated because they are not proven clean, by identity.",
			func(i *infrav1.MaasClusterIdentity, _ claims) int { return len(i.Status.Held) }),
		describe("suspects", "Servers under which deployments failed, by identity.",
			func(i *infrav1.MaasClusterIdentity, _ claims) int { return len(i.Status.Suspects) }),
		describe("orphans", "Servers about which MAAS and the MaasMachines do not agree, by identity.",
			func(i *infrav1.MaasClusterIdentity, _ claims) int { return len(i.Status.Orphans) }),
		describe("breaker_open", "1 while the identity's circuit breaker stops new claims.",
			func(i *infrav1.MaasClusterIdentity, _ claims) int {
				if i.Status.Breaker != nil && ptr.Deref(i.Status.Breaker.Open, false) {
					return 1
				}
				return 0
			}),
	}}
}

// Describe implements prometheus.Collector.
func (c *Inventory) Describe(descriptions chan<- *prometheus.Desc) {
	for _, g := range c.gauges {
		descriptions <- g.desc
	}
}

// Collect implements prometheus.Collector.
func (c *Inventory) Collect(collected chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	identities, machines := &infrav1.MaasClusterIdentityList{}, &infrav1.MaasMachineList{}
	// An error means that the cache is not there yet, or no longer: an invalid metric would spoil the scrape for all others.
	if c.reader.List(ctx, identities, client.UnsafeDisableDeepCopy) != nil || c.reader.List(ctx, machines, client.UnsafeDisableDeepCopy) != nil {
		return
	}
	counted := map[string]claims{}
	for i := range machines.Items {
		machine := &machines.Items[i]
		if machine.Spec.Claim == nil {
			continue
		}
		identity := counted[machine.Spec.Claim.IdentityName]
		switch {
		case machine.Status.SystemID != "" || machine.Spec.ProviderID != "":
			identity.held++
		case wantsServer(machine):
			identity.waiting++
		}
		counted[machine.Spec.Claim.IdentityName] = identity
	}
	for i := range identities.Items {
		identity := &identities.Items[i]
		for _, g := range c.gauges {
			value := float64(g.value(identity, counted[identity.Name]))
			collected <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, value, identity.Name)
		}
	}
}

// wantsServer says that a machine without a server still tries to get one.
func wantsServer(machine *infrav1.MaasMachine) bool {
	if !machine.DeletionTimestamp.IsZero() {
		return false
	}
	switch conditions.GetReason(machine, infrav1.ServerClaimedCondition) {
	case infrav1.DeployFailedReason, infrav1.AttachmentRefusedReason, infrav1.TokenMismatchReason:
		return false // Given up: it is to be replaced.
	}
	return true
}
