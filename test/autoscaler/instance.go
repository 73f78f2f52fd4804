// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package autoscaler

import (
	"strings"

	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
)

// State is what an Instance is doing.
type State string

// The states of an Instance.
const (
	Creating State = "Creating"
	Running  State = "Running"
	Deleting State = "Deleting"
)

// Instance is what a group has of a Machine: the provider ID of its Node, or a name made up for one that has no Node yet or soon no
// longer.
type Instance struct {
	ID    string
	State State
}

// Prefixes of the names made up. There is a third for Machines that failed, which are those with a failureMessage: the v1beta2 API of
// Cluster API has none in that place, so that no Machine fails in the autoscaler's eyes any more.
const (
	pendingPrefix  = "pending-machine-"
	deletingPrefix = "deleting-machine-"
)

// instanceOf tells how a Machine counts. One without a Node is pending even when it has its provider ID.
//
// unsure: releases before 1.33 let a Machine with a provider ID and without a Node count as running.
func instanceOf(machine *clusterv1.Machine) Instance {
	made := machine.Namespace + "_" + machine.Name
	switch {
	case !machine.DeletionTimestamp.IsZero():
		return Instance{ID: deletingPrefix + made, State: Deleting}
	case !machine.Status.NodeRef.IsDefined():
		return Instance{ID: pendingPrefix + made, State: Creating}
	}
	return Instance{ID: machine.Spec.ProviderID, State: Running}
}

// isMadeUp says whether an ID belongs to no Node.
func isMadeUp(id string) bool {
	return strings.HasPrefix(id, pendingPrefix) || strings.HasPrefix(id, deletingPrefix)
}

// machineKey is the namespace/name behind an ID that was made up.
func machineKey(id string) string {
	id = strings.TrimPrefix(strings.TrimPrefix(id, pendingPrefix), deletingPrefix)
	return strings.Replace(id, "_", "/", 1)
}

// lastSegment is all of a provider ID that Machines and Nodes are looked up by.
func lastSegment(providerID string) string {
	return providerID[strings.LastIndexByte(providerID, '/')+1:]
}
