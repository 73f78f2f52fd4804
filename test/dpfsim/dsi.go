// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

const (
	conditionPreReqs       = "ServiceInterfacePreReqsReady"
	conditionSetReconciled = "ServiceInterfaceSetReconciled"
	conditionSetReady      = "ServiceInterfaceSetReady"
)

var errUnreachable = errors.New("the DPU cluster does not answer")

// dsiController turns a DPUServiceInterface into a ServiceInterfaceSet in the DPU cluster.
type dsiController struct{ world }

func setupDSI(mgr manager.Manager, w world) error {
	r := &dsiController{w}
	all := handler.EnqueueRequestsFromMapFunc(r.inNamespaceOf)
	ofSet := handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, set *unstructured.Unstructured) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: client.ObjectKeyFromObject(set)}}
	})
	return w.controller(mgr, ControllerDPUServiceInterface).
		For(newObject(kindDSI)).
		Watches(newObject(kindVirtualNetwork), all, onCreation()).
		Watches(newObject(kindVPC), all, onCreation()).
		Watches(newObject(kindIsolationClass), all, onCreation()).
		Watches(newObject(kindDPUCluster), all).
		WatchesRawSource(source.Kind(w.remote.GetCache(), newObject(kindSIS), ofSet)).
		Complete(w.played(ControllerDPUServiceInterface, r.reconcile))
}

// onCreation lets a watch notice what appears, not what changes or goes.
func onCreation() builder.WatchesOption {
	return builder.WithPredicates(predicate.Funcs{
		UpdateFunc: func(event.UpdateEvent) bool { return false }, DeleteFunc: func(event.DeleteEvent) bool { return false },
	})
}

// inNamespaceOf asks for the interfaces in the object's namespace, or in all for what belongs to none or to DPF.
func (r *dsiController) inNamespaceOf(ctx context.Context, object client.Object) (requests []reconcile.Request) {
	list := newList(kindDSI)
	namespace := object.GetNamespace()
	if namespace == r.options.Namespace {
		namespace = ""
	}
	if err := r.management.List(ctx, list, client.InNamespace(namespace)); err != nil {
		r.log.Error(err, "list DPUServiceInterfaces")
		return nil
	}
	for i := range list.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}
	return requests
}

func (r *dsiController) reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	dsi := newObject(kindDSI)
	if err := r.management.Get(ctx, request.NamespacedName, dsi); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	report := newReport(r.clock, dsi)
	report.ensure(conditionPreReqs, conditionSetReconciled, conditionSetReady)
	result, err := r.reconcileWith(ctx, dsi, report)
	report.summarize(conditionPreReqs, conditionSetReconciled, conditionSetReady)
	if e := report.write(ctx, r.management); e != nil && err == nil {
		err = e
	}
	return result, err
}

func (r *dsiController) reconcileWith(ctx context.Context, dsi *unstructured.Unstructured, report *report) (reconcile.Result, error) {
	if dsi.GetDeletionTimestamp() != nil {
		return r.delete(ctx, dsi, report)
	}
	if added, err := addFinalizer(ctx, r.management, dsi, finalizerDSI); added || err != nil {
		return reconcile.Result{}, err
	}
	spec, err := readSpec[dsiSpec](dsi)
	if err != nil {
		return reconcile.Result{}, err
	}
	provisioner, missing, err := r.prerequisites(ctx, dsi.GetNamespace(), spec)
	if err != nil {
		return reconcile.Result{}, err
	}
	if missing != "" {
		report.condition(conditionPreReqs, false, reasonPending, "waiting for creation of "+missing)
		return reconcile.Result{}, nil
	}
	if provisioner != "" && spec.Template.Metadata.Labels[labelProvisioner] != provisioner {
		return reconcile.Result{}, r.stampProvisioner(ctx, dsi, provisioner)
	}
	report.succeed(conditionPreReqs)
	if left := r.pace.wait("dsi/"+string(dsi.GetUID()), r.options.Timing.SIApply); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	return r.applySet(ctx, dsi, spec, report)
}

// prerequisites returns the provisioner of the interface's network, "" without one, or what is missing.
func (r *dsiController) prerequisites(ctx context.Context, namespace string, spec dsiSpec) (provisioner, missing string, err error) {
	name := spec.Template.Spec.Template.Spec.virtualNetwork()
	if name == "" {
		return "", "", nil
	}
	related, missing, err := relatedTo(ctx, r.management, namespace, name)
	if err != nil || missing != "" {
		return "", missing, err
	}
	return related.provisioner, "", nil
}

// stampProvisioner edits the user's object, as DPF does; the change triggers the next pass.
func (r *dsiController) stampProvisioner(ctx context.Context, dsi *unstructured.Unstructured, provisioner string) error {
	after := dsi.DeepCopy()
	if err := unstructured.SetNestedField(after.Object, provisioner, "spec", "template", "metadata", "labels", labelProvisioner); err != nil {
		return fmt.Errorf("label template: %w", err)
	}
	return r.management.Patch(ctx, after, client.MergeFrom(dsi))
}

// applySet makes the set in every selected cluster and removes it from others.
func (r *dsiController) applySet(ctx context.Context, dsi *unstructured.Unstructured, spec dsiSpec, report *report) (reconcile.Result, error) {
	if down, err := r.unreachable(ctx); err != nil || down {
		report.condition(conditionSetReconciled, false, reasonError, errUnreachable.Error())
		return reconcile.Result{RequeueAfter: r.options.Timing.DSIPoll}, err
	}
	cluster := newObject(kindDPUCluster)
	if err := r.management.Get(ctx, types.NamespacedName{Namespace: r.options.Namespace, Name: r.options.DPUClusterName}, cluster); err != nil {
		return reconcile.Result{}, fmt.Errorf("get DPUCluster: %w", err)
	}
	selector := spec.DPUClusterSelector
	if selector == nil {
		selector = spec.ClusterSelector
	}
	selected, err := selects(selector, cluster.GetLabels(), true)
	if err != nil {
		return reconcile.Result{}, err
	}
	if !selected {
		set := newObject(kindSIS)
		set.SetNamespace(dsi.GetNamespace())
		set.SetName(dsi.GetName())
		if err := client.IgnoreNotFound(r.dpuCluster.Delete(ctx, set)); err != nil {
			return reconcile.Result{}, fmt.Errorf("delete stray set: %w", err)
		}
		report.succeed(conditionSetReconciled)
		report.succeed(conditionSetReady)
		return reconcile.Result{}, nil
	}
	set, err := r.apply(ctx, dsi, spec)
	if err != nil {
		report.condition(conditionSetReconciled, false, reasonError, err.Error())
		return reconcile.Result{}, err
	}
	report.succeed(conditionSetReconciled)
	if conditionTrue(set, "Ready") {
		report.succeed(conditionSetReady)
	} else {
		report.condition(conditionSetReady, false, reasonPending, "ServiceInterfaceSet is not ready")
	}
	return reconcile.Result{}, nil
}

func (r *dsiController) apply(ctx context.Context, dsi *unstructured.Unstructured, spec dsiSpec) (*unstructured.Unstructured, error) {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: dsi.GetNamespace()}}
	if err := create(ctx, r.dpuCluster, namespace); err != nil {
		return nil, err
	}
	set := newObject(kindSIS)
	set.SetNamespace(dsi.GetNamespace())
	set.SetName(dsi.GetName())
	set.SetLabels(spec.Template.Metadata.Labels)
	set.SetAnnotations(spec.Template.Metadata.Annotations)
	setSpec, _, err := unstructured.NestedMap(dsi.Object, "spec", "template", "spec")
	if err != nil {
		return nil, fmt.Errorf("set template: %w", err)
	}
	set.Object["spec"] = setSpec
	err = r.dpuCluster.Apply(ctx, client.ApplyConfigurationFromUnstructured(set), client.ForceOwnership, client.FieldOwner("dpuserviceinterfacecontroller"))
	if err != nil {
		return nil, fmt.Errorf("apply ServiceInterfaceSet: %w", err)
	}
	r.journal.note(true, set)
	return set, nil
}

// unreachable says whether any DPUCluster does not answer: DPF walks them all, also those no interface selects.
func (r *dsiController) unreachable(ctx context.Context) (bool, error) {
	if r.faults.has(DPUClusterUnreachable, "") {
		return true, nil
	}
	list := newList(kindDPUCluster)
	if err := r.management.List(ctx, list); err != nil {
		return false, fmt.Errorf("list DPUClusters: %w", err)
	}
	for i := range list.Items {
		if list.Items[i].GetName() != r.options.DPUClusterName && !conditionTrue(&list.Items[i], "Ready") {
			return true, nil
		}
	}
	return false, nil
}

// delete removes the set and looks every now and then whether it is gone.
func (r *dsiController) delete(ctx context.Context, dsi *unstructured.Unstructured, report *report) (reconcile.Result, error) {
	poll := reconcile.Result{RequeueAfter: r.options.Timing.DSIPoll}
	if down, err := r.unreachable(ctx); err != nil || down {
		report.condition(conditionSetReconciled, false, reasonError, errUnreachable.Error())
		return poll, err
	}
	set := newObject(kindSIS)
	err := r.dpuCluster.Get(ctx, client.ObjectKeyFromObject(dsi), set)
	if apierrors.IsNotFound(err) {
		if r.hadSet(report) && r.pace.wait("dsi-gone/"+string(dsi.GetUID()), r.options.Timing.DSIPoll) > 0 {
			return poll, nil
		}
		return reconcile.Result{}, dropFinalizer(ctx, r.management, dsi, finalizerDSI)
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("get ServiceInterfaceSet: %w", err)
	}
	if set.GetDeletionTimestamp() == nil {
		if err := client.IgnoreNotFound(r.dpuCluster.Delete(ctx, set)); err != nil {
			return reconcile.Result{}, fmt.Errorf("delete ServiceInterfaceSet: %w", err)
		}
	}
	report.condition(conditionSetReconciled, false, reasonAwaitingDeletion, "waiting for ServiceInterfaceSets to be deleted")
	return poll, nil
}

// hadSet says whether this deletion waited for a set, which it notices gone only at the next poll.
func (r *dsiController) hadSet(report *report) bool {
	for _, c := range conditionsOf(report.before, "conditions") {
		if c.Type == conditionSetReconciled && c.Reason == reasonAwaitingDeletion {
			return true
		}
	}
	return false
}

// related are the objects a virtual network hangs on.
type related struct {
	network, vpc *unstructured.Unstructured
	networkSpec  virtualNetworkSpec
	vpcSpec      vpcSpec
	provisioner  string
}

// relatedTo looks up a virtual network, its VPC and its class; missing names the first that is not there.
func relatedTo(ctx context.Context, c client.Client, namespace, name string) (r related, missing string, err error) {
	r.network, r.vpc = newObject(kindVirtualNetwork), newObject(kindVPC)
	if missing, err = find(ctx, c, r.network, namespace, name); err != nil || missing != "" {
		return r, missing, err
	}
	if r.networkSpec, err = readSpec[virtualNetworkSpec](r.network); err != nil {
		return r, "", err
	}
	if missing, err = find(ctx, c, r.vpc, namespace, r.networkSpec.VPCName); err != nil || missing != "" {
		return r, missing, err
	}
	if r.vpcSpec, err = readSpec[vpcSpec](r.vpc); err != nil {
		return r, "", err
	}
	class := newObject(kindIsolationClass)
	if missing, err = find(ctx, c, class, "", r.vpcSpec.IsolationClassName); err != nil || missing != "" {
		return r, missing, err
	}
	r.provisioner, _, err = unstructured.NestedString(class.Object, "spec", "provisioner")
	return r, "", err
}

func find(ctx context.Context, c client.Client, object *unstructured.Unstructured, namespace, name string) (missing string, err error) {
	err = c.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, object)
	if apierrors.IsNotFound(err) {
		return object.GetKind() + " " + name, nil
	}
	return "", err
}
