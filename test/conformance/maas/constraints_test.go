// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas_test

import (
	"maps"
	"net/url"
	"slices"
	"strconv"
)

// constraint is a condition on machines in MAAS' words and in ours.
type constraint struct {
	name  string
	form  url.Values
	holds func(machine) bool
}

// rarest is the value the fewest machines of the fleet have, so that asking for it tells machines apart where they differ.
func (s *suite) rarest(of func(machine) string) string {
	counts := map[string]int{}
	for i := range s.fleet {
		counts[of(s.fleet[i])]++
	}
	return slices.MinFunc(slices.Sorted(maps.Keys(counts)), func(a, b string) int { return counts[a] - counts[b] })
}

// most is the greatest value in the fleet.
func (s *suite) most(of func(machine) int) int {
	greatest := 0
	for i := range s.fleet {
		greatest = max(greatest, of(s.fleet[i]))
	}
	return greatest
}

// constraints are those allocate and lists spell alike, with values taken from the machines there are.
func (s *suite) constraints() []constraint {
	zone := s.rarest(func(m machine) string { return m.Zone.Name })
	pool := s.rarest(func(m machine) string { return m.Pool.Name })
	arch := s.rarest(func(m machine) string { return m.Architecture })
	cpus := s.most(func(m machine) int { return int(m.CPUs) })
	memory := s.most(func(m machine) int { return int(m.MemoryMiB) })
	inZone := func(m machine) bool { return m.Zone.Name == zone }
	inPool := func(m machine) bool { return m.Pool.Name == pool }
	enoughCPUs := func(m machine) bool { return int(m.CPUs) >= cpus }
	nothing := func(machine) bool { return false }
	one := func(key, value string) url.Values { return url.Values{key: {value}} }
	number := func(key string, value int) url.Values { return one(key, strconv.Itoa(value)) }
	return []constraint{
		{"zone", one("zone", zone), inZone},
		{"not_in_zone", one("not_in_zone", zone), func(m machine) bool { return !inZone(m) }},
		{"pool", one("pool", pool), inPool},
		{"not_in_pool", one("not_in_pool", pool), func(m machine) bool { return !inPool(m) }},
		{"arch", one("arch", arch), func(m machine) bool { return m.Architecture == arch }},
		{"cpu_count", number("cpu_count", cpus), enoughCPUs},
		{"cpu_count that none has", number("cpu_count", cpus+1), nothing},
		{"mem", number("mem", memory), func(m machine) bool { return int(m.MemoryMiB) >= memory }},
		{"mem that none has", number("mem", memory+1), nothing},
		{"zone and cpu_count", url.Values{"zone": {zone}, "cpu_count": {strconv.Itoa(cpus)}},
			func(m machine) bool { return inZone(m) && enoughCPUs(m) }},
	}
}

// storage is how the provider asks for a disk; sizes are in GB of 10^9 bytes.
func (s *suite) storage() []constraint {
	size := s.most(machine.largestDisk)
	return []constraint{
		{"storage", url.Values{"storage": {"disk:" + strconv.Itoa(max(size, 1))}},
			func(m machine) bool { return size > 0 && m.largestDisk() >= size }},
		{"storage that none has", url.Values{"storage": {"disk:" + strconv.Itoa(size+1000000)}}, func(machine) bool { return false }},
	}
}

// devices are the vendor and product constraints, from what the machines' devices are.
func (c *check) devices() []constraint {
	c.Helper()
	of := map[string][]device{}
	vendors, pairs := map[string]int{}, map[device]int{}
	for _, id := range c.all() {
		var found []device
		c.decode(c.get(c.user, "nodes/"+id+"/devices/", nil), &found)
		of[id] = found
		for _, d := range found {
			vendors[d.VendorID]++
			pairs[d]++
		}
	}
	having := func(match func(device) bool) func(machine) bool {
		return func(m machine) bool { return slices.ContainsFunc(of[m.SystemID], match) }
	}
	list := []constraint{{"devices of a vendor that none has", url.Values{"devices": {"vendor_id=ffff"}},
		having(func(d device) bool { return d.VendorID == "ffff" })}}
	for vendor := range vendors {
		if vendors[vendor] == slices.Min(slices.Collect(maps.Values(vendors))) {
			list = append(list, constraint{"devices of vendor " + vendor, url.Values{"devices": {"vendor_id=" + vendor}},
				having(func(d device) bool { return d.VendorID == vendor })})
			break
		}
	}
	for pair := range pairs {
		if pairs[pair] == slices.Min(slices.Collect(maps.Values(pairs))) {
			form := url.Values{"devices": {"vendor_id=" + pair.VendorID + ",product_id=" + pair.ProductID}}
			list = append(list, constraint{"devices of vendor and product", form, having(func(d device) bool { return d == pair })})
			break
		}
	}
	return list
}

// tags are two tags of the run's own: one on the first half of the fleet, one on its first machine.
func (c *check) tags() []constraint {
	c.Helper()
	half, first := c.prefix+"-half", c.prefix+"-first"
	onHalf := c.all()[:(len(c.fleet)+1)/2]
	c.tag(half, onHalf)
	c.tag(first, onHalf[:1])
	isHalf := func(m machine) bool { return slices.Contains(onHalf, m.SystemID) }
	isFirst := func(m machine) bool { return m.SystemID == onHalf[0] }
	return []constraint{
		{"tags", url.Values{"tags": {half}}, isHalf},
		{"all of several tags", url.Values{"tags": {half, first}}, isFirst},
		{"several tags, comma-separated", url.Values{"tags": {half + "," + first}}, isFirst},
		{"not_tags", url.Values{"not_tags": {first}}, func(m machine) bool { return !isFirst(m) }},
		{"tags and not_tags", url.Values{"tags": {half}, "not_tags": {first}},
			func(m machine) bool { return isHalf(m) && !isFirst(m) }},
	}
}

// tag creates a tag on machines and removes it when the case ends.
func (c *check) tag(name string, systemIDs []string) {
	c.Helper()
	admin := c.needAdmin()
	c.create("tags/", name, "tags/"+name+"/")
	c.expect(c.post(admin, "tags/"+name+"/", "update_nodes", url.Values{"add": systemIDs}), 200)
}

// create makes something of a name as the administrator and removes it when the case ends.
func (c *check) create(collection, name, single string) answer {
	c.Helper()
	got := c.expect(c.post(c.needAdmin(), collection, "", url.Values{"name": {name}}), 200)
	c.Cleanup(func() { c.remove(c.T, single) })
	return got
}
