// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
)

// Tables of the northbound database that DPF's service writes.
const (
	tableSwitch     = "Logical_Switch"
	tableRouter     = "Logical_Router"
	tablePort       = "Logical_Switch_Port"
	tableRouterPort = "Logical_Router_Port"
	tablePolicy     = "Logical_Router_Policy"
	tableRoute      = "Logical_Router_Static_Route"
	tableNAT        = "NAT"
	tableDHCP       = "DHCP_Options"
)

// Keys of external_ids that DPF marks its rows with.
const (
	ownerRef = "vpc-owner-ref"
	vpcRef   = "vpc-ref"
	vnetRef  = "vpc-vnet-ref"
)

// Priorities of a VPC router's policies.
const (
	policyNetworks = 200
	policyInward   = 100
	policyOutward  = 50
	policyRest     = 10
)

const dhcpLease = 3600

// joinRouter is a VPC's own router in its join network.
var joinRouter = netip.MustParsePrefix("100.64.0.1/16")

var anywhere = netip.MustParsePrefix("0.0.0.0/0")

type externalIDs map[string]string

func ownedBy(kind, namespace, name string) externalIDs {
	return externalIDs{ownerRef: kind + "/" + namespace + "/" + name}
}

// of adds the VPC that a row belongs to and, if any, the network.
func (ids externalIDs) of(namespace, vpc, network string) externalIDs {
	out := externalIDs{ownerRef: ids[ownerRef], vpcRef: namespace + "/" + vpc}
	if network != "" {
		out[vnetRef] = namespace + "/" + network
	}
	return out
}

// names of a VPC's parts.
type names struct{ namespace, vpc string }

func (n names) base() string                     { return n.namespace + "_" + n.vpc }
func (n names) vpcSwitch() string                { return n.base() + "Switch" }
func (n names) vpcRouter() string                { return n.base() + "Router" }
func (n names) networkSwitch(net string) string  { return n.base() + "_" + net + "Switch" }
func (n names) networkRouter(net string) string  { return n.base() + "_" + net + "Router" }
func (n names) gatewayRouter(node string) string { return n.base() + "_" + node + "GR" }
func (n names) gatewaySwitch(node string) string { return n.base() + "_" + node + "GS" }
func (n names) joint() string                    { return between(n.vpcRouter(), n.vpcSwitch()) }

func between(a, b string) string { return a + "_to_" + b }

// routerMAC is the address DPF gives a router's port: fe:00 and the four bytes of its IPv4 address.
func routerMAC(address netip.Addr) string {
	a := address.As4()
	return fmt.Sprintf("fe:00:%02x:%02x:%02x:%02x", a[0], a[1], a[2], a[3])
}

// rows collects what an owner is to have.
type rows struct {
	list []*row
}

func (r *rows) add(table string, ids externalIDs, parent string, columns map[string]any) {
	columns["external_ids"] = map[string]string(ids)
	wanted := &row{table: table, parent: parent, columns: map[string]any{}}
	for column, value := range columns {
		wanted.columns[column] = ovsdbValue(value)
	}
	r.list = append(r.list, wanted)
}

// link connects a router to a switch, both ends.
func (r *rows) link(ids externalIDs, router, logicalSwitch string, address netip.Prefix, mac string) {
	r.add(tableRouterPort, ids, router, map[string]any{
		"name": between(router, logicalSwitch), "mac": mac, "networks": []string{address.String()},
	})
	r.add(tablePort, ids, logicalSwitch, map[string]any{
		"name": between(logicalSwitch, router), "type": "router", "addresses": []string{"router"},
		"options": map[string]string{"router-port": between(router, logicalSwitch)},
	})
}

func (r *rows) route(ids externalIDs, router string, to netip.Prefix, via netip.Addr, port string) {
	r.add(tableRoute, ids, router, map[string]any{"ip_prefix": to.String(), "nexthop": via.String(), "output_port": []string{port}})
}

func (r *rows) policy(ids externalIDs, router string, priority int, match, action string, via ...netip.Addr) {
	nexthops := []string{}
	for _, address := range via {
		nexthops = append(nexthops, address.String())
	}
	r.add(tablePolicy, ids, router, map[string]any{"priority": priority, "match": match, "action": action, "nexthops": nexthops})
}

// networkRows are a virtual network's switch and router, and what its hosts are told.
func networkRows(network dpfsim.OVNNetwork) []*row {
	n := names{network.Namespace, network.VPC}
	ids := ownedBy("DPUVirtualNetwork", network.Namespace, network.Name).of(network.Namespace, network.VPC, network.Name)
	ls, lr := n.networkSwitch(network.Name), n.networkRouter(network.Name)
	var r rows
	config := map[string]string{}
	mac := routerMAC(network.Gateway)
	if network.DHCP {
		config["subnet"] = network.Subnet.String()
		if excluded := excludeIPs(network.Excluded); excluded != "" {
			config["exclude_ips"] = excluded
		}
		r.add(tableDHCP, ids, "", map[string]any{"cidr": network.Subnet.String(), "options": map[string]string{
			"lease_time": strconv.Itoa(dhcpLease), "router": network.Gateway.String(), "server_id": network.Gateway.String(), "server_mac": mac,
		}})
	}
	r.add(tableSwitch, ids, "", map[string]any{"name": ls, "other_config": config})
	r.add(tableRouter, ids, "", map[string]any{"name": lr, "options": map[string]string{}})
	r.link(ids, lr, ls, netip.PrefixFrom(network.Gateway, network.Subnet.Bits()), mac)
	return r.list
}

func excludeIPs(ranges []dpfsim.OVNRange) string {
	var out []string
	for _, r := range ranges {
		if r.First == r.Last {
			out = append(out, r.First.String())
		} else {
			out = append(out, r.First.String()+".."+r.Last.String())
		}
	}
	return strings.Join(out, " ")
}

// vpcRows are a VPC's own switch and router, its networks' way to them, and its Nodes' way out.
// unsure: that the networks' routers meet the VPC's on its switch; their addresses are of the join network.
func vpcRows(vpc dpfsim.OVNVPC) []*row {
	n := names{vpc.Namespace, vpc.Name}
	ids := ownedBy("DPUVPC", vpc.Namespace, vpc.Name).of(vpc.Namespace, vpc.Name, "")
	var r rows
	r.add(tableSwitch, ids, "", map[string]any{"name": n.vpcSwitch(), "other_config": map[string]string{}})
	r.add(tableRouter, ids, "", map[string]any{"name": n.vpcRouter(), "options": map[string]string{}})
	r.link(ids, n.vpcRouter(), n.vpcSwitch(), joinRouter, routerMAC(joinRouter.Addr()))
	for _, network := range vpc.Networks {
		own := ids.of(vpc.Namespace, vpc.Name, network.Name)
		lr := n.networkRouter(network.Name)
		r.link(own, lr, n.vpcSwitch(), network.Join, routerMAC(network.Join.Addr()))
		r.route(own, lr, anywhere, joinRouter.Addr(), between(lr, n.vpcSwitch()))
		r.route(own, n.vpcRouter(), network.Subnet, network.Join.Addr(), n.joint())
		if network.ExternallyRouted {
			r.policy(own, n.vpcRouter(), policyInward, "ip4.dst == "+network.Subnet.String(), "allow")
		}
		for _, other := range vpc.Networks {
			if other.Name != network.Name {
				match := fmt.Sprintf("ip4.src == %s && ip4.dst == %s", network.Subnet, other.Subnet)
				r.policy(own, n.vpcRouter(), policyNetworks, match, map[bool]string{true: "allow", false: "drop"}[vpc.InterNetworkAccess])
			}
		}
	}
	r.policy(ids, n.vpcRouter(), policyRest, "ip4 || ip6", "drop")
	if len(vpc.Nodes) > 0 {
		// Policies are asked only of what has a route. Which gateway it names does not matter: none of them lets it pass there.
		// unsure: how DPF has it.
		first := slices.MinFunc(vpc.Nodes, func(a, b dpfsim.OVNNode) int { return cmp.Compare(a.Name, b.Name) })
		r.route(ids, n.vpcRouter(), anywhere, first.Join.Addr(), n.joint())
	}
	for _, node := range vpc.Nodes {
		gatewayRows(&r, n, ids, vpc.Networks, node)
	}
	return r.list
}

// gatewayRows are a Node's gateway, behind which the VPC's hosts on it reach the outside under the Node's address.
func gatewayRows(r *rows, n names, ids externalIDs, networks []dpfsim.OVNNetwork, node dpfsim.OVNNode) {
	gr, gs := n.gatewayRouter(node.Name), n.gatewaySwitch(node.Name)
	r.add(tableRouter, ids, "", map[string]any{"name": gr, "options": map[string]string{"chassis": node.Name}})
	r.add(tableSwitch, ids, "", map[string]any{"name": gs, "other_config": map[string]string{}})
	r.link(ids, gr, n.vpcSwitch(), node.Join, routerMAC(node.Join.Addr()))
	r.link(ids, gr, gs, node.Gateway, node.GatewayMAC)
	r.add(tablePort, ids, gs, map[string]any{
		"name": gs + "_to_localnet", "type": "localnet", "addresses": []string{"unknown"},
		"options": map[string]string{"network_name": "physnet-" + node.Name},
	})
	r.route(ids, gr, anywhere, node.NextHop, between(gr, gs))
	for _, network := range networks {
		own := ids.of(n.namespace, n.vpc, network.Name)
		r.route(own, gr, network.Subnet, joinRouter.Addr(), between(gr, n.vpcSwitch()))
		if network.ExternallyRouted && network.Masquerade {
			r.add(tableNAT, own, gr, map[string]any{
				"type": "snat", "logical_ip": network.Subnet.String(), "external_ip": node.Gateway.Addr().String(),
			})
		}
	}
}

// portRows are a host's logical port, and the policy that leads its traffic out once its address is known. The port has no
// requested-chassis and no port security: DPF sets neither.
func portRows(port dpfsim.OVNPort, address netip.Addr, dhcpOptions string) []*row {
	n := names{port.Namespace, port.VPC}
	ids := ownedBy("ServiceInterface", port.Namespace, port.ServiceInterface).of(port.Namespace, port.VPC, port.Network)
	own, options := port.MAC, []ovsdb.UUID{}
	if dhcpOptions != "" {
		options = append(options, ovsdb.UUID{GoUUID: dhcpOptions})
		if port.MAC != "unknown" {
			own += " dynamic"
		}
	}
	var r rows
	r.add(tablePort, ids, n.networkSwitch(port.Network), map[string]any{
		"name": port.ID, "type": "", "addresses": []string{own}, "options": map[string]string{}, "dhcpv4_options": options,
	})
	if address.IsValid() && port.ExternallyRouted {
		r.policy(ids, n.vpcRouter(), policyOutward, "ip4.src == "+address.String()+"/32", "reroute", port.Join.Addr())
	}
	return r.list
}
