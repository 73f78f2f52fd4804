// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package tenantvpc

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
)

// act takes the one step of a pass. Each write holds only for the object as it was observed: where it has changed since, or
// appeared or gone, nothing is done and the next pass observes anew.
func (r *Reconciler) act(ctx context.Context, fabric *scope.Fabric, tenant *infrav1.TenantVPC, step *step) error {
	kind := "object"
	if gvk, err := apiutil.GVKForObject(step.object, fabric.DPF.Scheme()); err == nil {
		kind = gvk.Kind
	}
	doing := fmt.Sprintf("%s %s %s", step.verb, kind, step.object.GetName())

	var err error
	switch step.verb {
	case create:
		err = fabric.DPF.Create(ctx, step.object)
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
	case remove:
		err = fabric.DPF.Delete(ctx, step.object, client.Preconditions{
			UID: ptr.To(step.object.GetUID()), ResourceVersion: ptr.To(step.object.GetResourceVersion()),
		})
	case setInterNetworkAccess:
		err = patchInterNetworkAccess(ctx, fabric.DPF, step.object, ptr.Deref(tenant.Spec.InterNetworkAccess, false))
	}
	switch {
	case err == nil:
		ctrl.LoggerFrom(ctx).Info("Changed the fabric", "step", string(step.verb), "kind", kind, "object", step.object.GetName())
		r.Recorder.Eventf(tenant, nil, corev1.EventTypeNormal, "FabricChanged", string(step.verb), "%s on fabric %s", doing, fabric.Object.Name)
		return nil
	case apierrors.IsConflict(err) || apierrors.IsNotFound(err):
		return nil
	default:
		return scope.FabricError(fabric.Object.Name, doing, err)
	}
}

func patchInterNetworkAccess(ctx context.Context, dpf client.Client, object client.Object, value bool) error {
	operations := []map[string]any{
		{"op": "test", "path": "/metadata/resourceVersion", "value": object.GetResourceVersion()},
		{"op": "replace", "path": "/spec/interNetworkAccess", "value": value},
	}
	data, err := json.Marshal(operations)
	if err != nil {
		return fmt.Errorf("write the patch of DPUVPC %s: %w", object.GetName(), err)
	}
	target := &vpcv1alpha1.DPUVPC{}
	target.Namespace, target.Name = object.GetNamespace(), object.GetName()
	return dpf.Patch(ctx, target, client.RawPatch(types.JSONPatchType, data))
}
