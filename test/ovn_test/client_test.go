// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovn_test

import (
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc/ovn"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/ovnlab"
)

func bound(id, chassis string, up bool, i int) vpc.Binding {
	return vpc.Binding{LogicalPort: id, Switch: "red_v_nSwitch", Chassis: chassis, Up: up, MACs: []string{mac(i)}}
}

// TestPortsAndBarriers: what the client reads is what OVN does: ports are bound where they are plugged and let go where they are not,
// and every chassis passes every value that was raised, each greater than the one before.
func TestPortsAndBarriers(t *testing.T) {
	everywhere(t, func(s *site) {
		s.Eventually(s.passed(s.raise())).WithTimeout(soon).WithPolling(poll).Should(Equal([]string{"dpu1", "dpu2"}))
		s.plug("red_si-1", "dpu1", 1)
		s.plug("red_si-2", "dpu2", 2)
		s.Eventually(s.bindings).WithTimeout(soon).WithPolling(poll).Should(ConsistOf(bound("red_si-1", "dpu1", true, 1), bound("red_si-2", "dpu2", true, 2)))
		chosen, err := s.client.Addresses(s.ctx)
		s.Expect(err).NotTo(HaveOccurred())
		s.Expect(chosen).To(And(HaveKey("red_si-1"), HaveKey("red_si-2")))
		s.Expect(chosen["red_si-1"][0].String()).To(HavePrefix("10.10.1."))

		before := s.raise()
		value := s.raise()
		s.Expect(value).To(Equal(before + 1))
		s.Eventually(s.passed(value)).WithTimeout(soon).WithPolling(poll).Should(Equal([]string{"dpu1", "dpu2"}))
		s.Expect(s.passed(value + 1)()).To(BeEmpty())

		s.Expect(s.topology.Unplug(s.ctx, "dpu1", port)).To(Succeed())
		s.Eventually(s.bindings).WithTimeout(soon).WithPolling(poll).Should(ContainElement(bound("red_si-1", "", false, 1)))
		s.Expect(s.topology.RemovePort(s.ctx, "red_si-1")).To(Succeed())
		s.Eventually(s.bindings).WithTimeout(soon).WithPolling(poll).Should(ConsistOf(bound("red_si-2", "dpu2", true, 2)))
	})
}

// TestHungControllerLags: its rows go on as if nothing were, and it passes no barrier until it runs again; the others do.
func TestHungControllerLags(t *testing.T) {
	everywhere(t, func(s *site) {
		s.plug("red_si-1", "dpu1", 1)
		s.Eventually(s.bindings).WithTimeout(soon).WithPolling(poll).Should(ConsistOf(bound("red_si-1", "dpu1", true, 1)))
		resume, err := s.lab.HangController("dpu1")
		s.Expect(err).NotTo(HaveOccurred())
		s.Expect(s.topology.RemovePort(s.ctx, "red_si-1")).To(Succeed())
		s.Eventually(s.bindings).WithTimeout(soon).WithPolling(poll).Should(BeEmpty())
		value := s.raise()
		s.Eventually(s.passed(value)).WithTimeout(soon).WithPolling(poll).Should(Equal([]string{"dpu2"}))
		s.Consistently(s.passed(value)).WithTimeout(300 * time.Millisecond).WithPolling(20 * time.Millisecond).Should(Equal([]string{"dpu2"}))
		s.Expect(resume()).To(Succeed())
		s.Eventually(s.passed(value)).WithTimeout(soon).WithPolling(poll).Should(Equal([]string{"dpu1", "dpu2"}))
	})
}

// TestSouthboundRestarts: the client finds the database again by itself.
func TestSouthboundRestarts(t *testing.T) {
	everywhere(t, func(s *site) {
		s.plug("red_si-1", "dpu1", 1)
		s.Eventually(s.bindings).WithTimeout(soon).WithPolling(poll).Should(ConsistOf(bound("red_si-1", "dpu1", true, 1)))
		for range 3 {
			s.Expect(s.lab.RestartSouthbound(s.ctx)).To(Succeed())
			// The database is there; that it is asked over a new connection is the client's affair.
			_, err := s.bindings()
			s.Expect(err).NotTo(HaveOccurred())
			s.Eventually(s.bindings).WithTimeout(soon).WithPolling(poll).Should(ConsistOf(bound("red_si-1", "dpu1", true, 1)))
			s.Eventually(s.passed(s.raise())).WithTimeout(soon).WithPolling(poll).Should(Equal([]string{"dpu1", "dpu2"}))
		}
	})
}

// TestStrangersAreTurnedAway: OVN's server wants a certificate of the lab's CA, and the client one that names the address it asks.
func TestStrangersAreTurnedAway(t *testing.T) {
	for _, level := range []ovnlab.Level{ovnlab.StandIn, ovnlab.Switches} {
		t.Run(level.String(), func(t *testing.T) {
			s, other := start(t, level, true), start(t, ovnlab.StandIn, true)
			own, foreign := s.lab.TLS(), other.lab.TLS()
			for name, material := range map[string]*ovnlab.TLS{
				"another server CA":          {CA: foreign.CA, Certificate: own.Certificate, Key: own.Key},
				"a certificate of another's": {CA: own.CA, Certificate: foreign.Certificate, Key: foreign.Key},
			} {
				client := s.newClient(material)
				_, err := client.Read(s.ctx)
				s.Expect(ovn.KindOf(err)).To(Equal(ovn.Unreachable), "%s: %v", name, err)
				_, err = client.Raise(s.ctx)
				s.Expect(ovn.KindOf(err)).To(Equal(ovn.Unreachable), "%s: %v", name, err)
			}
		})
	}
}

// TestFigures measures; what it measures is judged by nobody.
func TestFigures(t *testing.T) {
	everywhere(t, func(s *site) {
		s.plug("red_si-1", "dpu1", 1)
		s.Eventually(s.bindings).WithTimeout(soon).WithPolling(poll).Should(ConsistOf(bound("red_si-1", "dpu1", true, 1)))
		median := func(work func()) time.Duration {
			took := make([]time.Duration, repeats)
			for i := range took {
				began := time.Now()
				work()
				took[i] = time.Since(began)
			}
			slices.Sort(took)
			return took[len(took)/2]
		}
		read := median(func() {
			_, err := s.bindings()
			s.Expect(err).NotTo(HaveOccurred())
		})
		raise := median(func() { s.raise() })
		barrier := median(func() {
			value := s.raise()
			s.Eventually(s.passed(value)).WithTimeout(soon).WithPolling(time.Millisecond).Should(Equal([]string{"dpu1", "dpu2"}))
		})
		s.t.Logf("median of %d: Read %s, Raise %s, Raise until all chassis passed %s", repeats, read, raise, barrier)
	})
}
