// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
)

// watchedKind is a kind of object whose changes wake somebody. Whole objects are watched, because metadata do not say on which
// Node an interface is, whom a selector takes, or that nothing has changed but a heartbeat. Their Go types hold only what the
// wing reads, so what it does not read wakes nobody.
type watchedKind struct {
	name   string
	object client.Object
	list   func() client.ObjectList
	// everywhere watches all namespaces: an interface or VPC of any of them can take a tenant's DPU.
	everywhere bool
}

const (
	kindDPU     = "DPU"
	kindDPUNode = "DPUNode"
	kindNode    = "Node"
	kindNetwork = "DPUVirtualNetwork"
)

// dpfKinds are watched in the cluster that manages DPF, dpuClusterKinds in each DPU cluster. Leases are not: each kubelet renews
// its own every ten seconds.
var (
	dpfKinds = []watchedKind{
		{name: kindDPU, object: &provisioningv1alpha1.DPU{}, list: func() client.ObjectList { return &provisioningv1alpha1.DPUList{} }},
		{name: "DPUDevice", object: &provisioningv1alpha1.DPUDevice{}, list: func() client.ObjectList { return &provisioningv1alpha1.DPUDeviceList{} }},
		{name: kindDPUNode, object: &provisioningv1alpha1.DPUNode{}, list: func() client.ObjectList { return &provisioningv1alpha1.DPUNodeList{} }},
		{name: "DPUNodeMaintenance", object: &provisioningv1alpha1.DPUNodeMaintenance{}, list: func() client.ObjectList { return &provisioningv1alpha1.DPUNodeMaintenanceList{} }},
		{name: "DPUServiceInterface", object: &svcv1alpha1.DPUServiceInterface{}, list: func() client.ObjectList { return &svcv1alpha1.DPUServiceInterfaceList{} }, everywhere: true},
		{name: kindNetwork, object: &vpcv1alpha1.DPUVirtualNetwork{}, list: func() client.ObjectList { return &vpcv1alpha1.DPUVirtualNetworkList{} }},
		{name: "DPUVPC", object: &vpcv1alpha1.DPUVPC{}, list: func() client.ObjectList { return &vpcv1alpha1.DPUVPCList{} }, everywhere: true},
	}
	dpuClusterKinds = []watchedKind{
		{name: kindNode, object: &corev1.Node{}, list: func() client.ObjectList { return &corev1.NodeList{} }},
		{name: "ServiceInterface", object: &svcv1alpha1.ServiceInterface{}, list: func() client.ObjectList { return &svcv1alpha1.ServiceInterfaceList{} }, everywhere: true},
	}
)

// trim drops from an object what says nothing or only that time passes.
func trim(object any) (any, error) {
	o, ok := object.(client.Object)
	if !ok {
		return object, nil
	}
	o.SetManagedFields(nil)
	if node, ok := o.(*corev1.Node); ok {
		status := corev1.NodeStatus{Conditions: node.Status.Conditions}
		status.NodeInfo.BootID = node.Status.NodeInfo.BootID
		for i := range status.Conditions {
			status.Conditions[i].LastHeartbeatTime = metav1.Time{}
		}
		node.Status = status
	}
	return o, nil
}

// same reports whether two versions of an object say the same.
func same(before, after client.Object) bool {
	a, aOK := before.DeepCopyObject().(client.Object)
	b, bOK := after.DeepCopyObject().(client.Object)
	if !aOK || !bOK {
		return false
	}
	a.SetResourceVersion("")
	b.SetResourceVersion("")
	return equality.Semantic.DeepEqual(a, b)
}

// handler wakes those whom a change concerns. What a watch begins with is no change.
func (k *kindWatch) handler() cache.ResourceEventHandler {
	changed := func(before, after client.Object) {
		k.target.fabric.changed(k.target.life, before, after)
	}
	return cache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(object any, initial bool) {
			if added, ok := object.(client.Object); ok && !initial {
				changed(nil, added)
			}
		},
		UpdateFunc: func(before, after any) {
			old, oldOK := before.(client.Object)
			updated, ok := after.(client.Object)
			if ok && oldOK && !same(old, updated) {
				changed(old, updated)
			}
		},
		DeleteFunc: func(object any) {
			if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = unknown.Obj
			}
			if removed, ok := object.(client.Object); ok {
				changed(removed, nil)
			}
		},
	}
}
