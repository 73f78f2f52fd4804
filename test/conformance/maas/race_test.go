// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas_test

import (
	"net/url"
	"slices"
	"sync"
	"testing"

	. "github.com/onsi/gomega"
)

const (
	racersForOne  = 8
	racersForMany = 16
)

// racer is one of several calls at the same time.
type racer struct {
	account *account
	token   string
	got     answer
	err     error
}

// race sends allocates for the same machines at once, from both accounts where there are two.
func (c *check) race(n int, systemIDs []string) []racer {
	c.Helper()
	racers := make([]racer, n)
	start := make(chan struct{})
	var group sync.WaitGroup
	for i := range racers {
		racers[i] = racer{account: c.user, token: c.token()}
		if c.other != nil && i%2 == 1 {
			racers[i].account = c.other
		}
		group.Go(func() {
			<-start
			form := url.Values{"system_id": systemIDs, "agent_name": {racers[i].token}}
			racers[i].got, racers[i].err = c.do(c.ctx, racers[i].account,
				request{method: post, path: "machines/", op: "allocate", form: form})
		})
	}
	close(start)
	group.Wait()
	return racers
}

// winners are the machines that were answered with; the others must have been told that nothing is free.
func (c *check) winners(racers []racer) []machine {
	c.Helper()
	won := []machine{}
	for _, r := range racers {
		c.Expect(r.err).NotTo(HaveOccurred())
		if r.got.code != 200 {
			c.refused(r.got)
			continue
		}
		m := c.machine(r.got)
		c.Expect(m.Status).To(Equal(statusAllocated))
		c.Expect(m.owner()).To(Equal(r.account.name), "the answer shows another's machine")
		c.Expect(c.claimed(r.account, r.token)).To(Equal([]string{m.SystemID}))
		won = append(won, m)
	}
	return won
}

func races(s *suite, t *testing.T) {
	s.run(t, "eight for one machine: exactly one gets it", func(c *check) {
		id := c.oneMachine()
		c.Expect(ids(c.winners(c.race(racersForOne, []string{id})))).To(Equal([]string{id}))
	})
	s.run(t, "sixteen for many machines: each gets its own while there are any", func(c *check) {
		won := ids(c.winners(c.race(racersForMany, c.machinesToUse(2))))
		c.Expect(won).To(HaveLen(2))
		c.Expect(slices.Compact(slices.Clone(won))).To(Equal(won), "a machine was given twice")
		c.sweep(c.T)

		won = ids(c.winners(c.race(racersForMany, c.all())))
		c.Expect(won).To(HaveLen(min(racersForMany, len(c.fleet))))
		c.Expect(slices.Compact(slices.Clone(won))).To(Equal(won), "a machine was given twice")
	})
}
