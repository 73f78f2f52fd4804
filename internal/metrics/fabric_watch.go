// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
)

var fabricWatchUp = prometheus.NewGaugeVec(prometheus.GaugeOpts{
	Namespace: namespace, Name: "fabric_watch_up",
	Help: "1 while changes of a kind in the DPF management cluster (no cluster named) or a DPU cluster are watched, 0 while they are polled.",
}, []string{"fabric", "cluster", "kind"})

func init() {
	metrics.Registry.MustRegister(fabricWatchUp)
}

// ObserveFabricWatch notes the state of one watch; it fits scope.FabricWatchesOptions.Observe.
func ObserveFabricWatch(state scope.WatchState) {
	if state.Gone {
		fabricWatchUp.DeleteLabelValues(state.Fabric, state.Cluster, state.Kind)
		return
	}
	up := 0.0
	if state.Up {
		up = 1
	}
	fabricWatchUp.WithLabelValues(state.Fabric, state.Cluster, state.Kind).Set(up)
}
