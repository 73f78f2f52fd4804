// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"fmt"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// TestClaimsOfAFleet is what a thousand attachments ask of MAAS in ten minutes, of which some are on their way all the time: three
// confirmations each, by fifty workers.
func TestClaimsOfAFleet(t *testing.T) {
	const machines, minutes, workers = 1000, 10, 50
	for _, moving := range []int{0, 50, 500} {
		t.Run(fmt.Sprint(moving), func(t *testing.T) {
			c := newClaims(t, machines)
			c.follow()
			for range minutes * int(time.Minute/c.readings.interval) {
				c.poll()
				for i := range machines {
					if c.standing(i) != StandingHeld {
						t.Fatalf("%s does not stand", machineID(i))
					}
				}
				if c.readings.auditDue(auditEvery) {
					c.audit()
				}
			}
			steady := c.fleet.count(askEvents) + c.fleet.count(askOwned)
			c.Expect(c.fleet.count(askOne) + c.fleet.count(askByID) + c.fleet.count(askTokens)).To(BeZero())
			c.Expect(steady).To(BeNumerically("<=", minutes*12+2))
			c.fleet.forget()
			for first := 0; first < moving; first += workers {
				for range 3 {
					c.confirmAtOnce(first, min(first+workers, moving))
				}
			}
			confirmed := c.fleet.count(askTokens)
			c.Expect(c.fleet.count(askOne)).To(BeZero())
			c.Expect(confirmed).To(BeNumerically("<=", 3*2*(moving+workers-1)/workers))
			t.Logf("%d steady: %d questions a minute; %d on their way: %d questions, %.2f each",
				machines, steady/minutes, moving, confirmed, float64(confirmed)/float64(max(moving, 1)))
		})
	}
}

// confirmAtOnce confirms the claims from and up to, by workers that all wait for MAAS at the same time.
func (c *claims) confirmAtOnce(from, to int) {
	release := c.fleet.hang(askTokens)
	before := c.fleet.count(askTokens)
	var group sync.WaitGroup
	for i := from; i < to; i++ {
		group.Go(func() {
			if held, err := c.verifier.Confirm(c.Context(), c.tokens[i], machineID(i)); err != nil || !held.Yes() {
				c.Errorf("%s: %+v, %v", machineID(i), held, err)
			}
		})
		if i == from {
			c.Eventually(func() int { return c.fleet.count(askTokens) }).WithTimeout(time.Minute).Should(Equal(before + 1))
		}
	}
	if to > from+1 {
		c.readings.joined(c, to-from-1)
	}
	release()
	group.Wait()
}
