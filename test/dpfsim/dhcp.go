// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"fmt"
	"net/netip"
)

// addressPool hands out the addresses of one network as OVN does: the lowest free one, for as long as the port exists.
type addressPool struct {
	subnet   netip.Prefix
	excluded []addressRange
	held     map[string]netip.Addr
	taken    map[netip.Addr]bool
}

type addressRange struct{ first, last netip.Addr }

// networkOf reads a virtual network: what hosts learn of it, and its pool, nil without DHCP.
func networkOf(namespace, name string, spec virtualNetworkSpec) (Network, *addressPool, error) {
	ipv4 := spec.BridgedNetwork.IPAM.IPv4
	subnet, err := netip.ParsePrefix(ipv4.Subnet)
	if err != nil {
		return Network{}, nil, fmt.Errorf("virtual network %s/%s: subnet: %w", namespace, name, err)
	}
	network := Network{
		Namespace: namespace, Name: name, VPC: spec.VPCName, Subnet: subnet.Masked(),
		Gateway: subnet.Masked().Addr().Next(), ExternallyRouted: spec.ExternallyRouted,
	}
	if !ipv4.DHCP {
		return network, nil, nil
	}
	pool := &addressPool{subnet: network.Subnet, held: map[string]netip.Addr{}, taken: map[netip.Addr]bool{}}
	for _, exclude := range ipv4.ExcludeIPs {
		first, last := exclude.IP, exclude.IP
		if exclude.Range != nil {
			first, last = exclude.Range.Start, exclude.Range.End
		}
		from, err := netip.ParseAddr(first)
		if err != nil {
			return Network{}, nil, fmt.Errorf("virtual network %s/%s: excludeIPs: %w", namespace, name, err)
		}
		to, err := netip.ParseAddr(last)
		if err != nil {
			return Network{}, nil, fmt.Errorf("virtual network %s/%s: excludeIPs: %w", namespace, name, err)
		}
		pool.excluded = append(pool.excluded, addressRange{from, to})
	}
	return network, pool, nil
}

// allocate returns the port's address; not valid when the network is full.
func (p *addressPool) allocate(port string) netip.Addr {
	if address, ok := p.held[port]; ok {
		return address
	}
	gateway := p.subnet.Addr().Next()
	for address := gateway.Next(); p.subnet.Contains(address); address = address.Next() {
		broadcast := !p.subnet.Contains(address.Next())
		if broadcast || p.taken[address] || p.excludes(address) {
			continue
		}
		p.held[port], p.taken[address] = address, true
		return address
	}
	return netip.Addr{}
}

func (p *addressPool) release(port string) {
	delete(p.taken, p.held[port])
	delete(p.held, port)
}

func (p *addressPool) excludes(address netip.Addr) bool {
	for _, r := range p.excluded {
		if r.first.Compare(address) <= 0 && address.Compare(r.last) <= 0 {
			return true
		}
	}
	return false
}
