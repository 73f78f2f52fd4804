// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"bytes"
	"slices"
)

// Fields this simulator never gives a value, as MAAS shows them on a machine without such things.
var (
	nullFields = []string{
		"address_ttl", "current_installation_result_id", "current_testing_result_id", "last_sync",
		"min_hwe_kernel", "next_sync", "parent", "pod", "swap_size", "sync_interval", "virtualmachine_id",
	}
	emptyLists = []string{
		"bcaches", "cache_sets", "iscsiblockdevice_set", "raids", "service_set", "special_filesystems",
		"virtualblockdevice_set", "volume_groups",
	}
	testKinds = []string{"cpu", "interface", "memory", "network", "other", "storage"}
)

// machineObject is the object as GET machines/{id}/ shows it; agent_name is not in it.
func (r *Region) machineObject(m *machine) map[string]any {
	object := map[string]any{}
	for _, key := range nullFields {
		object[key] = nil
	}
	for _, key := range emptyLists {
		object[key] = []any{}
	}
	for _, kind := range testKinds {
		object[kind+"_test_status"] = -1
		object[kind+"_test_status_name"] = "Unknown"
	}
	r.identityFields(m, object)
	r.stateFields(m, object)
	r.hardwareFields(m, object)
	return object
}

func (r *Region) identityFields(m *machine, object map[string]any) {
	spec := m.spec
	object["system_id"] = m.id()
	object["hostname"] = spec.Hostname
	object["fqdn"] = m.fqdn()
	object["domain"] = domainObject()
	object["zone"] = zoneObject(slices.Index(r.zones, spec.Zone), spec.Zone)
	object["pool"] = poolObject(slices.Index(r.pools, spec.Pool), spec.Pool)
	object["tag_names"] = append([]string{}, spec.Tags...)
	object["description"] = m.description
	object["node_type"] = 0
	object["node_type_name"] = "Machine"
	object["resource_uri"] = apiRoot + "machines/" + m.id() + "/"
	object["is_dpu"] = spec.IsDPU
	if spec.Parent != "" {
		object["parent"] = map[string]any{
			"system_id": spec.Parent, "resource_uri": apiRoot + "nodes/" + spec.Parent + "/", "__incomplete__": true,
		}
	}
	object["version"] = ""
}

func (r *Region) stateFields(m *machine, object map[string]any) {
	annotations := map[string]string{}
	for key, value := range m.annotations {
		annotations[key] = value
	}
	object["status"] = m.status
	object["status_name"] = StatusName(m.status)
	object["status_message"] = m.statusMessage
	object["status_action"] = ""
	object["error_description"] = m.errorDescription
	object["owner"] = nil
	if m.owner != "" {
		object["owner"] = m.owner
	}
	object["owner_data"] = annotations
	object["workload_annotations"] = annotations
	object["power_type"] = m.spec.PowerType
	object["power_state"] = m.power
	object["netboot"] = m.netboot
	object["locked"] = m.locked
	object["osystem"] = m.osystem
	object["distro_series"] = m.series
	object["hwe_kernel"] = nil
	if m.hwe != "" {
		object["hwe_kernel"] = m.hwe
	}
	object["ephemeral_deploy"] = m.ephemeral
	object["enable_hw_sync"] = false
	object["enable_kernel_crash_dump"] = false
	object["disable_ipv4"] = false
	object["ip_addresses"] = m.ipAddresses()
	testing, name := -1, "Unknown"
	commissioning, commissioningName := -1, "Unknown"
	object["current_commissioning_result_id"] = nil
	if m.spec.Commissioned {
		testing, name, commissioning, commissioningName = 2, "Passed", 2, "Passed"
		object["current_commissioning_result_id"] = m.firstNIC
	}
	object["testing_status"], object["testing_status_name"] = testing, name
	object["commissioning_status"], object["commissioning_status_name"] = commissioning, commissioningName
}

func (r *Region) hardwareFields(m *machine, object map[string]any) {
	spec := m.spec
	disk := diskObject(m)
	interfaces := r.interfaceList(m)
	object["architecture"] = spec.Architecture
	object["cpu_count"] = spec.CPUCount
	object["cpu_speed"] = 2400
	object["memory"] = spec.MemoryMiB
	object["storage"] = spec.StorageMB
	object["bios_boot_method"] = "uefi"
	object["hardware_uuid"] = "00000000-0000-4000-8000-" + hexTail(m.id())
	object["hardware_info"] = hardwareInfo(spec)
	object["boot_disk"] = disk
	object["blockdevice_set"] = []any{disk}
	object["physicalblockdevice_set"] = []any{disk}
	object["interface_set"] = interfaces
	object["boot_interface"] = interfaces[bootInterface(spec)]
	object["numanode_set"] = []any{map[string]any{
		"index": 0, "memory": spec.MemoryMiB, "cores": []int{0}, "hugepages_set": []any{},
	}}
	object["default_gateways"] = map[string]any{
		"ipv4": map[string]any{"gateway_ip": nil, "link_id": nil},
		"ipv6": map[string]any{"gateway_ip": nil, "link_id": nil},
	}
}

func hardwareInfo(spec Machine) map[string]string {
	info := map[string]string{
		"system_vendor": "Simulated", "system_product": "Rack server", "system_family": "Unknown",
		"system_version": "Unknown", "system_sku": "Unknown", "system_serial": "SIM-" + spec.SystemID,
		"cpu_model": "Unknown", "mainboard_vendor": "Unknown", "mainboard_product": "Unknown",
		"mainboard_serial": "Unknown", "mainboard_version": "Unknown", "chassis_vendor": "Unknown",
		"chassis_type": "Unknown", "chassis_serial": "Unknown", "chassis_version": "Unknown",
		"mainboard_firmware_vendor": "Unknown", "mainboard_firmware_date": "Unknown",
		"mainboard_firmware_version": "Unknown",
	}
	if spec.IsDPU {
		info["system_family"] = "BlueField"
	}
	return info
}

func diskObject(m *machine) map[string]any {
	size := int64(m.spec.StorageMB * 1e6)
	return map[string]any{
		"id": m.firstNIC, "system_id": m.id(), "name": "sda", "type": "physical", "size": size, "block_size": 512,
		"available_size": 0, "used_size": size, "used_for": "GPT partitioned with 2 partitions",
		"model": "Simulated disk", "serial": "DISK-" + m.id(), "id_path": "/dev/disk/by-id/sim-" + m.id(),
		"path": "/dev/disk/by-dname/sda", "firmware_version": "1", "partition_table_type": "GPT", "uuid": nil,
		"filesystem": nil, "partitions": []any{}, "tags": []string{"ssd"}, "storage_pool": nil, "numa_node": 0,
		"numa_nodes": []int{0}, "resource_uri": apiRoot + "nodes/" + m.id() + "/blockdevices/1/",
	}
}

func domainObject() map[string]any {
	return map[string]any{
		"id": 0, "name": "maas", "authoritative": true, "is_default": true, "ttl": nil, "resource_record_count": 0,
		"resource_uri": apiRoot + "domains/0/",
	}
}

// hexTail turns an identifier into twelve hexadecimal digits.
func hexTail(id string) string {
	const digits = "0123456789abcdef"
	tail := []byte("000000000000")
	for i, b := range []byte(id) {
		at := (2 * i) % len(tail)
		tail[at], tail[at+1] = digits[b>>4], digits[b&15]
	}
	return string(tail)
}

// objectJSON is the machine's object as a body of its own.
func (r *Region) objectJSON(m *machine) []byte {
	if m.object == nil {
		m.object = render(r.machineObject(m))
	}
	return m.object
}

// listJSON is a list of machines' objects.
func (r *Region) listJSON(machines []*machine) []byte {
	if len(machines) == 0 {
		return []byte("[]")
	}
	var list bytes.Buffer
	list.WriteString("[")
	for i, m := range machines {
		if m.listed == nil {
			m.listed = bytes.ReplaceAll(r.objectJSON(m), []byte("\n"), []byte("\n    "))
		}
		if i > 0 {
			list.WriteString(",")
		}
		list.WriteString("\n    ")
		list.Write(m.listed)
	}
	list.WriteString("\n]")
	return list.Bytes()
}

// shown renders the machine as it is now, whatever is cached: the usual answer of an operation.
func (r *Region) shown(m *machine) reply {
	m.changed()
	return raw200(r.objectJSON(m))
}
