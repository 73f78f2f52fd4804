// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

const (
	conditionPrerequisites   = "PrerequisitesReady"
	conditionVPCReconciled   = "DPUVPCReconciled"
	conditionNodesReconciled = "DPUNodesReconciled"
	conditionTopology        = "TopologyReconciled"
)

// vpcController marks the Nodes of a VPC and gives them their place in OVN.
type vpcController struct{ world }

// vpcMark is a VPC's name as it stands on its Nodes and in OVN.
func vpcMark(vpc client.Object) string { return markOf(client.ObjectKeyFromObject(vpc)) }

func setupVPC(mgr manager.Manager, w world) error {
	r := &vpcController{w}
	ofNetwork := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, network client.Object) []reconcile.Request {
		name, _, err := unstructured.NestedString(network.(*unstructured.Unstructured).Object, "spec", "vpcName")
		if err != nil {
			return nil
		}
		return []reconcile.Request{{NamespacedName: client.ObjectKey{Namespace: network.GetNamespace(), Name: name}}}
	})
	all := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, _ client.Object) []reconcile.Request {
		return r.requests(ctx, func(*unstructured.Unstructured, vpcSpec) bool { return true })
	})
	changed := predicate.Or[*corev1.Node](predicate.TypedLabelChangedPredicate[*corev1.Node]{}, predicate.TypedAnnotationChangedPredicate[*corev1.Node]{})
	return w.controller(mgr, ControllerVPC).
		For(newObject(kindVPC)).
		Watches(newObject(kindVirtualNetwork), ofNetwork).
		Watches(newObject(kindIsolationClass), all, onCreation()).
		WatchesRawSource(source.Channel(w.wakeVPC, &handler.EnqueueRequestForObject{})).
		WatchesRawSource(source.Kind(w.remote.GetCache(), &corev1.Node{}, r.ofNodes(), changed)).
		Complete(w.played(ControllerVPC, r.reconcile))
}

// ofNodes asks for the VPCs a Node's event concerns. What DPF does not look at then, it finds only when something else has it look:
// a Node that several VPCs select wakes none of them.
func (r *vpcController) ofNodes() handler.TypedEventHandler[*corev1.Node, reconcile.Request] {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	ask := func(ctx context.Context, before, node *corev1.Node, q queue) {
		for _, request := range r.ofNode(ctx, before, node) {
			q.Add(request)
		}
	}
	return handler.TypedFuncs[*corev1.Node, reconcile.Request]{
		CreateFunc: func(ctx context.Context, e event.TypedCreateEvent[*corev1.Node], q queue) { ask(ctx, nil, e.Object, q) },
		UpdateFunc: func(ctx context.Context, e event.TypedUpdateEvent[*corev1.Node], q queue) {
			ask(ctx, e.ObjectOld, e.ObjectNew, q)
		},
		DeleteFunc: func(ctx context.Context, e event.TypedDeleteEvent[*corev1.Node], q queue) { ask(ctx, e.Object, nil, q) },
	}
}

// ofNode asks for the VPCs that have the Node or are to have it; node is nil when before has gone.
func (r *vpcController) ofNode(ctx context.Context, before, node *corev1.Node) []reconcile.Request {
	if node == nil {
		return r.selecting(ctx, before)
	}
	current, mark := r.selecting(ctx, node), node.Labels[labelNodeVPC]
	if len(current) > 1 {
		if r.faults.has(VPCClaim, node.Name) {
			return current
		}
		return nil
	}
	var requests []reconcile.Request
	switch {
	case mark != "" && (len(current) == 0 || markOf(current[0].NamespacedName) != mark):
		// The one that marked it takes its mark away, which is the next event.
		namespace, name, _ := strings.Cut(mark, "_")
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKey{Namespace: namespace, Name: name}})
	case mark == "":
		requests = append(requests, current...)
	}
	if before != nil && len(current) == 1 && !maps.Equal(ofAgent(before), ofAgent(node)) {
		requests = append(requests, current...)
	}
	return requests
}

// ofAgent are the annotations the OVN VPC agent writes.
func ofAgent(node *corev1.Node) map[string]string {
	return map[string]string{
		annotationVTEP: node.Annotations[annotationVTEP], annotationChassis: node.Annotations[annotationChassis],
		annotationGateway: node.Annotations[annotationGateway],
	}
}

func markOf(vpc client.ObjectKey) string { return vpc.Namespace + "_" + vpc.Name }

// selecting asks for the VPCs that select a Node.
func (r *vpcController) selecting(ctx context.Context, node *corev1.Node) []reconcile.Request {
	return r.requests(ctx, func(_ *unstructured.Unstructured, spec vpcSpec) bool {
		wanted, err := selects(spec.NodeSelector, node.Labels, false)
		return err == nil && wanted
	})
}

func (r *vpcController) requests(ctx context.Context, match func(*unstructured.Unstructured, vpcSpec) bool) (requests []reconcile.Request) {
	list := newList(kindVPC)
	if err := r.management.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		r.log.Error(err, "list DPUVPCs")
		return nil
	}
	for i := range list.Items {
		if spec, err := readSpec[vpcSpec](&list.Items[i]); err == nil && match(&list.Items[i], spec) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}

func (r *vpcController) reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	vpc := newObject(kindVPC)
	if err := r.management.Get(ctx, request.NamespacedName, vpc); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	report := newReport(r.clock, vpc)
	report.ensure(conditionPrerequisites, conditionVPCReconciled, conditionNodesReconciled, conditionTopology)
	result, err := r.reconcileWith(ctx, vpc, report)
	report.summarize(conditionPrerequisites, conditionVPCReconciled, conditionNodesReconciled, conditionTopology)
	if e := report.write(ctx, r.management); e != nil && err == nil {
		err = e
	}
	return result, err
}

func (r *vpcController) reconcileWith(ctx context.Context, vpc *unstructured.Unstructured, report *report) (reconcile.Result, error) {
	spec, err := readSpec[vpcSpec](vpc)
	if err != nil {
		return reconcile.Result{}, err
	}
	class := newObject(kindIsolationClass)
	missing, err := find(ctx, r.management, class, "", spec.IsolationClassName)
	if err != nil {
		return reconcile.Result{}, err
	}
	if missing != "" {
		report.condition(conditionPrerequisites, false, reasonPending, "waiting for "+missing+" to be created")
		return reconcile.Result{}, nil
	}
	networks, err := r.networks(ctx, vpc)
	if err != nil {
		return reconcile.Result{}, err
	}
	if vpc.GetDeletionTimestamp() != nil {
		return reconcile.Result{}, r.delete(ctx, vpc, networks, report)
	}
	if added, err := addFinalizer(ctx, r.management, vpc, finalizerVPC); added || err != nil {
		return reconcile.Result{}, err
	}
	if vpc.GetLabels()[labelProvisioner] != provisionerOVN {
		after := vpc.DeepCopy()
		labels := after.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[labelProvisioner] = provisionerOVN
		after.SetLabels(labels)
		return reconcile.Result{}, r.management.Patch(ctx, after, client.MergeFrom(vpc))
	}
	for _, network := range networks {
		if !conditionTrue(network, "Ready") {
			report.condition(conditionPrerequisites, false, reasonPending, "waiting for virtual networks of the VPC to be ready")
			return reconcile.Result{}, nil
		}
	}
	return r.reconcileNodes(ctx, vpc, spec, networks, report)
}

func (r *vpcController) networks(ctx context.Context, vpc *unstructured.Unstructured) (out []*unstructured.Unstructured, err error) {
	list := newList(kindVirtualNetwork)
	if err := r.management.List(ctx, list, client.InNamespace(vpc.GetNamespace())); err != nil {
		return nil, fmt.Errorf("list DPUVirtualNetworks: %w", err)
	}
	for i := range list.Items {
		if name, _, _ := unstructured.NestedString(list.Items[i].Object, "spec", "vpcName"); name == vpc.GetName() {
			out = append(out, &list.Items[i])
		}
	}
	slices.SortFunc(out, func(a, b *unstructured.Unstructured) int {
		return slices.Compare([]string{a.GetName()}, []string{b.GetName()})
	})
	return out, nil
}

// reconcileNodes marks and unmarks Nodes one by one, going on past a bad one, and then builds the topology, which a single
// bad Node prevents for all.
func (r *vpcController) reconcileNodes(ctx context.Context, vpc *unstructured.Unstructured, spec vpcSpec, networks []*unstructured.Unstructured, report *report) (reconcile.Result, error) {
	nodes := &corev1.NodeList{}
	if err := r.dpuCluster.List(ctx, nodes, client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, fmt.Errorf("list Nodes: %w", err)
	}
	vpcs := newList(kindVPC)
	if err := r.management.List(ctx, vpcs, client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, fmt.Errorf("list DPUVPCs: %w", err)
	}
	var conflicts []error
	var members []*corev1.Node
	var result reconcile.Result
	for i := range nodes.Items {
		node := &nodes.Items[i]
		member, left, err := r.reconcileNode(ctx, vpc, spec, vpcs, node)
		if err != nil {
			conflicts = append(conflicts, err)
		}
		if left > 0 && (result.RequeueAfter == 0 || left < result.RequeueAfter) {
			result.RequeueAfter = left
		}
		if member {
			members = append(members, node)
		}
	}
	if len(conflicts) > 0 {
		report.condition(conditionNodesReconciled, false, reasonError, errors.Join(conflicts...).Error())
		return reconcile.Result{RequeueAfter: r.options.Timing.RelatedRetry}, nil
	}
	report.succeed(conditionNodesReconciled)
	topology := make(map[string]bool, len(members))
	for _, node := range members {
		if node.Annotations[annotationVTEP] == "" || node.Annotations[annotationChassis] == "" || node.Annotations[annotationGateway] == "" {
			report.condition(conditionPrerequisites, false, reasonPending, "some Nodes lack annotations of the VPC OVN node agent")
			return result, nil
		}
		topology[node.Name] = true
	}
	report.succeed(conditionPrerequisites)
	if r.faults.has(VPCNotReady, vpc.GetNamespace()+"/"+vpc.GetName()) || r.faults.has(NorthboundUnreachable, "") {
		report.condition(conditionTopology, false, reasonError, "a transaction of the Northbound database failed")
		return reconcile.Result{RequeueAfter: r.options.Timing.RelatedRetry}, nil
	}
	if err := r.ensureVPC(ctx, vpc, spec, networks, members); err != nil {
		report.condition(conditionTopology, false, reasonError, err.Error())
		return reconcile.Result{RequeueAfter: r.options.Timing.RelatedRetry}, nil
	}
	r.plane.setTopology(vpcMark(vpc), topology, spec.InterNetworkAccess)
	report.succeed(conditionTopology)
	names := make([]any, 0, len(networks))
	for _, network := range networks {
		names = append(names, map[string]any{"name": network.GetName()})
	}
	report.set(names, "virtualNetworks")
	report.succeed(conditionVPCReconciled)
	return result, nil
}

// reconcileNode sets or removes the VPC's mark. A Node that several VPCs select keeps what it has.
func (r *vpcController) reconcileNode(ctx context.Context, vpc *unstructured.Unstructured, spec vpcSpec, vpcs *unstructured.UnstructuredList, node *corev1.Node) (member bool, left time.Duration, err error) {
	mark := vpcMark(vpc)
	marked := node.Labels[labelNodeVPC] == mark
	wanted, err := selects(spec.NodeSelector, node.Labels, false)
	if err != nil {
		return false, 0, err
	}
	key := "mark/" + string(vpc.GetUID()) + "/" + node.Name
	if wanted == marked {
		r.pace.forget(key)
	}
	if !wanted && !marked {
		return false, 0, nil
	}
	claims, err := claimants(vpcs, node)
	if err != nil {
		return false, 0, err
	}
	if len(claims) > 1 {
		return false, 0, fmt.Errorf("the Node %s belongs to more than one VPC: %v", node.Name, claims)
	}
	if wanted && marked && node.Annotations[annotationLRP] != "" {
		return true, 0, nil
	}
	if left := r.pace.wait(key, r.options.Timing.NodeToVPCMark); left > 0 {
		return false, left, nil
	}
	before := node.DeepCopy()
	after := node.DeepCopy()
	if after.Annotations == nil {
		after.Annotations = map[string]string{}
	}
	if wanted {
		after.Labels[labelNodeVPC] = mark
		after.Annotations[annotationLRP] = r.plane.routerAddress(mark, node.Name)
	} else {
		delete(after.Labels, labelNodeVPC)
		delete(after.Annotations, annotationLRP)
	}
	if err := r.dpuCluster.Patch(ctx, after, client.MergeFrom(before)); err != nil {
		return false, 0, fmt.Errorf("mark Node %s: %w", node.Name, err)
	}
	*node = *after
	return wanted, 0, nil
}

// claimants lists the VPCs that select a Node.
func claimants(vpcs *unstructured.UnstructuredList, node *corev1.Node) (claims []string, err error) {
	for i := range vpcs.Items {
		spec, err := readSpec[vpcSpec](&vpcs.Items[i])
		if err != nil {
			return nil, err
		}
		if wanted, err := selects(spec.NodeSelector, node.Labels, false); err != nil {
			return nil, err
		} else if wanted {
			claims = append(claims, vpcs.Items[i].GetNamespace()+"/"+vpcs.Items[i].GetName())
		}
	}
	return claims, nil
}

func (r *vpcController) delete(ctx context.Context, vpc *unstructured.Unstructured, networks []*unstructured.Unstructured, report *report) error {
	if len(networks) > 0 {
		report.condition(conditionVPCReconciled, false, reasonAwaitingDeletion, "waiting for DPUVirtualNetworks to be deleted")
		return nil
	}
	mark := vpcMark(vpc)
	nodes := &corev1.NodeList{}
	if err := r.dpuCluster.List(ctx, nodes, client.MatchingLabels{labelNodeVPC: mark}); err != nil {
		return fmt.Errorf("list Nodes: %w", err)
	}
	for i := range nodes.Items {
		after := nodes.Items[i].DeepCopy()
		delete(after.Labels, labelNodeVPC)
		delete(after.Annotations, annotationLRP)
		if err := r.dpuCluster.Patch(ctx, after, client.MergeFrom(&nodes.Items[i])); err != nil {
			return fmt.Errorf("unmark Node %s: %w", after.Name, err)
		}
	}
	err := r.northbound(ctx, func(ctx context.Context, ovn OVN) error { return ovn.RemoveVPC(ctx, vpc.GetNamespace(), vpc.GetName()) })
	if err != nil {
		report.condition(conditionTopology, false, reasonError, err.Error())
		return err
	}
	r.plane.setTopology(mark, nil, false)
	return dropFinalizer(ctx, r.management, vpc, finalizerVPC)
}
