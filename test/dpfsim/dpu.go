// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
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
	phaseRebooting     = "Rebooting"
	phaseDeleting      = "Deleting"
	phaseEffectRemoval = "Node Effect Removal"
)

const nodeRetry = 200 * time.Millisecond

// verdict is what a pass makes of a DPU.
type verdict struct {
	// phase it is in now; "" leaves it alone.
	phase string
	// unready is why the condition Ready is False in phase Ready, which are two things in DPF.
	unready string
	// after is when to look again; zero when something will tell.
	after time.Duration
}

func setPhase(r *report, phase, unready string) {
	r.set(phase, "phase")
	switch {
	case phase == phaseReady && unready == "":
		r.condition("Ready", true, "DPUReady", "")
		r.succeed("DPUClusterReady")
		r.conditionIn("operationalConditions", "OperationalReady", metav1.ConditionTrue, reasonSuccess, "")
		return
	case phase == phaseReady:
		r.condition("Ready", false, unready, "")
	default:
		r.condition("Ready", false, reasonPending, "DPU is in phase "+phase)
	}
	if unready != "" {
		r.condition("DPUClusterReady", false, unready, "")
		r.conditionIn("operationalConditions", "OperationalReady", metav1.ConditionFalse, unready, "")
		return
	}
	r.condition("DPUClusterReady", phase == phaseEffectRemoval, reasonPending, "")
}

// dpuController takes a DPU through its phases: labels for its Node, the hold before an installation, its end.
type dpuController struct{ world }

func setupDPU(mgr manager.Manager, w world) error {
	r := &dpuController{w}
	self := &handler.EnqueueRequestForObject{}
	ofNode := handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, node *corev1.Node) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: w.options.Namespace, Name: node.Name}}}
	})
	// unsure: earlier releases do not watch Nodes and look every now and then.
	changed := predicate.TypedFuncs[*corev1.Node]{UpdateFunc: func(e event.TypedUpdateEvent[*corev1.Node]) bool {
		return nodeIsReady(e.ObjectOld) != nodeIsReady(e.ObjectNew) || e.ObjectOld.UID != e.ObjectNew.UID ||
			e.ObjectOld.Annotations[annotationLastApplied] != e.ObjectNew.Annotations[annotationLastApplied]
	}}
	return w.controller(mgr, ControllerDPU).
		For(newObject(kindDPU)).
		Watches(newObject(kindDPUNodeMaintenance), handler.EnqueueRequestsFromMapFunc(r.ofMaintenance)).
		WatchesRawSource(source.Kind(w.remote.GetCache(), &corev1.Node{}, ofNode, changed)).
		WatchesRawSource(source.Channel(w.wake, self)).
		Complete(w.played(ControllerDPU, r.reconcile))
}

func (r *dpuController) ofMaintenance(_ context.Context, maintenance client.Object) []reconcile.Request {
	return r.dpus(func(c *card) bool { return maintenanceName(c.Node) == maintenance.GetName() })
}

// dpus asks for those of the cards that match.
func (w world) dpus(match func(*card) bool) (requests []reconcile.Request) {
	for _, name := range w.hardware.where(match) {
		requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: w.options.Namespace, Name: name}})
	}
	return requests
}

func (r *dpuController) reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	dpu := newObject(kindDPU)
	if err := r.management.Get(ctx, request.NamespacedName, dpu); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if dpu.GetDeletionTimestamp() != nil {
		return reconcile.Result{}, r.delete(ctx, dpu)
	}
	spec, err := readSpec[dpuSpec](dpu)
	if err != nil {
		return reconcile.Result{}, err
	}
	next, err := r.step(ctx, dpu, spec)
	if err != nil || next.phase == "" {
		return reconcile.Result{}, err
	}
	report := newReport(r.clock, dpu)
	if _, filled, _ := unstructured.NestedString(dpu.Object, "status", "firmware", "bmc"); !filled {
		r.fillDPU(report)
	}
	setPhase(report, next.phase, next.unready)
	if r.faults.has(ExternalReboot, dpu.GetName()) {
		rebooting := next.phase == phaseRebooting
		report.condition("Rebooted", !rebooting, map[bool]string{true: "WaitingForManualPowerCycleOrReboot", false: reasonSuccess}[rebooting], "")
	}
	if err := report.write(ctx, r.management); err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: next.after}, nil
}

func (r *dpuController) step(ctx context.Context, dpu *unstructured.Unstructured, spec dpuSpec) (verdict, error) {
	phase, _, _ := unstructured.NestedString(dpu.Object, "status", "phase")
	c, ok := r.hardware.get(dpu.GetName())
	if !ok {
		return verdict{}, nil // nobody's, or one that is just being seeded
	}
	if stuck, ok := r.faults.find(DPUPhase, c.Name); ok {
		return verdict{phase: stuck}, nil
	}
	if c.owner != dpu.GetUID() {
		return r.begin(ctx, dpu, spec, phase)
	}
	if c.installing != "" {
		return r.install(ctx, dpu, c, phase)
	}
	if phase == phaseInitializing && c.Phase == "" {
		return verdict{}, nil // seeded as Ready, which its status does not say yet
	}
	if r.faults.has(DPUClusterUnreachable, "") {
		return verdict{phase: phase, unready: "GetNodeError", after: nodeRetry}, nil
	}
	node := &corev1.Node{}
	switch err := r.dpuCluster.Get(ctx, types.NamespacedName{Name: dpu.GetName()}, node); {
	case apierrors.IsNotFound(err):
		if phase == phaseInstalling {
			phase = phaseRebooting
		}
		return verdict{phase: phase, unready: "NodeNotFound", after: nodeRetry}, nil
	case err != nil:
		return verdict{}, fmt.Errorf("get Node %s: %w", dpu.GetName(), err)
	case !nodeIsReady(node) && (phase == phaseReady || phase == phaseClusterConfig):
		// Labels wait for the Node: a dead DPU keeps those it has.
		return verdict{phase: phase, unready: "NodeNotReady"}, nil
	}
	return r.label(ctx, dpu, spec, phase, node)
}

// begin holds a DPU that is to be installed back until somebody releases the hold, and then installs it. Until then the card
// goes on with what it has.
func (r *dpuController) begin(ctx context.Context, dpu *unstructured.Unstructured, spec dpuSpec, phase string) (verdict, error) {
	if phase != phaseNodeEffect && spec.NodeEffect.Hold {
		return verdict{phase: phaseNodeEffect, after: raceRetry}, nil
	}
	if held, err := r.held(ctx, dpu, spec); err != nil || held {
		return verdict{phase: phaseNodeEffect}, err
	}
	r.hardware.change(dpu.GetName(), func(c *card) { c.owner, c.installsItself = dpu.GetUID(), true })
	r.hardware.setInstalling(dpu.GetName(), phaseInstalling)
	return verdict{phase: phaseInstalling, after: r.options.Timing.Install}, r.wipe(ctx, dpu.GetName())
}

// install is the installation, which ends by itself if DPF began it, or once somebody has cycled the server's power.
func (r *dpuController) install(ctx context.Context, dpu *unstructured.Unstructured, c card, phase string) (verdict, error) {
	if !c.installsItself {
		return verdict{phase: c.installing}, nil
	}
	if phase != phaseRebooting {
		if left := r.pace.wait("install/"+string(dpu.GetUID()), r.options.Timing.Install); left > 0 {
			return verdict{phase: c.installing, after: left}, nil
		}
		if r.faults.has(ExternalReboot, c.Name) {
			return verdict{phase: phaseRebooting, after: raceRetry}, r.askForPowerCycle(ctx, c.Node)
		}
	}
	if waits, err := r.waitsForPowerCycle(ctx, c.Node); err != nil || waits {
		return verdict{phase: phaseRebooting, after: nodeRetry}, err
	}
	r.hardware.change(c.Name, func(c *card) { c.installsItself = false })
	r.hardware.setInstalling(c.Name, "")
	return verdict{phase: phaseRebooting, after: nodeRetry}, nil
}

func (r *dpuController) askForPowerCycle(ctx context.Context, server string) error {
	node := newObject(kindDPUNode)
	if err := r.management.Get(ctx, client.ObjectKey{Namespace: r.options.Namespace, Name: server}, node); err != nil {
		return fmt.Errorf("get DPUNode %s: %w", server, err)
	}
	return annotate(ctx, r.management, node, map[string]string{annotationReboot: "true"})
}

func (r *dpuController) waitsForPowerCycle(ctx context.Context, server string) (bool, error) {
	node := newObject(kindDPUNode)
	err := r.Fabric.management.Get(ctx, client.ObjectKey{Namespace: r.options.Namespace, Name: server}, node)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	_, waits := node.GetAnnotations()[annotationReboot]
	return waits, err
}

// label brings a Ready Node's labels up to what the DPU's spec says, if that has changed since.
func (r *dpuController) label(ctx context.Context, dpu *unstructured.Unstructured, spec dpuSpec, phase string, node *corev1.Node) (verdict, error) {
	switch phase {
	case phaseReady, "":
		if maps.Equal(spec.Cluster.NodeLabels, lastApplied(node)) {
			return verdict{phase: phaseReady}, nil
		}
		if spec.NodeEffect.ApplyOnLabelChange {
			return verdict{phase: phaseNodeEffect, after: raceRetry}, nil
		}
		return verdict{phase: phaseClusterConfig, after: raceRetry}, nil
	case phaseNodeEffect:
		held, err := r.held(ctx, dpu, spec)
		if err != nil || held {
			return verdict{phase: phaseNodeEffect}, err
		}
		return verdict{phase: phaseClusterConfig, after: raceRetry}, nil
	case phaseEffectRemoval:
		if left := r.pace.wait("effect/"+string(dpu.GetUID()), r.options.Timing.EffectRemoval); left > 0 {
			return verdict{phase: phaseEffectRemoval, after: left}, nil
		}
		return verdict{phase: phaseReady, after: raceRetry}, r.endMaintenance(ctx, spec)
	default: // DPU Cluster Config, or the end of an installation
		if maps.Equal(spec.Cluster.NodeLabels, lastApplied(node)) {
			return verdict{phase: phaseEffectRemoval, after: r.options.Timing.EffectRemoval}, nil
		}
		if left := r.pace.wait("labels/"+string(dpu.GetUID()), r.options.Timing.LabelsToNode); left > 0 {
			return verdict{phase: phaseClusterConfig, after: left}, nil
		}
		if err := r.applyLabels(ctx, node, spec.Cluster.NodeLabels); err != nil {
			return verdict{}, err
		}
		return verdict{phase: phaseEffectRemoval, after: r.options.Timing.EffectRemoval}, nil
	}
}

// delete takes the Node away, whatever runs on the card, and lets the DPU go. A hold does not keep DPF from it.
func (r *dpuController) delete(ctx context.Context, dpu *unstructured.Unstructured) error {
	report := newReport(r.clock, dpu)
	setPhase(report, phaseDeleting, "")
	if err := report.write(ctx, r.management); err != nil {
		return err
	}
	if err := r.deleteNode(ctx, dpu.GetName()); err != nil {
		return err
	}
	return dropFinalizer(ctx, r.management, dpu, finalizerDPU)
}

// lastApplied are the labels DPF has put on an object, as its record there says.
func lastApplied(object client.Object) map[string]string {
	var labels map[string]string
	if err := json.Unmarshal([]byte(object.GetAnnotations()[annotationLastApplied]), &labels); err != nil {
		return nil
	}
	return labels
}

// record is what lastApplied reads.
func record(labels map[string]string) string {
	if labels == nil {
		labels = map[string]string{}
	}
	data, err := json.Marshal(labels)
	if err != nil {
		return "" // a map of strings cannot fail
	}
	return string(data)
}

// applyLabels sets the DPU's labels and removes those DPF put there earlier; labels of others are none of its business, and
// neither is what others did to DPF's own.
func (r *dpuController) applyLabels(ctx context.Context, node *corev1.Node, desired map[string]string) error {
	before := node.DeepCopy()
	node = node.DeepCopy()
	if node.Labels == nil {
		node.Labels = map[string]string{}
	}
	if node.Annotations == nil {
		node.Annotations = map[string]string{}
	}
	for key := range lastApplied(before) {
		if _, wanted := desired[key]; !wanted {
			delete(node.Labels, key)
		}
	}
	maps.Copy(node.Labels, desired)
	node.Annotations[annotationLastApplied] = record(desired)
	if err := r.dpuCluster.Patch(ctx, node, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("label Node %s: %w", node.Name, err)
	}
	return nil
}

// unsure: the name; DPF makes it of the DPUNode's and of the effect's.
func maintenanceName(server string) string { return server + "-hold" }

// held asks for the node effect and says whether somebody still has to release it.
func (r *dpuController) held(ctx context.Context, dpu *unstructured.Unstructured, spec dpuSpec) (bool, error) {
	if !spec.NodeEffect.Hold {
		return false, nil
	}
	maintenance := r.object(kindDPUNodeMaintenance, maintenanceName(spec.DPUNodeName), map[string]any{
		"dpuNodeName": spec.DPUNodeName, "nodeEffect": map[string]any{"hold": true}, "requestor": []any{dpu.GetName()},
	})
	key := client.ObjectKeyFromObject(maintenance)
	maintenance.SetAnnotations(map[string]string{annotationHold: "true"})
	present := newObject(kindDPUNodeMaintenance)
	err := r.management.Get(ctx, key, present)
	if apierrors.IsNotFound(err) {
		return true, r.management.Create(ctx, maintenance)
	}
	if err != nil {
		return true, fmt.Errorf("get DPUNodeMaintenance: %w", err)
	}
	held := present.GetAnnotations()[annotationHold] != "false"
	if err := r.reportServer(ctx, spec.DPUNodeName, false); err != nil {
		return true, err
	}
	report := newReport(r.clock, present)
	report.condition("NodeEffectApplied", !held, map[bool]string{true: reasonPending, false: reasonSuccess}[held], "")
	return held || present.GetDeletionTimestamp() != nil, report.write(ctx, r.management)
}

func (r *dpuController) endMaintenance(ctx context.Context, spec dpuSpec) error {
	maintenance := r.object(kindDPUNodeMaintenance, maintenanceName(spec.DPUNodeName), nil)
	if err := client.IgnoreNotFound(r.management.Delete(ctx, maintenance)); err != nil {
		return fmt.Errorf("end maintenance: %w", err)
	}
	return r.reportServer(ctx, spec.DPUNodeName, true)
}

// reportServer says on the DPUNode whether a node effect is on it.
func (f *Fabric) reportServer(ctx context.Context, server string, ready bool) error {
	node := newObject(kindDPUNode)
	if err := f.management.Get(ctx, client.ObjectKey{Namespace: f.options.Namespace, Name: server}, node); err != nil {
		return client.IgnoreNotFound(err)
	}
	report := newReport(f.clock, node)
	reason := map[bool]string{true: reasonSuccess, false: reasonPending}[ready]
	report.condition("Ready", ready, reason, "")
	report.condition("DPUNodeNodeEffectInProgress", !ready, reason, "")
	return report.write(ctx, f.management)
}

func nodeIsReady(node *corev1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
