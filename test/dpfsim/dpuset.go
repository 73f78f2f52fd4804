// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"context"
	"fmt"
	"maps"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// dpuSetController plays the DPUSet all DPUs belong to, whose own object no test needs: it makes a DPU anew that is gone, and
// carries the labels of the template and, in later releases, of the card to the DPU.
type dpuSetController struct{ world }

func setupDPUSet(mgr manager.Manager, w world) error {
	r := &dpuSetController{w}
	ofDevice := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, device client.Object) []reconcile.Request {
		return w.dpus(func(c *card) bool { return c.Device == device.GetName() })
	})
	return w.controller(mgr, ControllerDPUSet).
		For(newObject(kindDPU)).
		Watches(newObject(kindDPUDevice), ofDevice).
		Complete(w.played(ControllerDPUSet, r.reconcile))
}

func (r *dpuSetController) reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	c, ok := r.hardware.get(request.Name)
	if !ok {
		return reconcile.Result{}, nil // nobody's, or one that is just being seeded
	}
	labels, err := r.labels(ctx, c.DPU)
	if err != nil {
		return reconcile.Result{}, err
	}
	dpu := newObject(kindDPU)
	err = r.management.Get(ctx, request.NamespacedName, dpu)
	switch {
	case apierrors.IsNotFound(err):
		if left := r.pace.wait("dpuset/"+c.Name, r.options.Timing.DeviceToDPU); left > 0 {
			return reconcile.Result{RequeueAfter: left}, nil
		}
		return reconcile.Result{}, r.management.Create(ctx, r.newDPU(c.DPU, labels))
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("get DPU: %w", err)
	}
	key := "copy/" + string(dpu.GetUID())
	if dpu.GetDeletionTimestamp() != nil || labels == nil || maps.Equal(labels, lastApplied(dpu)) {
		r.pace.forget(key)
		return reconcile.Result{}, nil
	}
	if left := r.pace.wait(key, r.options.Timing.DeviceToDPU); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	return reconcile.Result{}, r.copyLabels(ctx, dpu, labels)
}

// labels are those of the template and, in later releases, of the card; nil when they contradict each other, which stops the
// DPUSet.
func (r *dpuSetController) labels(ctx context.Context, d DPU) (map[string]string, error) {
	labels := map[string]string{}
	maps.Copy(labels, d.TemplateLabels)
	if r.labelPlace() != LabelsOnDPUDevice {
		return labels, nil
	}
	device := newObject(kindDPUDevice)
	key := client.ObjectKey{Namespace: r.options.Namespace, Name: d.Device}
	if err := r.management.Get(ctx, key, device); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	ofDevice, _, err := unstructured.NestedStringMap(device.Object, "spec", "cluster", "nodeLabels")
	if err != nil {
		return nil, fmt.Errorf("DPUDevice %s: %w", key.Name, err)
	}
	for label, value := range ofDevice {
		if other, ok := labels[label]; ok && other != value {
			r.log.Info("ClusterMetadataConflict: template and DPUDevice disagree", "dpuDevice", key.Name, "label", label)
			return nil, nil
		}
		labels[label] = value
	}
	return labels, nil
}

// copyLabels writes what has changed since the last time; what others wrote under other keys stays.
func (r *dpuSetController) copyLabels(ctx context.Context, dpu *unstructured.Unstructured, labels map[string]string) error {
	after := dpu.DeepCopy()
	present, _, err := unstructured.NestedStringMap(dpu.Object, "spec", "cluster", "nodeLabels")
	if err != nil {
		return fmt.Errorf("labels of the DPU: %w", err)
	}
	if present == nil {
		present = map[string]string{}
	}
	maps.Copy(present, labels)
	for label := range lastApplied(dpu) {
		if _, wanted := labels[label]; !wanted {
			delete(present, label)
		}
	}
	if err := unstructured.SetNestedStringMap(after.Object, present, "spec", "cluster", "nodeLabels"); err != nil {
		return fmt.Errorf("labels of the DPU: %w", err)
	}
	annotations := maps.Clone(after.GetAnnotations())
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[annotationLastApplied] = record(labels)
	after.SetAnnotations(annotations)
	return r.management.Patch(ctx, after, client.MergeFrom(dpu))
}

// newDPU is the object a DPUSet makes of a card.
func (f *Fabric) newDPU(d DPU, labels map[string]string) *unstructured.Unstructured {
	nodeLabels := map[string]any{}
	for key, value := range labels {
		nodeLabels[key] = value
	}
	for key, value := range f.ownLabels(d) {
		nodeLabels[key] = value
	}
	dpu := f.object(kindDPU, d.Name, map[string]any{
		"dpuNodeName": d.Node, "dpuDeviceName": d.Device, "serialNumber": d.Serial,
		"bfb": "bf-bundle", "dpuFlavor": "vpc-ovn",
		"nodeEffect": map[string]any{"hold": true, "applyOnLabelChange": false},
		"cluster":    map[string]any{"name": f.options.DPUClusterName, "namespace": f.options.Namespace, "nodeLabels": nodeLabels},
	})
	dpu.SetLabels(map[string]string{
		labelDPUNodeName: d.Node, labelDPUDeviceName: d.Device, labelDPUSetName: "dpuset", labelDPUSetNamespace: f.options.Namespace,
	})
	dpu.SetAnnotations(map[string]string{annotationLastApplied: record(labels)})
	dpu.SetFinalizers([]string{finalizerDPU})
	return dpu
}

// ownLabels are those DPF gives every DPU for its Node.
func (f *Fabric) ownLabels(d DPU) map[string]string {
	return map[string]string{
		labelDPUNodeName: d.Node, labelDPUNodeNamespace: f.options.Namespace,
		labelDPFVersion: map[LabelPlace]string{LabelsOnDPU: "v26.4.0", LabelsOnDPUDevice: "v26.8.0"}[f.labelPlace()],
	}
}

func (f *Fabric) fillDPU(r *report) {
	r.set("dpu", "dpuMode")
	r.set("BlueField3", "dpuType")
	r.set(map[string]any{"enabled": true}, "secureBoot")
	r.set(map[string]any{"bmc": "BF-25.10-9", "nic": "32.47.1026", "uefi": "4.13.0-26"}, "firmware")
	if f.labelPlace() == LabelsOnDPUDevice {
		r.set("zero-trust", "deploymentMode")
	}
}
