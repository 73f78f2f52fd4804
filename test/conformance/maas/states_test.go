// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas_test

import (
	"crypto/rand"
	"fmt"
	"net/url"
	"slices"
	"testing"

	. "github.com/onsi/gomega"
)

// refusedIn are the operations of its owner that a state forbids. Those that it allows are in the other areas.
var refusedIn = []struct {
	state      string
	status     int
	reach      func(*check, *account, string) string
	operations []string
}{
	{"Allocated", statusAllocated, (*check).allocated, []string{"abort", "lock"}},
	{"Deploying", statusDeploying, (*check).deploying, []string{"deploy"}},
	{"Deployed", statusDeployed, (*check).deployed, []string{"deploy", "abort"}},
	{"Failed deployment", statusFailedDeployment, (*check).failedDeployment, []string{"deploy", "abort", "lock"}},
	{"Releasing", statusReleasing, func(c *check, a *account, id string) string { return c.releasing(a, id, nil) },
		[]string{"deploy", "abort", "lock"}},
	{"Disk erasing", statusDiskErasing, func(c *check, a *account, id string) string { return c.erasing(a, id, "quick_erase") },
		[]string{"deploy", "lock", "release"}},
	{"Failed disk erasing", statusFailedDiskErasing, (*check).failedErase, []string{"deploy", "abort", "lock"}},
}

// deploymentStates are those of a deployment; MAAS locks a machine in the first two.
var deploymentStates = []struct {
	state string
	reach func(*check, *account, string) string
}{
	{"Deploying", (*check).deploying}, {"Deployed", (*check).deployed}, {"Failed deployment", (*check).failedDeployment},
}

// stateTexts are how MAAS 3.7.3 words a refusal, with the state's name.
var stateTexts = map[string]string{
	"deploy":  "Can't deploy a machine that is in the '%s' state",
	"abort":   "Cannot abort in current state: node [a-z0-9]+ is in state %s\\.",
	"lock":    "Can't lock, node is not deployed or deploying",
	"release": "Machine cannot be released in its current state \\('%s'\\)\\.",
}

func stateText(op, state string) string {
	if op == "lock" {
		return stateTexts[op]
	}
	return fmt.Sprintf(stateTexts[op], state)
}

func states(s *suite, t *testing.T) {
	for _, row := range refusedIn {
		s.run(t, row.state+" forbids what MAAS' table says, and allocating", func(c *check) {
			id := c.oneMachine()
			row.reach(c, c.user, id)
			c.while(id, row.status, func(c *check) { c.forbids(id, row.status, row.state, row.operations) })
		})
	}
	s.run(t, "Ready forbids what needs an owner, and a release of it is a success", func(c *check) {
		id := c.oneMachine()
		c.wording(c.refused(c.on(c.user, id, "abort", nil)), stateText("abort", "Ready"))
		c.wording(c.refused(c.on(c.user, id, "power_on", nil)), "Can't start node: it hasn't been allocated\\.")
		c.refused(c.annotate(c.user, id, map[string]string{"conformance": "1"}))
		c.expect(c.on(c.user, id, "mark_broken", nil), 403)
		c.Expect(c.machine(c.on(c.user, id, "release", nil)).Status).To(Equal(statusReady))
		c.Expect(c.read(c.user, id).idle()).To(BeTrue())
	})
	for _, row := range deploymentStates[:2] {
		s.run(t, "a lock on a machine that is "+row.state+" forbids every change", func(c *check) { c.locked(row.reach) })
	}
	s.run(t, "Broken: only its owner marks it, only an administrator fixes it", broken)
	s.run(t, "New: neither allocated, deployed nor released", newMachine)
}

func (c *check) forbids(id string, status int, state string, operations []string) {
	c.Helper()
	for _, op := range operations {
		c.wording(c.refused(c.on(c.user, id, op, url.Values{"comment": {c.prefix}})), stateText(op, state))
	}
	c.refused(c.allocate(c.user, url.Values{"system_id": {id}, "agent_name": {c.token()}}))
	m := c.read(c.user, id)
	c.Expect(m.Status).To(Equal(status), m.StatusName)
	c.Expect(m.owner()).To(Equal(c.user.name))
	c.wording(answer{code: 200, body: []byte(m.StatusName)}, state)
}

// locked locks a machine in a state that allows it, and unlocks it again.
func (c *check) locked(reach func(*check, *account, string) string) {
	c.Helper()
	id := c.oneMachine()
	reach(c, c.user, id)
	c.Expect(c.machine(c.on(c.user, id, "lock", nil)).Locked).To(BeTrue())
	before := c.read(c.user, id)
	c.Expect(before.Locked).To(BeTrue())
	c.while(id, before.Status, func(c *check) {
		for _, op := range []string{"release", "set_workload_annotations", "deploy", "abort", "power_off"} {
			got := c.on(c.user, id, op, url.Values{"conformance": {"1"}})
			c.Expect(got.code).To(Equal(403), "%s: %s", op, got.text())
			c.wording(got, "")
		}
		c.unchanged(c.user, before)
	})
	c.Expect(c.machine(c.on(c.user, id, "unlock", nil)).Locked).To(BeFalse())
	c.release(c.user, id)
	c.free(id)
}

func broken(c *check) {
	id := c.oneMachine()
	c.needAdmin()
	token := c.allocated(c.user, id)
	c.expect(c.on(c.admin, id, "mark_broken", nil), 403)
	c.machine(c.onPower(c.user, id, "mark_broken", url.Values{"comment": {c.prefix}}))
	var m struct {
		machine
		Description string `json:"error_description"`
	}
	c.decode(c.get(c.user, "machines/"+id+"/", nil), &m)
	c.Expect(m.Status).To(Equal(statusBroken), m.StatusName)
	c.Expect(m.Description).To(ContainSubstring(c.prefix))
	c.Expect(c.claimed(c.user, token)).To(BeEmpty(), "the claim is forgotten")
	for _, op := range []string{"deploy", "abort"} {
		c.wording(c.refused(c.on(c.user, id, op, nil)), stateText(op, "Broken"))
	}
	c.refused(c.allocate(c.user, url.Values{"system_id": {id}}))
	c.expect(c.on(c.user, id, "mark_fixed", nil), 403)
	c.machine(c.on(c.admin, id, "mark_fixed", nil))
	fixed := c.await(c.user, id, statusReady)
	c.Expect(fixed.Owner).To(BeNil())
	c.wording(c.refused(c.on(c.admin, id, "mark_fixed", nil)), "Can't mark a non-broken node as 'Ready'\\.")
}

// newMachine enlists a machine of the run's own that exists on paper only, and removes it.
func newMachine(c *check) {
	admin := c.needAdmin()
	mac := []byte(rand.Text())
	form := url.Values{
		"hostname": {c.prefix}, "architecture": {c.asFound(c.oneMachine()).Architecture}, "power_type": {"manual"},
		"mac_addresses": {fmt.Sprintf("02:00:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3])},
	}
	got := c.post(c.user, "machines/", "", form)
	if got.code != 200 {
		c.skip("MAAS lets %s enlist no machine: %s", c.user.name, got.text())
	}
	id := c.machine(got).SystemID
	c.Cleanup(func() { c.remove(c.T, "machines/"+id+"/") })
	c.Expect(c.read(c.user, id).Status).To(Equal(statusNew))
	for _, op := range []string{"release", "deploy", "abort"} {
		c.wording(c.refused(c.on(c.user, id, op, nil)), stateText(op, "New"))
	}
	c.refused(c.allocate(c.user, url.Values{"system_id": {id}}))
	if c.driver == "" {
		return
	}
	if code, err := c.drive(c.ctx, "commissioned", id, nil); err != nil || code/100 != 2 {
		c.Logf("the driver does not commission it: %d %v", code, err)
		return
	}
	c.await(c.user, id, statusReady)
	c.allocated(c.user, id)
	c.release(c.user, id)
	// Without commissioning data it ends in New.
	c.await(admin, id, statusReady, statusNew)
	c.Expect(slices.Contains(c.all(), id)).To(BeFalse())
}
