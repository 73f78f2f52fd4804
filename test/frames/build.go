// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// Station is a host's port with its addresses.
type Station struct {
	MAC     net.HardwareAddr
	Address netip.Addr
}

// Shot is one probe: who sends it, at whom it is aimed, and in whose name if it is a kind that lies.
type Shot struct {
	From, To, As Station
}

// OversizeMTU is the size of Oversize's IP packet: the MTU of DPF's ports, which let nothing larger in.
const OversizeMTU = 9216

const headers = 20 + 8 // of IPv4 and UDP

const probePort = 4789 + 10000

var (
	everybody   = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	lldpGroup   = net.HardwareAddr{0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e}
	mdnsGroup   = net.HardwareAddr{0x01, 0x00, 0x5e, 0x00, 0x00, 0xfb}
	nobody      = net.HardwareAddr{0, 0, 0, 0, 0, 0}
	allNodesMAC = net.HardwareAddr{0x33, 0x33, 0x00, 0x00, 0x00, 0x01}
)

// Build makes the frame of a probe. The marker's kind says which.
func Build(marker Marker, shot Shot) ([]byte, error) {
	stack, err := assemble(marker, shot)
	if err != nil {
		return nil, err
	}
	buffer := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...); err != nil {
		return nil, fmt.Errorf("build a %s frame: %w", marker.Kind, err)
	}
	return buffer.Bytes(), nil
}

func assemble(marker Marker, s Shot) ([]gopacket.SerializableLayer, error) {
	payload := gopacket.Payload(marker.bytes())
	switch marker.Kind {
	case Unicast:
		return datagram(s.From, s.To, payload), nil
	case SpoofedMAC:
		return datagram(Station{MAC: s.As.MAC, Address: s.From.Address}, s.To, payload), nil
	case SpoofedIP:
		return datagram(Station{MAC: s.From.MAC, Address: s.As.Address}, s.To, payload), nil
	case Spoofed:
		return datagram(s.As, s.To, payload), nil
	case Broadcast:
		return datagram(s.From, Station{MAC: everybody, Address: netip.AddrFrom4([4]byte{255, 255, 255, 255})}, payload), nil
	case SpoofedBroadcast:
		return datagram(s.As, Station{MAC: everybody, Address: netip.AddrFrom4([4]byte{255, 255, 255, 255})}, payload), nil
	case Multicast:
		return datagram(s.From, Station{MAC: mdnsGroup, Address: netip.AddrFrom4([4]byte{224, 0, 0, 251})}, payload), nil
	case Oversize:
		return datagram(s.From, s.To, append(payload, make([]byte, OversizeMTU-headers-len(payload))...)), nil
	case Ping:
		return ping(s, marker, payload), nil
	case VLAN, QinQ:
		return tagged(datagram(s.From, s.To, payload), marker.Kind), nil
	case UnknownEthertype:
		// 0x88b5 is IEEE's for local experiments.
		return []gopacket.SerializableLayer{ethernet(s.From.MAC, s.To.MAC, layers.EthernetType(0x88b5)), payload}, nil
	case LinkLocal:
		return []gopacket.SerializableLayer{ethernet(s.From.MAC, lldpGroup, layers.EthernetTypeLinkLayerDiscovery), payload}, nil
	case ARPRequest, ARPReply, ARPScan:
		return arp(s, marker.Kind, payload), nil
	case DHCPDiscover, DHCPOffer:
		return dhcp(s, marker), nil
	case NeighborSolicitation, NeighborAdvertisement, RouterAdvertisement:
		return neighborDiscovery(s, marker), nil
	}
	return nil, fmt.Errorf("build a frame: no such kind: %s", marker.Kind)
}

func ethernet(from, to net.HardwareAddr, kind layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: from, DstMAC: to, EthernetType: kind}
}

func ipv4(from, to netip.Addr, protocol layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Protocol: protocol, SrcIP: from.AsSlice(), DstIP: to.AsSlice()}
}

func datagram(from, to Station, payload gopacket.Payload) []gopacket.SerializableLayer {
	return overUDP(from, to, probePort, probePort, payload)
}

func overUDP(from, to Station, source, destination layers.UDPPort, content gopacket.SerializableLayer) []gopacket.SerializableLayer {
	ip := ipv4(from.Address, to.Address, layers.IPProtocolUDP)
	udp := &layers.UDP{SrcPort: source, DstPort: destination}
	_ = udp.SetNetworkLayerForChecksum(ip) // fails for other layers only
	return []gopacket.SerializableLayer{ethernet(from.MAC, to.MAC, layers.EthernetTypeIPv4), ip, udp, content}
}

func ping(s Shot, marker Marker, payload gopacket.Payload) []gopacket.SerializableLayer {
	return []gopacket.SerializableLayer{
		ethernet(s.From.MAC, s.To.MAC, layers.EthernetTypeIPv4),
		ipv4(s.From.Address, s.To.Address, layers.IPProtocolICMPv4),
		&layers.ICMPv4{
			TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: marker.Sender, Seq: uint16(marker.Sequence),
		},
		payload,
	}
}

// tagged puts one or two VLAN tags into a frame.
func tagged(stack []gopacket.SerializableLayer, kind Kind) []gopacket.SerializableLayer {
	outer := stack[0].(*layers.Ethernet)
	tags := []gopacket.SerializableLayer{&layers.Dot1Q{VLANIdentifier: 100, Type: outer.EthernetType}}
	outer.EthernetType = layers.EthernetTypeDot1Q
	if kind == QinQ {
		outer.EthernetType = layers.EthernetTypeQinQ
		tags = append([]gopacket.SerializableLayer{&layers.Dot1Q{VLANIdentifier: 200, Type: layers.EthernetTypeDot1Q}}, tags...)
	}
	return append(append([]gopacket.SerializableLayer{outer}, tags...), stack[1:]...)
}

// arp carries the marker behind the packet, where Ethernet has its padding.
func arp(s Shot, kind Kind, payload gopacket.Payload) []gopacket.SerializableLayer {
	packet := &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
		Operation:       layers.ARPRequest,
		SourceHwAddress: s.From.MAC, SourceProtAddress: s.From.Address.AsSlice(),
		DstHwAddress: nobody, DstProtAddress: s.To.Address.AsSlice(),
	}
	to := everybody
	switch kind {
	case ARPScan:
		packet.DstProtAddress = unusedBy(s.To.Address).AsSlice()
	case ARPReply:
		to, packet.Operation, packet.DstHwAddress, packet.SourceProtAddress = s.To.MAC, layers.ARPReply, s.To.MAC, s.As.Address.AsSlice()
	}
	return []gopacket.SerializableLayer{ethernet(s.From.MAC, to, layers.EthernetTypeARP), packet, payload}
}

// unusedBy is the last host address of the station's /24, which is given away last.
func unusedBy(address netip.Addr) netip.Addr {
	bytes := address.As4()
	bytes[3] = 254
	return netip.AddrFrom4(bytes)
}
