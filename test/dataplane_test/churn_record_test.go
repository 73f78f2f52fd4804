// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"time"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/frames"
)

// stay is one stay of the moving server in a tenant's VPC.
type stay struct {
	tenant string
	// asked is before the attachment was written, attached before it was said to be proven, leaving before detachment was asked
	// for, and detached before that was said to be proven. A zero instant has not come.
	asked, attached, leaving, detached time.Time
}

// holds says whether the server may exchange frames with the tenant at an instant.
func (s stay) holds(at time.Time) bool {
	return !at.Before(s.asked) && (s.detached.IsZero() || !at.After(s.detached))
}

// itinerary is what is known of the moving server and of those that stay.
type itinerary struct {
	mover *server
	stays []stay
}

// finding is what the captured frames say of the moves.
type finding struct {
	// probes were sent, and so many captured.
	probes, arrived int
	// between counts frames between the two tenants' own servers: there is never a reason for one.
	between int
	// late are frames exchanged with a tenant after the server was said to be detached from it and before it was asked to come
	// again; worst is how long after.
	late  int
	worst time.Duration
	// before counts frames exchanged with a tenant before any attachment to it was asked for.
	before int
	// early are frames exchanged after the attachment was asked for and before it was said to be proven: a proof comes after what
	// it proves. earliest is how long before the proof the first came.
	early    int
	earliest time.Duration
	// lost are probes of the server and its peers to each other, sent while it was said to be attached, that did not arrive;
	// lastLost is how long after the proof the last of them was sent.
	lost, whileAttached int
	lastLost            time.Duration
}

// judge orders the captured frames by their arrival against what was said when.
func (it *itinerary) judge(t *traffic, peers []*server) finding {
	f := finding{probes: t.count()}
	byNumber := map[uint16]*server{it.mover.number: it.mover}
	for _, p := range peers {
		byNumber[p.number] = p
	}
	arrivedAt := map[uint32]map[*server]bool{}
	for _, a := range t.arrivals(func(arrival) bool { return true }) {
		f.arrived++
		if arrivedAt[a.marker.Sequence] == nil {
			arrivedAt[a.marker.Sequence] = map[*server]bool{}
		}
		arrivedAt[a.marker.Sequence][a.to] = true
		from := byNumber[a.marker.Sender]
		switch {
		case from == nil, from == a.to:
		case from == it.mover:
			it.place(&f, a.to.tenant, a.at)
		case a.to == it.mover:
			it.place(&f, from.tenant, a.at)
		case from.tenant != a.to.tenant:
			f.between++
		}
	}
	it.countLost(&f, t, arrivedAt)
	return f
}

// place puts one frame exchanged with a tenant's server into the stays.
func (it *itinerary) place(f *finding, tenant string, at time.Time) {
	last := -1
	for i, s := range it.stays {
		if s.tenant != tenant || at.Before(s.asked) {
			continue
		}
		last = i
		if s.holds(at) && !s.attached.IsZero() && at.Before(s.attached) {
			f.early++
			f.earliest = max(f.earliest, s.attached.Sub(at))
		}
	}
	switch {
	case last < 0:
		f.before++
	case !it.stays[last].holds(at):
		f.late++
		f.worst = max(f.worst, at.Sub(it.stays[last].detached))
	}
}

// countLost counts the probes that did not arrive though both ends were said to be attached when they were sent, and nobody had
// asked for anything else yet.
func (it *itinerary) countLost(f *finding, t *traffic, arrivedAt map[uint32]map[*server]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range t.sent {
		to := t.targets[m.Sequence]
		if m.Kind != frames.Unicast || (m.Sender != it.mover.number && to != it.mover) {
			continue
		}
		peer := to
		if to == it.mover {
			peer = t.sender(m.Sender)
		}
		for _, s := range it.stays {
			if peer == nil || s.tenant != peer.tenant || s.attached.IsZero() || m.Sent.Before(s.attached) ||
				(!s.leaving.IsZero() && m.Sent.After(s.leaving)) {
				continue
			}
			f.whileAttached++
			if !arrivedAt[m.Sequence][to] {
				f.lost++
				f.lastLost = max(f.lastLost, m.Sent.Sub(s.attached))
			}
		}
	}
}
