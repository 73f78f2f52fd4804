// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachinetemplate

import (
	"context"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// templateChanged ignores the writes of this controller.
func templateChanged() predicate.Predicate {
	return predicate.Funcs{
		DeleteFunc: func(event.DeleteEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			return e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() ||
				!equality.Semantic.DeepEqual(e.ObjectOld.GetOwnerReferences(), e.ObjectNew.GetOwnerReferences()) ||
				!equality.Semantic.DeepEqual(e.ObjectOld.GetAnnotations(), e.ObjectNew.GetAnnotations()) ||
				!equality.Semantic.DeepEqual(e.ObjectOld.GetLabels(), e.ObjectNew.GetLabels())
		},
	}
}

func clusterChanged() predicate.Predicate {
	return predicate.Funcs{
		DeleteFunc: func(event.DeleteEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, ok1 := e.ObjectOld.(*clusterv1.Cluster)
			after, ok2 := e.ObjectNew.(*clusterv1.Cluster)
			return ok1 && ok2 && (ptr.Deref(before.Spec.Paused, false) != ptr.Deref(after.Spec.Paused, false) ||
				before.Spec.InfrastructureRef != after.Spec.InfrastructureRef)
		},
	}
}

// identityChanged lets through what may change the answer: other rights, another account, other servers held.
func identityChanged() predicate.Predicate {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, ok1 := e.ObjectOld.(*infrav1.MaasClusterIdentity)
			after, ok2 := e.ObjectNew.(*infrav1.MaasClusterIdentity)
			return ok1 && ok2 && (before.Generation != after.Generation ||
				conditions.IsTrue(before, infrav1.ReadyCondition) != conditions.IsTrue(after, infrav1.ReadyCondition) ||
				!equality.Semantic.DeepEqual(before.Status.Held, after.Status.Held))
		},
	}
}

func (r *Reconciler) templatesOfCluster(ctx context.Context, object client.Object) []ctrl.Request {
	return r.templates(ctx, object.GetNamespace(), map[string]bool{object.GetName(): true})
}

func (r *Reconciler) templatesOfMaasCluster(ctx context.Context, object client.Object) []ctrl.Request {
	return r.templates(ctx, object.GetNamespace(), r.clusters(ctx, object.GetNamespace(), map[string]bool{object.GetName(): true}))
}

func (r *Reconciler) templatesOfIdentity(ctx context.Context, object client.Object) []ctrl.Request {
	list := &infrav1.MaasClusterList{}
	if err := r.Client.List(ctx, list); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Cannot list MaasClusters")
		return nil
	}
	namespaces := map[string]map[string]bool{}
	for i := range list.Items {
		c := &list.Items[i]
		if c.Spec.IdentityRef.Name != object.GetName() {
			continue
		}
		if namespaces[c.Namespace] == nil {
			namespaces[c.Namespace] = map[string]bool{}
		}
		namespaces[c.Namespace][c.Name] = true
	}
	var requests []ctrl.Request
	for namespace, names := range namespaces {
		requests = append(requests, r.templates(ctx, namespace, r.clusters(ctx, namespace, names))...)
	}
	return requests
}

// clusters are the names of the Clusters whose infrastructure the named MaasClusters are, whether or not they own them already.
func (r *Reconciler) clusters(ctx context.Context, namespace string, maasClusters map[string]bool) map[string]bool {
	list := &clusterv1.ClusterList{}
	if err := r.Client.List(ctx, list, client.InNamespace(namespace)); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Cannot list Clusters")
		return nil
	}
	names := map[string]bool{}
	for i := range list.Items {
		if ref := list.Items[i].Spec.InfrastructureRef; ref.Kind == "MaasCluster" && maasClusters[ref.Name] {
			names[list.Items[i].Name] = true
		}
	}
	return names
}

// templates are those of the named Clusters.
func (r *Reconciler) templates(ctx context.Context, namespace string, clusters map[string]bool) []ctrl.Request {
	list := &infrav1.MaasMachineTemplateList{}
	if err := r.Client.List(ctx, list, client.InNamespace(namespace)); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Cannot list MaasMachineTemplates")
		return nil
	}
	var requests []ctrl.Request
	for i := range list.Items {
		if owner := ownerName(&list.Items[i]); owner != "" && clusters[owner] {
			requests = append(requests, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}

// ownerName is the name of the Cluster that owns an object; empty if none does.
func ownerName(object metav1.Object) string {
	for _, ref := range object.GetOwnerReferences() {
		if version, err := schema.ParseGroupVersion(ref.APIVersion); err == nil && version.Group == clusterv1.GroupVersion.Group && ref.Kind == "Cluster" {
			return ref.Name
		}
	}
	return ""
}
