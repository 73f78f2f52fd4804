// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas_test

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/util/wait"
)

// eraseWait is how long an erase may take on machines that have no disks.
const eraseWait = 30 * time.Second

func releases(s *suite, t *testing.T) {
	s.run(t, "of a machine that is Allocated", func(c *check) {
		id := c.oneMachine()
		c.allocated(c.user, id)
		m := c.release(c.user, id)
		c.Expect(m.Status).To(BeElementOf(statusReady, statusReleasing, statusDiskErasing), m.StatusName)
		c.free(id)
	})
	s.run(t, "of a machine that is Ready does nothing and succeeds, whoever asks", func(c *check) {
		id := c.oneMachine()
		for _, a := range []*account{c.user, c.other, c.admin} {
			if a != nil {
				c.Expect(c.release(a, id).Status).To(Equal(statusReady))
			}
		}
		c.Expect(c.read(c.user, id).idle()).To(BeTrue())
	})
	s.run(t, "again, of a machine that is Releasing, does nothing and succeeds", func(c *check) {
		id := c.oneMachine()
		c.releasing(c.user, id, nil)
		c.while(id, statusReleasing, func(c *check) {
			c.Expect(c.release(c.user, id).Status).To(Equal(statusReleasing))
			c.Expect(c.read(c.user, id).owner()).To(Equal(c.user.name))
		})
		c.move("power", id, "off")
		c.free(id)
	})
	s.run(t, "fails when the power off is not seen, and may be repeated", func(c *check) {
		id := c.oneMachine()
		c.releasing(c.user, id, nil)
		c.move("failed", id, "")
		m := c.await(c.user, id, statusFailedReleasing)
		c.Expect(m.owner()).To(Equal(c.user.name))
		c.move("power", id, "off")
		c.release(c.user, id)
		c.free(id)
	})
	s.run(t, "by an administrator, of another's machine", func(c *check) {
		id, admin := c.oneMachine(), c.needAdmin()
		c.allocated(c.user, id)
		c.release(admin, id)
		c.free(id)
	})
	for _, row := range deploymentStates {
		s.run(t, "of a machine that is "+row.state, func(c *check) {
			id := c.oneMachine()
			token := row.reach(c, c.user, id)
			m := c.release(c.user, id)
			c.Expect(m.Status).To(BeElementOf(statusReady, statusReleasing, statusDiskErasing), m.StatusName)
			if m.Status != statusDiskErasing {
				c.Expect(c.claimed(c.user, token)).To(BeEmpty())
			}
			c.free(id)
			m = c.read(c.user, id)
			c.Expect(m.OSystem).To(BeEmpty())
			c.Expect(m.Series).To(BeEmpty())
		})
	}
	erasures(s, t)
	bulkReleases(s, t)
}

func erasures(s *suite, t *testing.T) {
	for _, flag := range []string{"erase", "quick_erase", "secure_erase"} {
		s.run(t, flag+" alone starts to erase", func(c *check) {
			id := c.oneMachine()
			c.erasing(c.user, id, flag)
			c.while(id, statusDiskErasing, func(c *check) { c.Expect(c.read(c.user, id).owner()).To(Equal(c.user.name)) })
		})
	}
	s.run(t, "a quick erase of a Deployed machine ends in Ready", func(c *check) {
		id := c.oneMachine()
		c.deployed(c.user, id)
		c.startErase(c.user, id, "quick_erase")
		c.erased(id)
		c.Expect(c.read(c.user, id).idle()).To(BeTrue())
	})
	s.run(t, "a failed erase keeps its owner, and may be released without", func(c *check) {
		id := c.oneMachine()
		c.failedErase(c.user, id)
		c.Expect(c.read(c.user, id).owner()).To(Equal(c.user.name))
		c.release(c.user, id)
		c.free(id)
	})
	s.run(t, "a failed erase may be tried again", func(c *check) {
		id := c.oneMachine()
		c.failedErase(c.user, id)
		c.startErase(c.user, id, "quick_erase")
		c.Expect(c.read(c.user, id).owner()).To(Equal(c.user.name))
	})
	s.run(t, "an erase can be aborted", func(c *check) {
		id := c.oneMachine()
		c.erasing(c.user, id, "quick_erase")
		c.while(id, statusDiskErasing, func(c *check) {
			c.expect(c.onPower(c.user, id, "abort", url.Values{"comment": {c.prefix}}), 200)
		})
		c.Eventually(func() int { return c.read(c.user, id).Status }).WithContext(c.ctx).WithTimeout(c.settings.wait).
			WithPolling(c.poll).ShouldNot(Equal(statusDiskErasing))
		// Neither the facts nor the API's documentation say what it is then.
		c.wording(answer{code: 200, body: []byte(c.read(c.user, id).StatusName)}, "Failed disk erasing")
	})
	s.run(t, "a release script nobody has is refused", func(c *check) {
		if !c.atLeast(3, 5) {
			c.skip("release scripts exist since MAAS 3.5")
		}
		id := c.oneMachine()
		c.allocated(c.user, id)
		messages := c.invalid(c.on(c.user, id, "release", url.Values{"scripts": {c.prefix}}), "scripts")
		c.wording(answer{code: 400, body: []byte(messages[0])}, "Select a valid choice\\. "+c.prefix+" is not one of the available choices\\.")
		c.Expect(c.read(c.user, id).Status).To(Equal(statusAllocated))
	})
}

// erased brings an erase to its good end: by a boot, after which it may end by itself, else by the driver's end of what
// runs on the machine.
func (c *check) erased(id string) {
	c.Helper()
	_, _ = c.drive(c.ctx, "power", id, url.Values{"state": {"on"}})
	if c.endsReady(id) {
		return
	}
	code, err := c.drive(c.ctx, "commissioned", id, nil)
	if err == nil && code/100 == 2 && c.endsReady(id) {
		return
	}
	c.skip("no erase ends here: none within %s, and the driver (%d) ends none", eraseWait, code)
}

// endsReady waits a moment for Ready, and has the driver switch off what waits for it.
func (c *check) endsReady(id string) bool {
	err := wait.PollUntilContextTimeout(c.ctx, c.poll, min(c.settings.wait, eraseWait), true, func(ctx context.Context) (bool, error) {
		seen, err := c.see(ctx, id)
		if err == nil && seen[id].Status == statusReleasing {
			_, _ = c.drive(ctx, "power", id, url.Values{"state": {"off"}})
		}
		return err == nil && seen[id].Status == statusReady, nil
	})
	return err == nil
}

// atLeast says whether MAAS calls itself that version or a later one.
func (c *check) atLeast(major, minor int) bool {
	c.Helper()
	var version struct {
		Version string `json:"version"`
	}
	c.decode(c.get(c.user, "version/", nil), &version)
	parts := strings.SplitN(version.Version, ".", 3)
	got := make([]int, 2)
	for i := range min(len(parts), 2) {
		number, err := strconv.Atoi(parts[i])
		c.Expect(err).NotTo(HaveOccurred(), version.Version)
		got[i] = number
	}
	return got[0] > major || got[0] == major && got[1] >= minor
}

func bulkReleases(s *suite, t *testing.T) {
	bulk := func(c *check, systemIDs ...string) answer {
		c.Helper()
		return c.post(c.user, "machines/", "release", url.Values{"machines": systemIDs, "comment": {c.prefix}})
	}
	s.run(t, "in bulk: of none is a success", func(c *check) {
		var released []string
		c.decode(bulk(c), &released)
		c.Expect(released).To(BeEmpty())
	})
	s.run(t, "in bulk: with one unknown, none is released", func(c *check) {
		id := c.oneMachine()
		c.allocated(c.user, id)
		c.wording(c.expect(bulk(c, id, nowhere), 400), "Unknown machine\\(s\\): "+nowhere+"\\.")
		c.Expect(c.read(c.user, id).Status).To(Equal(statusAllocated))
	})
	s.run(t, "in bulk: those that are Ready are left out of the answer", func(c *check) {
		some := c.machinesToUse(3)
		c.allocated(c.user, some[0])
		c.allocated(c.user, some[1])
		var released []string
		c.decode(bulk(c, some...), &released)
		c.Expect(released).To(ConsistOf(some[0], some[1]))
		c.free(some[0])
		c.free(some[1])
	})
	s.run(t, "in bulk: Releasing counts as not releasable", func(c *check) {
		some := c.machinesToUse(2)
		c.releasing(c.user, some[0], nil)
		c.allocated(c.user, some[1])
		const text = "Machine\\(s\\) cannot be released in their current state: %s \\('Releasing'\\)\\."
		c.while(some[0], statusReleasing, func(c *check) {
			c.wording(c.refused(bulk(c, some...)), fmt.Sprintf(text, some[0]))
		})
		c.Expect(c.read(c.user, some[1]).Status).To(Equal(statusAllocated))
	})
}
