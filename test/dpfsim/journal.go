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
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/clock"
)

// EffectKind says what happened.
type EffectKind string

const (
	// EffectCreated says that an object appeared.
	EffectCreated EffectKind = "Created"
	// EffectChanged says that something outside an object's status changed.
	EffectChanged EffectKind = "Changed"
	// EffectDeleting says that an object got its deletion timestamp.
	EffectDeleting EffectKind = "Deleting"
	// EffectDeleted says that an object is gone.
	EffectDeleted EffectKind = "Deleted"
	// EffectPlug says that traffic of a host's port begins to pass.
	EffectPlug EffectKind = "Plug"
	// EffectUnplug says that it passes no more.
	EffectUnplug EffectKind = "Unplug"
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
	// Writer is the field manager that seems to have made the change: "" if the object does not tell.
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
	writes  map[string]*WriteCount
}

func newJournal(clk clock.PassiveClock) *journal {
	return &journal{clock: clk, writes: map[string]*WriteCount{}}
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

func (j *journal) snapshot() []Effect {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.effects)
}

func (j *journal) writeCounts() map[string]WriteCount {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := make(map[string]WriteCount, len(j.writes))
	for dpu, count := range j.writes {
		out[dpu] = *count
	}
	return out
}

// observe records what an informer saw; before is nil for a new object, after for a gone one.
func (j *journal) observe(before, after *unstructured.Unstructured) {
	switch {
	case before == nil:
		j.object(EffectCreated, after, "")
	case after == nil:
		j.object(EffectDeleted, before, "")
	case before.GetResourceVersion() == after.GetResourceVersion():
	default:
		if before.GetDeletionTimestamp() == nil && after.GetDeletionTimestamp() != nil {
			j.object(EffectDeleting, after, "")
		}
		if change := difference(before, after); change != "" {
			j.object(EffectChanged, after, change)
			j.count(before, after)
		}
	}
}

func (j *journal) object(kind EffectKind, object *unstructured.Unstructured, change string) {
	j.add(Effect{
		Kind: kind, Object: fmt.Sprintf("%s %s/%s", object.GetKind(), object.GetNamespace(), object.GetName()),
		Writer: writer(object), Change: change, ResourceVersion: object.GetResourceVersion(),
	})
}

// count attributes a change of a DPU or DPUDevice to a direction. DPF itself only writes their status here, so that every
// other change is somebody else's.
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
	count := j.writes[after.GetName()]
	if count == nil {
		count = &WriteCount{}
		j.writes[after.GetName()] = count
	}
	switch {
	case added && !removed:
		count.Attach++
	case removed && !added:
		count.Detach++
	default:
		count.Other++
	}
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

// writer is the field manager with the youngest entry for the object itself.
func writer(object *unstructured.Unstructured) string {
	var name string
	var youngest time.Time
	for _, entry := range object.GetManagedFields() {
		if entry.Subresource == "" && entry.Time != nil && !entry.Time.Time.Before(youngest) {
			name, youngest = entry.Manager, entry.Time.Time
		}
	}
	return name
}
