// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas_test

import (
	"net/url"
	"testing"

	. "github.com/onsi/gomega"
)

func deploys(s *suite, t *testing.T) {
	s.run(t, "an unknown series is refused and changes nothing", func(c *check) {
		id := c.oneMachine()
		token := c.allocated(c.user, id)
		before := c.read(c.user, id)
		got := c.on(c.user, id, "deploy", url.Values{"distro_series": {c.prefix}})
		messages := c.invalid(got, "distro_series")
		c.wording(answer{code: got.code, body: []byte(messages[0])}, "'"+c.prefix+"' is not a valid distro_series\\.  It should be one of: .*")
		c.unchanged(c.user, before)
		c.Expect(c.claimed(c.user, token)).To(Equal([]string{id}))
	})
	s.run(t, "a refused deploy of a Ready machine does not take it", func(c *check) {
		id, token := c.oneMachine(), c.token()
		c.invalid(c.on(c.user, id, "deploy", url.Values{"distro_series": {c.prefix}, "agent_name": {token}}), "distro_series")
		c.Expect(c.read(c.user, id).idle()).To(BeTrue())
		c.Expect(c.claimed(c.user, token)).To(BeEmpty())
	})
	s.run(t, "ordinary accounts deploy no VM hosts", func(c *check) {
		id := c.oneMachine()
		c.allocated(c.user, id)
		before := c.read(c.user, id)
		got := c.on(c.user, id, "deploy", url.Values{"install_kvm": {"true"}, "distro_series": {c.prefix}})
		c.expect(got, 403)
		c.unchanged(c.user, before)
	})
	s.run(t, "an unknown kernel is refused and changes nothing", func(c *check) {
		c.needDriver()
		id := c.oneMachine()
		c.allocated(c.user, id)
		before := c.read(c.user, id)
		form := c.deployment()
		form.Set("hwe_kernel", c.prefix)
		c.invalid(c.on(c.user, id, "deploy", form), "hwe_kernel")
		c.unchanged(c.user, before)
	})
	s.run(t, "a deploy is accepted: Deploying, with a system", func(c *check) {
		id := c.oneMachine()
		c.deploying(c.user, id)
		m := c.read(c.user, id)
		c.Expect(m.owner()).To(Equal(c.user.name))
		var allocated []machine
		c.decode(c.get(c.user, "machines/", url.Values{"op": {"list_allocated"}, "id": {id}}), &allocated)
		c.Expect(allocated).To(BeEmpty(), "it is Allocated no more")
		c.Expect(m.OSystem).NotTo(BeEmpty())
		c.Expect(m.Series).NotTo(BeEmpty())
		if c.image != "" {
			c.Expect(m.OSystem + "/" + m.Series).To(Equal(c.image))
		}
	})
	s.run(t, "a parameter that deploy does not know is ignored", func(c *check) {
		c.needDriver()
		id := c.oneMachine()
		c.allocated(c.user, id)
		form := c.deployment()
		form.Set("conformance_nosuch", "1")
		c.Expect(c.deployWith(id, form).Status).To(Equal(statusDeploying))
	})
	s.run(t, "a second deploy is refused while the first runs", func(c *check) {
		id := c.oneMachine()
		c.deploying(c.user, id)
		c.while(id, statusDeploying, func(c *check) {
			c.wording(c.refused(c.on(c.user, id, "deploy", c.deployment())), "Can't deploy a machine that is in the 'Deploying' state")
			c.Expect(c.read(c.user, id).Status).To(Equal(statusDeploying))
		})
	})
	s.run(t, "a live machine is not deployed again", func(c *check) {
		id := c.oneMachine()
		c.deployed(c.user, id)
		c.wording(c.refused(c.on(c.user, id, "deploy", c.deployment())), "Can't deploy a machine that is in the 'Deployed' state")
		c.Expect(c.read(c.user, id).Status).To(Equal(statusDeployed))
	})
	s.run(t, "a failed deployment keeps its owner and is not repeated, only released", func(c *check) {
		id := c.oneMachine()
		c.failedDeployment(c.user, id)
		c.Expect(c.read(c.user, id).owner()).To(Equal(c.user.name))
		c.refused(c.on(c.user, id, "deploy", c.deployment()))
		c.release(c.user, id)
		c.free(id)
	})
	s.run(t, "abort brings a deployment back to Allocated, with its owner and token", func(c *check) {
		id := c.oneMachine()
		token := c.deploying(c.user, id)
		c.while(id, statusDeploying, func(c *check) {
			c.expect(c.onPower(c.user, id, "abort", url.Values{"comment": {c.prefix}}), 200)
		})
		m := c.await(c.user, id, statusAllocated)
		c.Expect(m.owner()).To(Equal(c.user.name))
		c.Expect(c.claimed(c.user, token)).To(Equal([]string{id}))
		c.deploy(c.user, id)
	})
}
