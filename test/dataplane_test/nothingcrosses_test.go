// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"testing"

	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/frames"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/ovnlab"
)

// enough frames are injected that not one may cross.
const enough = 200

// stopped are the kinds that OVN lets pass in no VPC, so that it says nothing of isolation that they do not cross.
var stopped = map[frames.Kind]bool{
	// A logical port without a tag takes none.
	frames.VLAN: true, frames.QinQ: true,
	// OVN answers in place of the neighbours: for DHCP, and for the addresses it has given away.
	frames.DHCPDiscover: true, frames.ARPRequest: true,
}

// TestNothingCrosses sends everything a hostile host can send between two tenants with the same addresses.
func TestNothingCrosses(t *testing.T) {
	t.Run("switches", func(t *testing.T) {
		s, c := onSwitches(t)
		s.nothingCrosses(t, c)
	})
	t.Run("namespaces", func(t *testing.T) {
		ovnlab.Require(t, ovnlab.Namespaces)
		g := NewWithT(t)
		s, err := startSite(t.Context(), ovnlab.Namespaces)
		g.Expect(err).NotTo(HaveOccurred())
		t.Cleanup(func() {
			if err := s.stop(); err != nil {
				t.Error(err)
			}
		})
		c, err := s.castPlayers(t.Context())
		g.Expect(err).NotTo(HaveOccurred())
		s.nothingCrosses(t, c)
		s.leasesAndPings(t, c)
	})
}

func (s *site) nothingCrosses(t *testing.T, c cast) {
	g, ctx, servers := NewWithT(t), t.Context(), c.staying()
	g.Expect(s.prove(ctx, chosen(*grades)[0], servers)).To(Succeed())
	traffic := newTraffic(s.ovn)
	g.Expect(traffic.settle(ctx, within(servers)...)).To(Succeed())
	for _, pair := range [][2]*server{{c.red[0], c.blue[0]}, {c.red[1], c.blue[1]}} {
		t.Logf("%s has %s, %s has %s", pair[0].name, pair[0].station.Address, pair[1].name, pair[1].station.Address)
	}

	both := matrix{passed: map[frames.Kind]int{}, aimed: map[frames.Kind]int{}}
	for both.injected < enough {
		m, err := exchange(ctx, traffic, servers)
		g.Expect(err).NotTo(HaveOccurred())
		both.add(m)
	}
	publish(t, "Two tenants with the same addresses, level "+s.ovn.Level().String(), both.table())
	g.Expect(both.crossings).To(BeEmpty())
	g.Expect(traffic.foreign(servers)).To(BeEmpty(), "frames of hosts and of OVN itself")
	g.Expect(both.injected).To(BeNumerically(">=", enough))
	for _, kind := range frames.Kinds() {
		if stopped[kind] {
			g.Expect(both.passed[kind]).To(BeZero(), "%s: no longer stopped by OVN: it is to count", kind)
			continue
		}
		g.Expect(both.passed[kind]).To(Equal(both.aimed[kind]), "%s within a VPC", kind)
	}
	s.misplugIsSeen(t, c, traffic)
}

// misplugIsSeen gives a card of one tenant the logical port of the other, behind the provider's back: the same check must find
// crossings then, and none once it is undone.
func (s *site) misplugIsSeen(t *testing.T, c cast, traffic *traffic) {
	g, ctx := NewWithT(t), t.Context()
	stranger, owner, witness := c.blue[1], c.red[1], c.red[0]
	theirs, err := s.ifaceID(owner)
	g.Expect(err).NotTo(HaveOccurred())
	own, err := s.ifaceID(stranger)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(s.ovn.Unplug(ctx, owner.dpu, hostPort)).To(Succeed())
	g.Expect(s.ovn.Plug(ctx, stranger.dpu, hostPort, theirs)).To(Succeed())

	g.Expect(traffic.reach(ctx, stranger, witness)).To(Succeed(), "the mis-plugged card talks to the other tenant")
	control := newTraffic(s.ovn)
	m, err := exchange(ctx, control, []*server{witness, c.blue[0], stranger}, [2]*server{stranger, witness})
	g.Expect(err).NotTo(HaveOccurred())
	t.Logf("mis-plugged on purpose: %s", m.table())
	g.Expect(m.crossings).NotTo(BeEmpty(), "the check cannot see a mis-plug")
	var want []frames.Kind
	for _, kind := range frames.Kinds() {
		if !stopped[kind] {
			want = append(want, kind)
		}
	}
	g.Expect(m.kindsCrossed()).To(ContainElements(want), "each kind that passes within a VPC must be seen to cross")

	g.Expect(s.ovn.Plug(ctx, stranger.dpu, hostPort, own)).To(Succeed())
	g.Expect(s.ovn.Plug(ctx, owner.dpu, hostPort, theirs)).To(Succeed())
	after := newTraffic(s.ovn)
	g.Expect(traffic.settle(ctx, within(c.staying())...)).To(Succeed())
	g.Expect(traffic.collect(c.staying()...)).To(Succeed())
	m, err = exchange(ctx, after, c.staying())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(m.crossings).To(BeEmpty(), "after the mis-plug was undone")
}

// leasesAndPings uses the hosts' own network stacks: each gets its lease, reaches its neighbour, and not the other tenant's
// server, though an address may be both's.
func (s *site) leasesAndPings(t *testing.T, c cast) {
	g, ctx := NewWithT(t), t.Context()
	for _, sv := range c.staying() {
		lease, err := s.ovn.Lease(ctx, sv.dpu, hostPort)
		g.Expect(err).NotTo(HaveOccurred(), "lease of %s", sv.name)
		t.Logf("%s of %s has the lease %s", sv.name, sv.tenant, lease)
		g.Expect(lease.Addr()).To(Equal(sv.station.Address), sv.name)
	}
	for _, from := range c.staying() {
		for _, to := range c.staying() {
			if from.tenant == to.tenant && from != to {
				g.Eventually(func() error { return s.ovn.Ping(ctx, from.dpu, hostPort, to.station.Address) }).
					WithTimeout(patience).Should(Succeed(), "%s to %s", from.name, to.name)
			}
		}
	}
	traffic := newTraffic(s.ovn)
	g.Expect(traffic.settle(ctx, within(c.staying())...)).To(Succeed())
	g.Expect(traffic.collect(c.staying()...)).To(Succeed())
	g.Expect(traffic.others).NotTo(BeEmpty(), "the pings were captured")
	g.Expect(traffic.foreign(c.staying())).To(BeEmpty())
	t.Logf("pings within both VPCs answered; of %d frames of the hosts' own, none came out in the other", len(traffic.others))
}
