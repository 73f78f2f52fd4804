// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	. "github.com/onsi/gomega"
)

func station(last byte) Station {
	return Station{MAC: net.HardwareAddr{2, 0xaa, 0, 0, 0, last}, Address: netip.AddrFrom4([4]byte{10, 64, 0, last})}
}

var shot = Shot{From: station(1), To: station(2), As: station(3)}

func TestEveryKindIsAFrameThatIsKnownAgain(t *testing.T) {
	for _, kind := range Kinds() {
		t.Run(kind.String(), func(t *testing.T) {
			g := NewWithT(t)
			marker := Marker{Kind: kind, Sender: 7, Sequence: 41, Sent: time.Unix(1700000000, 123456789)}
			frame, err := Build(marker, shot)
			g.Expect(err).NotTo(HaveOccurred())
			packet := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
			if kind != LinkLocal && kind != UnknownEthertype { // they carry nothing that could be read
				g.Expect(packet.ErrorLayer()).To(BeNil())
			}
			got, ok := Read(frame)
			g.Expect(ok).To(BeTrue())
			g.Expect(got).To(Equal(marker))

			wrapped := append(make([]byte, 50), frame...)
			_, ok = Read(append(magic, wrapped...))
			g.Expect(ok).To(BeTrue(), "wrapped, behind another magic")
		})
	}
}

func TestBrokenOrMissingMarkersAreNotRead(t *testing.T) {
	g := NewWithT(t)
	frame, err := Build(Marker{Kind: Unicast, Sender: 1}, shot)
	g.Expect(err).NotTo(HaveOccurred())
	at := len(frame) - markerSize
	broken := append([]byte(nil), frame...)
	broken[at+9]++
	for name, data := range map[string][]byte{"nothing": nil, "cut": frame[:at+20], "broken": broken, "other": make([]byte, 64)} {
		_, ok := Read(data)
		g.Expect(ok).To(BeFalse(), name)
	}
	_, err = Build(Marker{Kind: 99}, shot)
	g.Expect(err).To(MatchError(ContainSubstring("kind 99")))
}

// Each kind has the addresses that make it what it is.
func TestWhoIsSenderAndReceiver(t *testing.T) {
	for kind, want := range map[Kind][2]net.HardwareAddr{
		Unicast: {shot.From.MAC, shot.To.MAC}, Broadcast: {shot.From.MAC, everybody}, SpoofedMAC: {shot.As.MAC, shot.To.MAC},
		SpoofedIP: {shot.From.MAC, shot.To.MAC}, Spoofed: {shot.As.MAC, shot.To.MAC}, SpoofedBroadcast: {shot.As.MAC, everybody},
		ARPRequest: {shot.From.MAC, everybody}, ARPReply: {shot.From.MAC, shot.To.MAC}, DHCPDiscover: {shot.From.MAC, everybody},
		LinkLocal: {shot.From.MAC, lldpGroup}, RouterAdvertisement: {shot.From.MAC, allNodesMAC},
		NeighborSolicitation: {shot.From.MAC, {0x33, 0x33, 0xff, 0, 0, 2}}, VLAN: {shot.From.MAC, shot.To.MAC},
	} {
		g := NewWithT(t)
		frame, err := Build(Marker{Kind: kind}, shot)
		g.Expect(err).NotTo(HaveOccurred())
		ethernet := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default).Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
		g.Expect([2]net.HardwareAddr{ethernet.SrcMAC, ethernet.DstMAC}).To(Equal(want), kind.String())
	}
}

func TestTagsSizesAndSpoofedAddresses(t *testing.T) {
	g := NewWithT(t)
	packet := func(kind Kind) gopacket.Packet {
		frame, err := Build(Marker{Kind: kind}, shot)
		g.Expect(err).NotTo(HaveOccurred())
		return gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	}
	tags := func(p gopacket.Packet) (n int) {
		for _, layer := range p.Layers() {
			if layer.LayerType() == layers.LayerTypeDot1Q {
				n++
			}
		}
		return n
	}
	g.Expect(tags(packet(VLAN))).To(Equal(1))
	g.Expect(tags(packet(QinQ))).To(Equal(2))
	g.Expect(packet(Oversize).Data()).To(HaveLen(14 + OversizeMTU))
	g.Expect(packet(SpoofedIP).NetworkLayer().(*layers.IPv4).SrcIP.String()).To(Equal(shot.As.Address.String()))
	g.Expect(packet(NeighborSolicitation).Layer(layers.LayerTypeICMPv6NeighborSolicitation)).NotTo(BeNil())
	g.Expect(packet(DHCPOffer).Layer(layers.LayerTypeDHCPv4).(*layers.DHCPv4).YourClientIP.String()).To(Equal(shot.To.Address.String()))
}
