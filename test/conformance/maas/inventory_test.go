// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas_test

import (
	"testing"

	. "github.com/onsi/gomega"
)

// machineFields are the fields of a machine that the provider reads, with the kind of JSON they are: s string, n number,
// b boolean, l list, m map; a question mark allows null.
var machineFields = map[string]string{
	"system_id": "s", "hostname": "s", "fqdn": "s", "status": "n", "status_name": "s", "status_message": "s?",
	"owner": "s?", "owner_data": "m", "workload_annotations": "m", "power_type": "s", "power_state": "s", "netboot": "b",
	"locked": "b", "osystem": "s", "distro_series": "s", "architecture": "s", "cpu_count": "n", "memory": "n", "storage": "n",
	"pool": "m", "zone": "m", "domain": "m", "tag_names": "l", "ip_addresses": "l", "interface_set": "l", "boot_interface": "m?",
	"hardware_info": "m", "resource_uri": "s", "physicalblockdevice_set": "l",
}

func kindOf(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case string:
		return "s"
	case float64:
		return "n"
	case bool:
		return "b"
	case []any:
		return "l"
	}
	return "m"
}

func inventory(s *suite, t *testing.T) {
	s.run(t, "version and capabilities", func(c *check) {
		var version struct {
			Version      string   `json:"version"`
			Capabilities []string `json:"capabilities"`
		}
		c.decode(c.get(c.user, "version/", nil), &version)
		c.Expect(version.Version).To(MatchRegexp(`^\d+\.\d+`))
		c.Expect(version.Capabilities).NotTo(BeEmpty())
	})
	s.run(t, "a machine has the fields the provider reads", func(c *check) {
		for _, id := range c.all() {
			var object map[string]any
			c.decode(c.get(c.user, "machines/"+id+"/", nil), &object)
			for field, kind := range machineFields {
				c.Expect(object).To(HaveKey(field), id)
				got := kindOf(object[field])
				if got != "null" || kind[len(kind)-1] != '?' {
					c.Expect(got).To(Equal(kind[:1]), "%s of %s", field, id)
				}
			}
			c.Expect(object["system_id"]).To(Equal(id))
			c.Expect(object["power_state"]).To(BeElementOf("on", "off", "unknown", "error"))
			c.Expect(object["owner_data"]).To(Equal(object["workload_annotations"]))
		}
	})
	s.run(t, "agent_name is in no object", func(c *check) {
		got := c.expect(c.get(c.user, "machines/"+c.oneMachine()+"/", nil), 200)
		c.Expect(string(got.body)).NotTo(ContainSubstring(`"agent_name"`))
	})
	for _, places := range []struct {
		name, path string
		of         func(machine) string
	}{
		{"zones", "zones/", func(m machine) string { return m.Zone.Name }},
		{"pools", "resourcepools/", func(m machine) string { return m.Pool.Name }},
	} {
		s.run(t, places.name+" have the names machines have", func(c *check) {
			var list []struct {
				ID   *int   `json:"id"`
				Name string `json:"name"`
			}
			c.decode(c.get(c.user, places.path, nil), &list)
			names := []string{}
			for _, entry := range list {
				c.Expect(entry.ID).NotTo(BeNil())
				names = append(names, entry.Name)
			}
			for i := range c.fleet {
				c.Expect(names).To(ContainElement(places.of(c.fleet[i])))
			}
		})
	}
	s.run(t, "a zone can be read by its name", func(c *check) {
		zone := c.fleet[0].Zone
		var got named
		c.decode(c.get(c.user, "zones/"+zone.Name+"/", nil), &got)
		c.Expect(got).To(Equal(zone))
	})
	s.run(t, "tags have the names machines have", func(c *check) {
		var list []named
		c.decode(c.get(c.user, "tags/", nil), &list)
		for i := range c.fleet {
			for _, tag := range c.fleet[i].Tags {
				c.Expect(list).To(ContainElement(named{tag}))
			}
		}
	})
	s.run(t, "interfaces and devices of a machine are lists", func(c *check) {
		id := c.oneMachine()
		var interfaces, devices []map[string]any
		c.decode(c.get(c.user, "nodes/"+id+"/interfaces/", nil), &interfaces)
		c.Expect(interfaces).To(HaveLen(len(c.asFound(id).Interfaces)))
		for _, nic := range interfaces {
			for _, field := range []string{"id", "name", "type", "mac_address", "links", "vlan", "link_connected"} {
				c.Expect(nic).To(HaveKey(field))
			}
		}
		c.decode(c.get(c.user, "nodes/"+id+"/devices/", nil), &devices)
		for _, device := range devices {
			for _, field := range []string{"vendor_id", "product_id", "hardware_type", "pci_address"} {
				c.Expect(device).To(HaveKey(field))
			}
		}
	})
}
