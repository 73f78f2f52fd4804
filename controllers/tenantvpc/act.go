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
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
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
		err = patchObject(ctx, fabric.DPF, step.object, &vpcv1alpha1.DPUVPC{},
			operation{Op: "replace", Path: "/spec/interNetworkAccess", Value: ptr.Deref(tenant.Spec.InterNetworkAccess, false)})
	case restore:
		err = patchObject(ctx, fabric.DPF, step.object, &svcv1alpha1.DPUServiceInterface{}, restoring(step.desired)...)
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

// operation of a JSON patch.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// restoring sets back all of an interface that DPF lets anybody change after the fact.
func restoring(desired *svcv1alpha1.DPUServiceInterface) []operation {
	const set = "/spec/template/spec"
	return []operation{
		{Op: "add", Path: set + "/nodeSelector", Value: desired.Spec.Template.Spec.NodeSelector},
		{Op: "add", Path: set + "/template/spec/pf/pfID", Value: desired.Spec.Template.Spec.Template.Spec.PF.ID},
	}
}

// patchObject changes an object only if it is exactly as it was observed. Into receives what became of it.
func patchObject(ctx context.Context, dpf client.Client, object, into client.Object, operations ...operation) error {
	operations = append([]operation{{Op: "test", Path: "/metadata/resourceVersion", Value: object.GetResourceVersion()}}, operations...)
	data, err := json.Marshal(operations)
	if err != nil {
		return fmt.Errorf("write the patch of %s: %w", object.GetName(), err)
	}
	into.SetNamespace(object.GetNamespace())
	into.SetName(object.GetName())
	return dpf.Patch(ctx, into, client.RawPatch(types.JSONPatchType, data))
}
