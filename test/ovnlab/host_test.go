// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab_test

import (
	"net/netip"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/ovnlab"
)

// TestLeaseAndPing: hosts get their addresses from OVN's own DHCP and answer each other inside a tenant only, though two tenants
// have the same addresses.
func TestLeaseAndPing(t *testing.T) {
	ovnlab.Require(t, ovnlab.Namespaces)
	s := start(t, ovnlab.Options{Level: ovnlab.Namespaces}, 4)
	s.tenant("red", 1, 2)
	s.tenant("blue", 3, 4)
	for tenant, hosts := range map[string][]int{"red": {1, 2}, "blue": {3, 4}} {
		s.nbctl("dhcp-options-create", "10.10.1.0/24", "tenant="+tenant)
		options := s.nbctlOutput("--bare", "--columns=_uuid", "find", "dhcp_options", "external_ids:tenant="+tenant)
		s.nbctl("dhcp-options-set-options", strings.TrimSpace(options), "lease_time=3600", "router=10.10.1.1", "server_id=10.10.1.1", "server_mac=fe:00:0a:0a:01:01")
		for n, i := range hosts { // the tenants' addresses overlap
			s.nbctl("lsp-set-addresses", lsp(tenant, i), hardware(i)+" 10.10.1."+[]string{"11", "12"}[n])
			s.nbctl("--wait=hv", "lsp-set-dhcpv4-options", lsp(tenant, i), strings.TrimSpace(options))
		}
	}
	for i, want := range map[int]string{1: "10.10.1.11/24", 2: "10.10.1.12/24", 3: "10.10.1.11/24", 4: "10.10.1.12/24"} {
		s.Expect(s.Lease(s.ctx, name(i), port)).To(Equal(netip.MustParsePrefix(want)))
	}
	second := netip.MustParseAddr("10.10.1.12")
	s.Expect(s.Ping(s.ctx, name(1), port, second)).To(Succeed())
	s.Expect(s.Ping(s.ctx, name(3), port, second)).To(Succeed())
	got, err := s.Received(name(1), port)
	s.Expect(err).NotTo(HaveOccurred())
	s.Expect(got).NotTo(BeEmpty())
	for _, f := range got {
		s.Expect(f.Data[6:12]).NotTo(Equal(mac(1)), "what the host's own stack sent")
	}
	s.Expect(s.Unplug(s.ctx, name(4), port)).To(Succeed())
	s.Expect(s.Ping(s.ctx, name(3), port, second)).NotTo(Succeed(), "red's host of that address must not answer")
	s.Expect(s.Ping(s.ctx, name(1), port, second)).To(Succeed())
	_, err = s.Lease(s.ctx, name(4), port)
	s.Expect(err).To(HaveOccurred())
}

// TestNoHosts: where hosts have no network stack, that is said.
func TestNoHosts(t *testing.T) {
	ovnlab.Require(t, ovnlab.Switches)
	s := start(t, ovnlab.Options{Level: ovnlab.Switches}, 1)
	_, err := s.Lease(s.ctx, name(1), port)
	s.Expect(err).To(MatchError(ContainSubstring("no network stack")))
	s.Expect(s.Ping(s.ctx, name(1), port, netip.MustParseAddr("10.10.1.1"))).To(MatchError(ContainSubstring("no network stack")))
	_, err = s.CutManagement(s.ctx, name(1))
	s.Expect(err).To(MatchError(ContainSubstring("no management link")))
}
