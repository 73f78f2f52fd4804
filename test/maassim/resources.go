// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import "net/http"

const (
	get    = http.MethodGet
	post   = http.MethodPost
	put    = http.MethodPut
	remove = http.MethodDelete
)

// Operations by the names they are counted, timed and refused by.
const (
	opAbort           = "abort"
	opAllocate        = "allocate"
	opAnnotate        = "set_workload_annotations"
	opDeploy          = "deploy"
	opListMachines    = "list_machines"
	opListNodes       = "list_nodes"
	opMarkBroken      = "mark_broken"
	opPowerOff        = "power_off"
	opPowerOn         = "power_on"
	opReadMachine     = "read_machine"
	opRelease         = "release"
	opReleaseMachines = "release_machines"
)

// resources is the region's URL map. Order matters: literal patterns stand before those with arguments.
func (r *Region) resources() []resource {
	return []resource{
		{"version", []endpoint{{verb: get, name: "version", open: true, run: version}}},
		{"users", []endpoint{
			{verb: get, op: "whoami", run: whoami},
			{verb: post, name: "create_user", admin: true, run: createUser},
		}},
		{"users/*", []endpoint{
			{verb: get, name: "read_user", run: readUser},
			{verb: remove, name: "delete_user", admin: true, run: deleteUser},
		}},
		{"machines", machinesEndpoints()},
		{"machines/*", machineEndpoints()},
		{"nodes", []endpoint{{verb: get, name: opListNodes, run: listMachines}}},
		{"nodes/*", []endpoint{{verb: get, name: "read_node", kind: "Node", run: readMachine}}},
		{"nodes/*/devices", []endpoint{{verb: get, name: "list_devices", kind: "Node", run: listDevices}}},
		{"nodes/*/devices/*", []endpoint{{verb: get, name: "read_device", kind: "Node", run: readDevice}}},
		{"nodes/*/interfaces", []endpoint{
			{verb: get, name: "list_interfaces", kind: "Node", run: listInterfaces},
			{verb: post, op: "create_physical", kind: "Node", admin: true, run: unsupported("interface changes")},
		}},
		{"nodes/*/interfaces/*", []endpoint{
			{verb: get, name: "read_interface", kind: "Node", run: readInterface},
			{verb: put, name: "update_interface", kind: "Node", admin: true, run: unsupported("interface changes")},
			{verb: post, op: "link_subnet", kind: "Node", admin: true, run: unsupported("interface changes")},
			{verb: post, op: "unlink_subnet", kind: "Node", admin: true, run: unsupported("interface changes")},
		}},
		{"nodes/*/results", []endpoint{{verb: get, name: "list_results", kind: "Node", run: listResults}}},
		{"events", []endpoint{{verb: get, op: "query", name: "query_events", run: queryEvents}}},
		{"zones", []endpoint{
			{verb: get, name: "list_zones", run: listZones},
			{verb: post, name: "create_zone", admin: true, run: createZone},
		}},
		{"zones/*", []endpoint{
			{verb: get, name: "read_zone", run: readZone},
			{verb: remove, name: "delete_zone", admin: true, run: deleteZone},
		}},
		{"resourcepools", []endpoint{
			{verb: get, name: "list_pools", run: listPools},
			{verb: post, name: "create_pool", admin: true, run: createPool},
		}},
		{"resourcepool/*", []endpoint{
			{verb: get, name: "read_pool", run: readPool},
			{verb: remove, name: "delete_pool", admin: true, run: deletePool},
		}},
		{"tags", []endpoint{
			{verb: get, name: "list_tags", run: listTags},
			{verb: post, name: "create_tag", admin: true, run: createTag},
		}},
		{"tags/*", []endpoint{
			{verb: get, name: "read_tag", run: readTag},
			{verb: remove, name: "delete_tag", admin: true, run: deleteTag},
			{verb: get, op: "machines", name: "tag_machines", run: tagMachines},
			{verb: post, op: "update_nodes", admin: true, run: updateTagNodes},
		}},
		{"subnets", []endpoint{{verb: get, name: "list_subnets", run: listSubnets}}},
		{"subnets/*", []endpoint{{verb: get, name: "read_subnet", run: readSubnet}}},
	}
}

func machinesEndpoints() []endpoint {
	return []endpoint{
		{verb: get, name: opListMachines, run: listMachines},
		{verb: get, op: "list_allocated", run: listAllocated},
		{verb: get, op: "is_registered", run: isRegistered},
		{verb: post, op: opAllocate, run: allocate},
		{verb: post, op: opRelease, name: opReleaseMachines, run: releaseMachines},
		{verb: post, name: "create_machine", run: createMachine},
	}
}

// machineEndpoints are the operations on one machine; each names a missing one as MAAS does.
func machineEndpoints() []endpoint {
	const kind = "Machine"
	return []endpoint{
		{verb: get, name: opReadMachine, kind: kind, run: readMachine},
		{verb: get, op: "query_power_state", kind: kind, run: queryPower},
		{verb: get, op: "power_parameters", kind: kind, run: powerParameters},
		{verb: get, op: "details", kind: kind, run: unsupported("op=details")},
		{verb: put, name: "update_machine", kind: kind, admin: true, edit: true, run: updateMachine},
		{verb: remove, name: "delete_machine", kind: kind, admin: true, edit: true, run: deleteMachine},
		{verb: post, op: opDeploy, kind: kind, edit: true, run: deploy},
		{verb: post, op: opAbort, kind: kind, edit: true, run: abort},
		{verb: post, op: opRelease, kind: kind, edit: true, run: release},
		{verb: post, op: opPowerOn, kind: kind, edit: true, run: powerOn},
		{verb: post, op: opPowerOff, kind: kind, edit: true, run: powerOff},
		{verb: post, op: opAnnotate, kind: kind, edit: true, run: setAnnotations},
		{verb: post, op: "set_owner_data", name: opAnnotate, kind: kind, edit: true, run: setAnnotations},
		{verb: post, op: opMarkBroken, kind: kind, edit: true, run: markBroken},
		{verb: post, op: "mark_fixed", kind: kind, admin: true, edit: true, run: markFixed},
		{verb: post, op: "lock", kind: kind, run: lock},
		{verb: post, op: "unlock", kind: kind, run: unlock},
		{verb: post, op: "commission", kind: kind, admin: true, edit: true, run: commission},
		{verb: post, op: "test", kind: kind, admin: true, run: unsupported("hardware tests")},
		{verb: post, op: "rescue_mode", kind: kind, admin: true, run: unsupported("rescue mode")},
		{verb: post, op: "exit_rescue_mode", kind: kind, admin: true, run: unsupported("rescue mode")},
		{verb: post, op: "override_failed_testing", kind: kind, admin: true, run: unsupported("hardware tests")},
	}
}
