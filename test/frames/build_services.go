// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"net"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

const (
	// markerOption carries the marker in DHCP; its numbers from 224 on are private.
	markerOption layers.DHCPOpt = 224
	// markerNDOption carries it in neighbour discovery; the number is RFC 4727's for experiments.
	markerNDOption layers.ICMPv6Opt = 253
)

func dhcp(s Shot, marker Marker) []gopacket.SerializableLayer {
	kind, operation := layers.DHCPMsgTypeDiscover, layers.DHCPOpRequest
	from, to := Station{MAC: s.From.MAC, Address: netip.IPv4Unspecified()}, Station{MAC: everybody, Address: netip.AddrFrom4([4]byte{255, 255, 255, 255})}
	source, destination := layers.UDPPort(68), layers.UDPPort(67)
	client := s.From.MAC
	if marker.Kind == DHCPOffer {
		kind, operation = layers.DHCPMsgTypeOffer, layers.DHCPOpReply
		from, source, destination, client = s.From, 67, 68, s.To.MAC
	}
	message := &layers.DHCPv4{
		Operation: operation, HardwareType: layers.LinkTypeEthernet, HardwareLen: 6, Xid: marker.Sequence, ClientHWAddr: client,
		ClientIP: net.IPv4zero, YourClientIP: net.IPv4zero, NextServerIP: net.IPv4zero, RelayAgentIP: net.IPv4zero,
		Options: layers.DHCPOptions{
			layers.NewDHCPOption(layers.DHCPOptMessageType, []byte{byte(kind)}),
			layers.NewDHCPOption(markerOption, marker.bytes()),
		},
	}
	if marker.Kind == DHCPOffer {
		message.YourClientIP = s.To.Address.AsSlice()
		message.Options = append(message.Options, layers.NewDHCPOption(layers.DHCPOptServerID, s.From.Address.AsSlice()))
	}
	return overUDP(from, to, source, destination, message)
}

// linkLocal is the address an IPv6 host makes of its MAC address.
func linkLocal(mac net.HardwareAddr) net.IP {
	return net.IP{0xfe, 0x80, 0, 0, 0, 0, 0, 0, mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]}
}

func neighborDiscovery(s Shot, marker Marker) []gopacket.SerializableLayer {
	var (
		message gopacket.SerializableLayer
		to      net.IP
		toMAC   net.HardwareAddr
		code    uint8
		target  = linkLocal(s.To.MAC)
		options = layers.ICMPv6Options{
			{Type: layers.ICMPv6OptSourceAddress, Data: s.From.MAC},
			// With the option's own two bytes it fills a multiple of eight.
			{Type: markerNDOption, Data: append(make([]byte, 6), marker.bytes()...)},
		}
	)
	switch marker.Kind {
	case NeighborSolicitation:
		code = layers.ICMPv6TypeNeighborSolicitation
		toMAC = net.HardwareAddr{0x33, 0x33, 0xff, target[13], target[14], target[15]}
		to = net.IP{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, target[13], target[14], target[15]}
		message = &layers.ICMPv6NeighborSolicitation{TargetAddress: target, Options: options}
	case NeighborAdvertisement:
		code = layers.ICMPv6TypeNeighborAdvertisement
		toMAC, to = s.To.MAC, target
		options[0].Type = layers.ICMPv6OptTargetAddress
		message = &layers.ICMPv6NeighborAdvertisement{Flags: 0x20, TargetAddress: linkLocal(s.As.MAC), Options: options}
	default:
		code = layers.ICMPv6TypeRouterAdvertisement
		toMAC, to = allNodesMAC, net.IPv6linklocalallnodes
		message = &layers.ICMPv6RouterAdvertisement{HopLimit: 64, RouterLifetime: 1800, Options: options}
	}
	ip := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: linkLocal(s.From.MAC), DstIP: to}
	header := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(code, 0)}
	_ = header.SetNetworkLayerForChecksum(ip) // fails for other layers only
	return []gopacket.SerializableLayer{ethernet(s.From.MAC, toMAC, layers.EthernetTypeIPv6), ip, header, message}
}
