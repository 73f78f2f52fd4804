// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricwing_test

import (
	"context"
	"slices"
	"sync"
	"testing"

	. "github.com/onsi/gomega"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
)

// hardware is what MAAS' commissioning found in servers, by system ID.
var hardware struct {
	sync.Mutex
	nics    map[string][]maas.Interface
	devices map[string][]maas.Device
}

// rack puts interfaces into a server, each on a PCI device of its own.
func rack(systemID string, nics []maas.Interface, devices []maas.Device) {
	hardware.Lock()
	defer hardware.Unlock()
	if hardware.nics == nil {
		hardware.nics, hardware.devices = map[string][]maas.Interface{}, map[string][]maas.Device{}
	}
	hardware.nics[systemID], hardware.devices[systemID] = nics, devices
}

func nicsOf(systemID string) []maas.Interface {
	hardware.Lock()
	defer hardware.Unlock()
	return hardware.nics[systemID]
}

// MachinesByMAC implements maas.Verifier.
func (m *maasStub) MachinesByMAC(_ context.Context, macs ...string) ([]maas.Machine, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return nil, errMAASDown
	}
	hardware.Lock()
	var ids []string
	for id, nics := range hardware.nics {
		if slices.ContainsFunc(nics, func(nic maas.Interface) bool { return slices.Contains(macs, nic.MAC) }) {
			ids = append(ids, id)
		}
	}
	hardware.Unlock()
	var machines []maas.Machine
	for _, id := range ids {
		machines = append(machines, m.machine(id))
	}
	return machines, nil
}

// Devices implements maas.Verifier.
func (m *maasStub) Devices(_ context.Context, systemID string) ([]maas.Device, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return nil, errMAASDown
	}
	hardware.Lock()
	defer hardware.Unlock()
	return hardware.devices[systemID], nil
}

func nic(id int, mac, fabric string) maas.Interface {
	return maas.Interface{ID: id, Name: "eth" + string(rune('0'+id)), Type: "physical", MAC: vpc.NormalizeMAC(mac), LinkConnected: true, Fabric: fabric}
}

// TestServerFoundByMAC has a server without a label, which MAAS and DPF both know by PF0 of its card. Once it is pinned, a proof is
// renewed without MAAS; a label that names another server beats the address.
func TestServerFoundByMAC(t *testing.T) {
	w := newWing(t)
	w.changeFabric(`{"spec":{"serverMapping":"ExplicitOrMAC"}}`, `{"spec":{"serverMapping":"Explicit"}}`)
	d := w.newCards(1, func(d *dpfsim.DPU) { d.SystemID = "" })[0]
	d.SystemID = "bymac" + d.Device
	rack(d.SystemID, []maas.Interface{nic(1, d.PF0MAC, "")}, nil)
	w.Eventually(w.eligibility(d)).Should(Equal(infrav1.Eligible))
	w.newTenant("red", "bymac")
	a := w.attachPorts("bymac", d.SystemID, w.claim("red", "m", d.SystemID), cardPort("p0", "", 0))
	w.Eventually(w.proven(a)).Should(Equal(attachedState))
	w.Expect(plugged(d)).To(BeTrue())

	w.maas.setDown(true)
	w.touch(a)
	w.Eventually(w.reason(a, infrav1.AttachedCondition)).Should(Equal("True/" + infrav1.AttachedReason))
	w.Consistently(w.reason(a, infrav1.AttachedCondition)).Should(Equal("True/"+infrav1.AttachedReason), "MAAS that does not answer takes nothing back")
	w.maas.setDown(false)
	w.detach(a)
	w.Eventually(w.proven(a)).Should(Equal(detachedState))
	w.Expect(plugged(d)).To(BeFalse())

	w.patchDPF(&provisioningv1alpha1.DPUNode{}, d.Node, `{"metadata":{"labels":{"maas.io/system-id":"another"}}}`)
	w.Eventually(w.reason(w.server(d), infrav1.ReadyCondition)).Should(Equal("False/" + infrav1.AmbiguousDPUReason))
	w.Expect(w.eligibility(d)()).To(Equal(infrav1.Ineligible))
}

// TestUnaccountedPort stops where a linked interface is nobody's that is known; a card's second port is its card's.
func TestUnaccountedPort(t *testing.T) {
	w := newWing(t)
	w.changeFabric(`{"spec":{"provisioningNetwork":{"fabrics":["boot"]}}}`, `{"spec":{"provisioningNetwork":{"fabrics":null}}}`)
	w.newTenant("red", "ports")
	bluefield := func(id int, mac, address string) maas.Device {
		return maas.Device{VendorID: maas.VendorMellanox, ProductID: maas.ProductBlueField3, PCIAddress: address, InterfaceID: id, MAC: vpc.NormalizeMAC(mac)}
	}
	const second, board = "58:a2:e1:ff:00:01", "58:a2:e1:ff:00:02"
	for _, tc := range []struct {
		name    string
		devices func(d dpfsim.DPU) []maas.Device
		says    string
	}{
		{"dual", func(d dpfsim.DPU) []maas.Device {
			return []maas.Device{bluefield(1, d.PF0MAC, "0000:03:00.0"), bluefield(2, second, "0000:03:00.1")}
		}, "True/" + infrav1.ResolvedReason},
		{"stranger", func(d dpfsim.DPU) []maas.Device {
			return []maas.Device{bluefield(1, d.PF0MAC, "0000:03:00.0"), {VendorID: "8086", ProductID: "1563", PCIAddress: "0000:04:00.0", InterfaceID: 2}}
		}, "False/" + infrav1.UnaccountedPortReason},
		{"untold", func(dpfsim.DPU) []maas.Device { return nil }, "Unknown/" + infrav1.UnaccountedPortReason},
	} {
		d := w.newCards(1, nil)[0]
		rack(d.SystemID, []maas.Interface{nic(1, d.PF0MAC, ""), nic(2, second, ""), nic(3, board, "boot")}, tc.devices(d))
		w.Eventually(w.eligibility(d)).Should(Equal(infrav1.Eligible))
		a := w.attach("red", tc.name, "ports", "m", d.SystemID, w.claim("red", "m", d.SystemID))
		w.Eventually(w.reason(a, infrav1.DPUResolvedCondition)).Should(Equal(tc.says), tc.name)
		if tc.says == "True/"+infrav1.ResolvedReason {
			w.Eventually(w.proven(a)).Should(Equal(attachedState), tc.name)
		} else {
			w.Consistently(func() dpfsim.WriteCount { return labelWrites(d) }).Should(Equal(dpfsim.WriteCount{}), tc.name)
		}
		w.detach(a)
		w.Eventually(w.proven(a)).Should(Equal(detachedState), tc.name)
	}
}
