// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/ovnlab"
)

// world is a tenant of DPUs 1 and 2 with traffic both ways.
func world(t *testing.T, level ovnlab.Level) *site {
	s := start(t, ovnlab.Options{Level: level}, 2)
	s.tenant("red", 1, 2)
	s.eventuallyArrives(1, 2)
	s.eventuallyArrives(2, 1)
	return s
}

// detach deletes a host's logical switch port and nothing else.
func (s *site) detach(lsp string) { s.t.Helper(); s.nbctl("lsp-del", lsp) }

func (s *site) bound(lsp string) bool {
	return s.sbctl("--bare", "--columns=logical_port", "find", "port_binding", "logical_port="+lsp) != ""
}

// barrier says whether all DPUs have programmed what the northbound database says now.
func (s *site) barrier(timeout string) bool {
	_, err := s.tryNbctl("--wait=hv", "--timeout="+timeout, "sync")
	return err == nil
}

// TestHungController: what a DPU was told last stays in force. A port that is gone from OVN still passes frames, until the
// representor is taken off the switch.
func TestHungController(t *testing.T) {
	atLevels(t, func(t *testing.T, level ovnlab.Level) {
		s := world(t, level)
		var resume []func() error
		for i := 1; i <= 2; i++ {
			r, err := s.HangController(name(i))
			s.Expect(err).NotTo(HaveOccurred())
			resume = append(resume, r)
		}
		s.detach("red-2")
		s.Eventually(s.bound).WithArguments("red-2").WithTimeout(soon).WithPolling(poll).Should(BeFalse())
		s.Expect(s.arrives(1, 2, soon)).To(BeTrue(), "the port is gone, its flows are not")
		s.Expect(s.arrives(2, 1, soon)).To(BeTrue())
		s.Expect(s.barrier("2")).To(BeFalse())

		s.Expect(s.Unplug(s.ctx, name(2), port)).To(Succeed())
		s.Expect(s.arrives(2, 1, quiet)).To(BeFalse())
		s.Expect(s.arrives(1, 2, quiet)).To(BeFalse())
		for _, r := range resume {
			s.Expect(r()).To(Succeed())
			s.Expect(r()).To(Succeed())
		}
		s.Expect(s.barrier("15")).To(BeTrue())
	})
}

// TestHungPeer: a port is up as soon as its own DPU says so; a peer whose controller hangs does not know of it.
func TestHungPeer(t *testing.T) {
	atLevels(t, func(t *testing.T, level ovnlab.Level) {
		s := start(t, ovnlab.Options{Level: level}, 2)
		s.tenant("red", 1)
		resume, err := s.HangController(name(1))
		s.Expect(err).NotTo(HaveOccurred())
		s.nbctl("lsp-add", "red", "red-2", "--", "lsp-set-addresses", "red-2", hardware(2))
		s.plug(2, "red-2")
		s.Eventually(s.up).WithArguments("red-2").WithTimeout(soon).WithPolling(poll).Should(BeTrue())
		s.Expect(s.arrives(1, 2, quiet)).To(BeFalse())
		s.Expect(resume()).To(Succeed())
		s.eventuallyArrives(1, 2)
	})
}

// TestKilledController: chassis, binding and traffic stay; nobody is told anything new. A boot repairs it.
func TestKilledController(t *testing.T) {
	atLevels(t, func(t *testing.T, level ovnlab.Level) {
		s := world(t, level)
		s.Expect(s.KillController(s.ctx, name(2))).To(Succeed())
		s.Expect(s.arrives(1, 2, soon)).To(BeTrue())
		s.Expect(s.chassis()).To(ConsistOf(name(1), name(2)))
		s.Expect(s.up("red-2")).To(BeTrue())
		s.Expect(s.barrier("1")).To(BeFalse())
		_, err := s.HangController(name(2))
		s.Expect(err).To(HaveOccurred())
		s.Expect(s.StartDPU(s.ctx, name(2))).To(Succeed())
		s.Expect(s.barrier("15")).To(BeTrue())
		s.eventuallyArrives(1, 2)
	})
}

// TestKilledSwitch: nothing passes, and OVN's databases know nothing of it: the port is up and the barrier passes.
func TestKilledSwitch(t *testing.T) {
	atLevels(t, func(t *testing.T, level ovnlab.Level) {
		s := world(t, level)
		s.Expect(s.KillSwitch(s.ctx, name(2))).To(Succeed())
		s.Expect(s.arrives(1, 2, quiet)).To(BeFalse())
		s.Expect(s.arrives(2, 1, quiet)).To(BeFalse())
		s.Expect(s.up("red-2")).To(BeTrue())
		s.Expect(s.barrier("15")).To(BeTrue())
		s.Expect(s.Unplug(s.ctx, name(2), port)).To(Succeed(), "the agent writes what no switch reads")
		s.Expect(s.Plug(s.ctx, name(2), port, "red-2")).To(Succeed())
		s.Expect(s.StartDPU(s.ctx, name(2))).To(Succeed())
		s.eventuallyArrives(1, 2)
		s.eventuallyArrives(2, 1)
	})
}

// TestHungNorthd: a port deleted northbound lives on southbound, and so does its traffic.
func TestHungNorthd(t *testing.T) {
	atLevels(t, func(t *testing.T, level ovnlab.Level) {
		s := world(t, level)
		resume, err := s.HangNorthd()
		s.Expect(err).NotTo(HaveOccurred())
		s.detach("red-2")
		s.Expect(s.barrier("1")).To(BeFalse())
		s.Expect(s.up("red-2")).To(BeTrue())
		s.Expect(s.arrives(1, 2, soon)).To(BeTrue())
		s.Expect(resume()).To(Succeed())
		s.Expect(s.barrier("15")).To(BeTrue())
		s.Expect(s.bound("red-2")).To(BeFalse())
		s.Expect(s.arrives(1, 2, quiet)).To(BeFalse())
	})
}

// TestRestartSouthbound: contents and address stay, traffic is not touched, and everybody comes back.
func TestRestartSouthbound(t *testing.T) {
	atLevels(t, func(t *testing.T, level ovnlab.Level) {
		s := world(t, level)
		address, rows := s.Southbound(), s.sbctl("--bare", "--columns=_uuid", "list", "port_binding")
		s.Expect(s.RestartSouthbound(s.ctx)).To(Succeed())
		s.Expect(s.Southbound()).To(Equal(address))
		s.Expect(s.sbctl("--bare", "--columns=_uuid", "list", "port_binding")).To(Equal(rows))
		s.Expect(s.arrives(1, 2, soon)).To(BeTrue())
		s.Expect(s.barrier("15")).To(BeTrue())
		s.detach("red-2")
		s.Expect(s.barrier("15")).To(BeTrue())
		s.Expect(s.arrives(1, 2, quiet)).To(BeFalse())
	})
}

// TestCutManagement: without its link to the databases a DPU goes on as it was and learns nothing.
func TestCutManagement(t *testing.T) {
	ovnlab.Require(t, ovnlab.Namespaces)
	s := world(t, ovnlab.Namespaces)
	restore, err := s.CutManagement(s.ctx, name(2))
	s.Expect(err).NotTo(HaveOccurred())
	s.Expect(s.arrives(1, 2, soon)).To(BeTrue())
	s.Expect(s.up("red-2")).To(BeTrue())
	s.Expect(s.barrier("1")).To(BeFalse())
	s.Expect(restore(s.ctx)).To(Succeed())
	begun := time.Now()
	s.Expect(s.barrier("15")).To(BeTrue())
	t.Logf("back after %s", time.Since(begun).Round(time.Millisecond))
}
