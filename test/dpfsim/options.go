// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"errors"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
)

// LabelPlace is where per-DPU labels for the Node are written, which is what tells DPF releases apart.
type LabelPlace string

const (
	// LabelsOnDPU is DPF v26.4: DPU.spec.cluster.nodeLabels.
	LabelsOnDPU LabelPlace = "DPU"
	// LabelsOnDPUDevice is DPF v26.8: DPUDevice.spec.cluster.nodeLabels, and those of the DPU as before.
	LabelsOnDPUDevice LabelPlace = "DPUDevice"
)

// Options of a Fabric.
type Options struct {
	// Management is the cluster DPF runs in, DPUCluster the one whose Nodes are DPUs; both as administrator.
	Management, DPUCluster *rest.Config
	// Namespace of DPF's own objects; dpf-operator-system when empty.
	Namespace string
	// DPUClusterName is the name of the DPUCluster object; "dpu-cluster" when empty.
	DPUClusterName string
	// DPUClusterLabels are the labels of that object, which selectors of clusters match.
	DPUClusterLabels map[string]string
	// ServerLabelKey is the label of a DPUNode that holds the MAAS system ID; maas.io/system-id when empty.
	ServerLabelKey string
	// CRDDir holds upstream's CRDs (*.yaml); when empty, the ones generated from this project's types are installed.
	CRDDir string
	// LabelPlace is the DPF release; LabelsOnDPU when empty. See Fabric.Upgrade.
	LabelPlace LabelPlace
	// OVN is driven as DPF's VPC service drives it; without one the Fabric plays OVN, too.
	OVN OVN
	// Timing of everything that takes time; zero fields take LabTiming's values.
	Timing Timing
	// Jitter lets each delay take up to this much longer, as a part of it: 3 is up to four times as long. Which delay takes how
	// long follows from Seed and from the order in which the controllers come to them.
	Jitter float64
	Seed   uint64
	// Clock tells the time; the real one when nil. Waiting is always done in real time.
	Clock clock.Clock
	// Log receives what the controllers do; discarded when empty.
	Log logr.Logger
}

// Timing is how long things take.
type Timing struct {
	// DeviceToDPU from a DPUDevice's label to the DPU it is copied to, in releases that do; and from a DPU's end until its
	// DPUSet makes it again.
	DeviceToDPU time.Duration
	// LabelsToNode from a label's change on a DPU until DPF copies it to the Node.
	LabelsToNode time.Duration
	// EffectRemoval is how long a DPU stays in "Node Effect Removal".
	EffectRemoval time.Duration
	// NodeToVPCMark from a Node matching a VPC (or no longer) until its mark is set (or removed).
	NodeToVPCMark time.Duration
	// SIApply from a DPUServiceInterface to its set, and from a matching Node to the ServiceInterface.
	SIApply time.Duration
	// AgentMAC until the agent has found a port's MAC address.
	AgentMAC time.Duration
	// Connect until the logical port exists.
	Connect time.Duration
	// AgentReady from there until the agent has plugged the port.
	AgentReady time.Duration
	// Unplug until a logical port is removed.
	Unplug time.Duration
	// AgentUnplug until the agent has unplugged a port.
	AgentUnplug time.Duration
	// DSIPoll is how often a DPUServiceInterface in deletion looks whether its sets are gone.
	DSIPoll time.Duration
	// RelatedRetry is how often a ServiceInterface looks for a missing network, VPC or class.
	RelatedRetry time.Duration
	// AgentRetry is how often an agent looks for a port's MAC address it could not find.
	AgentRetry time.Duration
	// StaleSweep is how often an agent removes ports nobody wants any more.
	StaleSweep time.Duration
	// Heartbeat is how often a kubelet renews its lease.
	Heartbeat time.Duration
	// NodeGrace is how long a silent kubelet's Node stays Ready.
	NodeGrace time.Duration
	// Boot of a DPU.
	Boot time.Duration
	// Install of a DPU's system, before it boots.
	Install time.Duration
}

// LabTiming attaches a port in one to two seconds.
func LabTiming() Timing {
	return Timing{
		DeviceToDPU: 100 * time.Millisecond, LabelsToNode: 150 * time.Millisecond, EffectRemoval: 150 * time.Millisecond, NodeToVPCMark: 100 * time.Millisecond,
		SIApply: 100 * time.Millisecond, AgentMAC: 100 * time.Millisecond, Connect: 150 * time.Millisecond,
		AgentReady: 150 * time.Millisecond, Unplug: 150 * time.Millisecond, AgentUnplug: 100 * time.Millisecond,
		DSIPoll: 500 * time.Millisecond, RelatedRetry: time.Second, AgentRetry: 500 * time.Millisecond, StaleSweep: 3 * time.Second,
		Heartbeat: 10 * time.Second, NodeGrace: 3 * time.Second, Boot: 500 * time.Millisecond,
		Install: 500 * time.Millisecond,
	}
}

// DPFTiming has the intervals DPF itself uses, with guesses for what only hardware can tell.
func DPFTiming() Timing {
	return Timing{
		DeviceToDPU: time.Second, LabelsToNode: 5 * time.Second, EffectRemoval: 5 * time.Second, NodeToVPCMark: time.Second,
		SIApply: time.Second, AgentMAC: 5 * time.Second, Connect: 2 * time.Second,
		AgentReady: 5 * time.Second, Unplug: 2 * time.Second, AgentUnplug: 2 * time.Second,
		DSIPoll: 30 * time.Second, RelatedRetry: 10 * time.Second, AgentRetry: 5 * time.Second, StaleSweep: 30 * time.Second,
		Heartbeat: 10 * time.Second, NodeGrace: 50 * time.Second, Boot: 4 * time.Minute,
		Install: 15 * time.Minute,
	}
}

// Scaled returns the timing with every delay multiplied: DPFTiming().Scaled(0.01) keeps DPF's proportions.
func (t Timing) Scaled(factor float64) Timing {
	for _, field := range t.fields() {
		*field = time.Duration(float64(*field) * factor)
	}
	return t
}

func (t *Timing) setDefaults() {
	lab := LabTiming()
	fallbacks := lab.fields()
	for i, field := range t.fields() {
		if *field == 0 {
			*field = *fallbacks[i]
		}
	}
}

func (t *Timing) fields() []*time.Duration {
	return []*time.Duration{
		&t.DeviceToDPU, &t.LabelsToNode, &t.EffectRemoval, &t.NodeToVPCMark, &t.SIApply, &t.AgentMAC, &t.Connect, &t.AgentReady,
		&t.Unplug, &t.AgentUnplug, &t.DSIPoll, &t.RelatedRetry, &t.AgentRetry, &t.StaleSweep, &t.Heartbeat, &t.NodeGrace, &t.Boot, &t.Install,
	}
}

func (o *Options) complete() error {
	if o.Management == nil || o.DPUCluster == nil {
		return errors.New("dpfsim: Options.Management and Options.DPUCluster must be set")
	}
	defaults := []struct {
		value    *string
		fallback string
	}{
		{&o.Namespace, "dpf-operator-system"},
		{&o.DPUClusterName, "dpu-cluster"},
		{&o.ServerLabelKey, "maas.io/system-id"},
		{(*string)(&o.LabelPlace), string(LabelsOnDPU)},
	}
	for _, d := range defaults {
		if *d.value == "" {
			*d.value = d.fallback
		}
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Log.GetSink() == nil {
		o.Log = logr.Discard()
	}
	o.Timing.setDefaults()
	return nil
}
