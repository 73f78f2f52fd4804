// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package webhooks

import (
	"context"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	clusterctlv1 "sigs.k8s.io/cluster-api/cmd/clusterctl/api/v1alpha3"
	"sigs.k8s.io/cluster-api/util/topology"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// verdict collects what is to be said about one object.
type verdict struct {
	warnings admission.Warnings
	refusals field.ErrorList
}

func (v *verdict) warn(path *field.Path, format string, args ...any) {
	v.warnings = append(v.warnings, fmt.Sprintf("%s: %s", path, fmt.Sprintf(format, args...)))
}

func (v *verdict) refuse(refusals ...*field.Error) {
	v.refusals = append(v.refusals, refusals...)
}

// validator makes the checks of one kind. Either function may be nil.
type validator[T client.Object] struct {
	kind string

	// check judges object; old is nil when it is created. It judges what changed only, so that an object which was admitted
	// under other rules can still be labelled, finalized and moved. Its error says that the question could not be answered.
	check func(ctx context.Context, old, object T, v *verdict) error

	// remove judges a deletion.
	remove func(ctx context.Context, object T, v *verdict) error
}

var _ admission.Validator[*infrav1.MaasCluster] = &validator[*infrav1.MaasCluster]{}

// ValidateCreate implements admission.Validator.
func (w *validator[T]) ValidateCreate(ctx context.Context, object T) (admission.Warnings, error) {
	var none T
	return w.validate(ctx, none, object)
}

// ValidateUpdate implements admission.Validator.
func (w *validator[T]) ValidateUpdate(ctx context.Context, old, object T) (admission.Warnings, error) {
	if !object.GetDeletionTimestamp().IsZero() {
		return nil, nil
	}
	return w.validate(ctx, old, object)
}

// ValidateDelete implements admission.Validator. clusterctl move deletes at the source what lives on at the target: such an
// object may go whoever uses it.
func (w *validator[T]) ValidateDelete(ctx context.Context, object T) (admission.Warnings, error) {
	if _, moving := object.GetAnnotations()[clusterctlv1.DeleteForMoveAnnotation]; moving || w.remove == nil {
		return nil, nil
	}
	v := &verdict{}
	if err := w.remove(ctx, object, v); err != nil {
		return nil, w.unanswered(object, err)
	}
	if len(v.refusals) == 0 {
		return v.warnings, nil
	}
	sentences := make([]string, 0, len(v.refusals))
	for _, refusal := range v.refusals {
		sentences = append(sentences, refusal.Detail)
	}
	return v.warnings, errors.New(strings.Join(sentences, "; "))
}

func (w *validator[T]) validate(ctx context.Context, old, object T) (admission.Warnings, error) {
	request, err := admission.RequestFromContext(ctx)
	if err != nil {
		return nil, w.unanswered(object, err)
	}
	// The topology controller asks what an update would look like; nothing of it is stored.
	if topology.IsDryRunRequest(request, object) || w.check == nil {
		return nil, nil
	}
	v := &verdict{}
	if err := w.check(ctx, old, object, v); err != nil {
		return v.warnings, w.unanswered(object, err)
	}
	if len(v.refusals) == 0 {
		return v.warnings, nil
	}
	return v.warnings, apierrors.NewInvalid(infrav1.GroupVersion.WithKind(w.kind).GroupKind(), object.GetName(), v.refusals)
}

// unanswered fails closed: what could not be checked is not admitted, and the request may be repeated.
func (w *validator[T]) unanswered(object T, err error) error {
	return apierrors.NewInternalError(fmt.Errorf("check %s %s: %w", w.kind, client.ObjectKeyFromObject(object), err))
}
