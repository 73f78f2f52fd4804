// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"cmp"
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

	postureChecks = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "posture_checks_total",
		Help: "Posture checks of DPUs by fabric, check and answer (yes, no, unknown).",
	}, []string{"fabric", "check", "answer"})

	postureDuration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: "posture_reading_duration_seconds",
		Help:    "Duration of readings of DPUs' BMCs by fabric and outcome (answered, failed), from the first connection to the last answer.",
		Buckets: []float64{.1, .3, 1, 3, 10, 30},
	}, []string{"fabric", "outcome"})

	ovnRequests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "ovn_requests_total",
		Help: "Questions to OVN's databases by fabric, operation (Read, Raise, Addresses, Probe) and outcome (answered, unreachable, refused, malformed).",
	}, []string{"fabric", "operation", "outcome"})

	ovnLatency = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: "ovn_request_duration_seconds",
		Help:    "Duration of questions to OVN's databases by fabric and operation, connecting included.",
		Buckets: []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10, 30},
	}, []string{"fabric", "operation"})
)

func init() {
	metrics.Registry.MustRegister(fabricRequests, fabricLatency, claimLosses, postureChecks, postureDuration, ovnRequests, ovnLatency)
}

// ClaimLost counts a claim that was lost under an attachment.
func ClaimLost(source string) { claimLosses.WithLabelValues(source).Inc() }

// ObservePosture counts one finished reading of a BMC; it fits scope.FabricsOptions.ObservePosture.
func ObservePosture(call scope.PostureCall) {
	outcome := "answered"
	if call.Reading.Err != nil {
		outcome = "failed"
	}
	postureDuration.WithLabelValues(call.Fabric, outcome).Observe(call.Reading.Took.Seconds())
	for _, result := range call.Reading.Results {
		postureChecks.WithLabelValues(call.Fabric, string(result.Check), result.Answer.String()).Inc()
	}
}

// ObserveOVN counts one finished question to OVN's databases; it fits scope.FabricsOptions.ObserveOVN.
func ObserveOVN(call scope.OVNCall) {
	ovnRequests.WithLabelValues(call.Fabric, call.Operation, cmp.Or(string(call.Kind), "answered")).Inc()
	ovnLatency.WithLabelValues(call.Fabric, call.Operation).Observe(call.Took.Seconds())
}

// ObserveFabric counts one finished request to a fabric; it fits scope.FabricsOptions.Observe.
func ObserveFabric(call scope.FabricCall) {
	fabricRequests.WithLabelValues(call.Fabric, call.Target, call.Method, strconv.Itoa(call.Code)).Inc()
	fabricLatency.WithLabelValues(call.Fabric, call.Target).Observe(call.Duration.Seconds())
}
