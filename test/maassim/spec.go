// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"fmt"
	"net/netip"
	"strings"
)

// AddAsNew in [Machine].Status adds a machine in status New, whose number 0 means "not said".
const AddAsNew = -1

// defaultSubnet carries the provisioning network of machines that do not say theirs.
const defaultSubnet = "10.10.0.0/16"

// Machine describes a server as it is racked and enlisted. Zero fields get plausible defaults.
type Machine struct {
	// SystemID is MAAS' identifier, unique in the region. Required.
	SystemID string
	// Hostname defaults to "node-<system id>".
	Hostname string
	// Zone and Pool default to "default"; others must have been added before.
	Zone, Pool string
	// Tags must have been added before.
	Tags []string
	// Architecture defaults to "amd64/generic" (arm64 for a DPU).
	Architecture string
	// CPUCount defaults to 16, MemoryMiB to 65536, StorageMB (10^6 bytes) to 960000.
	CPUCount  int
	MemoryMiB int
	StorageMB float64
	// PowerType defaults to "ipmi". "manual" means MAAS can neither switch nor see the power.
	PowerType string
	// PoweredOn is the power at the start.
	PoweredOn bool
	// Interfaces defaults to one connected AUTO interface on the provisioning network.
	Interfaces []Interface
	// Devices are the PCI devices commissioning found; a network card of the board when nil. A machine that was never commissioned
	// has none.
	Devices []Device
	// IsDPU marks a machine that is itself a DPU (arm64 only); Parent is then its host's system ID, if known.
	IsDPU  bool
	Parent string
	// Status defaults to Ready; AddAsNew for New.
	Status int
	// Commissioned says that a machine added as New has commissioning data. In every other status it is implied
	// unless Uncommissioned: such a machine ends in New, not Ready, when released.
	Commissioned   bool
	Uncommissioned bool
	// Owner is the account a machine added in an owned status belongs to.
	Owner string
}

// Interface is one network interface of a machine.
type Interface struct {
	Name, MAC, Vendor, Product string
	LinkConnected              bool
	// Fabric and VLAN name where the interface is plugged in; a numeric VLAN is its VID.
	Fabric, VLAN string
	// Subnet is the CIDR of the link; empty with a Mode means the provisioning network's.
	Subnet string
	// Mode is AUTO, STATIC, DHCP, LINK_UP, or empty for an interface MAAS leaves alone.
	Mode string
	// IPAddress is the address of a STATIC link.
	IPAddress string
	NUMANode  int
}

// Device is one PCI device as nodes/{id}/devices/ shows it. A BlueField-3 is 15b3/a2dc.
type Device struct {
	VendorID, ProductID, VendorName, ProductName string
	CommissioningDriver                          string
	PCIAddress                                   string
	NUMANode                                     int
	// Interface is the name of the machine's interface this device provides; empty for none.
	Interface string
	// HardwareType is MAAS' number; 0 is taken as network (4) for vendor 15b3, else as node.
	HardwareType int
}

// withDefaults fills what the caller left out and checks what cannot be right.
func (spec Machine) withDefaults() (Machine, error) {
	if spec.SystemID == "" {
		return spec, fmt.Errorf("machine %q: a system ID is required", spec.Hostname)
	}
	if spec.IsDPU && spec.Architecture == "" {
		spec.Architecture = "arm64/generic"
	}
	setDefault(&spec.Hostname, "node-"+spec.SystemID)
	setDefault(&spec.Zone, "default")
	setDefault(&spec.Pool, "default")
	setDefault(&spec.Architecture, "amd64/generic")
	setDefault(&spec.CPUCount, 16)
	setDefault(&spec.MemoryMiB, 65536)
	setDefault(&spec.StorageMB, 960000)
	setDefault(&spec.PowerType, "ipmi")
	if !strings.Contains(spec.Architecture, "/") {
		spec.Architecture += "/generic"
	}
	if spec.IsDPU && !strings.HasPrefix(spec.Architecture, "arm64/") {
		return spec, fmt.Errorf("machine %s: a DPU must be arm64, not %s", spec.SystemID, spec.Architecture)
	}
	switch spec.Status {
	case 0:
		spec.Status = StatusReady
	case AddAsNew:
		spec.Status = StatusNew
	}
	if spec.Status < 0 || spec.Status >= len(statuses) {
		return spec, fmt.Errorf("machine %s: unknown status %d", spec.SystemID, spec.Status)
	}
	if spec.Status != StatusNew {
		spec.Commissioned = !spec.Uncommissioned
	}
	return spec.withInterfaces()
}

func (spec Machine) withInterfaces() (Machine, error) {
	interfaces := append([]Interface(nil), spec.Interfaces...)
	if len(interfaces) == 0 {
		interfaces = []Interface{{Name: "eno1", MAC: derivedMAC(spec.SystemID), LinkConnected: true, Mode: "AUTO"}}
	}
	for i := range interfaces {
		nic := &interfaces[i]
		setDefault(&nic.Fabric, "fabric-0")
		nic.Mode = strings.ToUpper(nic.Mode)
		nic.MAC = strings.ToLower(nic.MAC)
		switch nic.Mode {
		case "":
		case "AUTO", "STATIC", "DHCP", "LINK_UP":
			setDefault(&nic.Subnet, defaultSubnet)
		default:
			return spec, fmt.Errorf("machine %s, interface %s: unknown mode %q", spec.SystemID, nic.Name, nic.Mode)
		}
		if nic.Subnet != "" {
			if _, err := netip.ParsePrefix(nic.Subnet); err != nil {
				return spec, fmt.Errorf("machine %s, interface %s: %w", spec.SystemID, nic.Name, err)
			}
		}
	}
	spec.Interfaces = interfaces
	spec.Tags = append([]string(nil), spec.Tags...)
	if spec.Devices == nil {
		spec.Devices = []Device{boardNIC}
	}
	spec.Devices = append([]Device(nil), spec.Devices...)
	return spec, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// derivedMAC gives machines without interfaces a stable, locally administered address of their own.
func derivedMAC(systemID string) string {
	var sum uint32 = 2166136261
	for _, b := range []byte(systemID) {
		sum = (sum ^ uint32(b)) * 16777619
	}
	return fmt.Sprintf("02:00:%02x:%02x:%02x:%02x", byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum))
}

// boardNIC is what every server has.
var boardNIC = Device{VendorID: "8086", ProductID: "1563", VendorName: "Intel Corporation", ProductName: "Ethernet Controller X550", PCIAddress: "0000:01:00.0", HardwareType: 4}
