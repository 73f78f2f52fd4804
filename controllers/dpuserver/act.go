// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuserver

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/cluster-api/util/conditions"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// act makes a DPUServer for each server seen for the first time, and reports on all.
func (r *Reconciler) act(ctx context.Context, o *observation) error {
	var failures []error
	for i := range o.servers {
		s := &o.servers[i]
		if s.object == nil && !o.fabric.DeletionTimestamp.IsZero() {
			continue // Its memory is being taken down.
		}
		if s.object == nil {
			if problems := validation.IsDNS1123Subdomain(s.name()); len(problems) > 0 {
				ctrl.LoggerFrom(ctx).Info("The label of a DPUNode is no system ID, the server is ignored", "source", s.source, "value", s.systemID)
				continue
			}
			object, err := r.create(ctx, o.fabric, s)
			if err != nil {
				failures = append(failures, err)
				continue
			}
			s.object = object
		}
		if s.object != nil {
			failures = append(failures, r.report(ctx, o, s))
		}
	}
	return errors.Join(failures...)
}

// create makes the object, or reads the one that is there and that the cache does not know yet. It returns nil without an error
// if the name is taken by another fabric's server.
func (r *Reconciler) create(ctx context.Context, fabric *infrav1.DPUFabric, s *server) (*infrav1.DPUServer, error) {
	object := &infrav1.DPUServer{
		ObjectMeta: metav1.ObjectMeta{
			Name:   s.name(),
			Labels: map[string]string{infrav1.DPUServerSourceLabel: s.source},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: infrav1.GroupVersion.String(), Kind: "DPUFabric", Name: fabric.Name, UID: fabric.UID,
			}},
		},
		Spec: infrav1.DPUServerSpec{FabricName: fabric.Name, Source: s.source, SystemID: s.systemID},
	}
	if len(validation.IsValidLabelValue(fabric.Name)) == 0 {
		object.Labels[infrav1.DPUServerFabricLabel] = fabric.Name
	}
	switch err := r.Client.Create(ctx, object); {
	case apierrors.IsAlreadyExists(err):
		existing := &infrav1.DPUServer{}
		if err := r.APIReader.Get(ctx, client.ObjectKey{Name: s.name()}, existing); err != nil {
			return nil, client.IgnoreNotFound(err)
		}
		if existing.Spec.FabricName != fabric.Name {
			ctrl.LoggerFrom(ctx).Info("The server is another fabric's already", "DPUServer", s.name(), "DPUFabric", existing.Spec.FabricName)
			return nil, nil
		}
		return existing, nil
	case err != nil:
		return nil, fmt.Errorf("create DPUServer %s: %w", s.name(), err)
	}
	r.Recorder.Eventf(object, nil, corev1.EventTypeNormal, "FirstSeen", "Create", "server %s of source %s was seen for the first time", s.systemID, s.source)
	return object, nil
}

// report patches the status if anything changed, or if what it says is getting old.
func (r *Reconciler) report(ctx context.Context, o *observation, s *server) error {
	next := s.object.DeepCopy()
	describeServer(next, judge(s, r.Installation, o.now))
	if !refresh(s.object, next, o) {
		return nil
	}
	if err := r.Client.Status().Patch(ctx, next, client.MergeFrom(s.object)); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("report on DPUServer %s: %w", s.name(), err)
	}
	r.tell(s.object, next)
	return nil
}

// tell records events of what became different by a status that is stored: that the cards are others than those pinned, and that
// an operator had them pinned anew.
func (r *Reconciler) tell(before, after *infrav1.DPUServer) {
	was, is := conditions.GetReason(before, infrav1.ReadyCondition), conditions.Get(after, infrav1.ReadyCondition)
	if is == nil || was == is.Reason {
		return
	}
	switch {
	case is.Reason == infrav1.BindingChangedReason:
		r.Recorder.Eventf(after, nil, corev1.EventTypeWarning, is.Reason, "Bind", "%s", is.Message)
	case is.Reason == infrav1.OverriddenReason && after.Status.Rebound != nil:
		r.Recorder.Eventf(after, nil, corev1.EventTypeNormal, is.Reason, "Bind", "%s has the binding follow what is found: %s",
			after.Status.Rebound.By, after.Status.Rebound.Reason)
	}
}
