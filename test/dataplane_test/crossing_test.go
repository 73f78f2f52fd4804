// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/frames"
)

// crossing is a probe that came out in another VPC than it was sent in.
type crossing struct {
	kind     frames.Kind
	from, to string
}

// matrix is what an exchange of every kind between all servers has shown.
type matrix struct {
	// injected are the probes that were aimed at another VPC, within those aimed at the sender's own.
	injected, within int
	crossings        []crossing
	// passed counts, for each kind, the probes that reached somebody in the sender's VPC, of those aimed there.
	passed map[frames.Kind]int
	aimed  map[frames.Kind]int
}

// exchange has each server send every kind of frame at every server of every other VPC, and at those of its own. The servers know
// nothing but the others' addresses, and lie about their own as the kind says. What it returns counts is what was captured, no
// matter what OVN says. Nothing but these probes may be under way.
//
// It ends when frames sent last have arrived between these pairs; without any, between all servers of one VPC.
func exchange(ctx context.Context, t *traffic, servers []*server, last ...[2]*server) (matrix, error) {
	m := matrix{passed: map[frames.Kind]int{}, aimed: map[frames.Kind]int{}}
	if err := t.collect(servers...); err != nil {
		return m, err
	}
	before := t.count()
	for _, kind := range frames.Kinds() {
		for _, from := range servers {
			for _, to := range servers {
				if to == from {
					continue
				}
				if _, err := t.send(ctx, kind, from, to, victimOf(servers, from, to)); err != nil {
					return m, err
				}
				if to.tenant == from.tenant {
					m.within++
					m.aimed[kind]++
				} else {
					m.injected++
				}
			}
		}
	}
	after := t.count()
	if len(last) == 0 {
		last = within(servers)
	}
	if err := t.settle(ctx, last...); err != nil {
		return m, err
	}
	if err := t.collect(servers...); err != nil {
		return m, err
	}
	m.judge(t, servers, before, after)
	return m, nil
}

// victimOf is the server in whose name another lies: the target's neighbour, or else any but the two.
func victimOf(servers []*server, from, to *server) *server {
	for _, near := range []bool{true, false} {
		for _, sv := range servers {
			if sv != from && sv != to && (sv.tenant == to.tenant || !near) {
				return sv
			}
		}
	}
	return to
}

// within are the pairs of servers of one VPC, each way.
func within(servers []*server) (pairs [][2]*server) {
	for _, a := range servers {
		for _, b := range servers {
			if a != b && a.tenant == b.tenant {
				pairs = append(pairs, [2]*server{a, b})
			}
		}
	}
	return pairs
}

// judge sorts what arrived of the probes sent between two counts.
func (m *matrix) judge(t *traffic, servers []*server, before, after int) {
	byNumber := map[uint16]*server{}
	for _, sv := range servers {
		byNumber[sv.number] = sv
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	aimedAt := map[uint32]*server{}
	for _, marker := range t.sent[before:after] {
		aimedAt[marker.Sequence] = t.targets[marker.Sequence]
	}
	seen := map[uint32]bool{}
	for _, a := range t.arrived {
		target, ours := aimedAt[a.marker.Sequence]
		from := byNumber[a.marker.Sender]
		switch {
		case from == nil, from == a.to:
		case from.tenant != a.to.tenant:
			// A frame of any age is one too many.
			m.crossings = append(m.crossings, crossing{a.marker.Kind, from.name, a.to.name})
		case ours && target == a.to && m.aimed[a.marker.Kind] > 0 && !seen[a.marker.Sequence]:
			seen[a.marker.Sequence] = true
			m.passed[a.marker.Kind]++
		}
	}
}

// add adds what another exchange has shown.
func (m *matrix) add(other matrix) {
	m.injected += other.injected
	m.within += other.within
	m.crossings = append(m.crossings, other.crossings...)
	for kind := range other.aimed {
		m.aimed[kind] += other.aimed[kind]
		m.passed[kind] += other.passed[kind]
	}
}

// table is the matrix for people.
func (m *matrix) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d frames injected into another VPC: %d crossed; %d sent within one\n", m.injected, len(m.crossings), m.within)
	for _, kind := range frames.Kinds() {
		if len(m.crossings) > 0 {
			break // what passes within the VPCs is another question
		}
		fmt.Fprintf(&b, "%-26s %3d of %3d arrived within the VPC\n", kind, m.passed[kind], m.aimed[kind])
	}
	counts := map[frames.Kind]int{}
	for _, c := range m.crossings {
		counts[c.kind]++
	}
	for _, kind := range m.kindsCrossed() {
		fmt.Fprintf(&b, "CROSSED: %d of kind %s\n", counts[kind], kind)
	}
	return b.String()
}

// kindsCrossed are the kinds with a crossing, in their order.
func (m *matrix) kindsCrossed() []frames.Kind {
	var kinds []frames.Kind
	for _, c := range m.crossings {
		kinds = append(kinds, c.kind)
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}
