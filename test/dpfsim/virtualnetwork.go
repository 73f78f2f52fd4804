// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"context"
	"fmt"
	"maps"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

const conditionNetworkReconciled = "DPUVirtualNetworkReconciled"

// networkController makes a DPUVirtualNetwork Ready once its VPC is taken care of, and keeps it while interfaces name it.
type networkController struct{ world }

func setupVirtualNetwork(mgr manager.Manager, w world) error {
	r := &networkController{w}
	ofVPC := handler.EnqueueRequestsFromMapFunc(r.inNamespaceOf)
	ofInterface := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, dsi client.Object) []reconcile.Request {
		spec, err := readSpec[dsiSpec](dsi.(*unstructured.Unstructured))
		if err != nil {
			return nil
		}
		name := spec.Template.Spec.Template.Spec.virtualNetwork()
		return []reconcile.Request{{NamespacedName: client.ObjectKey{Namespace: dsi.GetNamespace(), Name: name}}}
	})
	return w.controller(mgr, ControllerVirtualNetwork).
		For(newObject(kindVirtualNetwork)).
		Watches(newObject(kindVPC), ofVPC).
		Watches(newObject(kindDSI), ofInterface).
		WatchesRawSource(source.Channel(w.wakeNetwork, &handler.EnqueueRequestForObject{})).
		Complete(w.played(ControllerVirtualNetwork, r.reconcile))
}

func (r *networkController) inNamespaceOf(ctx context.Context, vpc client.Object) (requests []reconcile.Request) {
	list := newList(kindVirtualNetwork)
	if err := r.management.List(ctx, list, client.InNamespace(vpc.GetNamespace())); err != nil {
		r.log.Error(err, "list DPUVirtualNetworks")
		return nil
	}
	for i := range list.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}
	return requests
}

func (r *networkController) reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	network := newObject(kindVirtualNetwork)
	if err := r.management.Get(ctx, request.NamespacedName, network); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	report := newReport(r.clock, network)
	report.ensure(conditionPrerequisites, conditionNetworkReconciled)
	err := r.reconcileWith(ctx, network, report)
	report.summarize(conditionPrerequisites, conditionNetworkReconciled)
	if e := report.write(ctx, r.management); e != nil && err == nil {
		err = e
	}
	return reconcile.Result{}, err
}

func (r *networkController) reconcileWith(ctx context.Context, network *unstructured.Unstructured, report *report) error {
	spec, err := readSpec[virtualNetworkSpec](network)
	if err != nil {
		return err
	}
	vpc := newObject(kindVPC)
	missing, err := find(ctx, r.management, vpc, network.GetNamespace(), spec.VPCName)
	if err != nil {
		return err
	}
	if missing != "" {
		// So it stays, also in deletion: a network whose VPC went first cannot be finished.
		report.condition(conditionPrerequisites, false, reasonPending, "waiting for creation of "+missing)
		return nil
	}
	if network.GetDeletionTimestamp() != nil {
		return r.delete(ctx, network, report)
	}
	if added, err := addFinalizer(ctx, r.management, network, finalizerVirtualNetwork); added || err != nil {
		return err
	}
	if !controllerutil.ContainsFinalizer(vpc, finalizerVPC) {
		report.condition(conditionPrerequisites, false, reasonPending, "waiting for DPUVPC "+vpc.GetName()+" to be reconciled")
		return nil
	}
	report.succeed(conditionPrerequisites)
	if r.faults.has(NetworkNotReady, network.GetNamespace()+"/"+network.GetName()) {
		report.condition(conditionNetworkReconciled, false, reasonError, "a transaction of the Northbound database failed")
		return nil
	}
	if _, _, err := networkOf(network.GetNamespace(), network.GetName(), spec); err != nil {
		report.condition(conditionNetworkReconciled, false, reasonError, err.Error())
		return nil
	}
	if network.GetAnnotations()[annotationLRP] == "" {
		address := r.plane.routerAddress(vpcMark(vpc), "network/"+network.GetName())
		if err := annotate(ctx, r.management, network, map[string]string{annotationLRP: address}); err != nil {
			return fmt.Errorf("annotate DPUVirtualNetwork: %w", err)
		}
		annotations := maps.Clone(network.GetAnnotations())
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[annotationLRP] = address
		network.SetAnnotations(annotations) // OVN is told at once
	}
	if err := r.ensureNetwork(ctx, network); err != nil {
		report.condition(conditionNetworkReconciled, false, reasonError, err.Error())
		return err
	}
	report.succeed(conditionNetworkReconciled)
	return nil
}

func (r *networkController) delete(ctx context.Context, network *unstructured.Unstructured, report *report) error {
	interfaces := newList(kindDSI)
	if err := r.management.List(ctx, interfaces, client.InNamespace(network.GetNamespace())); err != nil {
		return fmt.Errorf("list DPUServiceInterfaces: %w", err)
	}
	for i := range interfaces.Items {
		spec, err := readSpec[dsiSpec](&interfaces.Items[i])
		if err != nil {
			return err
		}
		if spec.Template.Spec.Template.Spec.virtualNetwork() == network.GetName() {
			report.condition(conditionNetworkReconciled, false, reasonAwaitingDeletion, "in use by DPUServiceInterface "+interfaces.Items[i].GetName())
			return nil
		}
	}
	err := r.northbound(ctx, func(ctx context.Context, ovn OVN) error {
		return ovn.RemoveNetwork(ctx, network.GetNamespace(), network.GetName())
	})
	if err != nil {
		report.condition(conditionNetworkReconciled, false, reasonError, err.Error())
		return err
	}
	return dropFinalizer(ctx, r.management, network, finalizerVirtualNetwork)
}
