// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/ovnlab"
)

// atDatabases runs the test on the stand-in and on OVN itself.
func atDatabases(t *testing.T, test func(t *testing.T, s *site, topology *ovnlab.Topology)) {
	for _, level := range []ovnlab.Level{ovnlab.StandIn, ovnlab.Switches} {
		t.Run(level.String(), func(t *testing.T) {
			ovnlab.Require(t, level)
			s := start(t, ovnlab.Options{Level: level}, 0)
			topology := ovnlab.NewTopology(s.Lab)
			t.Cleanup(topology.Close)
			test(t, s, topology)
		})
	}
}

// ask returns the rows of a table as JSON has them.
func (s *site) ask(address, database, table string) (rows []map[string]any) {
	s.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(address, "tcp:"))
	s.Expect(err).NotTo(HaveOccurred())
	defer func() { s.Expect(conn.Close()).To(Succeed()) }()
	question := map[string]any{"id": 1, "method": "transact", "params": []any{
		database, map[string]any{"op": "select", "table": table, "where": []any{}},
	}}
	s.Expect(json.NewEncoder(conn).Encode(question)).To(Succeed())
	var answer struct {
		Result []struct{ Rows []map[string]any }
		Error  any
	}
	s.Expect(json.NewDecoder(conn).Decode(&answer)).To(Succeed())
	s.Expect(answer.Error).To(BeNil())
	return answer.Result[0].Rows
}

func (s *site) nb(table string) []map[string]any {
	return s.ask(s.Northbound(), "OVN_Northbound", table)
}
func (s *site) sb(table string) []map[string]any {
	return s.ask(s.Southbound(), "OVN_Southbound", table)
}

// column is one column of all rows, sorted; a map as "key=value" with spaces between.
func column(rows []map[string]any, name string) []string {
	out := []string{}
	for _, row := range rows {
		if value, ok := row[name].([]any); ok && value[0] == "map" {
			var pairs []string
			for _, pair := range value[1].([]any) {
				pairs = append(pairs, fmt.Sprintf("%v=%v", pair.([]any)...))
			}
			slices.Sort(pairs)
			out = append(out, strings.Join(pairs, " "))
			continue
		}
		out = append(out, fmt.Sprint(row[name]))
	}
	slices.Sort(out)
	return out
}

// binding is what the southbound database says of a port: its chassis' name, "" without one, its addresses, and whether it is up.
// The addresses are those asked for: OVN writes what it chose into the northbound database only.
func (s *site) binding(port string) func() string {
	return func() string {
		chassis := map[string]string{}
		for _, row := range s.sb("Chassis") {
			chassis[fmt.Sprint(row["_uuid"])] = fmt.Sprint(row["name"])
		}
		for _, row := range s.sb("Port_Binding") {
			if row["logical_port"] == port {
				return fmt.Sprintf("%s %v %v", chassis[fmt.Sprint(row["chassis"])], row["mac"], row["up"])
			}
		}
		return "none"
	}
}

func network(vpc, name, subnet string) dpfsim.OVNNetwork {
	prefix := netip.MustParsePrefix(subnet)
	return dpfsim.OVNNetwork{
		Network: dpfsim.Network{
			Namespace: "red", Name: name, VPC: vpc, Subnet: prefix, Gateway: prefix.Addr().Next(), ExternallyRouted: true,
		},
		DHCP: true, Masquerade: true, Join: netip.MustParsePrefix("100.64.0.2/16"),
		Excluded: []dpfsim.OVNRange{{First: prefix.Addr().Next().Next(), Last: prefix.Addr().Next().Next().Next()}},
	}
}

func vpcOf(networks ...dpfsim.OVNNetwork) dpfsim.OVNVPC {
	vpc := dpfsim.OVNVPC{Namespace: "red", Name: "v", Networks: networks}
	for i := range 2 {
		vpc.Nodes = append(vpc.Nodes, dpfsim.OVNNode{
			Name: name(i + 1), Join: netip.MustParsePrefix(fmt.Sprintf("100.64.0.%d/16", 10+i)), NextHop: netip.MustParseAddr("198.19.0.1"),
			Gateway: netip.MustParsePrefix(fmt.Sprintf("198.19.1.%d/16", i+1)), GatewayMAC: fmt.Sprintf("0a:58:00:00:00:%02x", i+1),
		})
	}
	return vpc
}

func portOf(dpu int) dpfsim.OVNPort {
	return dpfsim.OVNPort{
		ID: fmt.Sprintf("red_si-%d", dpu), Namespace: "red", VPC: "v", Network: "n", ServiceInterface: fmt.Sprintf("si-%d", dpu),
		Node: name(dpu), MAC: hardware(dpu), DHCP: true, ExternallyRouted: true, Join: netip.MustParsePrefix("100.64.0.10/16"),
	}
}

func TestTopologyHasDPFsNames(t *testing.T) {
	atDatabases(t, func(t *testing.T, s *site, topology *ovnlab.Topology) {
		n := network("v", "n", "10.10.1.0/24")
		s.Expect(topology.EnsureVPC(s.ctx, vpcOf(n))).To(MatchError(ContainSubstring("red_v_nRouter: not in the northbound database")))
		s.Expect(s.nb("Logical_Switch")).To(BeEmpty(), "what fails leaves nothing")
		_, err := topology.EnsurePort(s.ctx, portOf(1))
		s.Expect(err).To(HaveOccurred())

		for range 2 { // the second time changes nothing
			s.Expect(topology.EnsureNetwork(s.ctx, n)).To(Succeed())
			s.Expect(topology.EnsureVPC(s.ctx, vpcOf(n))).To(Succeed())
		}
		s.Expect(column(s.nb("Logical_Switch"), "name")).To(Equal([]string{"red_vSwitch", "red_v_dpu1GS", "red_v_dpu2GS", "red_v_nSwitch"}))
		s.Expect(column(s.nb("Logical_Router"), "name")).To(Equal([]string{"red_vRouter", "red_v_dpu1GR", "red_v_dpu2GR", "red_v_nRouter"}))
		s.Expect(column(s.nb("Logical_Switch_Port"), "name")).To(Equal([]string{
			"red_vSwitch_to_red_vRouter", "red_vSwitch_to_red_v_dpu1GR", "red_vSwitch_to_red_v_dpu2GR", "red_vSwitch_to_red_v_nRouter",
			"red_v_dpu1GS_to_localnet", "red_v_dpu1GS_to_red_v_dpu1GR", "red_v_dpu2GS_to_localnet", "red_v_dpu2GS_to_red_v_dpu2GR",
			"red_v_nSwitch_to_red_v_nRouter",
		}))
		s.Expect(column(s.nb("Logical_Router_Port"), "mac")).To(ContainElement("fe:00:0a:0a:01:01"), "fe:00 and the address")
		s.Expect(column(s.nb("Logical_Router_Policy"), "priority")).To(Equal([]string{"10", "100"}))
		s.Expect(column(s.nb("NAT"), "external_ip")).To(Equal([]string{"198.19.1.1", "198.19.1.2"}))
		s.Expect(column(s.nb("DHCP_Options"), "options")).To(Equal([]string{
			"lease_time=3600 router=10.10.1.1 server_id=10.10.1.1 server_mac=fe:00:0a:0a:01:01",
		}))
		for table, rows := range map[string]int{"Logical_Router_Static_Route": 7, "Logical_Router_Port": 7} {
			s.Expect(s.nb(table)).To(HaveLen(rows), table)
		}

		s.Expect(topology.RemoveVPC(s.ctx, "red", "v")).To(Succeed())
		s.Expect(s.left()).To(BeEmpty())
	})
}

// left are the tables of the northbound database that have rows.
func (s *site) left() (tables []string) {
	s.t.Helper()
	for _, table := range []string{
		"Logical_Switch", "Logical_Switch_Port", "Logical_Router", "Logical_Router_Port", "Logical_Router_Policy",
		"Logical_Router_Static_Route", "NAT", "DHCP_Options",
	} {
		if len(s.nb(table)) > 0 {
			tables = append(tables, fmt.Sprintf("%s: %v", table, s.nb(table)))
		}
	}
	return tables
}

func TestNetworksOfAVPCMeetByItsPolicies(t *testing.T) {
	atDatabases(t, func(t *testing.T, s *site, topology *ovnlab.Topology) {
		n, m := network("v", "n", "10.10.1.0/24"), network("v", "m", "10.10.2.0/24")
		m.Join, m.ExternallyRouted = netip.MustParsePrefix("100.64.0.3/16"), false
		s.Expect(topology.EnsureNetwork(s.ctx, n)).To(Succeed())
		s.Expect(topology.EnsureNetwork(s.ctx, m)).To(Succeed())
		vpc := vpcOf(n, m)
		for _, peering := range []bool{false, true} {
			vpc.InterNetworkAccess = peering
			s.Expect(topology.EnsureVPC(s.ctx, vpc)).To(Succeed())
			actions := []string{}
			for _, row := range s.nb("Logical_Router_Policy") {
				actions = append(actions, fmt.Sprint(row["priority"], " ", row["action"], " ", row["match"]))
			}
			between := map[bool]string{false: "drop", true: "allow"}[peering]
			s.Expect(actions).To(ConsistOf("10 drop ip4 || ip6", "100 allow ip4.dst == 10.10.1.0/24",
				"200 "+between+" ip4.src == 10.10.1.0/24 && ip4.dst == 10.10.2.0/24",
				"200 "+between+" ip4.src == 10.10.2.0/24 && ip4.dst == 10.10.1.0/24"))
		}
		s.Expect(column(s.nb("NAT"), "logical_ip")).To(Equal([]string{"10.10.1.0/24", "10.10.1.0/24"}), "only n goes out")
		s.Expect(topology.RemoveNetwork(s.ctx, "red", "m")).To(Succeed())
		s.Expect(column(s.nb("Logical_Router"), "name")).To(Equal([]string{"red_vRouter", "red_v_dpu1GR", "red_v_dpu2GR", "red_v_nRouter"}))
		vpc.Networks, vpc.Nodes = vpc.Networks[:1], vpc.Nodes[:1]
		s.Expect(topology.EnsureVPC(s.ctx, vpc)).To(Succeed())
		s.Expect(column(s.nb("Logical_Switch"), "name")).To(Equal([]string{"red_vSwitch", "red_v_dpu1GS", "red_v_nSwitch"}))
		s.Expect(column(s.nb("Logical_Router_Policy"), "priority")).To(Equal([]string{"10", "100"}))
	})
}

func TestPortIsBoundWhereItIsPlugged(t *testing.T) {
	atDatabases(t, func(t *testing.T, s *site, topology *ovnlab.Topology) {
		for i := range 2 {
			s.Expect(topology.AddDPU(s.ctx, name(i+1), []dpfsim.OVNRepresentor{{Name: port, MAC: hardware(i + 1)}})).To(Succeed())
		}
		s.Expect(column(s.sb("Chassis"), "name")).To(Equal([]string{"dpu1", "dpu2"}))
		n := network("v", "n", "10.10.1.0/24")
		s.Expect(topology.EnsureNetwork(s.ctx, n)).To(Succeed())
		s.Expect(topology.EnsureVPC(s.ctx, vpcOf(n))).To(Succeed())
		s.connect(topology, 1, "10.10.1.4")
		s.Eventually(s.binding("red_si-1")).WithTimeout(soon).Should(Equal(" " + hardware(1) + " dynamic false"))
		s.Expect(topology.Plug(s.ctx, "dpu1", port, "red_si-1")).To(Succeed())
		s.Eventually(s.binding("red_si-1")).WithTimeout(soon).Should(Equal("dpu1 " + hardware(1) + " dynamic true"))

		resume, err := topology.HangController("dpu1")
		s.Expect(err).NotTo(HaveOccurred())
		s.Expect(topology.Unplug(s.ctx, "dpu1", port)).To(Succeed())
		s.connect(topology, 2, "10.10.1.5")
		s.Expect(topology.Plug(s.ctx, "dpu2", port, "red_si-2")).To(Succeed())
		s.Eventually(s.binding("red_si-2")).WithTimeout(soon).Should(HavePrefix("dpu2 "))
		s.Expect(s.binding("red_si-1")()).To(HavePrefix("dpu1 "), "a hung controller does not let go")
		s.Expect(resume()).To(Succeed())
		s.Eventually(s.binding("red_si-1")).WithTimeout(soon).Should(Equal(" " + hardware(1) + " dynamic false"))

		s.Expect(topology.RemovePort(s.ctx, "red_si-1")).To(Succeed())
		s.Eventually(s.binding("red_si-1")).WithTimeout(soon).Should(Equal("none"))
		s.Expect(column(s.nb("Logical_Router_Policy"), "priority")).To(Equal([]string{"10", "100", "50"}), "the other's policy stays")
		s.connect(topology, 1, "10.10.1.4")

		s.Expect(topology.WipeDPU(s.ctx, "dpu2")).To(Succeed())
		s.Expect(s.binding("red_si-2")()).To(HavePrefix("dpu2 "), "a card without power does not say so")
		s.Expect(topology.StartDPU(s.ctx, "dpu2")).To(Succeed())
		s.Eventually(s.binding("red_si-2")).WithTimeout(soon).Should(HavePrefix(" "))

		s.Expect(topology.LoseNorthbound(s.ctx)).To(Succeed())
		s.Expect(s.left()).To(BeEmpty())
		s.Eventually(func() []map[string]any { return s.sb("Port_Binding") }).WithTimeout(soon).Should(BeEmpty())
	})
}

// connect asks for a port until OVN has given it its address.
func (s *site) connect(topology *ovnlab.Topology, dpu int, address string) {
	s.t.Helper()
	s.Eventually(func() (string, error) {
		got, err := topology.EnsurePort(s.ctx, portOf(dpu))
		return got.String(), err
	}).WithTimeout(soon).WithPolling(poll).Should(Equal(address))
}
