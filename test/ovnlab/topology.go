// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"

	"github.com/ovn-kubernetes/libovsdb/client"
	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
)

// Cards is what a Topology needs of the DPUs; a Lab has it.
type Cards interface {
	AddDPU(ctx context.Context, name string, ports ...HostPort) error
	RemoveDPU(ctx context.Context, name string) error
	StopDPU(ctx context.Context, name string) error
	StartDPU(ctx context.Context, name string) error
	Plug(ctx context.Context, dpu, port, ifaceID string) error
	Unplug(ctx context.Context, dpu, port string) error
	HangController(dpu string) (resume func() error, err error)
}

// Topology has DPF's VPC service drive a lab's OVN: it writes the northbound database under DPF's names and plugs representors
// on the cards. It is the only writer of that database, and its methods may be called at any time. Each of them is one
// transaction, if anything is to change.
type Topology struct {
	cards   Cards
	address string
	tls     *TLS

	// write keeps what a method has read true until it has written.
	write sync.Mutex
	mu    sync.Mutex
	nb    client.Client
	ports map[string][]HostPort
	wiped map[string]bool
}

var _ dpfsim.OVN = (*Topology)(nil)

// NewTopology drives a lab. End it with Close before the lab is closed.
func NewTopology(lab *Lab) *Topology {
	return &Topology{cards: lab, address: lab.Northbound(), tls: lab.TLS(), ports: map[string][]HostPort{}, wiped: map[string]bool{}}
}

// Close ends the connection to the database.
func (t *Topology) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.nb != nil {
		t.nb.Close()
		t.nb = nil
	}
}

// EnsureNetwork implements dpfsim.OVN.
func (t *Topology) EnsureNetwork(ctx context.Context, network dpfsim.OVNNetwork) error {
	return t.bring(ctx, ownedBy("DPUVirtualNetwork", network.Namespace, network.Name), networkRows(network))
}

// RemoveNetwork implements dpfsim.OVN.
func (t *Topology) RemoveNetwork(ctx context.Context, namespace, name string) error {
	return t.bring(ctx, externalIDs{vnetRef: namespace + "/" + name}, nil)
}

// EnsureVPC implements dpfsim.OVN. The networks' own rows are other owners', and must be there.
func (t *Topology) EnsureVPC(ctx context.Context, vpc dpfsim.OVNVPC) error {
	return t.bring(ctx, ownedBy("DPUVPC", vpc.Namespace, vpc.Name), vpcRows(vpc))
}

// RemoveVPC implements dpfsim.OVN.
func (t *Topology) RemoveVPC(ctx context.Context, namespace, name string) error {
	return t.bring(ctx, externalIDs{vpcRef: namespace + "/" + name}, nil)
}

// EnsurePort implements dpfsim.OVN. The policy that leads the host's traffic out needs its address, so that it comes with the
// call that has one. unsure: how DPF waits for the address.
func (t *Topology) EnsurePort(ctx context.Context, port dpfsim.OVNPort) (netip.Addr, error) {
	t.write.Lock()
	defer t.write.Unlock()
	owner := ownedBy("ServiceInterface", port.Namespace, port.ServiceInterface)
	present, err := t.read(ctx, owner)
	if err != nil {
		return netip.Addr{}, err
	}
	var address netip.Addr
	for _, row := range present {
		if row.table == tablePort && row.text("name") == port.ID {
			address = dynamicAddress(row.text("dynamic_addresses"))
		}
	}
	options, err := t.dhcpOptions(ctx, port)
	if err != nil {
		return netip.Addr{}, err
	}
	if err := t.change(ctx, present, portRows(port, address, options)); err != nil {
		return netip.Addr{}, fmt.Errorf("logical port %s: %w", port.ID, err)
	}
	return address, nil
}

// dhcpOptions is the row of the port's network; none without DHCP.
func (t *Topology) dhcpOptions(ctx context.Context, port dpfsim.OVNPort) (string, error) {
	if !port.DHCP {
		return "", nil
	}
	rows, err := t.read(ctx, ownedBy("DPUVirtualNetwork", port.Namespace, port.Network))
	if err != nil {
		return "", err
	}
	for _, row := range rows {
		if row.table == tableDHCP {
			return row.uuid, nil
		}
	}
	return "", fmt.Errorf("virtual network %s/%s: %w", port.Namespace, port.Network, errMissing)
}

// dynamicAddress is the IPv4 address in what OVN's IPAM has written, "<mac> <address>".
func dynamicAddress(chosen string) netip.Addr {
	for _, field := range strings.Fields(chosen) {
		if address, err := netip.ParseAddr(field); err == nil && address.Is4() {
			return address
		}
	}
	return netip.Addr{}
}

// RemovePort implements dpfsim.OVN.
func (t *Topology) RemovePort(ctx context.Context, id string) error {
	namespace, name, ok := strings.Cut(id, "_")
	if !ok {
		return fmt.Errorf("logical port %q: not <namespace>_<ServiceInterface>", id)
	}
	return t.bring(ctx, ownedBy("ServiceInterface", namespace, name), nil)
}

// LoseNorthbound implements dpfsim.OVN. A database begun anew counts its configurations from 0, too.
func (t *Topology) LoseNorthbound(ctx context.Context) error {
	t.write.Lock()
	defer t.write.Unlock()
	all := []ovsdb.Condition{ovsdb.NewCondition("external_ids", ovsdb.ConditionIncludes, ovsdb.OvsMap{GoMap: map[any]any{}})}
	var operations []ovsdb.Operation
	for _, table := range []string{tableSwitch, tableRouter, tableDHCP} {
		operations = append(operations, ovsdb.Operation{Op: ovsdb.OperationDelete, Table: table, Where: all})
	}
	operations = append(operations, ovsdb.Operation{
		Op: ovsdb.OperationUpdate, Table: "NB_Global", Where: all, Row: ovsdb.Row{"nb_cfg": 0, "sb_cfg": 0, "hv_cfg": 0},
	})
	_, err := t.transact(ctx, operations)
	return err
}

// AddDPU implements dpfsim.OVN.
func (t *Topology) AddDPU(ctx context.Context, dpu string, representors []dpfsim.OVNRepresentor) error {
	t.mu.Lock()
	known := t.ports[dpu] != nil
	t.mu.Unlock()
	if known {
		return nil
	}
	ports := make([]HostPort, 0, len(representors))
	for _, representor := range representors {
		mac, err := net.ParseMAC(representor.MAC)
		if err != nil {
			return fmt.Errorf("representor %s: %w", representor.Name, err)
		}
		ports = append(ports, HostPort{Name: representor.Name, MAC: mac})
	}
	if err := t.cards.AddDPU(ctx, dpu, ports...); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ports[dpu] = ports
	return nil
}

// StopDPU implements dpfsim.OVN.
func (t *Topology) StopDPU(ctx context.Context, dpu string) error { return t.cards.StopDPU(ctx, dpu) }

// WipeDPU implements dpfsim.OVN. What the databases say of the card stays until it comes back, as with a real one.
func (t *Topology) WipeDPU(ctx context.Context, dpu string) error {
	t.setWiped(dpu, true)
	return t.cards.StopDPU(ctx, dpu)
}

// StartDPU implements dpfsim.OVN.
func (t *Topology) StartDPU(ctx context.Context, dpu string) error {
	t.mu.Lock()
	wiped, ports := t.wiped[dpu], t.ports[dpu]
	t.mu.Unlock()
	if !wiped {
		return t.cards.StartDPU(ctx, dpu)
	}
	if err := t.cards.RemoveDPU(ctx, dpu); err != nil {
		return err
	}
	if err := t.cards.AddDPU(ctx, dpu, ports...); err != nil {
		return err
	}
	t.setWiped(dpu, false)
	return nil
}

func (t *Topology) setWiped(dpu string, wiped bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wiped[dpu] = wiped
}

// Plug implements dpfsim.OVN.
func (t *Topology) Plug(ctx context.Context, dpu, representor, id string) error {
	return t.cards.Plug(ctx, dpu, representor, id)
}

// Unplug implements dpfsim.OVN. On a card without power it changes nothing, and says so.
func (t *Topology) Unplug(ctx context.Context, dpu, representor string) error {
	return t.cards.Unplug(ctx, dpu, representor)
}

// HangController implements dpfsim.OVN.
func (t *Topology) HangController(dpu string) (resume func() error, err error) {
	return t.cards.HangController(dpu)
}
