// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"net/http"
	"slices"
)

// Zones, pools and tags come and go by an admin's hand. A removed zone or pool leaves an empty name behind, so that the
// numbers of the others stay.

// createZone is an admin's POST zones/.
func createZone(r *Region, c *call) reply {
	if refusal := addPlace(&r.zones, "Physical zone", c.form.Get("name")); refusal != nil {
		return *refusal
	}
	return json200(zoneObject(len(r.zones)-1, c.form.Get("name")))
}

// createPool is an admin's POST resourcepools/.
func createPool(r *Region, c *call) reply {
	if refusal := addPlace(&r.pools, "Resource pool", c.form.Get("name")); refusal != nil {
		return *refusal
	}
	return json200(poolObject(len(r.pools)-1, c.form.Get("name")))
}

func addPlace(names *[]string, kind, name string) *reply {
	var answer reply
	switch {
	case name == "":
		answer = invalidField("name", "This field is required.")
	case slices.Contains(*names, name):
		answer = invalidField("name", "%s with this Name already exists.", kind)
	default:
		*names = append(*names, name)
		return nil
	}
	return &answer
}

// deleteZone is an admin's DELETE zones/{name}/. One that is missing or holds no machine is gone with a 204.
func deleteZone(r *Region, c *call) reply {
	return r.deletePlace(r.zones, c.args[0], func(m *machine) string { return m.spec.Zone })
}

// deletePool is an admin's DELETE resourcepool/{id or name}/.
func deletePool(r *Region, c *call) reply {
	index := r.findPool(c.args[0])
	if index < 0 {
		return text(http.StatusNoContent, "")
	}
	return r.deletePlace(r.pools, r.pools[index], func(m *machine) string { return m.spec.Pool })
}

func (r *Region) deletePlace(names []string, name string, of func(*machine) string) reply {
	index := slices.Index(names, name)
	switch {
	case index < 0:
		return text(http.StatusNoContent, "")
	case index == 0 || slices.ContainsFunc(r.order, func(m *machine) bool { return of(m) == name }):
		return notSimulated("the removal of a default or of a zone or pool with machines")
	}
	names[index] = ""
	return text(http.StatusNoContent, "")
}

// deleteTag is an admin's DELETE tags/{name}/; machines lose the tag.
func deleteTag(r *Region, c *call) reply {
	name := c.args[0]
	if !slices.Contains(r.tags, name) {
		return noSuch("Tag")
	}
	has := func(tag string) bool { return tag == name }
	r.tags = slices.DeleteFunc(r.tags, has)
	for _, m := range r.order {
		m.spec.Tags = slices.DeleteFunc(slices.Clone(m.spec.Tags), has)
		m.changed()
	}
	return text(http.StatusNoContent, "")
}
