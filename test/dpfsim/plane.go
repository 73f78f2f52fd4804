// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// Network is what a host learns about the virtual network its port is on.
type Network struct {
	// Namespace and Name of the DPUVirtualNetwork, VPC its DPUVPC in the same namespace.
	Namespace, Name, VPC string
	Subnet               netip.Prefix
	// Gateway is the first usable address.
	Gateway netip.Addr
	// ExternallyRouted networks reach outside their VPC, by address translation: nobody outside reaches in.
	ExternallyRouted bool
}

// Port is one function of a host that OVN has on a network, which is what traffic sees: it may outlive its objects.
type Port struct {
	// DPU is the card, PF and VF (-1 for none) the function.
	DPU    string
	PF, VF int
	// VPC is "<namespace>_<name>", as DPF writes it; VirtualNetwork its network.
	VPC, VirtualNetwork string
	// ServiceInterface is "<namespace>/<name>" of the object it was plugged for.
	ServiceInterface string
	// MAC OVN lets the port use, and HostMAC, the one the host has; they differ when the agent was wrong.
	MAC, HostMAC string
	// Address OVN's DHCP has for it; not valid without DHCP.
	Address          netip.Addr
	ExternallyRouted bool
	// Connected is false while the card is down: the port works again when it comes back.
	Connected bool
	// Since is when it was plugged.
	Since time.Time
}

// logicalPort is a row in OVN's Northbound database.
type logicalPort struct {
	si, vpc, node, mac string
	network            Network
	address            netip.Addr
}

// binding is a port OVN carries traffic for.
type binding struct {
	Port
	network Network
}

type portKey struct {
	dpu string
	function
}

// plane is OVN and the switches on the DPUs. Traffic passes where a DPU's OVN controller has seen a port of its switch and a
// logical port agree, and goes on passing until that OVN controller sees that they no longer do.
type plane struct {
	mu      sync.Mutex
	clock   clock.PassiveClock
	journal *journal
	// hung says whether the OVN controller of a DPU does nothing, up whether the card runs at all.
	hung, up func(dpu string) bool
	hostMAC  func(dpu string, f function) string

	logical  map[string]*logicalPort // by interface ID, "<namespace>_<service interface>"
	switched map[portKey]string      // port of br-int → interface ID
	bound    map[portKey]*binding
	topology map[string]map[string]bool // VPC → Nodes that have a gateway
	peering  map[string]bool            // VPC → interNetworkAccess
	leases   map[string]*addressPool    // by network, "<namespace>/<name>"
	routers  map[string]map[string]int  // VPC → Node → place in the VPC's join network
}

func newPlane(clk clock.PassiveClock, j *journal, hung, up func(string) bool, hostMAC func(string, function) string) *plane {
	return &plane{
		clock: clk, journal: j, hung: hung, up: up, hostMAC: hostMAC,
		logical: map[string]*logicalPort{}, switched: map[portKey]string{}, bound: map[portKey]*binding{},
		topology: map[string]map[string]bool{}, peering: map[string]bool{}, leases: map[string]*addressPool{},
		routers: map[string]map[string]int{},
	}
}

func interfaceID(namespace, name string) string { return namespace + "_" + name }

// setTopology says which Nodes a VPC's routers reach; no Nodes at all (nil) removes the VPC.
func (p *plane) setTopology(vpc string, nodes map[string]bool, peering bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if nodes == nil {
		delete(p.topology, vpc)
		delete(p.peering, vpc)
		return
	}
	p.topology[vpc], p.peering[vpc] = nodes, peering
}

// routerAddress is a Node's address in a VPC's join network, as DPF annotates it.
func (p *plane) routerAddress(vpc, node string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	places := p.routers[vpc]
	if places == nil {
		places = map[string]int{}
		p.routers[vpc] = places
	}
	if places[node] == 0 {
		places[node] = len(places) + 2
	}
	return fmt.Sprintf(`{"ipv4":"100.64.%d.%d/16"}`, places[node]/256, places[node]%256)
}

// reaches says whether a VPC has a gateway on a Node.
func (p *plane) reaches(vpc, node string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.topology[vpc][node]
}

// addLogical puts a logical port, giving it an address if the network does.
func (p *plane) addLogical(id string, port logicalPort, pool *addressPool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if old, ok := p.logical[id]; ok {
		if old.network == port.network && old.mac == port.mac && old.vpc == port.vpc && old.node == port.node {
			if pool == nil {
				p.readdress(id, old, port.address)
			}
			return
		}
		p.release(old)
	}
	if pool != nil {
		key := port.network.Namespace + "/" + port.network.Name
		if p.leases[key] == nil {
			p.leases[key] = pool
		}
		port.address = p.leases[key].allocate(id)
	}
	p.logical[id] = &port
	p.bind()
}

// readdress tells a port that it has another address than before, or one at last.
func (p *plane) readdress(id string, port *logicalPort, address netip.Addr) {
	port.address = address
	for key, bound := range p.bound {
		if p.switched[key] == id {
			bound.Address = address
		}
	}
}

func (p *plane) hasLogical(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.logical[id] != nil
}

func (p *plane) dropLogical(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if port, ok := p.logical[id]; ok {
		p.release(port)
		delete(p.logical, id)
	}
	p.bind()
}

// loseNorthbound drops every logical port and topology, as a lost database does.
func (p *plane) loseNorthbound() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.logical, p.topology, p.leases = map[string]*logicalPort{}, map[string]map[string]bool{}, map[string]*addressPool{}
	p.bind()
}

func (p *plane) release(port *logicalPort) {
	if pool := p.leases[port.network.Namespace+"/"+port.network.Name]; pool != nil {
		pool.release(strings.ReplaceAll(port.si, "/", "_"))
	}
}

// plug puts a port on its switch for an interface.
// unsure: what two interfaces for one port do to each other; here the last one has it.
func (p *plane) plug(key portKey, id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.switched[key] = id
	p.bind()
}

// unplug takes the interface's port off its switch, wherever it is on the DPU. The switch itself drops the port's traffic,
// without help of the OVN controller.
func (p *plane) unplug(dpu, id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, switched := range p.switched {
		if key.dpu == dpu && switched == id {
			delete(p.switched, key)
			p.unbind(key, "unplugged")
		}
	}
	p.bind()
}

// wipe forgets everything a DPU's switch was configured with.
func (p *plane) wipe(dpu string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key := range p.switched {
		if key.dpu == dpu {
			delete(p.switched, key)
		}
	}
	for key := range p.bound {
		if key.dpu == dpu {
			p.unbind(key, "wiped")
		}
	}
}

func (p *plane) isPlugged(key portKey, id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.switched[key] == id
}

// plugged lists the interface IDs on a DPU's switch.
func (p *plane) plugged(dpu string) (ids []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, id := range p.switched {
		if key.dpu == dpu {
			ids = append(ids, id)
		}
	}
	return ids
}

// pluggedAt lists the ports that an interface has on a DPU's switch.
func (p *plane) pluggedAt(dpu, id string) (keys []portKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, switched := range p.switched {
		if key.dpu == dpu && switched == id {
			keys = append(keys, key)
		}
	}
	return keys
}

// sync lets every OVN controller that is able to catch up.
func (p *plane) sync() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bind()
}

func (p *plane) bind() {
	for key, port := range p.bound {
		if p.hung(key.dpu) || !p.up(key.dpu) {
			continue
		}
		if logical := p.logical[p.switched[key]]; logical == nil || logical.si != port.ServiceInterface ||
			logical.node != key.dpu || logical.vpc != port.VPC || logical.mac != port.MAC {
			p.unbind(key, "unbound")
		}
	}
	for key, id := range p.switched {
		logical := p.logical[id]
		if logical == nil || p.bound[key] != nil || logical.node != key.dpu || p.hung(key.dpu) || !p.up(key.dpu) {
			continue
		}
		port := &binding{network: logical.network, Port: Port{
			DPU: key.dpu, PF: key.pf, VF: key.vf, VPC: logical.vpc, VirtualNetwork: logical.network.Name,
			ServiceInterface: logical.si, MAC: logical.mac, HostMAC: p.hostMAC(key.dpu, key.function),
			Address: logical.address, ExternallyRouted: logical.network.ExternallyRouted, Since: p.clock.Now(),
		}}
		p.bound[key] = port
		p.journal.port(EffectPlug, &port.Port, "")
	}
}

func (p *plane) unbind(key portKey, why string) {
	if port := p.bound[key]; port != nil {
		delete(p.bound, key)
		p.journal.port(EffectUnplug, &port.Port, why)
	}
}

func (p *plane) ports() []Port {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Port, 0, len(p.bound))
	for _, port := range p.bound {
		snapshot := port.Port
		snapshot.Connected = p.up(port.DPU)
		out = append(out, snapshot)
	}
	slices.SortFunc(out, func(a, b Port) int {
		return cmp.Or(cmp.Compare(a.DPU, b.DPU), cmp.Compare(a.PF, b.PF), cmp.Compare(a.VF, b.VF))
	})
	return out
}

// live is the port a host with this address talks through, or nil.
func (p *plane) live(mac string) *binding {
	for _, port := range p.bound {
		if strings.EqualFold(port.HostMAC, mac) && p.up(port.DPU) && (port.MAC == "unknown" || strings.EqualFold(port.MAC, mac)) {
			return port
		}
	}
	return nil
}

func (p *plane) lease(mac string) (netip.Addr, Network, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	port := p.live(mac)
	// The OVN controller answers DHCP itself: a hung one lets traffic pass, but gives no lease.
	if port == nil || !port.Address.IsValid() || p.hung(port.DPU) {
		return netip.Addr{}, Network{}, false
	}
	return port.Address, port.network, true
}

func (p *plane) reachable(a, b string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	from, to := p.live(a), p.live(b)
	if from == nil || to == nil || from.VPC != to.VPC {
		return false
	}
	return from.VirtualNetwork == to.VirtualNetwork || p.peering[from.VPC]
}
