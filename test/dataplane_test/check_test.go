// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/frames"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/ovnlab"
)

// hub is a wire that carries a frame to whom its rule says; it stands in for OVN where the checks themselves are tested.
type hub struct {
	carries func(from, to *server, kind frames.Kind) bool
	servers []*server
	queues  map[string][]ovnlab.Frame
}

func newHub(carries func(from, to *server, kind frames.Kind) bool, servers ...*server) *hub {
	return &hub{carries: carries, servers: servers, queues: map[string][]ovnlab.Frame{}}
}

func (h *hub) Send(_ context.Context, dpu, _ string, frame []byte) error {
	marker, ok := frames.Read(frame)
	if !ok {
		return fmt.Errorf("a frame without a marker: %x", frame)
	}
	var from *server
	for _, sv := range h.servers {
		if sv.dpu == dpu {
			from = sv
		}
	}
	for _, to := range h.servers {
		if to != from && h.carries(from, to, marker.Kind) {
			h.queues[to.dpu] = append(h.queues[to.dpu], ovnlab.Frame{At: time.Now(), Data: frame})
		}
	}
	return nil
}

func (h *hub) Received(dpu, _ string) ([]ovnlab.Frame, error) {
	out := h.queues[dpu]
	h.queues[dpu] = nil
	return out, nil
}

func pieces() (cast, []*server) {
	make1 := func(n byte, tenant string) *server {
		return &server{
			name: fmt.Sprintf("%s-%d", tenant, n), tenant: tenant, number: uint16(n), dpu: fmt.Sprintf("dpu-%d", n),
			station: frames.Station{MAC: net.HardwareAddr{2, 0, 0, 0, 0, n}, Address: sameAddress(n)},
		}
	}
	c := cast{red: [2]*server{make1(1, "red"), make1(2, "red")}, blue: [2]*server{make1(3, "blue"), make1(4, "blue")}, mover: make1(5, "")}
	return c, c.staying()
}

func within1VPC(from, to *server, _ frames.Kind) bool { return from.tenant == to.tenant }

// TestCrossingsAreCounted: a network that lets one kind through in one place is found out, and one that does not is not accused.
func TestCrossingsAreCounted(t *testing.T) {
	_, servers := pieces()
	for _, row := range []struct {
		name    string
		carries func(from, to *server, kind frames.Kind) bool
		kinds   []frames.Kind
	}{
		{"isolated", within1VPC, nil},
		{"one kind leaks to one server", func(from, to *server, kind frames.Kind) bool {
			return within1VPC(from, to, kind) || kind == frames.RouterAdvertisement && to.number == 4
		}, []frames.Kind{frames.RouterAdvertisement}},
		{"everything leaks", func(*server, *server, frames.Kind) bool { return true }, frames.Kinds()},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := NewWithT(t)
			m, err := exchange(t.Context(), newTraffic(newHub(row.carries, servers...)), servers)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(m.kindsCrossed()).To(Equal(row.kinds))
			g.Expect(m.injected).To(Equal(8 * len(frames.Kinds())))
			g.Expect(m.within).To(Equal(4 * len(frames.Kinds())))
			for _, kind := range frames.Kinds() {
				g.Expect(m.passed[kind]).To(Equal(m.aimed[kind]), kind.String())
			}
		})
	}
}

// script is a traffic with arrivals at given instants.
type script struct {
	*traffic
	begin time.Time
}

func newScript() *script { return &script{traffic: newTraffic(nil), begin: time.Unix(1700000000, 0)} }

func (s *script) at(second float64) time.Time {
	return s.begin.Add(time.Duration(second * float64(time.Second)))
}

// frame was sent at one second and arrived at another; never, if that is negative.
func (s *script) frame(from, to *server, sent, arrived float64) {
	s.sequence++
	marker := frames.Marker{Kind: frames.Unicast, Sender: from.number, Sequence: s.sequence, Sent: s.at(sent)}
	s.sent = append(s.sent, marker)
	s.targets[marker.Sequence], s.senders[from.number] = to, from
	if arrived >= 0 {
		s.arrived = append(s.arrived, arrival{at: s.at(arrived), marker: marker, to: to})
	}
}

// TestOrderOfFramesAndProofs: the server is asked into red at 10 and said to be there at 11, leaves from 20 and is said to be gone
// at 21; in blue from 30 (31) to 40 (41).
func TestOrderOfFramesAndProofs(t *testing.T) {
	c, _ := pieces()
	red, blue, mover := c.red[0], c.blue[0], c.mover
	for _, row := range []struct {
		name          string
		from, to      *server
		sent, arrived float64
		want          finding
	}{
		{"while red has it", red, mover, 15, 15.1, finding{whileAttached: 1}},
		{"lost while red has it", mover, red, 15, -1, finding{whileAttached: 1, lost: 1, lastLost: 4 * time.Second}},
		{"between question and proof", mover, red, 10.5, 10.6, finding{early: 1, earliest: 400 * time.Millisecond}},
		{"lost before the proof", red, mover, 10.5, -1, finding{}},
		{"after leaving is asked for", red, mover, 20.5, 20.9, finding{}},
		{"sent before, came after the proof", red, mover, 20.9, 21.5, finding{late: 1, worst: 500 * time.Millisecond}},
		{"sent after the proof by the server", mover, red, 22, 22, finding{late: 1, worst: time.Second}},
		{"of red while blue has it", red, mover, 35, 35, finding{late: 1, worst: 14 * time.Second}},
		{"of blue while red has it", blue, mover, 15, 15, finding{before: 1}},
		{"to blue before it is asked for", mover, blue, 25, 25, finding{before: 1}},
		{"between the tenants", red, blue, 15, 15, finding{between: 1}},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newScript()
			it := itinerary{mover: mover, stays: []stay{
				{"red", s.at(10), s.at(11), s.at(20), s.at(21)}, {"blue", s.at(30), s.at(31), s.at(40), s.at(41)},
			}}
			s.frame(row.from, row.to, row.sent, row.arrived)
			got := it.judge(s.traffic, c.staying())
			got.probes, got.arrived = 0, 0
			NewWithT(t).Expect(got).To(Equal(row.want))
		})
	}
}
