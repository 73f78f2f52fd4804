// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"net/http"
	"slices"
	"strconv"
)

func version(r *Region, _ *call) reply {
	return json200(map[string]any{
		"version": r.version, "subversion": "17100-g.simulated",
		"capabilities": []string{
			"networks-management", "static-ipaddresses", "ipv6-deployment-ubuntu", "devices-management",
			"storage-deployment-ubuntu", "network-deployment-ubuntu", "bridging-interface-ubuntu",
			"bridging-automatic-ubuntu", "authenticate-api",
		},
	})
}

func whoami(_ *Region, c *call) reply {
	return json200(userObject(c.user))
}

func zoneObject(index int, name string) map[string]any {
	return map[string]any{
		"id": index + 1, "name": name, "description": "", "resource_uri": apiRoot + "zones/" + name + "/",
	}
}

func poolObject(index int, name string) map[string]any {
	return map[string]any{
		"id": index, "name": name, "description": "", "resource_uri": apiRoot + "resourcepool/" + strconv.Itoa(index) + "/",
	}
}

func tagObject(name string) map[string]any {
	return map[string]any{
		"name": name, "definition": "", "comment": "", "kernel_opts": "", "resource_uri": apiRoot + "tags/" + name + "/",
	}
}

func listZones(r *Region, _ *call) reply {
	list := []any{}
	for i, name := range r.zones {
		if name == "" {
			continue
		}
		list = append(list, zoneObject(i, name))
	}
	return json200(list)
}

func readZone(r *Region, c *call) reply {
	if i := slices.Index(r.zones, c.args[0]); i >= 0 {
		return json200(zoneObject(i, c.args[0]))
	}
	return noSuch("Zone")
}

func listPools(r *Region, _ *call) reply {
	list := []any{}
	for i, name := range r.pools {
		if name == "" {
			continue
		}
		list = append(list, poolObject(i, name))
	}
	return json200(list)
}

// readPool finds a pool by number or name.
func readPool(r *Region, c *call) reply {
	if i := r.findPool(c.args[0]); i >= 0 {
		return json200(poolObject(i, r.pools[i]))
	}
	return noSuch("ResourcePool")
}

func (r *Region) findPool(idOrName string) int {
	if i, err := strconv.Atoi(idOrName); err == nil && i >= 0 && i < len(r.pools) && r.pools[i] != "" {
		return i
	}
	return slices.Index(r.pools, idOrName)
}

func listTags(r *Region, _ *call) reply {
	list := []any{}
	for _, name := range r.tags {
		list = append(list, tagObject(name))
	}
	return json200(list)
}

func createTag(r *Region, c *call) reply {
	name := c.form.Get("name")
	switch {
	case name == "":
		return invalidField("name", "This field is required.")
	case slices.Contains(r.tags, name):
		return invalidField("name", "Tag with this Name already exists.")
	}
	r.tags = append(r.tags, name)
	return json200(tagObject(name))
}

func readTag(r *Region, c *call) reply {
	if !slices.Contains(r.tags, c.args[0]) {
		return noSuch("Tag")
	}
	return json200(tagObject(c.args[0]))
}

// tagMachines is tags/{name}/?op=machines: whole objects.
func tagMachines(r *Region, c *call) reply {
	if !slices.Contains(r.tags, c.args[0]) {
		return noSuch("Tag")
	}
	return list200(r, r.visible(c.user, func(m *machine) bool { return slices.Contains(m.spec.Tags, c.args[0]) }))
}

// updateTagNodes adds and removes a tag; unknown ids are ignored.
func updateTagNodes(r *Region, c *call) reply {
	tag := c.args[0]
	if !slices.Contains(r.tags, tag) {
		return noSuch("Tag")
	}
	added, removed := 0, 0
	for _, id := range c.form["add"] {
		if m := r.machines[id]; m != nil && !slices.Contains(m.spec.Tags, tag) {
			m.spec.Tags = append(slices.Clone(m.spec.Tags), tag)
			m.changed()
			added++
		}
	}
	for _, id := range c.form["remove"] {
		if m := r.machines[id]; m != nil && slices.Contains(m.spec.Tags, tag) {
			m.spec.Tags = slices.DeleteFunc(slices.Clone(m.spec.Tags), func(t string) bool { return t == tag })
			m.changed()
			removed++
		}
	}
	return json200(map[string]int{"added": added, "removed": removed})
}

func listSubnets(r *Region, _ *call) reply {
	list := []any{}
	for _, network := range r.subnets {
		list = append(list, r.subnetObject(network))
	}
	return json200(list)
}

func readSubnet(r *Region, c *call) reply {
	if id, err := strconv.Atoi(c.args[0]); err == nil && id > 0 && id <= len(r.subnets) {
		return json200(r.subnetObject(r.subnets[id-1]))
	}
	return noSuch("Subnet")
}

// listDevices is nodes/{id}/devices/ with its filters.
func listDevices(r *Region, c *call) reply {
	list := []any{}
	for i, d := range c.machine.spec.Devices {
		keep := any1(c.form["hardware_type"], hardwareTypes[d.hardwareType()]) && any1(c.form["bus"], "PCIE")
		for _, field := range []string{"vendor_id", "product_id", "vendor_name", "product_name", "commissioning_driver"} {
			have, _ := deviceField(d, field)
			keep = keep && any1(c.form[field], have)
		}
		if keep {
			list = append(list, r.deviceObject(c.machine, i))
		}
	}
	return json200(list)
}

func readDevice(r *Region, c *call) reply {
	for i := range c.machine.spec.Devices {
		if strconv.Itoa(c.machine.deviceID(i)) == c.args[1] {
			return json200(r.deviceObject(c.machine, i))
		}
	}
	return noSuch("NodeDevice")
}

// hardwareTypes are the filter values, by number.
// unsure: that filters take the enum's names; numbers are not accepted here.
var hardwareTypes = []string{"NODE", "CPU", "MEMORY", "STORAGE", "NETWORK", "GPU"}

func (d Device) hardwareType() int {
	switch {
	case d.HardwareType > 0 && d.HardwareType < len(hardwareTypes):
		return d.HardwareType
	case d.VendorID == "15b3":
		return 4
	default:
		return 0
	}
}

func (m *machine) deviceID(index int) int { return m.firstNIC*100 + index }

func (r *Region) deviceObject(m *machine, index int) map[string]any {
	d := m.spec.Devices[index]
	id := m.deviceID(index)
	object := map[string]any{
		"id": id, "system_id": m.id(), "bus": 1, "bus_name": "PCIE", "hardware_type": d.hardwareType(),
		"hardware_type_name": hardwareTypes[d.hardwareType()], "vendor_id": d.VendorID, "product_id": d.ProductID,
		"vendor_name": d.VendorName, "product_name": d.ProductName, "commissioning_driver": d.CommissioningDriver,
		"bus_number": index, "device_number": 0, "pci_address": nullable(d.PCIAddress), "numa_node": d.NUMANode,
		"physical_interface": nil, "physical_blockdevice": nil,
		"resource_uri": apiRoot + "nodes/" + m.id() + "/devices/" + strconv.Itoa(id) + "/",
	}
	for i, nic := range m.spec.Interfaces {
		if d.Interface != "" && nic.Name == d.Interface {
			object["physical_interface"] = r.interfaceObject(m, i)
		}
	}
	return object
}

func listInterfaces(r *Region, c *call) reply { return json200(r.interfaceList(c.machine)) }

func readInterface(r *Region, c *call) reply {
	for i := range c.machine.spec.Interfaces {
		if strconv.Itoa(c.machine.firstNIC+i) == c.args[1] {
			return json200(r.interfaceObject(c.machine, i))
		}
	}
	return noSuch("Interface")
}

// listResults has the commissioning result, and the installation's once there is one; no script output.
func listResults(_ *Region, c *call) reply {
	m := c.machine
	result := func(id, kind int, name string, status int, statusName string) map[string]any {
		return map[string]any{
			"id": id, "system_id": m.id(), "type": kind, "type_name": name, "status": status, "status_name": statusName,
			"started": "", "ended": "", "last_ping": "", "runtime": "", "results": []any{},
			"resource_uri": apiRoot + "nodes/" + m.id() + "/results/" + strconv.Itoa(id) + "/",
		}
	}
	list := []any{}
	if m.spec.Commissioned {
		list = append(list, result(m.firstNIC*10, 0, "Commissioning", 2, "Passed"))
	}
	switch m.status {
	case StatusDeploying:
		list = append(list, result(m.firstNIC*10+1, 1, "Installation", 1, "Running"))
	case StatusDeployed:
		list = append(list, result(m.firstNIC*10+1, 1, "Installation", 2, "Passed"))
	case StatusFailedDeployment:
		list = append(list, result(m.firstNIC*10+1, 1, "Installation", 3, "Failed"))
	}
	return reply{code: http.StatusOK, contentType: contentJSON, body: render(list)}
}
