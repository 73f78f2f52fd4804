// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"context"
	"fmt"
	"hash/fnv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

const (
	conditionSIsReconciled = "ServiceInterfacesReconciled"
	conditionSIsReady      = "ServiceInterfacesReady"
)

// setController makes one ServiceInterface on each Node its set selects.
type setController struct{ world }

func setupSIS(mgr manager.Manager, w world) error {
	r := &setController{w}
	remote := w.remote.GetCache()
	self := &handler.TypedEnqueueRequestForObject[*unstructured.Unstructured]{}
	ofInterface := handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, si *unstructured.Unstructured) []reconcile.Request {
		labels := si.GetLabels()
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: labels[labelSetNamespace], Name: labels[labelSetName]}}}
	})
	// Both what a Node was and what it is now comes by here: only sets that want or wanted it are concerned.
	ofNode := handler.TypedEnqueueRequestsFromMapFunc(func(ctx context.Context, node *corev1.Node) (requests []reconcile.Request) {
		list := newList(kindSIS)
		if err := w.dpuCluster.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			w.log.Error(err, "list ServiceInterfaceSets")
			return nil
		}
		for i := range list.Items {
			spec, err := readSpec[setSpec](&list.Items[i])
			if err != nil {
				continue
			}
			if wanted, err := selects(spec.NodeSelector, node.Labels, true); err == nil && wanted {
				requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
			}
		}
		return requests
	})
	return w.controller(mgr, ControllerServiceInterfaceSet).
		WatchesRawSource(source.Kind(remote, newObject(kindSIS), self)).
		WatchesRawSource(source.Kind(remote, newObject(kindSI), ofInterface)).
		WatchesRawSource(source.Kind(remote, &corev1.Node{}, ofNode, predicate.TypedLabelChangedPredicate[*corev1.Node]{})).
		Complete(w.played(ControllerServiceInterfaceSet, r.reconcile))
}

func (r *setController) reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	set := newObject(kindSIS)
	if err := r.dpuCluster.Get(ctx, request.NamespacedName, set); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	interfaces := newList(kindSI)
	err := r.dpuCluster.List(ctx, interfaces, client.InNamespace(set.GetNamespace()),
		client.MatchingLabels{labelSetName: set.GetName(), labelSetNamespace: set.GetNamespace()})
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("list ServiceInterfaces: %w", err)
	}
	if set.GetDeletionTimestamp() != nil {
		return reconcile.Result{}, r.delete(ctx, set, interfaces)
	}
	if added, err := addFinalizer(ctx, r.dpuCluster, set, finalizerSIS); added || err != nil {
		return reconcile.Result{}, err
	}
	report := newReport(r.clock, set)
	report.ensure(conditionSIsReconciled, conditionSIsReady)
	result, err := r.spread(ctx, set, interfaces, report)
	report.summarize(conditionSIsReconciled, conditionSIsReady)
	if e := report.write(ctx, r.dpuCluster); e != nil && err == nil {
		err = e
	}
	return result, err
}

func (r *setController) delete(ctx context.Context, set *unstructured.Unstructured, interfaces *unstructured.UnstructuredList) error {
	for i := range interfaces.Items {
		if err := r.deleteInterface(ctx, &interfaces.Items[i]); err != nil {
			return err
		}
	}
	if len(interfaces.Items) > 0 {
		return nil // their end triggers the next pass
	}
	return dropFinalizer(ctx, r.dpuCluster, set, finalizerSIS)
}

func (r *setController) deleteInterface(ctx context.Context, si *unstructured.Unstructured) error {
	if si.GetDeletionTimestamp() != nil {
		return nil
	}
	if err := client.IgnoreNotFound(r.dpuCluster.Delete(ctx, si)); err != nil {
		return fmt.Errorf("delete ServiceInterface %s: %w", si.GetName(), err)
	}
	return nil
}

// spread makes what is missing and deletes what is too much.
func (r *setController) spread(ctx context.Context, set *unstructured.Unstructured, interfaces *unstructured.UnstructuredList, report *report) (reconcile.Result, error) {
	spec, err := readSpec[setSpec](set)
	if err != nil {
		return reconcile.Result{}, err
	}
	if done, err := r.mode(ctx, set, report); !done || err != nil {
		return reconcile.Result{}, err
	}
	nodes := &corev1.NodeList{}
	if err := r.dpuCluster.List(ctx, nodes, client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, fmt.Errorf("list Nodes: %w", err)
	}
	present := map[string]*unstructured.Unstructured{}
	for i := range interfaces.Items {
		si := &interfaces.Items[i]
		node, _, err := unstructured.NestedString(si.Object, "spec", "node")
		if err != nil {
			return reconcile.Result{}, fmt.Errorf("ServiceInterface %s: %w", si.GetName(), err)
		}
		present[node] = si
	}
	var result reconcile.Result
	var applied int64
	for i := range nodes.Items {
		node := &nodes.Items[i]
		wanted, err := selects(spec.NodeSelector, node.Labels, true)
		if err != nil {
			return reconcile.Result{}, err
		}
		if !wanted {
			r.pace.forget(r.paceKey(set, node))
			continue
		}
		applied++
		left, err := r.on(ctx, set, node, present[node.Name], spec)
		if err != nil {
			return reconcile.Result{}, err
		}
		if left > 0 && (result.RequeueAfter == 0 || left < result.RequeueAfter) {
			result.RequeueAfter = left
		}
		delete(present, node.Name)
	}
	for _, si := range present {
		if err := r.deleteInterface(ctx, si); err != nil {
			return reconcile.Result{}, err
		}
	}
	// numberReady exists, but DPF never fills it.
	report.set(applied, "numberApplied")
	report.succeed(conditionSIsReconciled)
	report.succeed(conditionSIsReady)
	return result, nil
}

func (r *setController) paceKey(set *unstructured.Unstructured, node *corev1.Node) string {
	return "si/" + string(set.GetUID()) + "/" + node.Name
}

// mode writes and obeys the annotation that decides between ServiceInterface objects and entries of one object per Node,
// which later releases have. The entries are not played: a set that asks for them says so.
func (r *setController) mode(ctx context.Context, set *unstructured.Unstructured, report *report) (legacy bool, err error) {
	if r.labelPlace() != LabelsOnDPUDevice {
		return true, nil
	}
	switch set.GetAnnotations()[annotationInterfaceMode] {
	case "legacy":
		return true, nil
	case "":
		return false, annotate(ctx, r.dpuCluster, set, map[string]string{annotationInterfaceMode: "legacy"})
	}
	report.condition(conditionSIsReconciled, false, reasonError, "the simulator knows interface-mode legacy only")
	return false, nil
}

// on makes the set's interface on a Node, or brings it up to date; left is what remains of the time that takes.
func (r *setController) on(ctx context.Context, set *unstructured.Unstructured, node *corev1.Node, present *unstructured.Unstructured, spec setSpec) (left time.Duration, err error) {
	template, _, err := unstructured.NestedMap(set.Object, "spec", "template", "spec")
	if err != nil {
		return 0, fmt.Errorf("interface template: %w", err)
	}
	template["node"] = node.Name
	if present != nil {
		if present.GetDeletionTimestamp() != nil || equality.Semantic.DeepEqual(present.Object["spec"], any(template)) {
			return 0, nil
		}
		after := present.DeepCopy()
		after.Object["spec"] = template
		return 0, r.dpuCluster.Patch(ctx, after, client.MergeFrom(present))
	}
	if left := r.pace.wait(r.paceKey(set, node), r.options.Timing.SIApply); left > 0 {
		return left, nil
	}
	si := newObject(kindSI)
	si.SetNamespace(set.GetNamespace())
	si.SetName(interfaceName(set, node.Name))
	labels := map[string]string{}
	for key, value := range spec.Template.Metadata.Labels {
		labels[key] = value
	}
	labels[labelSetName], labels[labelSetNamespace] = set.GetName(), set.GetNamespace()
	si.SetLabels(labels)
	si.SetAnnotations(spec.Template.Metadata.Annotations)
	si.Object["spec"] = template
	if err := r.dpuCluster.Create(ctx, si); err != nil {
		return 0, fmt.Errorf("create ServiceInterface: %w", err)
	}
	return 0, nil
}

// interfaceName cannot be computed from names alone, as it cannot with DPF.
func interfaceName(set *unstructured.Unstructured, node string) string {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(string(set.GetUID()) + "/" + node))
	return fmt.Sprintf("%.54s-%08x", set.GetName(), hash.Sum32())
}
