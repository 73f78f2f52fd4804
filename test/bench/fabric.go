// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// proofLifetime outlives every scenario: renewing proofs is the fabric wing's work.
const proofLifetime = time.Hour

// fabric proves whatever is asked for as soon as it sees it.
type fabric struct {
	client client.Client
}

func (f *fabric) setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("fabric").For(&infrav1.DPUAttachment{}).
		WithOptions(controller.Options{MaxConcurrentReconciles: 20}).Complete(f)
}

// Reconcile implements reconcile.Reconciler.
func (f *fabric) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	a := &infrav1.DPUAttachment{}
	if err := f.client.Get(ctx, request.NamespacedName, a); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	base := a.DeepCopy()
	if !a.DeletionTimestamp.IsZero() {
		if a.Status.State == infrav1.AttachmentStateDetached && controllerutil.RemoveFinalizer(a, infrav1.DPUAttachmentFinalizer) {
			return ctrl.Result{}, client.IgnoreNotFound(f.client.Patch(ctx, a, client.MergeFrom(base)))
		}
		return ctrl.Result{}, nil
	}
	if controllerutil.AddFinalizer(a, infrav1.DPUAttachmentFinalizer) {
		if err := f.client.Patch(ctx, a, client.MergeFrom(base)); err != nil {
			return ctrl.Result{}, client.IgnoreNotFound(err)
		}
		base = a.DeepCopy()
	}
	if a.Status.State == a.Spec.State && a.Status.ObservedGeneration == a.Generation {
		return ctrl.Result{}, nil
	}
	prove(a)
	return ctrl.Result{}, client.IgnoreNotFound(f.client.Status().Patch(ctx, a, client.MergeFrom(base)))
}

func prove(a *infrav1.DPUAttachment) {
	now := time.Now()
	a.Status.State, a.Status.ObservedGeneration = a.Spec.State, a.Generation
	a.Status.TokenHash = maas.TokenHash(a.Spec.Server.Token)
	a.Status.PortIsolation = infrav1.PortIsolationAsserted
	a.Status.ValidUntil = &metav1.Time{Time: now.Add(proofLifetime)}
	attached := metav1.Condition{Type: infrav1.AttachedCondition, Status: metav1.ConditionFalse, Reason: infrav1.DetachedReason}
	a.Status.Ports = nil
	if a.Spec.State == infrav1.AttachmentStateAttached {
		attached.Status, attached.Reason = metav1.ConditionTrue, infrav1.AttachedReason
		for _, port := range a.Spec.Ports {
			a.Status.Ports = append(a.Status.Ports, infrav1.AttachmentPortStatus{Name: port.Name, State: a.Spec.State, Address: "10.64.0.2"})
		}
	}
	conditions.Set(a, attached)
	conditions.Set(a, metav1.Condition{Type: infrav1.ReadyCondition, Status: metav1.ConditionTrue, Reason: infrav1.ReadyReason})
}
