// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas_test

import (
	"encoding/json"
	"net/url"
	"testing"

	. "github.com/onsi/gomega"
)

func power(s *suite, t *testing.T) {
	s.run(t, "off, of one's own machine, is accepted and does not change its status", func(c *check) {
		id := c.oneMachine()
		c.allocated(c.user, id)
		c.powerOff(id)
		c.Expect(c.read(c.user, id).Status).To(Equal(statusAllocated))
	})
	s.run(t, "off, of a machine without owner, is accepted", func(c *check) {
		id := c.oneMachine()
		c.powerOff(id)
		c.Expect(c.read(c.user, id).idle()).To(BeTrue())
	})
	s.run(t, "off, after on, is seen", func(c *check) {
		c.needDriver()
		id := c.oneMachine()
		c.allocated(c.user, id)
		c.move("power", id, "on")
		if m := c.read(c.user, id); m.PowerState != "on" {
			c.skip("MAAS shows no power for power type %s: %s", m.PowerType, m.PowerState)
		}
		c.powerOff(id)
		c.move("power", id, "off")
		c.Eventually(func() string { return c.read(c.user, id).PowerState }).WithContext(c.ctx).
			WithTimeout(c.settings.wait).WithPolling(c.poll).Should(Equal("off"))
		c.Expect(c.read(c.user, id).Status).To(Equal(statusAllocated))
	})
	s.run(t, "of a Deployed machine may be switched off, and it stays Deployed", func(c *check) {
		id := c.oneMachine()
		token := c.deployed(c.user, id)
		c.powerOff(id)
		c.Expect(c.read(c.user, id).Status).To(Equal(statusDeployed))
		c.Expect(c.claimed(c.user, token)).To(Equal([]string{id}))
	})
	s.run(t, "can be asked for", func(c *check) {
		got := c.get(c.user, "machines/"+c.oneMachine()+"/", url.Values{"op": {"query_power_state"}})
		if got.code == 503 || got.code == 504 {
			c.skip("MAAS cannot ask the machine: %s", got.text())
		}
		var state struct {
			State string `json:"state"`
		}
		c.decode(got, &state)
		c.Expect(state.State).To(BeElementOf("on", "off", "unknown", "error"))
	})
}

// powerOff sends the order. MAAS answers with the machine, or null where it has no way to send it.
func (c *check) powerOff(id string) {
	c.Helper()
	got := c.onPower(c.user, id, "power_off", url.Values{"stop_mode": {"hard"}, "comment": {c.prefix}})
	var m *machine
	c.expect(got, 200)
	c.Expect(json.Unmarshal(got.body, &m)).To(Succeed(), got.text())
	if m != nil {
		c.Expect(m.SystemID).To(Equal(id))
	}
}
