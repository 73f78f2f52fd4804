// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
)

var (
	fabricRequests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "fabric_requests_total",
		Help: "Requests to the DPF management cluster and DPU clusters by fabric, target, method and HTTP code; code 0 means that there was no answer.",
	}, []string{"fabric", "target", "method", "code"})

	fabricLatency = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: "fabric_request_duration_seconds",
		Help:    "Duration of requests to the DPF management cluster and DPU clusters, from sending to the header of the answer.",
		Buckets: []float64{.003, .01, .03, .1, .3, 1, 3, 10},
	}, []string{"fabric", "target"})

	claimLosses = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "claim_losses_total",
		Help: "Claims that MAAS said were lost while ports were attached or on their way, by claim source; counted once the attachment says so.",
	}, []string{"source"})
)

func init() {
	metrics.Registry.MustRegister(fabricRequests, fabricLatency, claimLosses)
}

// ClaimLost counts a claim that was lost under an attachment.
func ClaimLost(source string) { claimLosses.WithLabelValues(source).Inc() }

// ObserveFabric counts one finished request to a fabric; it fits scope.FabricsOptions.Observe.
func ObserveFabric(call scope.FabricCall) {
	fabricRequests.WithLabelValues(call.Fabric, call.Target, call.Method, strconv.Itoa(call.Code)).Inc()
	fabricLatency.WithLabelValues(call.Fabric, call.Target).Observe(call.Duration.Seconds())
}
