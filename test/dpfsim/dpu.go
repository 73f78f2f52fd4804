// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// Phases of a DPU the simulator walks through.
const (
	phaseInitializing  = "Initializing"
	phaseReady         = "Ready"
	phaseNodeEffect    = "Node Effect"
	phaseInstalling    = "OS Installing"
	phaseClusterConfig = "DPU Cluster Config"
	phaseEffectRemoval = "Node Effect Removal"
)

const nodeRetry = 200 * time.Millisecond

func phaseOr(phase, fallback string) string {
	if phase == "" {
		return fallback
	}
	return phase
}

func setPhase(r *report, phase string) {
	r.set(phase, "phase")
	ready := phase == phaseReady
	if ready {
		r.succeed("Ready")
		r.succeed("DPUClusterReady")
		r.conditionIn("operationalConditions", "OperationalReady", true, reasonSuccess, "")
		return
	}
	r.condition("Ready", false, reasonPending, "DPU is in phase "+phase)
	r.condition("DPUClusterReady", phase == phaseEffectRemoval, reasonPending, "")
}

// dpuController plays the part of DPF's DPU controller that a running DPU sees: labels for its Node.
type dpuController struct{ world }

func setupDPU(mgr manager.Manager, w world) error {
	r := &dpuController{w}
	self := &handler.EnqueueRequestForObject{}
	ofDevice := handler.EnqueueRequestsFromMapFunc(r.ofDevice)
	ofNode := handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, node *corev1.Node) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: w.options.Namespace, Name: node.Name}}}
	})
	return w.controller(mgr, ControllerDPU).
		For(newObject(kindDPU)).
		Watches(newObject(kindDPUDevice), ofDevice).
		Watches(newObject(kindDPUNodeMaintenance), handler.EnqueueRequestsFromMapFunc(r.ofMaintenance)).
		WatchesRawSource(source.Kind(w.remote.GetCache(), &corev1.Node{}, ofNode, predicate.TypedLabelChangedPredicate[*corev1.Node]{})).
		WatchesRawSource(source.Channel(w.wake, self)).
		Complete(w.played(ControllerDPU, r.reconcile))
}

func (r *dpuController) ofDevice(_ context.Context, device client.Object) []reconcile.Request {
	return r.where(func(c *card) bool { return c.Device == device.GetName() })
}

func (r *dpuController) ofMaintenance(_ context.Context, maintenance client.Object) []reconcile.Request {
	return r.where(func(c *card) bool { return maintenanceName(c.Node) == maintenance.GetName() })
}

func (r *dpuController) where(match func(*card) bool) (requests []reconcile.Request) {
	for _, name := range r.hardware.where(match) {
		requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: r.options.Namespace, Name: name}})
	}
	return requests
}

func (r *dpuController) reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	dpu := newObject(kindDPU)
	if err := r.management.Get(ctx, request.NamespacedName, dpu); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	spec, err := readSpec[dpuSpec](dpu)
	if err != nil {
		return reconcile.Result{}, err
	}
	phase, _, _ := unstructured.NestedString(dpu.Object, "status", "phase")
	next, after, err := r.step(ctx, dpu, spec, phase)
	if err != nil || next == "" {
		return reconcile.Result{}, err
	}
	report := newReport(r.clock, dpu)
	setPhase(report, next)
	if err := report.write(ctx, r.management); err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: after}, nil
}

// step returns the phase the DPU is in now, "" to leave it alone, and when to look again; zero when something will tell.
func (r *dpuController) step(ctx context.Context, dpu *unstructured.Unstructured, spec dpuSpec, phase string) (string, time.Duration, error) {
	c, ok := r.hardware.get(dpu.GetName())
	if !ok {
		return "", 0, nil // nobody's, or one that is just being seeded
	}
	if c.installing != "" {
		return c.installing, 0, nil
	}
	if phase == phaseInitializing && c.Phase == "" {
		return "", 0, nil // seeded as Ready, which its status does not say yet
	}
	desired, err := r.desiredLabels(ctx, dpu, spec)
	if err != nil {
		return "", 0, err
	}
	node := &corev1.Node{}
	if err := r.dpuCluster.Get(ctx, types.NamespacedName{Name: dpu.GetName()}, node); err != nil {
		if !apierrors.IsNotFound(err) {
			return "", 0, fmt.Errorf("get Node %s: %w", dpu.GetName(), err)
		}
		// A DPU that has just been installed joins; one whose Node somebody deleted stays as it was.
		return phaseOr(phase, phaseReady), nodeRetry, nil
	}
	switch phase {
	case phaseReady, "":
		if !drifted(node, desired) {
			return phaseReady, 0, nil
		}
		if spec.NodeEffect.ApplyOnLabelChange {
			return phaseNodeEffect, raceRetry, nil
		}
		return phaseClusterConfig, raceRetry, nil
	case phaseNodeEffect:
		held, err := r.held(ctx, spec)
		if err != nil || held {
			return phaseNodeEffect, 0, err
		}
		return phaseClusterConfig, raceRetry, nil
	case phaseEffectRemoval:
		if left := r.pace.wait("effect/"+string(dpu.GetUID()), r.options.Timing.EffectRemoval); left > 0 {
			return phaseEffectRemoval, left, nil
		}
		return phaseReady, raceRetry, r.endMaintenance(ctx, spec)
	default: // DPU Cluster Config, or the end of an installation
		if left := r.pace.wait("labels/"+string(dpu.GetUID()), r.options.Timing.LabelsToNode); left > 0 {
			return phaseClusterConfig, left, nil
		}
		if err := r.applyLabels(ctx, node, desired); err != nil {
			return "", 0, err
		}
		return phaseEffectRemoval, r.options.Timing.EffectRemoval, nil
	}
}

// desiredLabels are those the DPU's spec and, in later releases, its card's ask for.
func (r *dpuController) desiredLabels(ctx context.Context, dpu *unstructured.Unstructured, spec dpuSpec) (map[string]string, error) {
	labels := maps.Clone(spec.Cluster.NodeLabels)
	if labels == nil {
		labels = map[string]string{}
	}
	if r.options.LabelPlace != LabelsOnDPUDevice {
		return labels, nil
	}
	device := newObject(kindDPUDevice)
	key := client.ObjectKey{Namespace: dpu.GetNamespace(), Name: spec.DPUDeviceName}
	if err := r.management.Get(ctx, key, device); err != nil {
		return nil, fmt.Errorf("get DPUDevice %s: %w", key.Name, err)
	}
	ofDevice, _, err := unstructured.NestedStringMap(device.Object, "spec", "cluster", "nodeLabels")
	if err != nil {
		return nil, fmt.Errorf("DPUDevice %s: %w", key.Name, err)
	}
	maps.Copy(labels, ofDevice)
	return labels, nil
}

// appliedLabels are the keys DPF has put on a Node; labels of others are none of its business.
func appliedLabels(node *corev1.Node) []string {
	var keys []string
	if err := json.Unmarshal([]byte(node.Annotations[annotationAppliedLabels]), &keys); err != nil {
		return nil
	}
	return keys
}

func drifted(node *corev1.Node, desired map[string]string) bool {
	for key, value := range desired {
		if present, ok := node.Labels[key]; !ok || present != value {
			return true
		}
	}
	return slices.ContainsFunc(appliedLabels(node), func(key string) bool {
		_, wanted := desired[key]
		return !wanted
	})
}

func (r *dpuController) applyLabels(ctx context.Context, node *corev1.Node, desired map[string]string) error {
	before := node.DeepCopy()
	node = node.DeepCopy()
	if node.Labels == nil {
		node.Labels = map[string]string{}
	}
	if node.Annotations == nil {
		node.Annotations = map[string]string{}
	}
	for _, key := range appliedLabels(before) {
		if _, wanted := desired[key]; !wanted {
			delete(node.Labels, key)
		}
	}
	maps.Copy(node.Labels, desired)
	keys, err := json.Marshal(slices.Sorted(maps.Keys(desired)))
	if err != nil {
		return fmt.Errorf("applied labels: %w", err)
	}
	node.Annotations[annotationAppliedLabels] = string(keys)
	if err := r.dpuCluster.Patch(ctx, node, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("label Node %s: %w", node.Name, err)
	}
	return nil
}

func maintenanceName(server string) string { return server + "-hold" }

// held asks for the node effect and says whether somebody still has to release it.
func (r *dpuController) held(ctx context.Context, spec dpuSpec) (bool, error) {
	if !spec.NodeEffect.Hold {
		return false, nil
	}
	maintenance := r.object(kindDPUNodeMaintenance, maintenanceName(spec.DPUNodeName), map[string]any{
		"dpuNodeName": spec.DPUNodeName, "nodeEffect": map[string]any{"hold": true},
	})
	key := client.ObjectKeyFromObject(maintenance)
	maintenance.SetAnnotations(map[string]string{annotationHold: "true"})
	present := newObject(kindDPUNodeMaintenance)
	err := r.management.Get(ctx, key, present)
	if apierrors.IsNotFound(err) {
		return true, r.management.Create(ctx, maintenance)
	}
	return present.GetAnnotations()[annotationHold] != "false", err
}

func (r *dpuController) endMaintenance(ctx context.Context, spec dpuSpec) error {
	maintenance := r.object(kindDPUNodeMaintenance, maintenanceName(spec.DPUNodeName), nil)
	return client.IgnoreNotFound(r.management.Delete(ctx, maintenance))
}
