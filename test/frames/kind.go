// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package frames

import "fmt"

// Kind is what a probe looks like on the wire.
type Kind uint8

const (
	// Unicast is a UDP datagram to the station's MAC and IP address.
	Unicast Kind = iota + 1
	// Ping is an ICMP echo request.
	Ping
	// Broadcast is a UDP datagram to everybody.
	Broadcast
	// Multicast is a UDP datagram to mDNS' group.
	Multicast
	// ARPRequest asks everybody for the station's address.
	ARPRequest
	// ARPReply tells the station a false one.
	ARPReply
	// SpoofedMAC is Unicast in the name of another's MAC address.
	SpoofedMAC
	// SpoofedIP is Unicast in the name of another's IP address.
	SpoofedIP
	// Spoofed is Unicast in the name of both.
	Spoofed
	// SpoofedBroadcast is Broadcast in the name of another's MAC and IP address, which would teach switches a wrong port.
	SpoofedBroadcast
	// DHCPDiscover is what a host sends that boots.
	DHCPDiscover
	// DHCPOffer is what a false server answers.
	DHCPOffer
	// NeighborSolicitation is IPv6's ARP request.
	NeighborSolicitation
	// NeighborAdvertisement is IPv6's ARP reply, with a false address.
	NeighborAdvertisement
	// RouterAdvertisement is a false IPv6 router's.
	RouterAdvertisement
	// VLAN is Unicast behind a VLAN tag.
	VLAN
	// QinQ is Unicast behind two.
	QinQ
	// Oversize is Unicast six times as large as Ethernet's usual frames, the most that DPF's ports let in.
	Oversize
	// UnknownEthertype is to the station's MAC address, of a type left for experiments.
	UnknownEthertype
	// LinkLocal is to LLDP's group, which no bridge should pass on.
	LinkLocal
	// ARPScan asks everybody for an address that nobody has, so that nobody can answer in the place of all.
	ARPScan
)

var kindNames = map[Kind]string{
	Unicast: "unicast", Ping: "ping", Broadcast: "broadcast", Multicast: "multicast", ARPRequest: "ARP request", ARPReply: "ARP reply",
	SpoofedMAC: "spoofed MAC", SpoofedIP: "spoofed IP", Spoofed: "spoofed MAC and IP", SpoofedBroadcast: "spoofed broadcast",
	DHCPDiscover: "DHCP discover", DHCPOffer: "DHCP offer", NeighborSolicitation: "neighbour solicitation",
	NeighborAdvertisement: "neighbour advertisement", RouterAdvertisement: "router advertisement", VLAN: "VLAN", QinQ: "QinQ",
	Oversize: "oversize", UnknownEthertype: "unknown ethertype", LinkLocal: "link-local multicast", ARPScan: "ARP scan",
}

func (k Kind) String() string {
	if name, ok := kindNames[k]; ok {
		return name
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Kinds are all there are.
func Kinds() []Kind {
	var kinds []Kind
	for k := Unicast; k <= ARPScan; k++ {
		kinds = append(kinds, k)
	}
	return kinds
}
