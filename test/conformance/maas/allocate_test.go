// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas_test

import (
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// allocation tries constraints with dry_run, which matches and takes nothing, and always among the fleet only.
func allocation(s *suite, t *testing.T) {
	for _, k := range slices.Concat(s.constraints(), s.storage()) {
		s.run(t, k.name, func(c *check) { c.matches(k) })
	}
	s.run(t, "devices", func(c *check) {
		for _, k := range c.devices() {
			c.matches(k)
		}
	})
	s.run(t, "tags", func(c *check) {
		for _, k := range c.tags() {
			c.matches(k)
		}
	})
	s.run(t, "name", func(c *check) {
		m := c.fleet[len(c.fleet)-1]
		c.matches(constraint{"name", url.Values{"name": {m.Hostname}}, func(o machine) bool { return o.Hostname == m.Hostname }})
	})
	s.run(t, "any of several system IDs", func(c *check) {
		some := c.machinesToUse(2)
		got := c.machine(c.allocate(c.user, url.Values{"system_id": {nowhere, some[0], some[1]}, "dry_run": {"true"}}))
		c.Expect(got.SystemID).To(BeElementOf(some))
	})
	s.run(t, "dry_run takes nothing", dryRun)
	s.run(t, "a machine that is taken is not available, not even to its owner", func(c *check) {
		id := c.oneMachine()
		c.allocated(c.user, id)
		for _, a := range []*account{c.user, c.other} {
			if a != nil {
				got := c.refused(c.allocate(a, url.Values{"system_id": {id}, "agent_name": {c.token()}}))
				c.wording(got, "No machine with system ID "+id+" available\\.")
			}
		}
	})
	s.run(t, "no such machine is 409", func(c *check) {
		c.wording(c.refused(c.allocate(c.user, url.Values{"system_id": {nowhere}})), "No machine with system ID "+nowhere+" available\\.")
	})
	s.run(t, "the same parameters again take another machine", func(c *check) {
		some := c.machinesToUse(2)
		form := url.Values{"system_id": some, "agent_name": {c.token()}}
		first, second := c.machine(c.allocate(c.user, form)), c.machine(c.allocate(c.user, form))
		c.Expect(ids([]machine{first, second})).To(Equal(some))
		c.Expect(c.claimed(c.user, form.Get("agent_name"))).To(Equal(some), "agent_name is a label, not a key")
	})
	for _, name := range []string{"zone", "pool", "tags"} {
		s.run(t, "an unknown name for "+name, func(c *check) {
			c.invalid(c.allocate(c.user, url.Values{"system_id": c.all(), name: {c.prefix + "-nosuch"}}), name)
		})
	}
	s.run(t, "a known zone without machines is 409, and 400 once removed", func(c *check) {
		c.comesAndGoes("zone", "zones/", func(answer) string { return "zones/" + c.prefix + "/" })
	})
	s.run(t, "a known pool without machines is 409, and 400 once removed", func(c *check) {
		c.comesAndGoes("pool", "resourcepools/", func(got answer) string {
			var pool struct {
				ID int `json:"id"`
			}
			c.decode(got, &pool)
			return "resourcepool/" + strconv.Itoa(pool.ID) + "/"
		})
	})
	allocationRefusals(s, t)
}

// matches holds that allocate picks one of the machines a constraint holds for, and none of the others when it is offered
// only them.
func (c *check) matches(k constraint) {
	c.Helper()
	c.Log(k.name, k.form)
	form := url.Values{"dry_run": {"true"}}
	maps.Copy(form, k.form)
	offer := func(systemIDs []string) answer {
		form["system_id"] = systemIDs
		return c.allocate(c.user, form)
	}
	got := offer(c.all())
	if k.form.Has("arch") && got.code == 400 {
		c.skip("MAAS has no boot image for %s: %s", k.form.Get("arch"), got.text())
	}
	want := c.matching(k.holds)
	if len(want) == 0 {
		c.refused(got)
		return
	}
	m := c.machine(got)
	c.Expect(m.SystemID).To(BeElementOf(want), "for %v", k.form)
	c.Expect(m.Status).To(Equal(statusReady))
	if others := c.matching(func(m machine) bool { return !k.holds(m) }); len(others) > 0 {
		c.refused(offer(others))
	}
}

func dryRun(c *check) {
	id, token := c.oneMachine(), c.token()
	before := c.read(c.user, id)
	got := c.machine(c.allocate(c.user, url.Values{"system_id": {id}, "agent_name": {token}, "dry_run": {"true"}}))
	c.Expect(got.SystemID).To(Equal(id))
	c.Expect(got.Status).To(Equal(statusReady))
	c.Expect(got.Owner).To(BeNil())
	c.unchanged(c.user, before)
	c.Expect(c.claimed(c.user, token)).To(BeEmpty())
}

// comesAndGoes creates an empty place, asks for machines there, removes it and asks again.
func (c *check) comesAndGoes(key, collection string, single func(answer) string) {
	c.Helper()
	c.needAdmin()
	form := url.Values{"system_id": c.all(), key: {c.prefix}, "dry_run": {"true"}}
	created := c.expect(c.post(c.admin, collection, "", url.Values{"name": {c.prefix}}), 200)
	path := single(created)
	c.Cleanup(func() { c.remove(c.T, path) })
	c.refused(c.allocate(c.user, form))
	c.Expect(c.send(c.admin, request{method: "DELETE", path: path}).code).To(Equal(204))
	c.invalid(c.allocate(c.user, form), key)
}

func allocationRefusals(s *suite, t *testing.T) {
	forms := []struct{ name, key, value, body string }{
		{"an unknown constraint", "conformance-nosuch", "1", "No such constraint\\."},
		{"a parameter of deploy", "install_kvm", "true", "No such constraint\\."},
		{"a number of CPUs that is none", "cpu_count", "many", "Invalid CPU count: number required\\."},
		{"an amount of memory that is none", "mem", "much", "Invalid memory: number of MiB required\\."},
		{"an unknown architecture", "arch", "vax", "Architecture not recognised\\."},
		{"an unknown device field", "devices", "nosuch", "Unknown devices constraint: 'nosuch"},
	}
	for _, f := range forms {
		s.run(t, f.name+" is refused", func(c *check) {
			got := c.allocate(c.user, url.Values{"system_id": c.all(), f.key: {f.value}})
			messages := c.invalid(got, f.key)
			c.wording(answer{code: got.code, body: []byte(messages[0])}, f.body)
		})
	}
	s.run(t, "a boolean that is none is refused", func(c *check) {
		got := c.allocate(c.user, url.Values{"system_id": c.all(), "dry_run": {"maybe"}})
		c.wording(c.expect(got, 400), "Invalid dry_run: Value should be 'true' or 'false'")
	})
	s.run(t, "an agent_name of more than 255 characters is refused", func(c *check) {
		id := c.oneMachine()
		for length, want := range map[int]int{255: 200, 300: 400} {
			name := c.token() + strings.Repeat("x", length)
			c.expect(c.allocate(c.user, url.Values{"system_id": {id}, "agent_name": {name[:length]}}), want)
			c.release(c.user, id)
			c.free(id)
		}
	})
}
