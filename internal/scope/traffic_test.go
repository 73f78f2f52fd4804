// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// TestPollsAMinute counts what the shared poller asks MAAS for while some of 1,000 servers are being deployed. A deployment takes
// ten minutes and is eight events long; every machine in transition is reconciled at every poll. What is asked for must grow with
// what happens, and not with how many wait.
func TestPollsAMinute(t *testing.T) {
	const servers, minutes, deployment = 1000, 15, 10 * time.Minute
	cases := []struct {
		deploying        int
		refused          bool
		feed, lists, all float64 // requests a minute, at most
		machines         float64 // machines read a minute, at most
	}{
		{deploying: 0, feed: 1.1, lists: 0, all: 1.1, machines: 0},
		{deploying: 50, feed: 12, lists: 12, all: 24, machines: 50*60/55 + 50*8/10 + 5},
		{deploying: 500, feed: 12, lists: 12, all: 24, machines: 500*60/55 + 500*8/10 + 50},
		{deploying: 50, refused: true, feed: 1.1, lists: 12, all: 13.1, machines: 12*50 + 5*4},
		{deploying: 500, refused: true, feed: 1.1, lists: 24, all: 25.1, machines: 12*500 + 52*3},
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%d of %d, refused %v", c.deploying, servers, c.refused), func(t *testing.T) {
			b := newBench(t, servers)
			random := rand.New(rand.NewPCG(1, uint64(c.deploying)))
			for i := range servers {
				b.watch(machineID(i))
			}
			due := map[string][]time.Duration{} // The events to come of each machine in transition.
			deploy := func(id string, age time.Duration) {
				b.fleet.silently(id, maas.StatusDeploying)
				for n := range 8 {
					if at := deployment * time.Duration(n+1) / 8; at > age {
						due[id] = append(due[id], at-age)
					}
				}
			}
			for i := range c.deploying {
				deploy(machineID(i), time.Duration(random.Int64N(int64(deployment))))
			}
			if c.refused {
				b.fleet.fail(askEvents, errRefused)
			}
			next, lists := c.deploying, 0
			minute := func() {
				for range 12 {
					for id, events := range due {
						for n := range events {
							events[n] -= b.readings.interval
						}
						switch {
						case events[0] > 0:
						case len(events) > 1:
							b.fleet.record(id)
							due[id] = events[1:]
						default:
							b.fleet.become(id, maas.StatusDeployed)
							delete(due, id)
							deploy(machineID(next%servers), 0)
							next++
						}
					}
					before := b.fleet.read
					b.poll()
					lists += (b.fleet.read - before + 299) / 300 // The client asks for 300 at once.
					for id := range due {
						b.get(id, time.Minute)
					}
				}
			}
			minute() // The first readings.
			minute()
			b.fleet.forget()
			b.wakes()
			lists = 0
			for range minutes {
				minute()
			}
			if b.fleet.count(askOne) > 0 {
				t.Error("machines are read one by one")
			}
			feed, polled, read := float64(b.fleet.count(askEvents))/minutes, float64(lists)/minutes, float64(b.fleet.read)/minutes
			t.Logf("%d of %d in transition, feed refused %v: %.1f feed + %.1f list requests a minute, %.0f machines read a minute; %d changes told",
				c.deploying, servers, c.refused, feed, polled, read, len(b.wakes()))
			for what, figure := range map[string][2]float64{
				"requests to the feed": {feed, c.feed}, "lists": {polled, c.lists}, "requests": {feed + polled, c.all}, "machines read": {read, c.machines},
			} {
				if figure[0] > figure[1] {
					t.Errorf("%.1f %s a minute, at most %.1f", figure[0], what, figure[1])
				}
			}
		})
	}
}
