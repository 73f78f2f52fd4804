// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/ovnlab"
)

// trace is what OVN's flows do to a packet of a host, up to where it comes out.
func (s *site) trace(networkName, port, source, sourceMAC, gatewayMAC, destination string) string {
	s.t.Helper()
	packet := fmt.Sprintf(`inport=="%s" && eth.src==%s && eth.dst==%s && ip4.src==%s && ip4.dst==%s && ip.ttl==64 && icmp4.type==8`,
		port, sourceMAC, gatewayMAC, source, destination)
	output, err := exec.CommandContext(s.ctx, "ovn-trace", "--db="+s.Southbound(), "--ct=new", "red_v_"+networkName+"Switch", packet).CombinedOutput()
	s.Expect(err).NotTo(HaveOccurred(), "%s", output)
	return string(output)
}

// comesOut says whether the packet that a trace follows leaves OVN by a port.
func comesOut(trace, port string) bool {
	return strings.Contains(trace, fmt.Sprintf(`output to "%s"`, port))
}

func TestTopologyRoutesAsDPFSays(t *testing.T) {
	ovnlab.Require(t, ovnlab.Switches)
	s := start(t, ovnlab.Options{Level: ovnlab.Switches}, 0)
	topology := ovnlab.NewTopology(s.Lab)
	t.Cleanup(topology.Close)
	n, m := network("v", "n", "10.10.1.0/24"), network("v", "m", "10.10.2.0/24")
	m.Join, m.ExternallyRouted = netip.MustParsePrefix("100.64.0.3/16"), false
	for _, net := range []dpfsim.OVNNetwork{n, m} {
		s.Expect(topology.EnsureNetwork(s.ctx, net)).To(Succeed())
	}
	for i := range 2 {
		s.Expect(topology.AddDPU(s.ctx, name(i+1), []dpfsim.OVNRepresentor{{Name: port, MAC: hardware(i + 1)}})).To(Succeed())
	}
	vpc := vpcOf(n, m)
	s.Expect(topology.EnsureVPC(s.ctx, vpc)).To(Succeed())
	s.connect(topology, 1, "10.10.1.4")
	inner := portOf(2)
	inner.Network, inner.ExternallyRouted = "m", false
	s.Eventually(func() (string, error) {
		got, err := topology.EnsurePort(s.ctx, inner)
		return got.String(), err
	}).WithTimeout(soon).WithPolling(poll).Should(Equal("10.10.2.4"))
	s.connect(topology, 1, "10.10.1.4")

	toM := func() string {
		return s.trace("n", "red_si-1", "10.10.1.4", hardware(1), "fe:00:0a:0a:01:01", "10.10.2.4")
	}
	for _, peering := range []bool{false, true, false} {
		vpc.InterNetworkAccess = peering
		s.Expect(topology.EnsureVPC(s.ctx, vpc)).To(Succeed())
		s.Eventually(func() bool { return comesOut(toM(), "red_si-2") }).WithTimeout(soon).Should(Equal(peering), "peering %t", peering)
	}

	const outside, way = "192.0.2.9", "red_v_dpu1GS_to_localnet"
	s.Eventually(func() bool {
		return comesOut(s.trace("n", "red_si-1", "10.10.1.4", hardware(1), "fe:00:0a:0a:01:01", outside), way)
	}).WithTimeout(soon).Should(BeTrue(), "by the gateway of its own Node, which asks there for the next hop")
	s.Expect(s.trace("m", "red_si-2", "10.10.2.4", hardware(2), "fe:00:0a:0a:02:01", outside)).NotTo(ContainSubstring("localnet"), "m is not externally routed")
}
