// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"errors"
	"testing"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

func TestUnexplainedPorts(t *testing.T) {
	cards := scene().cards
	network := infrav1.ProvisioningNetwork{Fabrics: []string{"boot"}, VLANs: []int32{7}}
	nic := maas.Interface{Name: "eth0", Type: "physical", MAC: "00:00:00:00:00:01", LinkConnected: true, Fabric: "boot", VLANID: 7}
	for _, tc := range []struct {
		name   string
		change func(*maas.Interface, *infrav1.ProvisioningNetwork)
		want   int
	}{
		{"on the provisioning network", func(*maas.Interface, *infrav1.ProvisioningNetwork) {}, 0},
		{"PF0 of a DPU", func(i *maas.Interface, _ *infrav1.ProvisioningNetwork) { i.MAC, i.Fabric = "aa:bb:cc:00:00:01", "x" }, 0},
		{"another fabric", func(i *maas.Interface, _ *infrav1.ProvisioningNetwork) { i.Fabric = "x" }, 1},
		{"no fabric", func(i *maas.Interface, _ *infrav1.ProvisioningNetwork) { i.Fabric = "" }, 1},
		{"another VLAN", func(i *maas.Interface, _ *infrav1.ProvisioningNetwork) { i.VLANID = 8 }, 1},
		{"all VLANs", func(i *maas.Interface, n *infrav1.ProvisioningNetwork) { i.VLANID, n.VLANs = 8, nil }, 0},
		{"no link", func(i *maas.Interface, _ *infrav1.ProvisioningNetwork) { i.Fabric, i.LinkConnected = "x", false }, 0},
		{"a bridge", func(i *maas.Interface, _ *infrav1.ProvisioningNetwork) { i.Fabric, i.Type = "x", "bridge" }, 0},
		{"nothing declared", func(i *maas.Interface, n *infrav1.ProvisioningNetwork) { i.Fabric, n.Fabrics = "x", nil }, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			i, n := nic, network
			tc.change(&i, &n)
			if got := unexplained(&maas.Machine{Interfaces: []maas.Interface{i}}, n, cards); len(got) != tc.want {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// TestUnaccountedPorts has a linked second port of a card, which only MAAS' PCI addresses tell from a stranger's.
func TestUnaccountedPorts(t *testing.T) {
	nic := maas.Interface{ID: 2, Name: "p1", Type: "physical", MAC: "aa:bb:cc:00:00:02", LinkConnected: true}
	pf0 := maas.Device{VendorID: maas.VendorMellanox, ProductID: maas.ProductBlueField3, PCIAddress: "0000:03:00.0", InterfaceID: 1, MAC: "aa:bb:cc:00:00:01"}
	pf1 := maas.Device{VendorID: maas.VendorMellanox, ProductID: maas.ProductBlueField3, PCIAddress: "0000:03:00.1", InterfaceID: 2, MAC: "aa:bb:cc:00:00:02"}
	with := func(change func(*maas.Device)) devices {
		second := pf1
		change(&second)
		return devices{asked: true, found: []maas.Device{pf0, second}}
	}
	for _, tc := range []struct {
		name string
		seen devices
		want vpc.Answer
	}{
		{"the card's second port", with(func(*maas.Device) {}), vpc.Yes},
		{"found by MAC alone", with(func(d *maas.Device) { d.InterfaceID = 0 }), vpc.Yes},
		{"another NIC", with(func(d *maas.Device) { d.VendorID, d.ProductID = "8086", "1572" }), vpc.No},
		{"a ConnectX in the same vendor's name", with(func(d *maas.Device) { d.ProductID = "1021" }), vpc.No},
		{"a BlueField that DPF has not got here", with(func(d *maas.Device) { d.PCIAddress = "0000:83:00.1" }), vpc.No},
		{"no PCI address", with(func(d *maas.Device) { d.PCIAddress = "" }), vpc.Unknown},
		{"a PCI address without function", with(func(d *maas.Device) { d.PCIAddress = "0000:03:00" }), vpc.Unknown},
		{"not among the devices", devices{asked: true, found: []maas.Device{pf0}}, vpc.Unknown},
		{"PF0 not among the devices", devices{asked: true, found: []maas.Device{pf1}}, vpc.Unknown},
		{"MAAS does not answer", devices{asked: true, err: errors.New("maas: no answer")}, vpc.Unknown},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := checkUnaccounted([]maas.Interface{nic}, tc.seen, scene().cards)
			if got.Answer != tc.want || tc.want != vpc.Yes && got.Reason != infrav1.UnaccountedPortReason {
				t.Errorf("got %+v", got)
			}
		})
	}
}
