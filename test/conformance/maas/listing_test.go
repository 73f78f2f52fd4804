// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas_test

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// listing tries filters among the fleet only: a list of all machines can be many megabytes.
func listing(s *suite, t *testing.T) {
	for _, k := range slices.Concat(s.constraints(), s.storage(), s.filters()) {
		s.run(t, k.name, func(c *check) { c.filtered(k) })
	}
	s.run(t, "devices", func(c *check) {
		for _, k := range c.devices() {
			c.filtered(k)
		}
	})
	s.run(t, "tags", func(c *check) {
		for _, k := range c.tags() {
			c.filtered(k)
		}
	})
	s.run(t, "an ID that no machine has finds nothing, and hides no other", func(c *check) {
		c.Expect(c.list(c.user, url.Values{"id": {nowhere}})).To(BeEmpty())
		c.Expect(ids(c.list(c.user, url.Values{"id": {nowhere, c.oneMachine()}}))).To(Equal([]string{c.oneMachine()}))
	})
	s.run(t, "a token that no machine has finds nothing", func(c *check) {
		c.Expect(c.claimed(c.user, c.token())).To(BeEmpty())
	})
	s.run(t, "owner and status", owned)
	s.run(t, "a machine is the same in a list as by itself", func(c *check) {
		id := c.oneMachine()
		var alone map[string]any
		var list []map[string]any
		c.decode(c.get(c.user, "machines/"+id+"/", nil), &alone)
		c.decode(c.get(c.user, "machines/", url.Values{"id": {id}}), &list)
		c.Expect(list).To(HaveLen(1))
		c.Expect(slices.Sorted(maps.Keys(list[0]))).To(Equal(slices.Sorted(maps.Keys(alone))))
		for field := range machineFields {
			c.Expect(fmt.Sprint(list[0][field])).To(Equal(fmt.Sprint(alone[field])), field)
		}
	})
	refusals := []struct{ name, key, value, body string }{
		{"an unknown filter", "conformance-nosuch", "1", "No such constraint\\."},
		{"an unknown status", "status", "Bad", "Select a valid choice\\. Bad is not one of the available choices\\."},
		{"an unknown tag", "tags", s.prefix + "-nosuch", "No such tag\\(s\\): '.*'\\."},
		{"an unknown pool", "pool", s.prefix + "-nosuch", "No such pool\\(s\\): .*\\."},
		{"an unknown zone", "zone", s.prefix + "-nosuch", "No such zone\\(s\\): .*\\."},
		{"an unknown owner", "owner", s.prefix + "-nosuch", "No such owner: '.*'\\."},
	}
	for _, r := range refusals {
		s.run(t, r.name+" is refused", func(c *check) {
			got := c.get(c.user, "machines/", url.Values{"id": c.all(), r.key: {r.value}})
			messages := c.invalid(got, r.key)
			c.wording(answer{code: got.code, body: []byte(messages[0])}, r.body)
		})
	}
}

// filters are those that only lists have.
func (s *suite) filters() []constraint {
	one := s.fleet[len(s.fleet)-1]
	two := []string{s.fleet[0].SystemID, one.SystemID}
	zones := []string{s.fleet[0].Zone.Name, one.Zone.Name}
	list := []constraint{
		{"id, repeated", url.Values{"id": two}, func(m machine) bool { return slices.Contains(two, m.SystemID) }},
		{"not_id", url.Values{"not_id": two}, func(m machine) bool { return !slices.Contains(two, m.SystemID) }},
		{"hostname", url.Values{"hostname": {one.Hostname}}, func(m machine) bool { return m.Hostname == one.Hostname }},
		{"status", url.Values{"status": {"ready"}}, func(machine) bool { return true }},
		{"status that none has", url.Values{"status": {"broken"}}, func(machine) bool { return false }},
		{"status, repeated", url.Values{"status": {"broken", "ready"}}, func(machine) bool { return true }},
		{"not_status", url.Values{"not_status": {"ready"}}, func(machine) bool { return false }},
		{"zone, repeated", url.Values{"zone": zones}, func(m machine) bool { return slices.Contains(zones, m.Zone.Name) }},
		{"hostname and another's id", url.Values{"hostname": {one.Hostname}, "not_id": {one.SystemID}},
			func(m machine) bool { return m.Hostname == one.Hostname && m.SystemID != one.SystemID }},
	}
	if len(one.Interfaces) > 0 {
		mac := one.Interfaces[0].MAC
		list = append(list, constraint{"mac_address", url.Values{"mac_address": {mac}}, func(m machine) bool {
			return slices.ContainsFunc(m.Interfaces, func(nic struct {
				MAC string `json:"mac_address"`
			}) bool {
				return strings.EqualFold(nic.MAC, mac)
			})
		}})
	}
	return list
}

// filtered holds that a list has exactly the machines of the fleet a constraint holds for.
func (c *check) filtered(k constraint) {
	c.Helper()
	c.Log(k.name, k.form)
	query := url.Values{"id": c.all()}
	maps.Copy(query, k.form)
	got := c.get(c.user, "machines/", query)
	if k.form.Has("arch") && got.code == 400 {
		c.skip("MAAS has no boot image for %s: %s", k.form.Get("arch"), got.text())
	}
	var found []machine
	c.decode(got, &found)
	c.Expect(ids(found)).To(Equal(c.matching(k.holds)), "for %v", k.form)
}

func owned(c *check) {
	some := c.machinesToUse(2)
	mine := some[:1]
	c.allocated(c.user, some[0])
	if c.other != nil {
		c.allocated(c.other, some[1])
	}
	among := func(key string, values ...string) []string {
		return ids(c.list(c.user, url.Values{"id": c.all(), key: values}))
	}
	c.Expect(among("owner", c.user.name)).To(Equal(mine))
	c.Expect(among("status", "allocated")).To(Equal(mine))
	c.Expect(among("status", "deployed")).To(BeEmpty())
	ready := slices.DeleteFunc(c.all(), func(id string) bool { return id == some[0] || c.other != nil && id == some[1] })
	c.Expect(among("status", "ready")).To(Equal(ready))
	c.Expect(among("status", "ready", "allocated")).To(HaveLen(len(ready) + 1))
	c.Expect(ids(c.list(c.user, url.Values{"id": c.all(), "owner": {c.user.name}, "status": {"ready"}}))).To(BeEmpty())
	if c.other != nil {
		c.Expect(among("owner", c.other.name)).To(BeEmpty(), "what one may not see is in no list")
	}
	var allocated []machine
	c.decode(c.get(c.user, "machines/", url.Values{"op": {"list_allocated"}, "id": c.all()}), &allocated)
	c.Expect(ids(allocated)).To(Equal(mine))
}
