// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// subnet is one network with the VLAN it is on; they come into being with the machines that use them.
type subnet struct {
	id           int
	prefix       netip.Prefix
	fabric, vlan string
	next         netip.Addr
}

// subnetFor finds or makes the subnet of an interface whose CIDR has been checked.
func (r *Region) subnetFor(nic Interface) *subnet {
	prefix, err := netip.ParsePrefix(nic.Subnet)
	if err != nil {
		return nil
	}
	prefix = prefix.Masked()
	for _, known := range r.subnets {
		if known.prefix == prefix {
			return known
		}
	}
	first := prefix.Addr()
	// The first nine addresses are left to gateways and servers.
	for range 10 {
		first = first.Next()
	}
	added := &subnet{id: len(r.subnets) + 1, prefix: prefix, fabric: nic.Fabric, vlan: nic.VLAN, next: first}
	r.subnets = append(r.subnets, added)
	return added
}

// claimAddresses gives every AUTO interface an address; false means that a subnet is exhausted and nothing was claimed.
func (r *Region) claimAddresses(m *machine) bool {
	for i, nic := range m.spec.Interfaces {
		if nic.Mode != "AUTO" {
			continue
		}
		if _, has := m.addresses[i]; has {
			continue
		}
		address, ok := r.freeAddress(r.subnetFor(nic))
		if !ok {
			r.freeAddresses(m)
			return false
		}
		m.addresses[i] = address
		r.ips[address] = m
	}
	return true
}

func (r *Region) freeAddress(network *subnet) (netip.Addr, bool) {
	if network == nil {
		return netip.Addr{}, false
	}
	if !network.prefix.Contains(network.next) {
		network.next = network.prefix.Addr().Next().Next()
	}
	for candidate := network.next; network.prefix.Contains(candidate.Next()); candidate = candidate.Next() {
		if r.ips[candidate] == nil {
			network.next = candidate.Next()
			return candidate, true
		}
	}
	for candidate := network.prefix.Addr().Next().Next(); candidate.Less(network.next); candidate = candidate.Next() {
		if r.ips[candidate] == nil {
			return candidate, true
		}
	}
	return netip.Addr{}, false
}

// freeAddresses gives back what AUTO interfaces claimed; static addresses stay.
func (r *Region) freeAddresses(m *machine) {
	for i, address := range m.addresses {
		if m.spec.Interfaces[i].Mode == "AUTO" {
			delete(m.addresses, i)
			delete(r.ips, address)
		}
	}
}

// bootInterface is the index of the interface the machine boots from: the first one MAAS configures, else
// the first of all (every machine has one).
func bootInterface(spec Machine) int {
	for i, nic := range spec.Interfaces {
		if nic.Mode != "" {
			return i
		}
	}
	return 0
}

func (r *Region) interfaceList(m *machine) []any {
	list := make([]any, 0, len(m.spec.Interfaces))
	for i := range m.spec.Interfaces {
		list = append(list, r.interfaceObject(m, i))
	}
	return list
}

func (r *Region) interfaceObject(m *machine, index int) map[string]any {
	nic := m.spec.Interfaces[index]
	id := m.firstNIC + index
	speed := 0
	if nic.LinkConnected {
		speed = 10000
	}
	return map[string]any{
		"id": id, "system_id": m.id(), "name": nic.Name, "type": "physical", "mac_address": nic.MAC,
		"vendor": nullable(nic.Vendor), "product": nullable(nic.Product), "firmware_version": nil,
		"link_connected": nic.LinkConnected, "link_speed": speed, "interface_speed": 10000, "enabled": true,
		"effective_mtu": 1500, "sriov_max_vf": 0, "numa_node": nic.NUMANode, "params": "",
		"parents": []string{}, "children": []string{}, "tags": []string{}, "discovered": []any{},
		"links": r.links(m, index), "vlan": r.vlanObject(nic),
		"resource_uri": apiRoot + "nodes/" + m.id() + "/interfaces/" + strconv.Itoa(id) + "/",
	}
}

// links has the one link of an interface; the address key is absent while none is claimed.
func (r *Region) links(m *machine, index int) []any {
	nic := m.spec.Interfaces[index]
	if nic.Mode == "" {
		return []any{}
	}
	link := map[string]any{
		"id": m.firstNIC + index, "mode": strings.ToLower(nic.Mode), "subnet": r.subnetObject(r.subnetFor(nic)),
	}
	if address, ok := m.addresses[index]; ok {
		link["ip_address"] = address.String()
	}
	return []any{link}
}

// vlanObject is null for an interface without a link on an unknown network.
func (r *Region) vlanObject(nic Interface) any {
	if !nic.LinkConnected && nic.Mode == "" {
		return nil
	}
	return r.vlan(nic.Fabric, nic.VLAN)
}

func (r *Region) vlan(fabric, name string) map[string]any {
	vid, err := strconv.Atoi(name)
	if err != nil {
		vid = 0
	}
	setDefault(&name, "untagged")
	id := 5001 + position(&r.vlans, fabric+"/"+name)
	return map[string]any{
		"id": id, "vid": vid, "name": name, "fabric": fabric, "fabric_id": position(&r.fabrics, fabric), "mtu": 1500,
		"dhcp_on": true, "primary_rack": nil, "secondary_rack": nil, "relay_vlan": nil, "external_dhcp": nil,
		"space": "undefined", "resource_uri": apiRoot + "vlans/" + strconv.Itoa(id) + "/",
	}
}

// position is the index of a name in a list that grows with the names asked for.
func position(names *[]string, name string) int {
	if i := slices.Index(*names, name); i >= 0 {
		return i
	}
	*names = append(*names, name)
	return len(*names) - 1
}

func (r *Region) subnetObject(network *subnet) any {
	if network == nil {
		return nil
	}
	gateway := network.prefix.Addr().Next().String()
	return map[string]any{
		"id": network.id, "name": network.prefix.String(), "cidr": network.prefix.String(), "description": "",
		"gateway_ip": gateway, "dns_servers": []string{}, "managed": true, "active_discovery": false,
		"allow_dns": true, "allow_proxy": true, "rdns_mode": 2, "disabled_boot_architectures": []string{},
		"space": "undefined", "vlan": r.vlan(network.fabric, network.vlan),
		"resource_uri": apiRoot + "subnets/" + strconv.Itoa(network.id) + "/",
	}
}

// nullable shows an empty text as null, as MAAS does for what commissioning did not find.
func nullable(value string) any {
	if value == "" {
		return nil
	}
	return value
}
