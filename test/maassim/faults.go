// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"net/http"
	"slices"
	"time"
)

// FaultKind says what goes wrong.
type FaultKind string

const (
	// FaultStatus answers Status with Body and Header and does nothing.
	FaultStatus FaultKind = "status"
	// FaultConflict answers the database's 409 (HTML, Retry-After: 5) and does nothing.
	FaultConflict FaultKind = "conflict"
	// FaultDelay waits Delay before the work, whether or not the client is still there.
	FaultDelay FaultKind = "delay"
	// FaultHang does nothing and answers nothing until the client gives up.
	FaultHang FaultKind = "hang"
	// FaultDropReply does the work, then cuts the connection instead of answering.
	FaultDropReply FaultKind = "drop-reply"
	// FaultLateCommit cuts the connection at once and does the work after Delay.
	FaultLateCommit FaultKind = "late-commit"
	// FaultPowerOffNotSeen lets the power-off this call sends never happen, so that a release ends in Releasing failed
	// after Timing.ReleaseTimeout. For release, release_machines, power_off, abort and mark_broken.
	FaultPowerOffNotSeen FaultKind = "power-off-not-seen"
	// FaultEraseFails ends the erase that this release starts in Failed disk erasing.
	FaultEraseFails FaultKind = "erase-fails"
	// FaultDeployFails ends the deployment that this deploy (or power_on) starts in Failed deployment.
	FaultDeployFails FaultKind = "deploy-fails"
	// FaultDeployHangs leaves the machine in Deploying for ever, without even the time-out, as when MAAS' workflow
	// service is down.
	FaultDeployHangs FaultKind = "deploy-hangs"
)

// Fault is one thing that goes wrong with the calls it matches. Empty match fields match everything.
type Fault struct {
	Kind FaultKind
	// Operation is a name as in [Call]; SystemID the machine in the path, or the only one named by system_id, id or
	// machines; AgentName the only agent_name of the form, or the claim of the machine in the path.
	Operation, User, SystemID, AgentName string
	// Skip lets the first matching calls pass; Count is how many are hit after that, 0 for all.
	Skip, Count int

	// Status defaults to 503; Body and Header belong to FaultStatus.
	Status int
	Body   string
	Header http.Header
	// Delay belongs to FaultDelay and FaultLateCommit.
	Delay time.Duration
}

type injected struct {
	Fault
	skipped, hit int
}

// Inject adds a fault; of several that match one call the first added takes it. The function returned removes it, and
// may be called again.
func (r *Region) Inject(fault Fault) (remove func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	added := &injected{Fault: fault}
	r.faults = append(r.faults, added)
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.faults = slices.DeleteFunc(r.faults, func(f *injected) bool { return f == added })
	}
}

// takeFault chooses the fault for a call, if any. It takes the lock.
func (r *Region) takeFault(c *call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name, claim := "", c.claim
	if c.user != nil {
		name = c.user.name
	}
	if m := r.machines[c.systemID]; m != nil {
		setDefault(&claim, m.claim)
	}
	for _, f := range r.faults {
		if !matches(f.Operation, c.operation) || !matches(f.User, name) || !matches(f.SystemID, c.systemID) ||
			!matches(f.AgentName, claim) {
			continue
		}
		if f.skipped < f.Skip {
			f.skipped++
			continue
		}
		if f.Count == 0 || f.hit < f.Count {
			f.hit++
			taken := f.Fault
			c.fault = &taken
			return
		}
	}
}

func matches(want, have string) bool { return want == "" || want == have }

// hardwareFault is the kind of fault the operation itself must carry out; empty for none.
func (c *call) hardwareFault() FaultKind {
	if c.fault == nil {
		return ""
	}
	return c.fault.Kind
}

func (f *Fault) answer() reply {
	answer := text(f.Status, f.Body)
	setDefault(&answer.code, http.StatusServiceUnavailable)
	answer.header = f.Header
	return answer
}

// commitLater lets the work happen after d, when its answer is long lost. It takes the lock.
func (r *Region) commitLater(c *call, d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	late := *c
	r.schedule(nil, timerOther, max(d, 0), func() { r.transact(&late) })
}
