// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package metrics holds what the wings count, registered with the manager's registry.
package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

const namespace = "maas_dpu"

var (
	maasRequests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "maas_requests_total",
		Help: "Calls to MAAS by operation and HTTP code; code 0 means that there was no answer.",
	}, []string{"operation", "code"})

	maasLatency = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: "maas_request_duration_seconds",
		Help:    "Duration of calls to MAAS, from sending to the end of the answer.",
		Buckets: []float64{.01, .03, .1, .3, 1, 3, 10, 30, 60, 90},
	}, []string{"operation"})

	sharedReadings = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "maas_shared_readings_total",
		Help: "Machines read from MAAS for all who waited for one, by identity.",
	}, []string{"identity"})

	feedFallbacks = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "maas_event_feed_fallbacks_total",
		Help: "Polls that read every machine that was waited for because MAAS' event feed could not be followed, by identity.",
	}, []string{"identity"})

	machineTransitions = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "machine_transitions_total",
		Help: "Steps of MaasMachines that changed something outside, by step and result (done, refused, unknown).",
	}, []string{"step", "result"})
)

func init() {
	metrics.Registry.MustRegister(maasRequests, maasLatency, sharedReadings, feedFallbacks, machineTransitions)
}

// ObserveMAAS counts one finished call to MAAS; it fits maas.Config.Observe.
func ObserveMAAS(o maas.Observation) {
	maasRequests.WithLabelValues(o.Operation, strconv.Itoa(o.Code)).Inc()
	maasLatency.WithLabelValues(o.Operation).Observe(o.Duration.Seconds())
}

// SharedReading counts machines read in one query for everybody.
func SharedReading(identity string, machines int) {
	sharedReadings.WithLabelValues(identity).Add(float64(machines))
}

// FeedFallback counts a poll without MAAS' event feed.
func FeedFallback(identity string) { feedFallbacks.WithLabelValues(identity).Inc() }

// ForgetIdentity drops what was counted for an identity that no longer exists.
func ForgetIdentity(identity string) {
	sharedReadings.DeleteLabelValues(identity)
	feedFallbacks.DeleteLabelValues(identity)
}

// The results of a step.
const (
	ResultDone    = "done"
	ResultRefused = "refused"
	ResultUnknown = "unknown"
)

// MachineTransition counts one step of a MaasMachine that changed something outside, or tried to.
func MachineTransition(step, result string) { machineTransitions.WithLabelValues(step, result).Inc() }
