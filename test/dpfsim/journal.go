// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// EffectKind says what happened.
type EffectKind string

const (
	// EffectCreated says that an object appeared.
	EffectCreated EffectKind = "Created"
	// EffectChanged says that somebody else than DPF changed something outside an object's status.
	EffectChanged EffectKind = "Changed"
	// EffectAdjusted says that DPF did.
	EffectAdjusted EffectKind = "Adjusted"
	// EffectDeleting says that an object got its deletion timestamp.
	EffectDeleting EffectKind = "Deleting"
	// EffectDeleted says that an object is gone.
	EffectDeleted EffectKind = "Deleted"
	// EffectPlug says that traffic of a host's port begins to pass.
	EffectPlug EffectKind = "Plug"
	// EffectUnplug says that it passes no more.
	EffectUnplug EffectKind = "Unplug"
	// EffectPower is a card that goes down or boots with its server.
	EffectPower EffectKind = "Power"
	// EffectFault is a fault put in or taken out by a test.
	EffectFault EffectKind = "Fault"
)

// Effect is one entry of the journal.
type Effect struct {
	// Sequence grows by one with each effect.
	Sequence int
	Time     time.Time
	Kind     EffectKind
	// Object is "<kind> <namespace>/<name>", empty for ports and faults.
	Object string
	// Writer is the field manager that made the change: "" if the object does not tell, as after a mere removal by others than DPF.
	Writer string
	// Change says what is different, such as "spec.cluster.nodeLabels +key=value".
	Change string
	// ResourceVersion of the object after it.
	ResourceVersion string
	// Port, for EffectPlug and EffectUnplug.
	Port *Port
}

// WriteCount counts the changes of one DPU's objects (DPU, DPUDevice) that came from outside DPF.
type WriteCount struct {
	// Attach counts changes that add labels for the Node, Detach those that remove some, Other the rest.
	Attach, Detach, Other int
}

type journal struct {
	mu      sync.Mutex
	clock   clock.PassiveClock
	effects []Effect
	changes []nodeLabelsChange
	// own are the versions DPF wrote, which may be known only after they were seen.
	own map[written]bool
}

// written is a version of an object; the clusters count apart.
type written struct {
	inDPUCluster bool
	version      string
}

// nodeLabelsChange is one of a DPU's or DPUDevice's spec: which labels for the Node came, and went.
type nodeLabelsChange struct {
	object, version string
	added, removed  bool
}

func newJournal(clk clock.PassiveClock) *journal {
	return &journal{clock: clk, own: map[written]bool{}}
}

func (j *journal) add(e Effect) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e.Sequence, e.Time = len(j.effects)+1, j.clock.Now()
	j.effects = append(j.effects, e)
}

func (j *journal) port(kind EffectKind, port *Port, why string) {
	snapshot := *port
	j.add(Effect{Kind: kind, Change: why, Port: &snapshot})
}

// note takes a version DPF's controllers wrote in one of the clusters.
func (j *journal) note(inDPUCluster bool, object client.Object) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.own[written{inDPUCluster, object.GetResourceVersion()}] = true
}

func (j *journal) snapshot() []Effect {
	j.mu.Lock()
	defer j.mu.Unlock()
	effects := slices.Clone(j.effects)
	for i := range effects {
		e := &effects[i]
		kind, _, _ := strings.Cut(e.Object, " ")
		if j.own[written{kindsOfDPUCluster[kind], e.ResourceVersion}] && e.Kind != EffectDeleted {
			e.Writer = controllersOwner
			if e.Kind == EffectChanged {
				e.Kind = EffectAdjusted
			}
		}
	}
	return effects
}

func (j *journal) writeCounts() map[string]WriteCount {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := map[string]WriteCount{}
	for _, change := range j.changes {
		if j.own[written{false, change.version}] {
			continue
		}
		count := out[change.object]
		switch {
		case change.added && !change.removed:
			count.Attach++
		case change.removed && !change.added:
			count.Detach++
		default:
			count.Other++
		}
		out[change.object] = count
	}
	return out
}

// observe records what an informer saw; before is nil for a new object, after for a gone one.
func (j *journal) observe(before, after *unstructured.Unstructured) {
	switch {
	case before == nil:
		j.object(EffectCreated, nil, after, "")
	case after == nil:
		j.object(EffectDeleted, before, before, "")
	case before.GetResourceVersion() == after.GetResourceVersion():
	default:
		if before.GetDeletionTimestamp() == nil && after.GetDeletionTimestamp() != nil {
			j.object(EffectDeleting, before, after, "")
		}
		if change := difference(before, after); change != "" {
			j.object(EffectChanged, before, after, change)
			j.count(before, after)
		}
	}
}

func (j *journal) object(kind EffectKind, before, object *unstructured.Unstructured, change string) {
	j.add(Effect{
		Kind: kind, Object: fmt.Sprintf("%s %s/%s", object.GetKind(), object.GetNamespace(), object.GetName()),
		Writer: writer(before, object), Change: change, ResourceVersion: object.GetResourceVersion(),
	})
}

// count keeps a change of a DPU or DPUDevice.
func (j *journal) count(before, after *unstructured.Unstructured) {
	if kind := after.GetKind(); kind != kindDPU.Kind && kind != kindDPUDevice.Kind {
		return
	}
	old, _, _ := unstructured.NestedStringMap(before.Object, "spec", "cluster", "nodeLabels")
	now, _, _ := unstructured.NestedStringMap(after.Object, "spec", "cluster", "nodeLabels")
	added := slices.ContainsFunc(slices.Collect(maps.Keys(now)), func(key string) bool { _, ok := old[key]; return !ok })
	removed := slices.ContainsFunc(slices.Collect(maps.Keys(old)), func(key string) bool { _, ok := now[key]; return !ok })
	j.mu.Lock()
	defer j.mu.Unlock()
	j.changes = append(j.changes, nodeLabelsChange{after.GetName(), after.GetResourceVersion(), added, removed})
}

// difference describes what changed outside status, or "".
func difference(before, after *unstructured.Unstructured) string {
	var changes []string
	describe := func(path string, old, now map[string]string) {
		for _, key := range slices.Sorted(maps.Keys(now)) {
			switch value, ok := old[key]; {
			case !ok:
				changes = append(changes, fmt.Sprintf("%s +%s=%s", path, key, now[key]))
			case value != now[key]:
				changes = append(changes, fmt.Sprintf("%s %s=%s (was %s)", path, key, now[key], value))
			}
		}
		for _, key := range slices.Sorted(maps.Keys(old)) {
			if _, ok := now[key]; !ok {
				changes = append(changes, fmt.Sprintf("%s -%s", path, key))
			}
		}
	}
	describe("labels", before.GetLabels(), after.GetLabels())
	describe("annotations", before.GetAnnotations(), after.GetAnnotations())
	oldSpec, newSpec := specOf(before), specOf(after)
	if equality.Semantic.DeepEqual(oldSpec, newSpec) {
		return strings.Join(changes, ", ")
	}
	old, _, _ := unstructured.NestedStringMap(oldSpec, "cluster", "nodeLabels")
	now, _, _ := unstructured.NestedStringMap(newSpec, "cluster", "nodeLabels")
	if maps.Equal(old, now) {
		return strings.Join(append(changes, "spec"), ", ")
	}
	describe("spec.cluster.nodeLabels", old, now)
	return strings.Join(changes, ", ")
}

func specOf(object *unstructured.Unstructured) map[string]any {
	spec, _ := object.Object["spec"].(map[string]any)
	return spec
}

// writer is the field manager that has more on an object than before, or another time: "" if none has, since a manager that only
// removes leaves no trace.
func writer(before, after *unstructured.Unstructured) string {
	type key struct{ manager, operation, version string }
	had := map[key]metav1.ManagedFieldsEntry{}
	if before != nil {
		for _, entry := range before.GetManagedFields() {
			had[key{entry.Manager, string(entry.Operation), entry.APIVersion + entry.Subresource}] = entry
		}
	}
	var name string
	var youngest time.Time
	for _, entry := range after.GetManagedFields() {
		if entry.Subresource != "" || entry.Time == nil {
			continue
		}
		old, ok := had[key{entry.Manager, string(entry.Operation), entry.APIVersion + entry.Subresource}]
		same := ok && old.Time.Equal(entry.Time) && old.FieldsV1.Size() >= entry.FieldsV1.Size()
		if !same && !entry.Time.Time.Before(youngest) {
			name, youngest = entry.Manager, entry.Time.Time
		}
	}
	return name
}
