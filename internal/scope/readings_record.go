// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// read asks MAAS for the machines in one query, and wakes who watches one that changed.
func (r *Readings) read(ctx context.Context, ids []string) error {
	client, epoch := r.source()
	sent := r.clock.Now()
	found, err := client.MachinesByID(ctx, ids...)
	if err != nil {
		return err
	}
	if r.observe != nil {
		r.observe(len(ids))
	}
	listed := make(map[string]*maas.Machine, len(found))
	for i := range found {
		listed[found[i].SystemID] = &found[i]
	}
	r.tell(r.record(epoch, sent, ids, listed))
	return nil
}

// record keeps the answers that still count, and returns whom to wake.
func (r *Readings) record(epoch int, sent time.Time, ids []string, listed map[string]*maas.Machine) []types.NamespacedName {
	r.mu.Lock()
	defer r.mu.Unlock()
	if epoch != r.epoch {
		return nil
	}
	var woken []types.NamespacedName
	for _, id := range ids {
		reading, ok := r.machines[id]
		if !ok || sent.Before(reading.changed) || sent.Before(reading.at) {
			continue
		}
		machine := listed[id]
		// What was never known is news to nobody who asks; who does not ask has to be told that something happened.
		told := reading.known && r.differs(reading, machine) || !r.onlyClaims && !reading.event.IsZero() && reading.maxAge == 0
		reading.keep(machine, sent)
		if told {
			for object := range reading.watchers {
				woken = append(woken, object)
			}
		}
	}
	return woken
}

// differs reports that the machine is not as last known; nil is a machine that is not listed.
func (r *Readings) differs(known *machineReading, machine *maas.Machine) bool {
	switch {
	case known.listed != (machine != nil):
		return true
	case machine == nil:
		return false
	case r.onlyClaims:
		return known.machine.Owner != machine.Owner ||
			known.machine.Annotations[maas.AnnotationToken] != machine.Annotations[maas.AnnotationToken]
	}
	return !equality.Semantic.DeepEqual(known.machine, *machine)
}

// readTogether reads machines for all, who got in by the gate, and lets the next one in. Nobody waits longer for a question that MAAS
// does not answer although it answers others: it hangs on one of these machines, which are read by themselves from then on.
func (r *Readings) readTogether(ctx context.Context, ids []string) error {
	answered := make(chan error, 1)
	go func() { answered <- r.read(ctx, ids) }()
	timer := r.clock.NewTimer(patience + time.Duration(len(ids))*perMachine)
	defer timer.Stop()
	select {
	case err := <-answered:
		r.reading.leave(ctx, err)
		return err
	case <-timer.C():
	}
	if !r.answersOthers(ctx) {
		err := <-answered
		r.reading.leave(ctx, err)
		return err
	}
	err := &maas.UnavailableError{Call: listByID, Err: errSlow}
	r.setApart(ids, err)
	r.reading.pass()
	return err
}

// answersOthers asks MAAS something cheap.
func (r *Readings) answersOthers(ctx context.Context) bool {
	client, _ := r.source()
	_, err := askFeed(ctx, client, -1, maas.EventQuery{Limit: 1})
	return err == nil
}

// setApart keeps machines out of the questions for all.
func (r *Readings) setApart(ids []string, why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	until := r.clock.Now().Add(apartFor)
	for _, id := range ids {
		if reading, ok := r.machines[id]; ok {
			reading.apart, reading.apartUntil = newGate(r.clock, r.reading.pause), until
			reading.apart.postpone(why)
		}
	}
}

// gateOf returns who lets one read the machine: its own gate while it is apart, so that nobody else waits for a MAAS that hangs on it.
func (r *Readings) gateOf(systemID string) (g *gate, apart bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if reading, ok := r.machines[systemID]; ok && reading.isApart(r.clock.Now()) {
		return reading.apart, true
	}
	return r.reading, false
}

func (m *machineReading) isApart(now time.Time) bool {
	return m.apart != nil && now.Before(m.apartUntil)
}

func (m *machineReading) keep(machine *maas.Machine, sent time.Time) {
	m.at, m.event, m.known, m.refusal, m.apart = sent, time.Time{}, true, nil, nil
	m.listed, m.machine = machine != nil, maas.Machine{}
	if machine != nil {
		m.machine = *machine
	}
}

// hear notes whether MAAS answered a question that was sent then. What its asker gave up says nothing.
func (r *Readings) hear(ctx context.Context, sent time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil && sent.After(r.heardAt):
		r.heardAt, r.trouble = sent, nil
	case err != nil && ctx.Err() == nil && sent.After(r.heardAt):
		r.trouble = err
	}
}

func (r *Readings) silent() bool { return r.hangs != nil && r.hangs() }

func (r *Readings) tell(woken []types.NamespacedName) {
	if r.wake == nil {
		return
	}
	for _, object := range woken {
		r.wake(object)
	}
}

// noteEvents ends the readings of machines that MAAS recorded something about.
func (r *Readings) noteEvents(epoch int, events []maas.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if epoch != r.epoch {
		return
	}
	now := r.clock.Now()
	for i := range events {
		if reading, ok := r.machines[events[i].SystemID]; ok {
			reading.at, reading.changed, reading.event = time.Time{}, now, now
		}
	}
}
