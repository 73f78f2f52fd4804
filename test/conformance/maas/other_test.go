// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas_test

import (
	"net/url"
	"testing"

	. "github.com/onsi/gomega"
)

// otherAccount is what a second ordinary account sees of, and may do to, a machine of the first.
func otherAccount(s *suite, t *testing.T) {
	s.run(t, "it reads another's machine as 403, and finds it in no list", func(c *check) {
		id, other := c.oneMachine(), c.needOther()
		token := c.allocated(c.user, id)
		got := c.expect(c.get(other, "machines/"+id+"/", nil), 403)
		c.wording(got, "")
		for _, query := range []url.Values{{"id": {id}}, {"agent_name": {token}}, {"owner": {c.user.name}}} {
			c.Expect(ids(c.list(other, query))).NotTo(ContainElement(id), "%v", query)
		}
		c.Expect(c.get(other, "nodes/"+id+"/devices/", nil).code).To(BeElementOf(403, 404))
	})
	s.run(t, "it may do nothing to another's machine", func(c *check) {
		id, other := c.oneMachine(), c.needOther()
		token := c.allocated(c.user, id)
		c.expect(c.annotate(c.user, id, map[string]string{"conformance": "1"}), 200)
		before := c.read(c.user, id)
		operations := []string{"release", "power_off", "abort", "mark_broken", "lock", "set_workload_annotations"}
		if c.driver != "" {
			// Should MAAS accept these after all, hardware would start.
			operations = append(operations, "deploy", "power_on")
		}
		for _, op := range operations {
			got := c.on(other, id, op, url.Values{"conformance": {"2"}})
			c.Expect(got.code).To(Equal(403), "%s: %s", op, got.text())
		}
		c.refused(c.allocate(other, url.Values{"system_id": {id}, "agent_name": {token}}))
		c.unchanged(c.user, before)
		c.Expect(c.claimed(c.user, token)).To(Equal([]string{id}))
	})
	s.run(t, "a bulk release with another's machine releases none", func(c *check) {
		some, other := c.machinesToUse(2), c.needOther()
		c.allocated(c.user, some[0])
		c.allocated(other, some[1])
		got := c.expect(c.post(c.user, "machines/", "release", url.Values{"machines": some}), 403)
		c.wording(got, "You don't have the required permission to release the following machine\\(s\\): "+some[1]+"\\.")
		c.Expect(c.read(c.user, some[0]).Status).To(Equal(statusAllocated))
	})
	s.run(t, "an administrator sees it", func(c *check) {
		id, admin := c.oneMachine(), c.needAdmin()
		token := c.allocated(c.user, id)
		c.Expect(c.read(admin, id).owner()).To(Equal(c.user.name))
		c.Expect(c.claimed(admin, token)).To(Equal([]string{id}))
	})
	s.run(t, "it sees the machine again once it is free", func(c *check) {
		id, other := c.oneMachine(), c.needOther()
		c.allocated(c.user, id)
		c.release(c.user, id)
		c.free(id)
		c.Expect(c.read(other, id).idle()).To(BeTrue())
		c.Expect(ids(c.list(other, url.Values{"id": {id}}))).To(Equal([]string{id}))
	})
}
