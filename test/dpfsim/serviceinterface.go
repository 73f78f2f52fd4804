// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"context"
	"errors"
	"fmt"
	"net"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// portController is the management side of a ServiceInterface on a virtual network: its logical port in OVN.
type portController struct{ world }

func setupServiceInterface(mgr manager.Manager, w world) error {
	r := &portController{w}
	remote := w.remote.GetCache()
	self := &handler.TypedEnqueueRequestForObject[*unstructured.Unstructured]{}
	ofNode := handler.TypedEnqueueRequestsFromMapFunc(func(ctx context.Context, node *corev1.Node) []reconcile.Request {
		return w.interfaces(ctx, "", func(si *unstructured.Unstructured) bool {
			name, _, err := unstructured.NestedString(si.Object, "spec", "node")
			return err == nil && name == node.Name
		})
	})
	ofNetwork := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, network client.Object) []reconcile.Request {
		return w.interfaces(ctx, network.GetNamespace(), func(si *unstructured.Unstructured) bool {
			spec, err := readSpec[interfaceSpec](si)
			return err == nil && spec.virtualNetwork() == network.GetName()
		})
	})
	return w.controller(mgr, ControllerServiceInterface).
		WatchesRawSource(source.Kind(remote, newObject(kindSI), self)).
		WatchesRawSource(source.Kind(remote, &corev1.Node{}, ofNode, predicate.TypedLabelChangedPredicate[*corev1.Node]{})).
		Watches(newObject(kindVirtualNetwork), ofNetwork).
		Complete(w.played(ControllerServiceInterface, r.reconcile))
}

// interfaces asks for the ServiceInterfaces that match.
func (w world) interfaces(ctx context.Context, namespace string, match func(*unstructured.Unstructured) bool) (requests []reconcile.Request) {
	list := newList(kindSI)
	if err := w.dpuCluster.List(ctx, list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		w.log.Error(err, "list ServiceInterfaces")
		return nil
	}
	for i := range list.Items {
		if match(&list.Items[i]) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}

func (r *portController) reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	si := newObject(kindSI)
	if err := r.dpuCluster.Get(ctx, request.NamespacedName, si); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	spec, err := readSpec[interfaceSpec](si)
	if err != nil || spec.virtualNetwork() == "" {
		return reconcile.Result{}, err
	}
	if si.GetDeletionTimestamp() != nil {
		return r.delete(ctx, si, spec)
	}
	if added, err := addFinalizer(ctx, r.dpuCluster, si, finalizerSI); added || err != nil {
		return reconcile.Result{}, err
	}
	node := &corev1.Node{}
	if err := r.dpuCluster.Get(ctx, types.NamespacedName{Name: spec.node()}, node); err != nil {
		return reconcile.Result{RequeueAfter: nodeRetry}, client.IgnoreNotFound(err)
	}
	mac := si.GetAnnotations()[annotationMAC]
	if _, err := net.ParseMAC(mac); err != nil && mac != "unknown" {
		return reconcile.Result{}, nil // the agent's annotation triggers the next pass
	}
	related, missing, err := relatedTo(ctx, r.management, si.GetNamespace(), spec.virtualNetwork())
	if err != nil {
		return reconcile.Result{}, err
	}
	if missing != "" {
		return reconcile.Result{RequeueAfter: r.options.Timing.RelatedRetry}, nil
	}
	if !conditionTrue(related.network, "Ready") {
		return reconcile.Result{}, nil // and the annotation keeps its last value
	}
	if r.faults.has(NorthboundUnreachable, "") {
		return r.notConnected(ctx, si, errors.New("the northbound database is out of reach"))
	}
	return r.connect(ctx, si, node, mac, related)
}

// connect puts the logical port while the Node is the VPC's, and takes it away when it is not. Membership is the selector's
// word, not the mark's.
func (r *portController) connect(ctx context.Context, si *unstructured.Unstructured, node *corev1.Node, mac string, related related) (reconcile.Result, error) {
	id := interfaceID(si.GetNamespace(), si.GetName())
	member, err := selects(related.vpcSpec.NodeSelector, node.Labels, false)
	if err != nil {
		return reconcile.Result{}, err
	}
	if !member {
		return r.disconnect(ctx, si, id)
	}
	mark := vpcMark(related.vpc)
	if !r.plane.reaches(mark, node.Name) {
		// Without the Node's gateway there is nothing to route to: an error, and an error reads "false".
		if err := r.annotateConnected(ctx, si, false); err != nil {
			return reconcile.Result{}, err
		}
		return reconcile.Result{RequeueAfter: nodeRetry}, nil
	}
	if !r.plane.hasLogical(id) {
		if left := r.pace.wait("connect/"+string(si.GetUID()), r.options.Timing.Connect); left > 0 {
			return reconcile.Result{RequeueAfter: left}, nil
		}
	}
	network, pool, err := networkOf(si.GetNamespace(), related.network.GetName(), related.networkSpec)
	if err != nil {
		return reconcile.Result{}, err
	}
	pending, err := r.connectPort(ctx, si, node, logicalPort{
		si: si.GetNamespace() + "/" + si.GetName(), vpc: mark, node: node.Name, mac: mac, network: network,
	}, pool)
	if err != nil {
		return r.notConnected(ctx, si, err)
	}
	if err := r.annotateConnected(ctx, si, true); err != nil {
		return reconcile.Result{}, err
	}
	if pending {
		return reconcile.Result{RequeueAfter: nodeRetry}, nil
	}
	// Nobody looks again before something changes: a database lost behind its back stays lost.
	return reconcile.Result{}, nil
}

func (r *portController) disconnect(ctx context.Context, si *unstructured.Unstructured, id string) (reconcile.Result, error) {
	if r.plane.hasLogical(id) {
		if left := r.pace.wait("disconnect/"+string(si.GetUID()), r.options.Timing.Unplug); left > 0 {
			return reconcile.Result{RequeueAfter: left}, nil
		}
	}
	if err := r.disconnectPort(ctx, id); err != nil {
		return r.notConnected(ctx, si, err)
	}
	return reconcile.Result{}, r.annotateConnected(ctx, si, false)
}

// notConnected says so, and tries again later. Whatever fails on the way, the annotation reads "false", true or not.
// unsure: not if DPF notices before it tries.
func (r *portController) notConnected(ctx context.Context, si *unstructured.Unstructured, why error) (reconcile.Result, error) {
	r.log.Info("not connected", "ServiceInterface", si.GetName(), "error", why.Error())
	return reconcile.Result{RequeueAfter: r.options.Timing.RelatedRetry}, r.annotateConnected(ctx, si, false)
}

func (r *portController) annotateConnected(ctx context.Context, si *unstructured.Unstructured, connected bool) error {
	err := annotate(ctx, r.dpuCluster, si, map[string]string{annotationConnected: fmt.Sprint(connected)})
	return client.IgnoreNotFound(err)
}

// delete removes the logical port. It needs neither the DPU nor a Ready network, but every object the port hangs on.
func (r *portController) delete(ctx context.Context, si *unstructured.Unstructured, spec interfaceSpec) (reconcile.Result, error) {
	_, missing, err := relatedTo(ctx, r.management, si.GetNamespace(), spec.virtualNetwork())
	if err != nil {
		return reconcile.Result{}, err
	}
	if missing != "" || r.faults.has(NorthboundUnreachable, "") {
		return reconcile.Result{RequeueAfter: r.options.Timing.RelatedRetry}, nil
	}
	id := interfaceID(si.GetNamespace(), si.GetName())
	if r.plane.hasLogical(id) {
		if left := r.pace.wait("disconnect/"+string(si.GetUID()), r.options.Timing.Unplug); left > 0 {
			return reconcile.Result{RequeueAfter: left}, nil
		}
	}
	if err := r.disconnectPort(ctx, id); err != nil {
		r.log.Error(err, "delete logical port", "ServiceInterface", si.GetName())
		return reconcile.Result{RequeueAfter: r.options.Timing.RelatedRetry}, nil
	}
	return reconcile.Result{}, dropFinalizer(ctx, r.dpuCluster, si, finalizerSI)
}
