// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package bmcsim

import (
	"slices"
	"strings"
)

type object = map[string]any

func link(path string) object { return object{"@odata.id": path} }

func serviceRoot() object {
	return object{
		"@odata.id": root, "@odata.type": "#ServiceRoot.v1_15_0.ServiceRoot", "Id": "RootService", "Name": "Root Service",
		"RedfishVersion": "1.17.0", "UUID": "9c2bbf1e-0d6d-4b5e-9f57-2d7a5c3b4e10", "Vendor": "Nvidia",
		"SessionService": link(root + "/SessionService"), "Chassis": link(root + "/Chassis"), "Systems": link(root + "/Systems"),
		"Managers": link(root + "/Managers"), "UpdateService": link(root + "/UpdateService"), "ComponentIntegrity": link(root + "/ComponentIntegrity"),
		"Links":                     object{"Sessions": link(sessionsPath)},
		"ProtocolFeaturesSupported": object{"ExpandQuery": object{"ExpandAll": false, "Levels": false, "Links": false, "NoLinks": false}},
	}
}

func sessionBody(id, user string) object {
	return object{
		"@odata.id": sessionsPath + "/" + id, "@odata.type": "#Session.v1_5_0.Session", "Id": id, "Name": "User Session", "UserName": user,
	}
}

// resource returns what a path answers, and whether the firmware has it.
func resource(state *State, path, expand string) (object, bool) {
	if !strings.HasPrefix(path, root+"/") || expand != "" || slices.ContainsFunc(state.NotThere, func(end string) bool { return strings.HasSuffix(path, end) }) {
		return nil, false // unsure: what the real one makes of $expand, which nobody is to need.
	}
	body, found := resources(state)[strings.TrimPrefix(path, root)]
	if !found {
		return nil, false
	}
	body["@odata.id"] = path
	if body["Id"] == nil {
		body["Id"] = path[strings.LastIndex(path, "/")+1:]
	}
	for _, name := range state.Missing {
		delete(body, name)
		if attributes, ok := body["Attributes"].(object); ok {
			delete(attributes, name)
		}
	}
	return body, true
}

func collection(name string, members ...string) object {
	links := []any{}
	for _, member := range members {
		links = append(links, link(root+member))
	}
	return object{"Name": name, "Members": links, "Members@odata.count": len(links)}
}

const (
	card    = "/Chassis/Card1"
	adapter = card + "/NetworkAdapters/NvidiaNetworkAdapter"
	system  = "/Systems/Bluefield"
	manager = "/Managers/Bluefield_BMC"
)

// resources are all of a BlueField-3 BMC that anybody here asks for, by their path.
func resources(state *State) map[string]object {
	return map[string]object{
		"/SessionService": {
			"@odata.type": "#SessionService.v1_0_2.SessionService", "Name": "Session Service", "ServiceEnabled": true, "SessionTimeout": 1800,
			"Sessions": link(sessionsPath),
		},
		"/SessionService/Sessions": collection("Session Collection"),
		"/Chassis":                 collection("Chassis Collection", card),
		card: {
			"@odata.type": "#Chassis.v1_22_0.Chassis", "Name": "Card1", "ChassisType": "Card", "Manufacturer": "Nvidia",
			"Model": "BlueField-3 DPU", "PartNumber": "900-9D3B6-00CV-AA0", "AssetTag": "MT_0000000884", "SerialNumber": state.SerialNumber,
			"NetworkAdapters": link(root + card + "/NetworkAdapters"),
		},
		card + "/NetworkAdapters": collection("Network Adapter Collection", adapter),
		adapter: {
			"@odata.type": "#NetworkAdapter.v1_9_0.NetworkAdapter", "Name": "NvidiaNetworkAdapter", "SerialNumber": state.SerialNumber,
			"NetworkDeviceFunctions": link(root + adapter + "/NetworkDeviceFunctions"),
		},
		adapter + "/NetworkDeviceFunctions": collection("Network Device Function Collection", adapter+"/NetworkDeviceFunctions/eth0f0"),
		adapter + "/NetworkDeviceFunctions/eth0f0": {
			"@odata.type": "#NetworkDeviceFunction.v1_9_0.NetworkDeviceFunction", "Name": "NetworkDeviceFunction", "NetDevFuncType": "Ethernet",
			"Ethernet": object{"MACAddress": state.MAC, "PermanentMACAddress": state.MAC},
		},
		adapter + "/Oem/Nvidia/HostPrivilegeConfig": {
			"@odata.type": "#NvidiaHostPrivilegeConfig.v1_0_0.NvidiaHostPrivilegeConfig", "Name": "Host Privilege Config", "PrivilegeMode": state.PrivilegeMode,
			"FirmwareUpdate": "Disabled", "FlashAccess": "Disabled", "NicReset": "Disabled",
		},
		"/Systems": collection("Computer System Collection", system),
		system: {
			"@odata.type": "#ComputerSystem.v1_20_0.ComputerSystem", "Name": "Bluefield", "PowerState": "On",
			"Status": object{"State": "Enabled"}, "BootProgress": object{"LastState": "OSRunning"},
			"Bios": link(root + system + "/Bios"), "SecureBoot": link(root + system + "/SecureBoot"),
		},
		system + "/Bios": {
			"@odata.type": "#Bios.v1_2_0.Bios", "Name": "BIOS Configuration", "Attributes": attributes(state),
		},
		system + "/SecureBoot": {
			"@odata.type": "#SecureBoot.v1_1_0.SecureBoot", "Name": "UEFI Secure Boot", "SecureBootCurrentBoot": state.CurrentBoot,
			"SecureBootEnable": state.CurrentBoot == "Enabled", "SecureBootMode": "UserMode",
		},
		system + "/Oem/Nvidia": {
			"@odata.type": "#NvidiaComputerSystem.v1_0_0.NvidiaComputerSystem", "Name": "Bluefield", "Mode": state.Mode, "HostRshim": state.HostRshim,
		},
		"/Managers": collection("Manager Collection", manager),
		manager: {
			"@odata.type": "#Manager.v1_18_0.Manager", "Name": "OpenBmc Manager", "ManagerType": "BMC", "FirmwareVersion": "BF-25.10-9",
		},
		manager + "/Oem/Nvidia": {
			"@odata.type": "#NvidiaManager.v1_4_0.NvidiaManager", "Name": "Bluefield_BMC", "BmcRShim": object{"BmcRShimEnabled": true},
		},
		"/UpdateService/FirmwareInventory/BMC_Firmware": {
			"@odata.type": "#SoftwareInventory.v1_4_0.SoftwareInventory", "Name": "Software Inventory", "Version": "BF-25.10-9",
		},
		"/ComponentIntegrity": collection("Component Integrity Collection"),
	}
}

func attributes(state *State) object {
	all := object{"HostPrivilegeLevel": state.HostPrivilegeLevel, "InternalCPUModel": state.InternalCPUModel, "BootOptionalPXE": "Disabled"}
	if state.OldSpelling {
		all = object{"Host Privilege Level": state.HostPrivilegeLevel, "Internal CPU Model": state.InternalCPUModel}
	}
	for _, name := range []string{"HostPrivilegeLevel", "InternalCPUModel", "Host Privilege Level", "Internal CPU Model"} {
		if value, ok := all[name]; ok && value == "" {
			delete(all, name)
		}
	}
	return all
}
