// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"context"
	"net/netip"
)

// OVN is what DPF's VPC service does to OVN: rows of the northbound database, which vpc-ovn-controller writes in the management
// cluster, and ports of br-int, which vpc-ovn-node plugs on every DPU; besides the cards that OVN's own parts run on. Each
// method brings about what its arguments say, however often it is asked, or returns an error and is asked again.
type OVN interface {
	// EnsureNetwork has a virtual network's own switch and router there.
	EnsureNetwork(ctx context.Context, network OVNNetwork) error
	// RemoveNetwork removes them, and what hangs on them.
	RemoveNetwork(ctx context.Context, namespace, name string) error
	// EnsureVPC has the topology of a VPC there: what it has besides is removed, but for host ports and their policies.
	EnsureVPC(ctx context.Context, vpc OVNVPC) error
	// RemoveVPC removes all that is a VPC's.
	RemoveVPC(ctx context.Context, namespace, name string) error
	// EnsurePort has a host's logical port there and returns the address OVN has chosen for it, which is not valid before it has
	// one; whoever wants it asks again.
	EnsurePort(ctx context.Context, port OVNPort) (netip.Addr, error)
	// RemovePort removes a host's logical port, and its policies.
	RemovePort(ctx context.Context, id string) error
	// LoseNorthbound empties the northbound database.
	LoseNorthbound(ctx context.Context) error

	// AddDPU puts a card in that runs a switch and an ovn-controller, with representors that are plugged nowhere. The name is that
	// of its chassis.
	AddDPU(ctx context.Context, dpu string, representors []OVNRepresentor) error
	// StopDPU takes the card's power without notice, StartDPU boots it with what its switch was configured with.
	StopDPU(ctx context.Context, dpu string) error
	StartDPU(ctx context.Context, dpu string) error
	// WipeDPU takes the card's power and what its switch was configured with.
	WipeDPU(ctx context.Context, dpu string) error
	// Plug puts a representor on br-int for a logical port; Unplug takes it off, whatever it was plugged for.
	Plug(ctx context.Context, dpu, representor, id string) error
	Unplug(ctx context.Context, dpu, representor string) error
	// HangController freezes the card's ovn-controller until resume is called, which may be after the card was stopped.
	HangController(dpu string) (resume func() error, err error)
}

// OVNNetwork is a DPUVirtualNetwork as it is written to OVN.
type OVNNetwork struct {
	Network
	// DHCP has OVN choose the hosts' addresses in Subnet, without Excluded, and tell them.
	DHCP     bool
	Excluded []OVNRange
	// Masquerade hides the hosts of an ExternallyRouted network behind their DPUs' addresses.
	Masquerade bool
	// Join is the address of the network's router in the VPC's join network.
	Join netip.Prefix
}

// OVNRange is a range of addresses, both ends included.
type OVNRange struct{ First, Last netip.Addr }

// OVNVPC is a DPUVPC as it is written to OVN.
type OVNVPC struct {
	Namespace, Name string
	// InterNetworkAccess lets the VPC's networks reach each other.
	InterNetworkAccess bool
	Networks           []OVNNetwork
	Nodes              []OVNNode
}

// OVNNode is what a VPC has on one DPU.
type OVNNode struct {
	// Name is that of the Node and of its chassis.
	Name string
	// Join is the address of the Node's gateway in the VPC's join network.
	Join netip.Prefix
	// Gateway, GatewayMAC and NextHop are its way out.
	Gateway    netip.Prefix
	GatewayMAC string
	NextHop    netip.Addr
}

// OVNPort is a host's logical port.
type OVNPort struct {
	// ID is "<namespace>_<ServiceInterface>", the name of the logical port and the iface-id of the representor.
	ID string
	// Namespace, VPC and Network say where it belongs, ServiceInterface is the object's name.
	Namespace, VPC, Network, ServiceInterface string
	// Node is the DPU's.
	Node string
	// MAC address of the host, or "unknown".
	MAC string
	// DHCP and ExternallyRouted are the network's.
	DHCP, ExternallyRouted bool
	// Join is the address of the Node's gateway in the VPC's join network.
	Join netip.Prefix
}

// OVNRepresentor is a host's function as the card sees it.
type OVNRepresentor struct {
	// Name is the representor's, such as pf0hpf, and MAC the host's address.
	Name, MAC string
}
