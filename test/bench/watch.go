// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// machineWatch notes when what the manager says of machines is seen by a watcher, as Cluster API is one.
type machineWatch struct {
	mu   sync.Mutex
	seen map[string]*sighting
}

// sighting is what was seen of one machine; times are zero for what was not.
type sighting struct {
	token, systemID   string
	says              string
	provisioned, gone time.Time
}

func newMachineWatch() *machineWatch { return &machineWatch{seen: map[string]*sighting{}} }

// OnAdd implements cache.ResourceEventHandler.
func (m *machineWatch) OnAdd(object any, _ bool) { m.note(object) }

// OnUpdate implements cache.ResourceEventHandler.
func (m *machineWatch) OnUpdate(_, object any) { m.note(object) }

// OnDelete implements cache.ResourceEventHandler.
func (m *machineWatch) OnDelete(object any) {
	if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = tombstone.Obj
	}
	if machine, ok := object.(*infrav1.MaasMachine); ok {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.of(machine.Name).gone = time.Now()
	}
}

func (m *machineWatch) note(object any) {
	machine, ok := object.(*infrav1.MaasMachine)
	if !ok {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.of(machine.Name)
	if machine.Spec.Claim != nil {
		s.token = machine.Spec.Claim.Token
	}
	s.systemID = machine.Status.SystemID
	if ready := conditions.Get(machine, infrav1.ReadyCondition); ready != nil {
		s.says = ready.Reason + ": " + ready.Message
	}
	if s.provisioned.IsZero() && ptr.Deref(machine.Status.Initialization.Provisioned, false) {
		s.provisioned = time.Now()
	}
}

func (m *machineWatch) of(name string) *sighting {
	s, ok := m.seen[name]
	if !ok {
		s = &sighting{}
		m.seen[name] = s
	}
	return s
}

// get returns what was seen of a machine.
func (m *machineWatch) get(name string) sighting {
	m.mu.Lock()
	defer m.mu.Unlock()
	return *m.of(name)
}

// count counts the machines of which something was seen, and says what the others say.
func (m *machineWatch) count(names []string, what func(sighting) bool) (int, string) {
	n := 0
	others := map[string]int{}
	for _, name := range names {
		if s := m.get(name); what(s) {
			n++
		} else {
			others[s.says]++
		}
	}
	text := fmt.Sprintf("%d of %d", n, len(names))
	for _, says := range slices.Sorted(maps.Keys(others)) {
		text += fmt.Sprintf("; %d say %q", others[says], says)
	}
	return n, text
}

func isProvisioned(s sighting) bool { return !s.provisioned.IsZero() }

func isGone(s sighting) bool { return !s.gone.IsZero() }
