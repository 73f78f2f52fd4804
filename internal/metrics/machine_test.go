// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"testing"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// counted returns what the registry has of an identity, by metric.
func counted(t *testing.T, identity string) map[string]float64 {
	t.Helper()
	families, err := metrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.Metric {
			for _, label := range metric.Label {
				if label.GetName() == "identity" && label.GetValue() == identity {
					found[family.GetName()] = metric.GetCounter().GetValue()
				}
			}
		}
	}
	return found
}

func TestSharedPollsAreCountedByIdentity(t *testing.T) {
	g := NewWithT(t)
	SharedReading("lab", 40)
	SharedReading("lab", 2)
	SharedReading("other", 1)
	FeedFallback("lab")
	g.Expect(counted(t, "lab")).To(Equal(map[string]float64{
		"maas_dpu_maas_shared_readings_total": 42, "maas_dpu_maas_event_feed_fallbacks_total": 1,
	}))
	ForgetIdentity("lab")
	g.Expect(counted(t, "lab")).To(BeEmpty(), "an identity that is gone leaves nothing")
	g.Expect(counted(t, "other")).To(HaveLen(1))
	ForgetIdentity("other")
}
