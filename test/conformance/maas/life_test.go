// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas_test

import (
	"encoding/base64"
	"net/url"
	"slices"

	. "github.com/onsi/gomega"
)

// allocated takes a machine and returns the token it was taken under.
func (c *check) allocated(a *account, id string) string {
	c.Helper()
	token := c.token()
	m := c.machine(c.allocate(a, url.Values{"system_id": {id}, "agent_name": {token}, "comment": {c.prefix}}))
	c.Expect(m.SystemID).To(Equal(id))
	c.Expect(m.Status).To(Equal(statusAllocated), m.StatusName)
	c.Expect(m.owner()).To(Equal(a.name))
	return token
}

func (c *check) annotate(a *account, id string, annotations map[string]string) answer {
	c.Helper()
	form := url.Values{}
	for key, value := range annotations {
		form.Set(key, value)
	}
	return c.on(a, id, "set_workload_annotations", form)
}

// annotated are the annotations as MAAS has them.
func (c *check) annotated(a *account, id string) map[string]string {
	c.Helper()
	return c.read(a, id).Annotations
}

// deployment is the form of a deploy that should be accepted.
func (c *check) deployment() url.Values {
	userData := base64.StdEncoding.EncodeToString([]byte("#cloud-config\n{}\n"))
	form := url.Values{"user_data": {userData}, "comment": {c.prefix}}
	if c.image != "" {
		form.Set("distro_series", c.image)
	}
	return form
}

// deploy starts the deployment of an Allocated machine. Deploys need a driver: without one they would run on hardware.
func (c *check) deploy(a *account, id string) machine {
	c.Helper()
	c.needDriver()
	got := c.on(a, id, "deploy", c.deployment())
	if got.code == 400 || got.code == 503 || got.code == 504 {
		c.skip("MAAS refuses to deploy %s here (is there an image, a network, a rack? see MAAS_IMAGE): %s", id, got.text())
	}
	m := c.machine(got)
	c.Expect(m.Status).To(Equal(statusDeploying), m.StatusName)
	return m
}

// deploying takes and deploys a machine.
func (c *check) deploying(a *account, id string) string {
	c.Helper()
	c.needDriver()
	token := c.allocated(a, id)
	c.deploy(a, id)
	return token
}

// deployed takes and deploys a machine, and has the driver end it well.
func (c *check) deployed(a *account, id string) string {
	c.Helper()
	token := c.deploying(a, id)
	c.finishDeployment(a, id)
	return token
}

// finishDeployment is the installed OS asking for its user data, for a driver that insists after a boot and the end of
// network booting.
func (c *check) finishDeployment(a *account, id string) {
	c.Helper()
	code, err := c.drive(c.ctx, "deployed", id, nil)
	if (err != nil || code/100 != 2) && c.read(a, id).Status == statusDeploying {
		c.move("power", id, "on")
		c.move("netboot", id, "off")
		c.move("deployed", id, "")
	}
	c.await(a, id, statusDeployed)
}

// failedDeployment takes and deploys a machine, and has the driver end it badly.
func (c *check) failedDeployment(a *account, id string) string {
	c.Helper()
	token := c.deploying(a, id)
	c.move("failed", id, "")
	c.await(a, id, statusFailedDeployment)
	return token
}

// erasing takes a machine and releases it with an erase flag, which leaves it in Disk erasing.
func (c *check) erasing(a *account, id, flag string) string {
	c.Helper()
	c.needDriver()
	token := c.allocated(a, id)
	c.startErase(a, id, flag)
	return token
}

func (c *check) startErase(a *account, id, flag string) {
	c.Helper()
	c.machine(c.onPower(a, id, "release", url.Values{flag: {"true"}, "comment": {c.prefix}}))
	c.awaitOr(a, id, statusDiskErasing, statusReleasing, statusReady)
}

// awaitOr waits for a status, and skips the case if hardware has moved the machine on to one that comes later.
func (c *check) awaitOr(a *account, id string, status int, later ...int) {
	c.Helper()
	if m := c.await(a, id, append(later, status)...); m.Status != status {
		c.skip("the machine became %s by itself meanwhile", m.StatusName)
	}
}

// failedErase has the driver fail an erase.
func (c *check) failedErase(a *account, id string) string {
	c.Helper()
	token := c.erasing(a, id, "quick_erase")
	c.move("failed", id, "")
	c.awaitOr(a, id, statusFailedDiskErasing, statusFailedReleasing, statusReady)
	return token
}

// release asks for a release without erase, which some sites turn into one with.
func (c *check) release(a *account, id string) machine {
	c.Helper()
	return c.machine(c.onPower(a, id, "release", url.Values{"comment": {c.prefix}}))
}

// onPower is an operation that has MAAS switch a machine, which takes a rack and a BMC: where they are missing or fail
// (503, 504), the case cannot be run.
func (c *check) onPower(a *account, id, op string, form url.Values) answer {
	c.Helper()
	got := c.on(a, id, op, form)
	if got.code == 503 || got.code == 504 {
		c.skip("MAAS cannot switch machine %s: %s", id, got.text())
	}
	return got
}

// free brings a machine that is under release to its end, with the driver's help where there is one.
func (c *check) free(id string) {
	c.Helper()
	c.restore(c.ctx, c.T, id)
}

// releasing takes a machine, switches it on and releases it, so that it stays in Releasing until it is switched off.
func (c *check) releasing(a *account, id string, before func(token string)) string {
	c.Helper()
	c.needDriver()
	token := c.allocated(a, id)
	if before != nil {
		before(token)
	}
	c.move("power", id, "on")
	c.release(a, id)
	if m := c.read(a, id); m.Status != statusReleasing {
		c.skip("a machine of power type %s with power %s cannot be held in Releasing, it is %s", m.PowerType, m.PowerState, m.StatusName)
	}
	return token
}

// unchanged holds that a machine is still as it was in what the suite can see.
func (c *check) unchanged(a *account, before machine) {
	c.Helper()
	now := c.read(a, before.SystemID)
	c.Expect(now.Status).To(Equal(before.Status), "status")
	c.Expect(now.owner()).To(Equal(before.owner()), "owner")
	c.Expect(now.Annotations).To(Equal(before.Annotations), "annotations")
	c.Expect(now.Locked).To(Equal(before.Locked), "locked")
}

// matching are the system IDs of the machines of the fleet that a predicate holds for.
func (c *check) matching(holds func(machine) bool) []string {
	return ids(slices.DeleteFunc(slices.Clone(c.fleet), func(m machine) bool { return !holds(m) }))
}
