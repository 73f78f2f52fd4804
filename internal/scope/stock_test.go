// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// warehouse counts what it is asked, and answers once asking is released where it is held.
type warehouse struct {
	servers []maas.Machine
	err     error
	asked   int
	within  maas.Constraints
	states  []maas.Status
	arrived chan struct{}
	release chan struct{}
}

func (w *warehouse) MachinesMatching(_ context.Context, within maas.Constraints, statuses ...maas.Status) ([]maas.Machine, error) {
	w.asked++
	w.within, w.states = within, statuses
	if w.release != nil {
		w.arrived <- struct{}{}
		<-w.release
	}
	return slices.Clone(w.servers), w.err
}

func (w *warehouse) Zones(context.Context) ([]string, error) { return []string{"z1"}, w.err }
func (w *warehouse) Pools(context.Context) ([]string, error) { return []string{"gold"}, w.err }
func (w *warehouse) Tags(context.Context) ([]string, error) {
	w.asked++
	return []string{"bf3"}, w.err
}

func TestStockIsReadRarelyForAll(t *testing.T) {
	g := NewWithT(t)
	clock := clocktesting.NewFakeClock(time.Now())
	w := &warehouse{servers: []maas.Machine{{SystemID: "a", CPUCount: 8, Interfaces: []maas.Interface{{Name: "eno1"}}, Annotations: map[string]string{"a": "b"}}}}
	s := NewStock(w, time.Second, clock)
	for range 3 {
		servers, err := s.Servers(t.Context(), []string{"z1"}, []string{"gold"}, time.Minute)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(servers).To(Equal([]maas.Machine{{SystemID: "a", CPUCount: 8}}))
	}
	g.Expect(w.asked).To(Equal(1))
	g.Expect(w.within).To(Equal(maas.Constraints{Zones: []string{"z1"}, Pools: []string{"gold"}}))
	g.Expect(w.states).To(BeEmpty())
	for range 2 {
		names, err := s.Names(t.Context(), time.Minute)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(names).To(Equal(Names{Zones: []string{"z1"}, Pools: []string{"gold"}, Tags: []string{"bf3"}}))
	}
	g.Expect(w.asked).To(Equal(2))
	clock.Step(time.Minute)
	w.servers = nil
	g.Expect(s.Servers(t.Context(), nil, nil, 2*time.Minute)).To(HaveLen(1))
	g.Expect(s.Servers(t.Context(), nil, nil, time.Minute)).To(BeEmpty())
	g.Expect(w.asked).To(Equal(3))
}

func TestStockOfAnotherKeyDoesNotCount(t *testing.T) {
	g := NewWithT(t)
	first, second := &warehouse{servers: []maas.Machine{{SystemID: "a"}}}, &warehouse{}
	s := NewStock(first, time.Second, clocktesting.NewFakeClock(time.Now()))
	g.Expect(s.Servers(t.Context(), nil, nil, time.Minute)).To(HaveLen(1))
	s.serve(second)
	g.Expect(s.Servers(t.Context(), nil, nil, time.Minute)).To(BeEmpty())
}

func TestStockThatCannotBeRead(t *testing.T) {
	g := NewWithT(t)
	clock := clocktesting.NewFakeClock(time.Now())
	w := &warehouse{err: errors.New("away")}
	s := NewStock(w, time.Second, clock)
	for range 2 {
		_, err := s.Servers(t.Context(), nil, nil, time.Minute)
		g.Expect(err).To(MatchError("away"))
	}
	g.Expect(w.asked).To(Equal(1), "a failure counts for the pause")
	clock.Step(time.Second)
	w.err = nil
	g.Expect(s.Servers(t.Context(), nil, nil, time.Minute)).To(BeEmpty())
	g.Expect(w.asked).To(Equal(2))
}

func TestOldStockServesWhileItIsReadAnew(t *testing.T) {
	g := NewWithT(t)
	clock := clocktesting.NewFakeClock(time.Now())
	w := &warehouse{servers: []maas.Machine{{SystemID: "a"}}}
	s := NewStock(w, time.Second, clock)
	g.Expect(s.Servers(t.Context(), nil, nil, time.Minute)).To(HaveLen(1))
	clock.Step(time.Minute)
	w.arrived, w.release = make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		_, err := s.Servers(t.Context(), nil, nil, time.Minute)
		done <- err
	}()
	<-w.arrived
	bounded, cancel := context.WithTimeout(t.Context(), time.Minute) // Whoever waits here would wait for ever.
	defer cancel()
	g.Expect(s.Servers(bounded, nil, nil, time.Minute)).To(HaveLen(1))
	close(w.release)
	g.Expect(<-done).To(Succeed())
	g.Expect(w.asked).To(Equal(2))
}
