// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package demo runs the provider's main job end to end in the lab: two tenants get isolated clusters of DPU servers and give them
// back, held against the invariants all the while.
package demo

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/checker"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/serversim"
)

// Names the operator chose.
const (
	account           = "capi"
	source            = "rack-servers"
	fabricName        = "dpf"
	dpfNamespace      = "dpf-operator-system"
	tenantPort        = "enp1s0f0np0"
	provisioningPort  = "eno1"
	provisioningSpace = "provisioning"
	foreignVPC        = "legacy"
	labelPrefix       = "maas-dpu.dpucloud.io/"

	serverCPUs      = 64
	serverMemoryMiB = 512 << 10
)

// Server is one server of the racks, as MAAS, DPF and the wiring see it.
type Server struct {
	SystemID, Hostname, Zone string
	// Pool is the MAAS resource pool; empty for MAAS' own.
	Pool string
	// Trouble says in a few words why the server must not be used; empty for a good one.
	Trouble string
	// TenantMAC is the port behind the DPU; empty without one.
	TenantMAC       string
	ProvisioningMAC string
	// ProvisioningAddress is what the server has outside its DPU once it is deployed.
	ProvisioningAddress netip.Addr
	DPU                 dpfsim.DPU
}

// Good reports that the server may be used.
func (s Server) Good() bool { return s.Trouble == "" }

// racks returns the operator's servers: as many good ones as asked for, the four bad ones, those of the pools, and those without DPUs.
func racks(options Options) []Server {
	var servers []Server
	add := func(trouble string) *Server {
		n := len(servers) + 1
		s := Server{
			SystemID: fmt.Sprintf("srv%03d", n), Hostname: fmt.Sprintf("server-%02d", n), Zone: options.Zones[n%len(options.Zones)], Trouble: trouble,
			TenantMAC: fmt.Sprintf("b8:3f:d2:00:00:%02x", n), ProvisioningMAC: fmt.Sprintf("0c:42:a1:00:00:%02x", n),
			ProvisioningAddress: netip.AddrFrom4([4]byte{192, 168, 80, byte(100 + n)}),
		}
		s.DPU = dpfsim.DPU{
			Name: fmt.Sprintf("dpu-%02d", n), Serial: fmt.Sprintf("MT2550X%05d", n), PF0MAC: s.TenantMAC,
			SystemID: s.SystemID, StandbyPower: true, NumberOfPFs: 1,
		}
		servers = append(servers, s)
		return &servers[len(servers)-1]
	}
	for range options.GoodServers {
		add("")
	}
	withoutDPU := func() *Server {
		s := add("has no DPU")
		s.TenantMAC, s.DPU = "", dpfsim.DPU{}
		return s
	}
	withoutDPU()
	add("its DPU is being reinstalled").DPU.Phase = "OS Installing"
	add("its DPU is on somebody else's VPC").DPU.ForeignVPC = dpfNamespace + "/" + foreignVPC
	add("its slot has no standby power").DPU.StandbyPower = false
	for _, pool := range slices.Sorted(maps.Keys(options.Pools)) {
		for range options.Pools[pool] {
			add("").Pool = pool
		}
	}
	for range options.PlainServers {
		withoutDPU().Pool = PlainPool
	}
	return servers
}

// inMAAS is the server as commissioning found it.
func (s Server) inMAAS() maassim.Machine {
	machine := maassim.Machine{
		SystemID: s.SystemID, Hostname: s.Hostname, Zone: s.Zone, Pool: s.Pool, Architecture: "amd64/generic", CPUCount: serverCPUs, MemoryMiB: serverMemoryMiB,
		StorageMB: 2e6, PowerType: "redfish", Commissioned: true,
		Interfaces: []maassim.Interface{{
			Name: provisioningPort, MAC: s.ProvisioningMAC, Vendor: "Intel Corporation", Product: "I350", LinkConnected: true,
			Fabric: provisioningSpace, VLAN: "untagged", Subnet: provisioningCIDR, Mode: "AUTO",
		}},
	}
	if s.TenantMAC == "" {
		// It is the Node's address, too: nothing but MAAS configures this server.
		machine.Interfaces[0].Mode, machine.Interfaces[0].IPAddress = "STATIC", s.ProvisioningAddress.String()
	} else {
		machine.Interfaces = append(machine.Interfaces, maassim.Interface{
			Name: tenantPort, MAC: s.TenantMAC, Vendor: "Mellanox Technologies", Product: "MT43244 BlueField-3 integrated ConnectX-7", LinkConnected: true,
		})
		machine.Devices = append(machine.Devices, maassim.Device{
			VendorID: "15b3", ProductID: "a2dc", VendorName: "Mellanox Technologies", ProductName: "MT43244 BlueField-3 integrated ConnectX-7 network controller",
			PCIAddress: "0000:01:00.0",
		})
	}
	return machine
}

// inRack is the server as its operating system finds it.
func (s Server) inRack() serversim.Server {
	server := serversim.Server{
		SystemID: s.SystemID, Hostname: s.Hostname, ProvisioningAddress: s.ProvisioningAddress, CPUs: serverCPUs, MemoryMiB: serverMemoryMiB,
	}
	if s.TenantMAC != "" {
		server.TenantPorts = []serversim.Port{{Interface: tenantPort, MAC: s.TenantMAC}}
	}
	return server
}

// forChecker is what the operator tells the checker.
func forChecker(servers []Server) checker.Inventory {
	inventory := checker.Inventory{
		Accounts: []string{account}, ForeignVPCs: []string{dpfNamespace + "_" + foreignVPC}, LabelPrefix: labelPrefix,
	}
	for _, s := range servers {
		server := checker.Server{SystemID: s.SystemID}
		if s.TenantMAC != "" {
			server.MACs, server.DPUs = []string{s.TenantMAC}, []string{s.DPU.Name}
		}
		inventory.Servers = append(inventory.Servers, server)
	}
	return inventory
}
