// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

func newReadingsOf(region *region) (*Readings, *clocktesting.FakeClock) {
	clock := clocktesting.NewFakeClock(time.Now())
	return NewReadings(region, time.Second, clock), clock
}

func TestOneQueryForAllInTransition(t *testing.T) {
	g := NewWithT(t)
	region := &region{}
	readings, clock := newReadingsOf(region)
	for i := range 50 {
		region.machines = append(region.machines, maas.Machine{SystemID: fmt.Sprintf("m%d", i)})
	}
	poll := func() {
		for i := range 50 {
			m, err := readings.Machine(t.Context(), fmt.Sprintf("m%d", i), 0)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(m.SystemID).To(Equal(fmt.Sprintf("m%d", i)))
		}
	}
	poll() // Each is new: nobody knew of the later ones when the first was read.
	region.lists = 0
	for range 10 {
		clock.Step(time.Second)
		poll()
	}
	g.Expect(region.lists).To(Equal(10))
	g.Expect(region.listed).To(HaveLen(50))
	g.Expect(region.reads).To(BeZero())

	for range forgetAfter + 2 {
		clock.Step(time.Second)
		_, err := readings.Machine(t.Context(), "m0", 0)
		g.Expect(err).NotTo(HaveOccurred())
	}
	g.Expect(region.listed).To(Equal([]string{"m0"}), "who is settled is not read")
}

func TestAReadingFromBeforeAChangeDoesNotCount(t *testing.T) {
	g := NewWithT(t)
	region := &region{machines: []maas.Machine{{SystemID: "m", Status: maas.StatusAllocated}}}
	readings, clock := newReadingsOf(region)
	read := func() maas.Status {
		m, err := readings.Machine(t.Context(), "m", 0)
		g.Expect(err).NotTo(HaveOccurred())
		return m.Status
	}
	g.Expect(read()).To(Equal(maas.StatusAllocated))
	region.machines[0].Status = maas.StatusDeploying
	g.Expect(read()).To(Equal(maas.StatusAllocated), "within the interval nobody asks again")
	clock.Step(time.Millisecond)
	readings.Invalidate("m")
	_, ok := readings.Recent("m", time.Hour)
	g.Expect(ok).To(BeFalse())
	clock.Step(time.Millisecond)
	g.Expect(read()).To(Equal(maas.StatusDeploying))

	// The change comes while the answer is under way.
	clock.Step(time.Second)
	region.during = func() {
		clock.Step(time.Millisecond)
		readings.Invalidate("m")
		region.during = nil
	}
	region.machines, region.lists = []maas.Machine{{SystemID: "m", Status: maas.StatusDeployed}}, 0
	g.Expect(read()).To(Equal(maas.StatusDeployed))
	g.Expect(region.lists).To(Equal(2), "the first answer does not count")
	g.Expect(region.reads).To(BeZero())
}

func TestAMachineThatIsNotListedIsAskedFor(t *testing.T) {
	g := NewWithT(t)
	readings, _ := newReadingsOf(&region{})
	_, err := readings.Machine(t.Context(), "gone", 0)
	g.Expect(maas.IsNotFound(err)).To(BeTrue())
}

func TestOwnedIsListedOnceInAWhile(t *testing.T) {
	g := NewWithT(t)
	region := &region{machines: []maas.Machine{{SystemID: "m"}}}
	readings, clock := newReadingsOf(region)
	for range 5 {
		owned, err := readings.Owned(t.Context(), "capi", time.Minute)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(owned).To(HaveKey("m"))
	}
	g.Expect(region.owned).To(Equal(1))
	clock.Step(time.Minute)
	_, err := readings.Owned(t.Context(), "capi", time.Minute)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(region.owned).To(Equal(2))
}
