// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// devicesMaxAge is for how long a server's devices are believed: they change only when it is commissioned again.
const devicesMaxAge = time.Hour

// memory holds what may be lost: it spares MAAS repeated questions and orders, and no invariant rests on it.
type memory struct {
	mu       sync.Mutex
	machines map[types.UID]memo
	devices  map[serverKey]deviceMemo
	given    map[serverKey]givenMemo
	holders  map[types.UID]holders
}

// memo is what is remembered of one machine.
type memo struct {
	// powerOffUntil is until when a power-off that was sent may take effect.
	powerOffUntil time.Time
	// notBefore is until when MAAS asked not to be told anything more.
	notBefore time.Time
	// searched says that MAAS was searched for the machine's server while no allocation was open.
	searched bool
	// bootstrap is the Secret that was seen to hold bootstrap data, which is believed until then.
	bootstrap      string
	bootstrapUntil time.Time
	// toldScarce says that people were told that no server is free.
	toldScarce bool
	// answered is the lastAllocateTime of the last allocation, if MAAS refused it: a status that still tells of it is an old one.
	answered time.Time
}

// allocateAnswered reports whether MAAS has refused the allocation the status tells of. The API server keeps whole seconds.
func (m memo) allocateAnswered(at *metav1.Time) bool {
	return at != nil && !m.answered.IsZero() && m.answered.Unix() == at.Unix()
}

type serverKey struct {
	identity types.UID
	systemID string
}

type deviceMemo struct {
	has bool
	at  time.Time
}

// givenMemo says to which machine MAAS gave a server last, in answer to an allocation of ours that is the only one it can be: the
// server is the machine's under its token without asking again. It ends with whatever is done to the server, and with that time.
type givenMemo struct {
	machine types.UID
	until   time.Time
}

// holders are an identity's machines with a server, by machine, with their clusters. Not to be changed.
type holders struct {
	clusters map[types.NamespacedName]types.NamespacedName
	at       time.Time
}

func newMemory() *memory {
	return &memory{machines: map[types.UID]memo{}, devices: map[serverKey]deviceMemo{}, given: map[serverKey]givenMemo{}, holders: map[types.UID]holders{}}
}

func (m *memory) of(uid types.UID) memo {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.machines[uid]
}

func (m *memory) update(uid types.UID, change func(*memo)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	entry := m.machines[uid]
	change(&entry)
	m.machines[uid] = entry
}

func (m *memory) forget(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.machines, uid)
}

func (m *memory) dpus(identity types.UID, systemID string, now time.Time) (has, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	memo, ok := m.devices[serverKey{identity, systemID}]
	if !ok || now.Sub(memo.at) > devicesMaxAge {
		return false, false
	}
	return memo.has, true
}

func (m *memory) setDPUs(identity types.UID, systemID string, has bool, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.devices[serverKey{identity, systemID}] = deviceMemo{has: has, at: now}
}

// give notes that MAAS gave out a server; whoever had it before has it no more.
func (m *memory) give(identity types.UID, systemID string, machine types.UID, until time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.given[serverKey{identity, systemID}] = givenMemo{machine, until}
}

func (m *memory) givenTo(identity types.UID, systemID string, machine types.UID, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	memo, ok := m.given[serverKey{identity, systemID}]
	return ok && memo.machine == machine && now.Before(memo.until)
}

// used ends what give noted.
func (m *memory) used(identity types.UID, systemID string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.given, serverKey{identity, systemID})
}

// holdersOf returns what was known of an identity's holders since then.
func (m *memory) holdersOf(identity types.UID, since time.Time) (map[types.NamespacedName]types.NamespacedName, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	known, ok := m.holders[identity]
	if !ok || known.at.Before(since) {
		return nil, false
	}
	return known.clusters, true
}

func (m *memory) setHolders(identity types.UID, clusters map[types.NamespacedName]types.NamespacedName, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.holders[identity] = holders{clusters: clusters, at: now}
}
