// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
)

// Reasons DPF gives its conditions.
const (
	reasonSuccess          = "Success"
	reasonPending          = "Pending"
	reasonError            = "Error"
	reasonAwaitingDeletion = "AwaitingDeletion"
)

// report collects an object's new status and writes it in one patch, if anything changed.
type report struct {
	clock  clock.PassiveClock
	before *unstructured.Unstructured
	object *unstructured.Unstructured
}

func newReport(clk clock.PassiveClock, object *unstructured.Unstructured) *report {
	return &report{clock: clk, before: object.DeepCopy(), object: object.DeepCopy()}
}

func conditionsOf(object *unstructured.Unstructured, field string) []metav1.Condition {
	raw, _, err := unstructured.NestedSlice(object.Object, "status", field)
	if err != nil {
		return nil
	}
	var out struct {
		Conditions []metav1.Condition `json:"conditions"`
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(map[string]any{"conditions": raw}, &out); err != nil {
		return nil
	}
	return out.Conditions
}

// conditionTrue says whether the condition is True.
func conditionTrue(object *unstructured.Unstructured, conditionType string) bool {
	return meta.IsStatusConditionTrue(conditionsOf(object, "conditions"), conditionType)
}

func (r *report) condition(conditionType string, ok bool, reason, message string) {
	status := metav1.ConditionFalse
	if ok {
		status = metav1.ConditionTrue
	}
	r.conditionIn("conditions", conditionType, status, reason, message)
}

func (r *report) conditionIn(field, conditionType string, status metav1.ConditionStatus, reason, message string) {
	conditions := conditionsOf(r.object, field)
	meta.SetStatusCondition(&conditions, metav1.Condition{
		Type: conditionType, Status: status, Reason: reason, Message: message,
		ObservedGeneration: r.object.GetGeneration(), LastTransitionTime: metav1.Time{Time: r.clock.Now()},
	})
	out, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&struct {
		Conditions []metav1.Condition `json:"conditions"`
	}{conditions})
	if err == nil {
		r.set(out["conditions"], field)
	}
}

// ensure gives conditions that are not there yet the state DPF starts them with.
func (r *report) ensure(conditionTypes ...string) {
	for _, t := range conditionTypes {
		if meta.FindStatusCondition(conditionsOf(r.object, "conditions"), t) == nil {
			r.conditionIn("conditions", t, metav1.ConditionUnknown, reasonPending, "")
		}
	}
}

func (r *report) succeed(conditionType string) { r.condition(conditionType, true, reasonSuccess, "") }

// summarize sets Ready to True if the named conditions are, else to the first that is not.
func (r *report) summarize(conditionTypes ...string) {
	conditions := conditionsOf(r.object, "conditions")
	for _, t := range conditionTypes {
		c := meta.FindStatusCondition(conditions, t)
		if c == nil {
			r.condition("Ready", false, reasonPending, "waiting for "+t)
			return
		}
		if c.Status != metav1.ConditionTrue {
			r.condition("Ready", false, c.Reason, t+": "+c.Message)
			return
		}
	}
	r.succeed("Ready")
}

func (r *report) set(value any, path ...string) {
	status, ok := r.object.Object["status"].(map[string]any)
	if !ok {
		status = map[string]any{}
		r.object.Object["status"] = status
	}
	// The paths are literals below a map: the setter cannot refuse them.
	_ = unstructured.SetNestedField(status, value, path...)
}

var withoutObservedGeneration = map[schema.GroupVersionKind]bool{
	kindDPUDevice: true, kindDPUNode: true, kindDPUCluster: true, kindCredentialRequest: true,
}

// write patches the status subresource.
func (r *report) write(ctx context.Context, c client.Client) error {
	if kind := r.object.GroupVersionKind(); !withoutObservedGeneration[kind] {
		r.set(r.object.GetGeneration(), "observedGeneration")
	}
	if equality.Semantic.DeepEqual(r.before.Object["status"], r.object.Object["status"]) {
		return nil
	}
	data, err := json.Marshal(map[string]any{"status": r.object.Object["status"]})
	if err != nil {
		return fmt.Errorf("marshal status: %w", err)
	}
	target := r.object.DeepCopy()
	err = c.Status().Patch(ctx, target, client.RawPatch("application/merge-patch+json", data))
	return client.IgnoreNotFound(err)
}

// addFinalizer says whether it had to add it; the change triggers the next pass.
func addFinalizer(ctx context.Context, c client.Client, object client.Object, finalizer string) (bool, error) {
	before, after := copies(object)
	if !controllerutil.AddFinalizer(after, finalizer) {
		return false, nil
	}
	return true, c.Patch(ctx, after, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
}

func dropFinalizer(ctx context.Context, c client.Client, object client.Object, finalizer string) error {
	before, after := copies(object)
	if !controllerutil.RemoveFinalizer(after, finalizer) {
		return nil
	}
	err := c.Patch(ctx, after, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	return client.IgnoreNotFound(err)
}

// annotate sets annotations; an empty value removes one.
func annotate(ctx context.Context, c client.Client, object client.Object, values map[string]string) error {
	before, after := copies(object)
	annotations := maps.Clone(after.GetAnnotations())
	if annotations == nil {
		annotations = map[string]string{}
	}
	for key, value := range values {
		if value == "" {
			delete(annotations, key)
			continue
		}
		annotations[key] = value
	}
	if maps.Equal(annotations, before.GetAnnotations()) {
		return nil
	}
	after.SetAnnotations(annotations)
	return c.Patch(ctx, after, client.MergeFrom(before))
}

func copies(object client.Object) (before, after client.Object) {
	return object.DeepCopyObject().(client.Object), object.DeepCopyObject().(client.Object)
}
