// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package tenantvpc

import (
	"fmt"
	"slices"
	"strings"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
)

// ownedConditions are written by this controller alone.
var ownedConditions = []string{
	infrav1.FabricReadyCondition, infrav1.WithinAllowedNamespacesCondition, infrav1.NetworksReadyCondition,
	infrav1.SubnetsRemovedCondition, infrav1.AddressesAvailableCondition, infrav1.ReadyCondition,
}

// summarised by Ready, the first that is not True with its own reason.
var summarised = []string{
	infrav1.FabricReadyCondition, infrav1.WithinAllowedNamespacesCondition, infrav1.NetworksReadyCondition,
}

func set(tenant *infrav1.TenantVPC, condition string, status metav1.ConditionStatus, reason, message string) {
	conditions.Set(tenant, metav1.Condition{
		Type: condition, Status: status, Reason: reason, Message: message, ObservedGeneration: tenant.Generation,
	})
}

// report writes what was observed and decided into the status.
func report(tenant *infrav1.TenantVPC, seen *observation, decided decision) {
	set(tenant, infrav1.FabricReadyCondition, metav1.ConditionTrue, infrav1.ReadyReason, "")
	reportAllowed(tenant, seen)
	if tenant.Annotations[infrav1.TenantVPCMadeAnnotation] != "" {
		tenant.Status.VPCName = seen.place.VPCName(tenant)
	}
	tenant.Status.TenantPools = seen.fabric.Spec.TenantPools
	tenant.Status.Subnets = subnets(seen)
	reportAddresses(tenant, seen)
	reportNetworks(tenant, seen, decided)
	reportRemoved(tenant, decided)
	summarise(tenant)
}

// reportUnusable says why the fabric could not be asked. What it was like is left as it was last seen.
func reportUnusable(tenant *infrav1.TenantVPC, unusable *scope.UnusableError) {
	status := metav1.ConditionFalse
	if unusable.Reason == infrav1.FabricUnreachableReason {
		status = metav1.ConditionUnknown
	}
	set(tenant, infrav1.FabricReadyCondition, status, unusable.Reason, unusable.Error())
	for _, condition := range []string{infrav1.WithinAllowedNamespacesCondition, infrav1.NetworksReadyCondition, infrav1.SubnetsRemovedCondition, infrav1.AddressesAvailableCondition} {
		set(tenant, condition, metav1.ConditionUnknown, unusable.Reason, "the fabric could not be asked")
	}
	summarise(tenant)
}

func reportAllowed(tenant *infrav1.TenantVPC, seen *observation) {
	if seen.allowed {
		set(tenant, infrav1.WithinAllowedNamespacesCondition, metav1.ConditionTrue, infrav1.ReadyReason, "")
		return
	}
	set(tenant, infrav1.WithinAllowedNamespacesCondition, metav1.ConditionFalse, infrav1.NamespaceNotAllowedReason, fmt.Sprintf(
		"DPUFabric %s does not admit namespace %s: nothing new is made, what runs goes on; the operator adds it to allowedNamespaces", seen.fabric.Name, tenant.Namespace))
}

func reportNetworks(tenant *infrav1.TenantVPC, seen *observation, decided decision) {
	status, reason, message := metav1.ConditionTrue, infrav1.ReadyReason, vpcComplaints(seen.vpc)
	problems := make([]string, 0, len(decided.problems))
	for _, p := range decided.problems {
		problems = append(problems, p.message)
	}
	switch unready := unreadySubnets(seen); {
	case !tenant.DeletionTimestamp.IsZero():
		status, reason, message = metav1.ConditionFalse, infrav1.DeletingReason, strings.Join(append(slices.Clone(decided.waiting), problems...), "; ")
	case len(problems) > 0:
		status, reason, message = metav1.ConditionFalse, decided.problems[0].reason, strings.Join(problems, "; ")
	case len(decided.waiting) > 0:
		status, reason, message = metav1.ConditionFalse, infrav1.CreatingReason, strings.Join(decided.waiting, "; ")
	case len(unready) > 0:
		status, reason, message = metav1.ConditionFalse, infrav1.CreatingReason, strings.Join(append(unready, message), "; ")
	}
	set(tenant, infrav1.NetworksReadyCondition, status, reason, strings.TrimSuffix(message, "; "))
}

// vpcComplaints repeats what a DPUVPC complains about. They do not make its networks unready: each time a Node comes or goes
// the DPUVPC is not Ready for a while.
func vpcComplaints(dpuVPC *vpcv1alpha1.DPUVPC) string {
	if dpuVPC == nil {
		return ""
	}
	var complaints []string
	for _, name := range []string{vpcv1alpha1.PrerequisitesReadyCondition, vpcv1alpha1.DPUNodesReconciledCondition, vpcv1alpha1.TopologyReconciledCondition} {
		if c := apimeta.FindStatusCondition(dpuVPC.Status.Conditions, name); c != nil && c.Status == metav1.ConditionFalse {
			complaints = append(complaints, fmt.Sprintf("DPUVPC %s: %s is False (%s): %s", dpuVPC.Name, name, c.Reason, c.Message))
		}
	}
	return strings.Join(complaints, "; ")
}

func unreadySubnets(seen *observation) []string {
	var unready []string
	for _, subnet := range seen.tenant.Spec.Subnets {
		network := seen.networkNamed(seen.place.NetworkName(seen.tenant, subnet.Name))
		if network == nil || canTakePorts(network) {
			continue // One that is not there is waited for, or a problem.
		}
		why := "DPF says nothing of it yet"
		if c := apimeta.FindStatusCondition(network.Status.Conditions, vpcv1alpha1.ReadyCondition); c != nil && c.Message != "" {
			why = c.Reason + ": " + c.Message
		}
		unready = append(unready, fmt.Sprintf("subnet %s is not ready (%s)", subnet.Name, why))
	}
	return unready
}

// canTakePorts says whether DPF has made a network: it does not plug ports before.
func canTakePorts(network *vpcv1alpha1.DPUVirtualNetwork) bool {
	if !network.DeletionTimestamp.IsZero() {
		return false
	}
	for _, name := range []string{vpcv1alpha1.ReadyCondition, vpcv1alpha1.DPUVirtualNetworkReconciledCondition} {
		c := apimeta.FindStatusCondition(network.Status.Conditions, name)
		if c != nil && c.Status == metav1.ConditionTrue && max(c.ObservedGeneration, network.Status.ObservedGeneration) >= network.Generation {
			return true
		}
	}
	return false
}

func reportRemoved(tenant *infrav1.TenantVPC, decided decision) {
	switch message := strings.Join(decided.removing, "; "); {
	case len(decided.removing) == 0:
		set(tenant, infrav1.SubnetsRemovedCondition, metav1.ConditionTrue, infrav1.ReadyReason, "")
	case decided.inUse:
		set(tenant, infrav1.SubnetsRemovedCondition, metav1.ConditionFalse, infrav1.InUseReason, message)
	default:
		set(tenant, infrav1.SubnetsRemovedCondition, metav1.ConditionFalse, infrav1.DeletingReason, message)
	}
}

// summarise sets Ready to the first condition that is not True.
func summarise(tenant *infrav1.TenantVPC) {
	if !tenant.DeletionTimestamp.IsZero() {
		why := conditions.GetMessage(tenant, infrav1.NetworksReadyCondition)
		if !conditions.IsTrue(tenant, infrav1.FabricReadyCondition) {
			why = conditions.GetMessage(tenant, infrav1.FabricReadyCondition)
			if madeSomething(tenant) {
				why = "something was made on the fabric, so that the deletion waits until it can be asked: " + why
			}
		}
		set(tenant, infrav1.ReadyCondition, metav1.ConditionFalse, infrav1.DeletingReason, why)
		return
	}
	for _, name := range summarised {
		if c := conditions.Get(tenant, name); c != nil && c.Status != metav1.ConditionTrue {
			set(tenant, infrav1.ReadyCondition, c.Status, c.Reason, c.Message)
			return
		}
	}
	set(tenant, infrav1.ReadyCondition, metav1.ConditionTrue, infrav1.ReadyReason, conditions.GetMessage(tenant, infrav1.NetworksReadyCondition))
}

func networksReady(tenant *infrav1.TenantVPC) bool {
	return conditions.IsTrue(tenant, infrav1.NetworksReadyCondition)
}
