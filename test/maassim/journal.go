// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Effect is one entry of the journal: a mutating call the region accepted, or something MAAS or the hardware did.
type Effect struct {
	// Seq counts from 1 without gaps.
	Seq  int
	Time time.Time
	// User is the account that called, "" for MAAS itself.
	User string
	// Operation is the API's name for calls (allocate, deploy, release, power_off, set_workload_annotations, …). MAAS'
	// own are: deployed, deploy_failed, erased, erase_failed, released, release_failed, powered_on, powered_off,
	// aborted, commissioned, failed. A bulk release writes one "release" per machine; a deploy that acquires a Ready
	// machine writes an "allocate" first.
	Operation string
	SystemID  string
	// AgentName and Owner are the machine's when the effect happened: after it for allocate, before it for all others.
	AgentName, Owner string
	// Claim is the last agent_name since the machine was Ready or New; it differs from AgentName only where MAAS has
	// forgotten the name already, as while Releasing.
	Claim string
	// From and To are the status numbers; equal when the status did not change.
	From, To int
	// Erase names the flags of a release or erase: "erase", "secure_erase", "quick_erase", joined by "+"; "" for none.
	Erase string
	// Annotations are the machine's when the effect happened: after it for set_workload_annotations, else before it.
	Annotations map[string]string
	// PoweredOn is the server's true power after the effect.
	PoweredOn bool
	// Detail is the caller's comment or MAAS' reason.
	Detail string
}

// Journal is a copy of all effects, in order.
func (r *Region) Journal() []Effect { return r.JournalSince(0) }

// JournalSince is a copy of the effects whose Seq is greater than seq, in order, for readers that follow along.
func (r *Region) JournalSince(seq int) []Effect {
	r.mu.Lock()
	defer r.mu.Unlock()
	if seq < 0 || seq > len(r.effects) {
		seq = min(max(seq, 0), len(r.effects))
	}
	effects := slices.Clone(r.effects[seq:])
	for i := range effects {
		effects[i].Annotations = maps.Clone(effects[i].Annotations)
	}
	return effects
}

// effect starts an entry with what the machine is now; write it once the change is made.
func (r *Region) effect(user, operation string, m *machine, detail string) *Effect {
	return &Effect{
		User: user, Operation: operation, SystemID: m.id(), AgentName: m.agentName, Owner: m.owner, Claim: m.claim,
		From: m.status, To: m.status, Annotations: maps.Clone(m.annotations), Detail: detail,
	}
}

func (r *Region) write(e *Effect, m *machine) {
	e.Seq = len(r.effects) + 1
	e.Time = r.clock.Now()
	e.To = m.status
	e.PoweredOn = m.on
	r.effects = append(r.effects, *e)
	m.changed()
}

// Call is what one kind of call was: who, which operation, what it concerned and how it ended.
type Call struct {
	User string
	// Operation is the API's op, or for plain reads and writes a name such as list_machines, read_machine,
	// update_machine, list_zones. A bulk release is "release_machines".
	Operation string
	// SystemID and AgentName are empty where a call concerned no single machine or claim. A call on a machine under
	// release counts for the claim that is being released.
	SystemID, AgentName string
	// Code is the HTTP status, 0 when the answer never reached the client.
	Code int
}

// CallCount is how often one kind of call came.
type CallCount struct {
	Call
	Count int
}

// Calls counts all calls so far by user, operation, machine, claim and code, sorted by these.
func (r *Region) Calls() []CallCount {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts := make([]CallCount, 0, len(r.calls))
	for call, count := range r.calls {
		counts = append(counts, CallCount{Call: call, Count: count})
	}
	slices.SortFunc(counts, func(a, b CallCount) int {
		return cmp.Or(
			cmp.Compare(a.User, b.User), cmp.Compare(a.Operation, b.Operation), cmp.Compare(a.SystemID, b.SystemID),
			cmp.Compare(a.AgentName, b.AgentName), cmp.Compare(a.Code, b.Code))
	})
	return counts
}

// count notes a finished call. It takes the lock.
func (r *Region) count(c *call, code int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := ""
	if c.user != nil {
		name = c.user.name
	}
	r.calls[Call{User: name, Operation: c.operation, SystemID: c.systemID, AgentName: c.claim, Code: code}]++
}
