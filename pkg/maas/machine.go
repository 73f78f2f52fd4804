// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas

import (
	"encoding/json"
	"net"
	"strings"
)

// Machine is a server as MAAS describes it at one moment.
type Machine struct {
	// SystemID is MAAS' opaque, lasting identifier.
	SystemID string
	Hostname string
	FQDN     string
	// Owner is the account's user name; empty if nobody owns the machine.
	Owner  string
	Status Status
	// StatusMessage is the last event, free text.
	StatusMessage string
	// ErrorDescription says why the machine failed or is marked broken.
	ErrorDescription string
	PowerState       PowerState
	PowerType        string
	Zone             string
	Pool             string
	Tags             []string
	// Architecture such as "amd64/generic".
	Architecture string
	CPUCount     int
	MemoryMiB    int
	// StorageMB is the sum of all disks in 10^6 bytes.
	StorageMB float64
	// BootDiskBytes is the size of the disk the machine boots from, LargestDiskBytes that of its largest physical disk; 0 if
	// MAAS lists none.
	BootDiskBytes, LargestDiskBytes int64
	// Locked machines refuse every change.
	Locked bool
	// Ephemeral is set on a machine deployed in memory.
	Ephemeral bool
	// IsDPU is known to MAAS 3.7 and later only.
	IsDPU bool
	// ParentSystemID is the host of a DPU that MAAS has as a machine of its own.
	ParentSystemID string
	OSystem        string
	DistroSeries   string
	HWEKernel      string
	Netboot        bool
	HardwareUUID   string
	// Hardware is MAAS' hardware_info without the values it writes as "Unknown".
	Hardware map[string]string
	// Annotations are the workload annotations; MAAS deletes them when a release ends.
	Annotations map[string]string
	Interfaces  []Interface
	// BootInterfaceID is the ID of the interface the machine boots from; 0 if unknown.
	BootInterfaceID int
	// IPAddresses that MAAS has given to the machine.
	IPAddresses []string
}

// Interface is a network interface of a machine.
type Interface struct {
	ID   int
	Name string
	// Type such as "physical", "bond", "vlan".
	Type string
	// MAC in lower case with colons.
	MAC             string
	Vendor          string
	Product         string
	FirmwareVersion string
	Enabled         bool
	// LinkConnected is true unless MAAS says that there is no link, so that an answer
	// without the field hides no connected port.
	LinkConnected bool
	// Fabric by name; empty for an interface that is on no VLAN.
	Fabric string
	// VLANID is the 802.1Q ID, 0 if untagged.
	VLANID int
	// VLANResourceID is MAAS' own ID of the VLAN, 0 if there is none.
	VLANResourceID int
	Links          []Link
}

// Link is the connection of an interface with a subnet.
type Link struct {
	// Mode is auto, dhcp, static or link_up.
	Mode string
	// Address is empty as long as none is assigned.
	Address string
	// CIDR of the subnet; empty if there is none.
	CIDR string
}

// machineWire has the fields that we read of a machine. It exists because
// entity.Machine lacks is_dpu, parent and error_description.
type machineWire struct {
	SystemID         string            `json:"system_id"`
	Hostname         string            `json:"hostname"`
	FQDN             string            `json:"fqdn"`
	Owner            string            `json:"owner"`
	Status           *Status           `json:"status"`
	StatusMessage    string            `json:"status_message"`
	ErrorDescription string            `json:"error_description"`
	PowerState       PowerState        `json:"power_state"`
	PowerType        string            `json:"power_type"`
	Zone             named             `json:"zone"`
	Pool             named             `json:"pool"`
	TagNames         []string          `json:"tag_names"`
	Architecture     string            `json:"architecture"`
	CPUCount         int               `json:"cpu_count"`
	Memory           int               `json:"memory"`
	Storage          float64           `json:"storage"`
	BootDisk         diskWire          `json:"boot_disk"`
	Disks            []diskWire        `json:"physicalblockdevice_set"`
	Locked           bool              `json:"locked"`
	EphemeralDeploy  bool              `json:"ephemeral_deploy"`
	IsDPU            bool              `json:"is_dpu"`
	Parent           parentWire        `json:"parent"`
	OSystem          string            `json:"osystem"`
	DistroSeries     string            `json:"distro_series"`
	HWEKernel        string            `json:"hwe_kernel"`
	Netboot          bool              `json:"netboot"`
	HardwareUUID     string            `json:"hardware_uuid"`
	HardwareInfo     map[string]string `json:"hardware_info"`
	Annotations      map[string]string `json:"workload_annotations"`
	Interfaces       []interfaceWire   `json:"interface_set"`
	BootInterface    interfaceWire     `json:"boot_interface"`
	IPAddresses      []string          `json:"ip_addresses"`
}

type named struct {
	Name string `json:"name"`
}

type diskWire struct {
	Size int64 `json:"size"`
}

type parentWire struct {
	SystemID string `json:"system_id"`
}

type interfaceWire struct {
	ID              int    `json:"id"`
	Name            string `json:"name"`
	Type            string `json:"type"`
	MAC             string `json:"mac_address"`
	Vendor          string `json:"vendor"`
	Product         string `json:"product"`
	FirmwareVersion string `json:"firmware_version"`
	Enabled         bool   `json:"enabled"`
	LinkConnected   *bool  `json:"link_connected"`
	VLAN            struct {
		ID     int    `json:"id"`
		VID    int    `json:"vid"`
		Fabric string `json:"fabric"`
	} `json:"vlan"`
	Links []struct {
		Mode      string `json:"mode"`
		IPAddress string `json:"ip_address"`
		Subnet    struct {
			CIDR string `json:"cidr"`
		} `json:"subnet"`
	} `json:"links"`
}

func decodeMachine(body []byte) (Machine, error) {
	var wire machineWire
	if err := json.Unmarshal(body, &wire); err != nil {
		return Machine{}, err
	}
	return wire.machine()
}

func decodeMachines(body []byte) ([]Machine, error) {
	// Decoding null gives no error and an empty list, which would read as "no machine".
	if null(body) {
		return nil, errNotAList
	}
	var wires []machineWire
	if err := json.Unmarshal(body, &wires); err != nil {
		return nil, err
	}
	machines := make([]Machine, 0, len(wires))
	for i := range wires {
		m, err := wires[i].machine()
		if err != nil {
			return nil, err
		}
		machines = append(machines, m)
	}
	return machines, nil
}

func (w *machineWire) machine() (Machine, error) {
	// Both are in every machine. Without this check any JSON object would decode to a
	// machine that is New and has no owner.
	if w.SystemID == "" || w.Status == nil {
		return Machine{}, errNotAMachine
	}
	m := Machine{
		SystemID: w.SystemID, Hostname: w.Hostname, FQDN: w.FQDN, Owner: w.Owner,
		Status: *w.Status, StatusMessage: w.StatusMessage, ErrorDescription: w.ErrorDescription,
		PowerState: w.PowerState, PowerType: w.PowerType,
		Zone: w.Zone.Name, Pool: w.Pool.Name, Tags: w.TagNames,
		Architecture: w.Architecture, CPUCount: w.CPUCount, MemoryMiB: w.Memory, StorageMB: w.Storage, BootDiskBytes: w.BootDisk.Size,
		Locked: w.Locked, Ephemeral: w.EphemeralDeploy, IsDPU: w.IsDPU, ParentSystemID: w.Parent.SystemID,
		OSystem: w.OSystem, DistroSeries: w.DistroSeries, HWEKernel: w.HWEKernel, Netboot: w.Netboot,
		HardwareUUID: w.HardwareUUID, Hardware: known(w.HardwareInfo),
		Annotations: w.Annotations, BootInterfaceID: w.BootInterface.ID, IPAddresses: w.IPAddresses,
	}
	for _, disk := range w.Disks {
		m.LargestDiskBytes = max(m.LargestDiskBytes, disk.Size)
	}
	for i := range w.Interfaces {
		m.Interfaces = append(m.Interfaces, w.Interfaces[i].networkInterface())
	}
	return m, nil
}

func (w *interfaceWire) networkInterface() Interface {
	i := Interface{
		ID: w.ID, Name: w.Name, Type: w.Type, MAC: CanonicalMAC(w.MAC),
		Vendor: w.Vendor, Product: w.Product, FirmwareVersion: w.FirmwareVersion,
		Enabled: w.Enabled, LinkConnected: w.LinkConnected == nil || *w.LinkConnected,
		Fabric: w.VLAN.Fabric, VLANID: w.VLAN.VID, VLANResourceID: w.VLAN.ID,
	}
	for _, link := range w.Links {
		i.Links = append(i.Links, Link{Mode: link.Mode, Address: link.IPAddress, CIDR: link.Subnet.CIDR})
	}
	return i
}

// CanonicalMAC writes a MAC address in lower case with colons; what is no MAC address is
// returned in lower case.
func CanonicalMAC(mac string) string {
	if parsed, err := net.ParseMAC(mac); err == nil {
		return parsed.String()
	}
	return strings.ToLower(mac)
}

func known(info map[string]string) map[string]string {
	kept := make(map[string]string, len(info))
	for key, value := range info {
		if value != "" && value != "Unknown" {
			kept[key] = value
		}
	}
	return kept
}
