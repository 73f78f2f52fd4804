// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpufabric

import (
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
)

// neededConditions are those without which a fabric is not Ready, as far as it has them.
var neededConditions = []string{
	infrav1.CredentialsValidCondition, infrav1.DPFReachableCondition, infrav1.ClaimSourcesReadyCondition, infrav1.OVNReachableCondition,
}

// ownedConditions are written by this controller alone.
var ownedConditions = append(slices.Clone(neededConditions), infrav1.ChangesWatchedCondition, infrav1.ReadyCondition)

func set(fabric *infrav1.DPUFabric, condition string, status metav1.ConditionStatus, reason, message string) {
	conditions.Set(fabric, metav1.Condition{
		Type: condition, Status: status, Reason: reason, Message: message, ObservedGeneration: fabric.Generation,
	})
}

func isReady(fabric *infrav1.DPUFabric) bool {
	return conditions.IsTrue(fabric, infrav1.ReadyCondition)
}

// report writes what was observed into the status.
func report(fabric *infrav1.DPUFabric, seen *observation) {
	var eligible int32
	for i := range seen.servers {
		if seen.servers[i].Status.Eligibility == infrav1.Eligible {
			eligible++
		}
	}
	fabric.Status.Servers, fabric.Status.EligibleServers = ptr.To(int32(len(seen.servers))), ptr.To(eligible)

	switch {
	case seen.unusable != nil:
		set(fabric, infrav1.CredentialsValidCondition, metav1.ConditionFalse, seen.unusable.Reason, seen.unusable.Error())
		for _, name := range []string{infrav1.DPFReachableCondition, infrav1.ClaimSourcesReadyCondition} {
			set(fabric, name, metav1.ConditionUnknown, infrav1.NotStartedReason, "there is no way to DPF yet")
		}
	default:
		reportDPF(fabric, seen)
		reportSources(fabric, seen)
	}
	reportWatches(fabric, seen)
	reportOVN(fabric, seen)
	summarise(fabric)
}

func reportDPF(fabric *infrav1.DPUFabric, seen *observation) {
	set(fabric, infrav1.CredentialsValidCondition, metav1.ConditionTrue, infrav1.ReadyReason, "")
	set(fabric, infrav1.DPFReachableCondition, metav1.ConditionTrue, infrav1.ReadyReason, "")
	if unusable, ok := scope.AsUnusable(seen.dpf); ok {
		if unusable.Reason == infrav1.CredentialsRefusedReason {
			set(fabric, infrav1.CredentialsValidCondition, metav1.ConditionFalse, unusable.Reason, unusable.Error())
			set(fabric, infrav1.DPFReachableCondition, metav1.ConditionUnknown, unusable.Reason, "DPF answers, but tells nothing")
			return
		}
		set(fabric, infrav1.CredentialsValidCondition, metav1.ConditionUnknown, unusable.Reason, unusable.Error())
		set(fabric, infrav1.DPFReachableCondition, metav1.ConditionFalse, unusable.Reason, unusable.Error())
		return
	}
	if len(seen.dpuClusters) == 0 {
		set(fabric, infrav1.DPFReachableCondition, metav1.ConditionFalse, infrav1.DPUClusterUnreachableReason,
			"DPF has no DPUCluster: create one, DPUs join it")
		return
	}
	if _, messages := failures(seen.dpuClusters); len(messages) > 0 {
		set(fabric, infrav1.DPFReachableCondition, metav1.ConditionFalse, infrav1.DPUClusterUnreachableReason, enumerate(messages))
	}
}

// reportAccounts pins the account of a source when it is seen first, and lets go of it when nothing uses the source.
func reportAccounts(fabric *infrav1.DPUFabric, seen *observation) {
	var pinned []infrav1.ClaimSourceStatus
	for i := range fabric.Spec.ClaimSources {
		name := fabric.Spec.ClaimSources[i].Name
		known := slices.IndexFunc(fabric.Status.ClaimSources, func(s infrav1.ClaimSourceStatus) bool { return s.Name == name })
		switch account, answers := seen.accounts[name]; {
		case answers:
			pinned = append(pinned, infrav1.ClaimSourceStatus{Name: name, Account: account})
		case known >= 0 && (seen.used[name] || !accountChanged(seen.sources[name])):
			pinned = append(pinned, fabric.Status.ClaimSources[known])
		}
	}
	fabric.Status.ClaimSources = pinned
}

func accountChanged(err error) bool {
	unusable, ok := scope.AsUnusable(err)
	return ok && unusable.Reason == infrav1.AccountChangedReason
}

func reportSources(fabric *infrav1.DPUFabric, seen *observation) {
	reportAccounts(fabric, seen)
	reason, messages := failures(seen.sources)
	if len(messages) == 0 {
		set(fabric, infrav1.ClaimSourcesReadyCondition, metav1.ConditionTrue, infrav1.ReadyReason, "")
		return
	}
	set(fabric, infrav1.ClaimSourcesReadyCondition, metav1.ConditionFalse, reason, enumerate(messages))
}

// reportOVN says nothing of a fabric that names no OVN databases.
func reportOVN(fabric *infrav1.DPUFabric, seen *observation) {
	backend := fabric.Spec.Backend.OVNVPC
	if backend == nil || backend.OVN == nil {
		conditions.Delete(fabric, infrav1.OVNReachableCondition)
		return
	}
	if len(seen.ovn) == 0 {
		set(fabric, infrav1.OVNReachableCondition, metav1.ConditionUnknown, infrav1.NotStartedReason, "OVN's databases were not asked yet")
		return
	}
	for _, name := range slices.Sorted(maps.Keys(seen.ovn)) {
		err := seen.ovn[name]
		if unusable, ok := scope.AsUnusable(err); ok {
			set(fabric, infrav1.OVNReachableCondition, metav1.ConditionFalse, unusable.Reason, unusable.Error())
			return
		}
		if err != nil {
			set(fabric, infrav1.OVNReachableCondition, metav1.ConditionFalse, infrav1.OVNUnreachableReason, ovnMessage(seen.ovn))
			return
		}
	}
	set(fabric, infrav1.OVNReachableCondition, metav1.ConditionTrue, infrav1.ReadyReason, "")
}

// ovnMessage says what each database did not do, and what to do about it.
func ovnMessage(answers map[string]error) string {
	var messages []string
	for _, name := range slices.Sorted(maps.Keys(answers)) {
		if err := answers[name]; err != nil {
			messages = append(messages, err.Error())
		}
	}
	return enumerate(messages) + "; look whether ovn-central runs, and at spec.backend.ovnVPC.ovn: no port is proven attached or detached until it answers"
}

// failures returns the messages of all errors in the order of their names, and the reason of the first.
func failures(answers map[string]error) (reason string, messages []string) {
	for _, name := range slices.Sorted(maps.Keys(answers)) {
		err := answers[name]
		if err == nil {
			continue
		}
		if reason == "" {
			reason = infrav1.FabricNotReadyReason
			if unusable, ok := scope.AsUnusable(err); ok {
				reason = unusable.Reason
			}
		}
		messages = append(messages, name+": "+err.Error())
	}
	return reason, messages
}

// reportWatches says what is noticed late.
func reportWatches(fabric *infrav1.DPUFabric, seen *observation) {
	if len(seen.unwatched) == 0 {
		set(fabric, infrav1.ChangesWatchedCondition, metav1.ConditionTrue, infrav1.ReadyReason, "")
		return
	}
	broken := make([]string, 0, len(seen.unwatched))
	for _, name := range slices.Sorted(maps.Keys(seen.unwatched)) {
		why := "not watched yet"
		if err := seen.unwatched[name]; err != nil {
			why = err.Error()
		}
		broken = append(broken, name+" ("+why+")")
	}
	set(fabric, infrav1.ChangesWatchedCondition, metav1.ConditionFalse, infrav1.PollingReason,
		"changes are noticed up to a minute late, by polling: "+enumerate(broken))
}

func summarise(fabric *infrav1.DPUFabric) {
	for _, name := range neededConditions {
		if c := conditions.Get(fabric, name); c != nil && c.Status != metav1.ConditionTrue {
			set(fabric, infrav1.ReadyCondition, c.Status, c.Reason, c.Message)
			return
		}
	}
	set(fabric, infrav1.ReadyCondition, metav1.ConditionTrue, infrav1.ReadyReason, "")
}

func reportDeletion(fabric *infrav1.DPUFabric, decided deletion) {
	switch {
	case len(decided.neededBy) > 0:
		set(fabric, infrav1.ReadyCondition, metav1.ConditionFalse, infrav1.InUseReason, "the fabric stays as long as it is needed by "+enumerate(decided.neededBy))
	case len(decided.forget) > 0:
		set(fabric, infrav1.ReadyCondition, metav1.ConditionFalse, infrav1.DeletingReason, "deleting its DPUServers")
	default:
		set(fabric, infrav1.ReadyCondition, metav1.ConditionFalse, infrav1.DeletingReason, "")
	}
}
