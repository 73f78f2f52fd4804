// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas_test

import (
	"net/url"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

func agentNames(s *suite, t *testing.T) {
	s.run(t, "it is set by allocate, found by it, and never shown", func(c *check) {
		id, token := c.oneMachine(), c.token()
		taken := c.expect(c.allocate(c.user, url.Values{"system_id": {id}, "agent_name": {token}}), 200)
		c.Expect(string(taken.body)).NotTo(ContainSubstring(token))
		c.Expect(c.claimed(c.user, token)).To(Equal([]string{id}))
		read := c.expect(c.get(c.user, "machines/"+id+"/", nil), 200)
		c.Expect(string(read.body)).NotTo(ContainSubstring(token))
		c.Expect(c.claimed(c.user, token+"x")).To(BeEmpty(), "the match is exact")
	})
	s.run(t, "several are found at once", func(c *check) {
		some := c.machinesToUse(2)
		tokens := []string{c.allocated(c.user, some[0]), c.allocated(c.user, some[1]), c.token()}
		c.Expect(c.claimed(c.user, tokens...)).To(Equal(some))
	})
	s.run(t, "it is forgotten when a release starts", func(c *check) {
		id := c.oneMachine()
		token := c.allocated(c.user, id)
		if m := c.release(c.user, id); m.Status == statusDiskErasing {
			c.skip("this MAAS erases on every release, and forgets only after that")
		}
		c.Expect(c.claimed(c.user, token)).To(BeEmpty())
	})
	s.run(t, "it is forgotten already in Releasing", func(c *check) {
		token := c.releasing(c.user, c.oneMachine(), nil)
		c.Expect(c.claimed(c.user, token)).To(BeEmpty())
	})
	s.run(t, "it is still there while disks are erased", func(c *check) {
		id := c.oneMachine()
		token := c.erasing(c.user, id, "quick_erase")
		c.while(id, statusDiskErasing, func(c *check) { c.Expect(c.claimed(c.user, token)).To(Equal([]string{id})) })
	})
	for _, row := range deploymentStates {
		s.run(t, "it survives "+row.state, func(c *check) {
			id := c.oneMachine()
			c.Expect(c.claimed(c.user, row.reach(c, c.user, id))).To(Equal([]string{id}))
		})
	}
	s.run(t, "deploy does not change that of an Allocated machine", func(c *check) {
		c.needDriver()
		id := c.oneMachine()
		token, late := c.allocated(c.user, id), c.token()
		form := c.deployment()
		form.Set("agent_name", late)
		c.deployWith(id, form)
		c.Expect(c.claimed(c.user, late)).To(BeEmpty())
		c.Expect(c.claimed(c.user, token)).To(Equal([]string{id}))
	})
	s.run(t, "deploy of a Ready machine takes it under the one given", func(c *check) {
		c.needDriver()
		id, token := c.oneMachine(), c.token()
		form := c.deployment()
		form.Set("agent_name", token)
		c.deployWith(id, form)
		c.Expect(c.claimed(c.user, token)).To(Equal([]string{id}))
		c.Expect(c.read(c.user, id).owner()).To(Equal(c.user.name))
	})
}

// deployWith sends a deploy of the case's own making that should be accepted.
func (c *check) deployWith(id string, form url.Values) machine {
	c.Helper()
	got := c.on(c.user, id, "deploy", form)
	if got.code == 400 || got.code == 503 || got.code == 504 {
		c.skip("MAAS refuses to deploy %s here: %s", id, got.text())
	}
	return c.machine(got)
}

func annotations(s *suite, t *testing.T) {
	s.run(t, "they are merged, and removed by an empty value", func(c *check) {
		id := c.oneMachine()
		c.allocated(c.user, id)
		c.expect(c.annotate(c.user, id, map[string]string{"conformance.one": "1", "conformance_two": "2"}), 200)
		c.expect(c.annotate(c.user, id, map[string]string{"conformance-three": "3", "conformance.one": "", "conformance_two": "two"}), 200)
		m := c.read(c.user, id)
		c.Expect(m.Annotations).To(Equal(map[string]string{"conformance_two": "two", "conformance-three": "3"}))
		c.Expect(m.OwnerData).To(Equal(m.Annotations))
	})
	s.run(t, "a value may be long and of any characters", func(c *check) {
		id := c.oneMachine()
		c.allocated(c.user, id)
		value := strings.Repeat("line, ümlaut & =\n", 400)
		c.expect(c.annotate(c.user, id, map[string]string{"conformance": value}), 200)
		c.Expect(c.annotated(c.user, id)).To(Equal(map[string]string{"conformance": value}))
	})
	s.run(t, "a key with a slash or colon is refused", func(c *check) {
		id := c.oneMachine()
		c.allocated(c.user, id)
		for _, key := range []string{"conformance/x", "conformance:x"} {
			got := c.annotate(c.user, id, map[string]string{key: "1"})
			c.Expect(got.code).To(BeElementOf(400, 500), got.text())
			c.wording(got, "Invalid character in key name")
		}
		c.Expect(c.annotated(c.user, id)).To(BeEmpty())
	})
	s.run(t, "a key of more than 255 characters is refused", func(c *check) {
		id := c.oneMachine()
		c.allocated(c.user, id)
		c.expect(c.annotate(c.user, id, map[string]string{strings.Repeat("k", 255): "1"}), 200)
		c.expect(c.annotate(c.user, id, map[string]string{strings.Repeat("k", 300): "1"}), 400)
		c.Expect(c.annotated(c.user, id)).To(HaveLen(1))
	})
	s.run(t, "nobody annotates a machine without owner", func(c *check) {
		id := c.oneMachine()
		for _, a := range []*account{c.user, c.admin} {
			if a != nil {
				got := c.refused(c.annotate(a, id, map[string]string{"conformance": "1"}))
				c.wording(got, "Cannot set workload annotation: it hasn't been acquired\\.")
			}
		}
		c.Expect(c.annotated(c.user, id)).To(BeEmpty())
	})
	s.run(t, "not even an administrator annotates another's machine", func(c *check) {
		id := c.oneMachine()
		c.needAdmin()
		c.allocated(c.user, id)
		c.refused(c.annotate(c.admin, id, map[string]string{"conformance": "1"}))
		c.Expect(c.annotated(c.user, id)).To(BeEmpty())
	})
	s.run(t, "they are gone when the machine is Ready", func(c *check) {
		id := c.oneMachine()
		c.allocated(c.user, id)
		c.expect(c.annotate(c.user, id, map[string]string{"conformance": "1"}), 200)
		c.release(c.user, id)
		c.free(id)
		m := c.read(c.user, id)
		c.Expect(m.Annotations).To(BeEmpty())
		c.Expect(m.Owner).To(BeNil())
	})
	s.run(t, "they stay, and can be written, while the machine is Releasing", func(c *check) {
		id := c.oneMachine()
		c.releasing(c.user, id, func(string) { c.expect(c.annotate(c.user, id, map[string]string{"conformance": "1"}), 200) })
		c.while(id, statusReleasing, func(c *check) { c.stillOurs(id) })
	})
	s.run(t, "they stay, and can be written, while disks are erased", func(c *check) {
		id := c.oneMachine()
		c.needDriver()
		c.allocated(c.user, id)
		c.expect(c.annotate(c.user, id, map[string]string{"conformance": "1"}), 200)
		c.startErase(c.user, id, "quick_erase")
		c.while(id, statusDiskErasing, func(c *check) { c.stillOurs(id) })
	})
	for _, row := range []struct {
		name  string
		reach func(*check, *account, string)
	}{
		{"being deployed", (*check).finishDeployment},
		{"a failed deployment", func(c *check, a *account, id string) {
			c.move("failed", id, "")
			c.await(a, id, statusFailedDeployment)
		}},
	} {
		s.run(t, "they survive "+row.name, func(c *check) {
			c.needDriver()
			id := c.oneMachine()
			c.allocated(c.user, id)
			c.expect(c.annotate(c.user, id, map[string]string{"conformance": "1"}), 200)
			c.deploy(c.user, id)
			row.reach(c, c.user, id)
			c.stillOurs(id)
		})
	}
}

// stillOurs holds that owner and annotations of a machine, annotated before, are those of the claim.
func (c *check) stillOurs(id string) {
	c.Helper()
	m := c.read(c.user, id)
	c.Expect(m.owner()).To(Equal(c.user.name))
	c.Expect(m.Annotations).To(Equal(map[string]string{"conformance": "1"}))
	c.expect(c.annotate(c.user, id, map[string]string{"conformance2": "2"}), 200)
	c.Expect(c.annotated(c.user, id)).To(Equal(map[string]string{"conformance": "1", "conformance2": "2"}))
}
