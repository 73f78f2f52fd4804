// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachinetemplate

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// Step is a decision: what to say.
type Step struct {
	Ready Saying
	// Keep leaves capacity and node info as they are, because nothing is known that is newer.
	Keep     bool
	Capacity corev1.ResourceList
	NodeInfo infrav1.NodeInfo
	// Soon asks to come back before the next round.
	Soon bool
}

// Saying is the state of one condition.
type Saying struct {
	Status          metav1.ConditionStatus
	Reason, Message string
}

// decide is the whole policy; it is pure.
func decide(o *Observation) Step {
	switch {
	case !o.Owned:
		return Step{Keep: true, Ready: Saying{metav1.ConditionUnknown, infrav1.NoClusterReason,
			"no Cluster owns the template: its capacity is known once a MachineDeployment, MachineSet or control plane uses it"}}
	case o.Obstacle != nil:
		return Step{Ready: Saying{metav1.ConditionFalse, o.Obstacle.Reason, o.Obstacle.Message}}
	case o.Doubt != nil:
		return Step{Keep: true, Soon: true, Ready: Saying{metav1.ConditionUnknown, o.Doubt.Reason, o.Doubt.Message}}
	}
	if unknown := unknownNames(&o.Constraints, o.Names); unknown != "" {
		return Step{Ready: Saying{metav1.ConditionFalse, infrav1.ConstraintsNeverMatchReason, "MAAS does not know " + unknown}}
	}
	matching, why := match(o)
	if len(matching) == 0 {
		return Step{Soon: true, Ready: Saying{metav1.ConditionFalse, infrav1.NoServerMatchesReason, why}}
	}
	offered := floor(matching, ptr.Deref(o.Spec.DeployInMemory, false))
	step := Step{Capacity: offered.least(), NodeInfo: infrav1.NodeInfo{OperatingSystem: operatingSystem}}
	step.Ready = Saying{Status: metav1.ConditionTrue, Reason: infrav1.ReadyReason, Message: offered.differences()}
	switch architectures := architectures(matching); len(architectures) {
	case 1:
		step.NodeInfo.Architecture = kubernetesName(architectures[0])
	default:
		step.Ready = Saying{metav1.ConditionFalse, infrav1.SeveralArchitecturesReason, fmt.Sprintf(
			"servers of several architectures match (%s): name one in a new template", strings.Join(architectures, ", "))}
	}
	return step
}

// match returns the servers that a machine may get, now or later, and if there are none, why.
func match(o *Observation) (matching []*maas.Machine, why string) {
	met, inService := false, false
	for i := range o.Servers {
		m := &o.Servers[i]
		if m.IsDPU || m.ParentSystemID != "" || m.CPUCount == 0 || m.MemoryMiB == 0 || !o.Constraints.Match(m) {
			continue
		}
		met = true
		if !comesBack(m) || o.Held[m.SystemID] {
			continue
		}
		inService = true
		if hasDPUs(o, m.SystemID) {
			matching = append(matching, m)
		}
	}
	switch {
	case !met:
		return nil, "no server that the account has or could be given meets the constraints: ask for less in a new template, or have servers added"
	case !inService:
		return nil, "all servers that meet the constraints are broken, failed, locked or held: have one repaired"
	}
	return matching, "no server that meets the constraints has working DPUs with the ports asked for: see kubectl get dpuservers"
}

// comesBack reports the servers that are free, or in use and given back one day. Those that wait for people are not among them:
// MAAS does not give them out, and what it knows of some is old or nothing.
func comesBack(m *maas.Machine) bool {
	if m.Locked {
		return false
	}
	switch m.Status {
	case maas.StatusReady, maas.StatusReserved, maas.StatusAllocated, maas.StatusDeploying, maas.StatusDeployed, maas.StatusFailedDeployment,
		maas.StatusReleasing, maas.StatusDiskErasing, maas.StatusTesting, maas.StatusRescueMode, maas.StatusEnteringRescueMode,
		maas.StatusExitingRescueMode:
		return true
	}
	return false
}

// hasDPUs reports whether the fabric lets the server be used. One that is held comes back; one that is neither held nor eligible
// waits for people. Without ports a server need not be the fabric's at all.
func hasDPUs(o *Observation, systemID string) bool {
	if o.DPUServers == nil {
		return true // The fabric says when the server is claimed.
	}
	server, ok := o.DPUServers[systemID]
	if !ok {
		return len(o.Spec.Ports) == 0
	}
	return server.DeletionTimestamp.IsZero() && (server.Status.Eligibility != infrav1.Ineligible || server.Status.Holder != nil) &&
		scope.PortsFit(o.Spec.Ports, server)
}

// namesSeen reports whether each name in the constraints is one that a server has: then MAAS knows it.
func namesSeen(constraints *maas.Constraints, servers []maas.Machine) bool {
	seen := scope.Names{}
	for i := range servers {
		seen.Zones, seen.Pools = append(seen.Zones, servers[i].Zone), append(seen.Pools, servers[i].Pool)
		seen.Tags = append(seen.Tags, servers[i].Tags...)
	}
	return unknownNames(constraints, &seen) == ""
}

// unknownNames says which names in the constraints are not among those known; empty if all are. MAAS refuses them, also those
// that a server must not have.
func unknownNames(constraints *maas.Constraints, known *scope.Names) string {
	if known == nil {
		return ""
	}
	var unknown []string
	for _, kind := range []struct {
		word         string
		asked, known []string
	}{
		{"zone", slices.Concat([]string{constraints.Zone}, constraints.Zones), known.Zones},
		{"resource pool", slices.Concat([]string{constraints.Pool}, constraints.Pools), known.Pools},
		{"tag", slices.Concat(constraints.Tags, constraints.NotTags), known.Tags},
	} {
		for _, name := range kind.asked {
			if name != "" && !slices.Contains(kind.known, name) {
				unknown = append(unknown, kind.word+" "+name)
			}
		}
	}
	return strings.Join(unknown, ", ")
}
