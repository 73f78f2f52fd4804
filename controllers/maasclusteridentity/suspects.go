// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasclusteridentity

import (
	"cmp"
	"maps"
	"slices"

	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// maxMachines is how many machines are remembered of one suspect; more than two change nothing.
const maxMachines = 16

// suspectServers are the servers under which deployments failed: those remembered, without the ones that were freed by an
// operator or are provisioned now, and those that machines are giving back for it. A machine gives a server back only once its
// failure is listed, so that what it avoids and no longer has was listed before: were it counted again, a server that was
// cleared would be suspect as long as the machine lives.
func suspectServers(known []infrav1.SuspectServer, f *fleet, freed map[string]bool) []infrav1.SuspectServer {
	suspects := map[string]infrav1.SuspectServer{}
	for _, suspect := range known {
		if !freed[suspect.SystemID] && !provenGood(f, suspect.SystemID) {
			suspects[suspect.SystemID] = *suspect.DeepCopy()
		}
	}
	for _, machine := range f.own {
		for _, avoided := range machine.Status.AvoidedServers {
			failed := avoided.Reason == infrav1.DeployFailedReason || avoided.Reason == infrav1.DeployTimedOutReason
			if !failed || avoided.SystemID != machine.Status.SystemID {
				continue
			}
			suspect, ok := suspects[avoided.SystemID]
			if !ok {
				suspect = infrav1.SuspectServer{SystemID: avoided.SystemID, Since: avoided.Since}
			}
			if avoided.Since.Before(&suspect.Since) {
				suspect.Since = avoided.Since
			}
			if !slices.Contains(suspect.Machines, key(machine)) {
				suspect.Machines = append(suspect.Machines, key(machine))
			}
			// The newest stay: one of them may wait to be listed.
			suspect.Machines = suspect.Machines[max(len(suspect.Machines)-maxMachines, 0):]
			suspects[avoided.SystemID] = suspect
		}
	}
	return slices.SortedFunc(maps.Values(suspects), func(a, b infrav1.SuspectServer) int { return cmp.Compare(a.SystemID, b.SystemID) })
}

// provenGood says that a machine is provisioned on the server and holds it.
func provenGood(f *fleet, systemID string) bool {
	return slices.ContainsFunc(f.byServer[systemID], func(m *infrav1.MaasMachine) bool {
		return ptr.Deref(m.Status.Initialization.Provisioned, false) && !avoids(m, systemID) &&
			conditions.IsTrue(m, infrav1.ServerClaimedCondition)
	})
}
