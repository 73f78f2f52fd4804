// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/canonical/gomaasclient/client"
	"github.com/canonical/gomaasclient/entity"
	. "github.com/onsi/gomega"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

// timed is a lab whose clock moves only while a call waits for it.
type timed struct {
	*lab
	clock *clocktesting.FakeClock
}

func newTimed(t *testing.T, timing maassim.Timing) *timed {
	t.Helper()
	machines := []maassim.Machine{}
	for i := range 20 {
		machines = append(machines, maassim.Machine{SystemID: fmt.Sprintf("node%02d", i)})
	}
	clock := clocktesting.NewFakeClock(time.Now())
	return &timed{clock: clock, lab: newLabWith(t, maassim.Options{Clock: clock, Timing: timing}, machines...)}
}

// took runs calls side by side and says how long the region's clock ran meanwhile, to the millisecond.
func (l *timed) took(calls ...func() error) time.Duration {
	l.Helper()
	var group sync.WaitGroup
	for _, call := range calls {
		group.Go(func() {
			if err := call(); err != nil {
				l.Error(err)
			}
		})
	}
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	start := l.clock.Now()
	for {
		select {
		case <-done:
			return l.clock.Since(start)
		default:
			if l.clock.HasWaiters() {
				l.clock.Step(time.Millisecond)
			}
		}
	}
}

func (l *timed) read(id string) func() error {
	return func() error {
		_, err := l.admin.Machine.Get(id)
		return err
	}
}

func (l *timed) list(params *entity.MachinesParams) func() error {
	return func() error {
		_, err := l.tenant.Machines.Get(params)
		return err
	}
}

func (l *timed) take(c *client.Client) func() error {
	return func() error {
		_, err := c.Machines.Allocate(nil)
		return err
	}
}

func TestMeasuredTimingOfSingleCalls(t *testing.T) {
	l := newTimed(t, maassim.MeasuredTiming())
	cases := []struct {
		name string
		call func() error
		want time.Duration
	}{
		{"one machine", l.read("node00"), 110 * time.Millisecond},
		{"all machines", l.list(nil), (110 + 20*16) * time.Millisecond},
		{"machines by id cost what is returned", l.list(&entity.MachinesParams{ID: []string{"node01", "node02", "nosuch"}}), 142 * time.Millisecond},
		{"events", func() error { _, err := l.tenant.Events.Get(&entity.EventParams{}); return err }, 30 * time.Millisecond},
		{"allocate", l.take(l.tenant), 400 * time.Millisecond},
	}
	for _, c := range cases {
		if took := l.took(c.call); took != c.want {
			t.Errorf("%s took %s, want %s", c.name, took, c.want)
		}
	}
}

// TestOneWorkerTakesCallsOneByOne: side by side, calls take as long as one after the other.
func TestOneWorkerTakesCallsOneByOne(t *testing.T) {
	g := NewWithT(t)
	l := newTimed(t, maassim.MeasuredTiming())
	g.Expect(l.took(l.read("node00"), l.read("node01"), l.take(l.other), l.take(l.tenant))).To(Equal(1020 * time.Millisecond))
}

func TestAllocationsAreOneByOneWithoutLimitOnWorkers(t *testing.T) {
	timing := maassim.MeasuredTiming()
	timing.Workers = 0
	l := newTimed(t, timing)
	NewWithT(t).Expect(l.took(l.take(l.other), l.take(l.tenant))).To(BeNumerically(">=", 800*time.Millisecond))
}

func TestInjectedDelayTakesNoWorker(t *testing.T) {
	g := NewWithT(t)
	l := newTimed(t, maassim.MeasuredTiming())
	l.region.Inject(maassim.Fault{Kind: maassim.FaultDelay, SystemID: "node03", Delay: time.Hour})
	ended := make(chan error, 1)
	go func() { ended <- l.read("node03")() }()
	t.Cleanup(func() { l.Log("the delayed call ended with", <-ended) })
	g.Eventually(l.clock.HasWaiters).Should(BeTrue())
	g.Expect(l.took(l.read("node04"))).To(BeNumerically("<", time.Hour))
	g.Expect(ended).NotTo(Receive())
}
