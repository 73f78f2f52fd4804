// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/shared"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc/ovn"
)

const (
	// ovnProbeTimeout bounds the question whether the northbound database answers.
	ovnProbeTimeout = 10 * time.Second
	// ovnAddressesTimeout bounds what a reading waits for addresses, which are no evidence.
	ovnAddressesTimeout = 3 * time.Second
)

// errOVNSlow stands for an answer that others wait for too.
var errOVNSlow = errors.New("OVN's northbound database has not answered yet what others asked")

// sharedOVN asks a fabric's OVN databases for all who want to know. Of each database, one question at a time is under way; while it
// does not answer, one asker at a time finds out whether it does again, and all others are told at once that it did not.
type sharedOVN struct {
	client  *ovn.Client
	clock   clock.WithTicker
	version ovnVersion

	southbound shared.Reading[vpc.OVN]
	lastRead   ovnFailure
	lastRaise  ovnFailure
	// lastAddresses is of the northbound database's addresses, which only the one who reads asks for.
	lastAddresses ovnFailure

	mu sync.Mutex
	// next is the increment that will be sent for those who wait by then; busy says that one is under way.
	next *raising
	busy bool
}

// raising is one increment; value and err are valid once done is closed.
type raising struct {
	done  chan struct{}
	value int64
	err   error
}

func newSharedOVN(client *ovn.Client, c clock.WithTicker, version ovnVersion, timeout time.Duration) *sharedOVN {
	s := &sharedOVN{client: client, clock: c, version: version}
	s.lastRead.clock, s.lastRaise.clock, s.lastAddresses.clock = c, c, c
	// The client's own deadline comes first.
	s.southbound.Clock, s.southbound.Timeout, s.southbound.Patience = c, cmp.Or(timeout, ovn.DefaultTimeout)+ovnAddressesTimeout+time.Second, silentAfter
	return s
}

// ovnFailure remembers that a database did not answer.
type ovnFailure struct {
	clock clock.PassiveClock

	mu     sync.Mutex
	err    error
	at     time.Time
	trying bool
}

// enter returns the failure that is not to be looked into again yet, or that somebody looks into already; trying says that whoever
// asks looks into it, and has to leave.
func (f *ovnFailure) enter() (trying bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.err == nil:
		return false, nil
	case f.trying || f.clock.Since(f.at) < failureMemory:
		return false, f.err
	}
	f.trying = true
	return true, nil
}

func (f *ovnFailure) leave(trying bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trying = f.trying && !trying
}

// note takes note of how a question ended. That its asker gave up says nothing.
func (f *ovnFailure) note(ctx context.Context, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil || ctx.Err() == nil {
		f.err, f.at = err, f.clock.Now()
	}
}

func (s *sharedOVN) reading(ctx context.Context, notBefore time.Time) vpc.OVN {
	trying, err := s.lastRead.enter()
	if err != nil {
		return vpc.OVN{Err: err, Started: s.clock.Now()}
	}
	defer s.lastRead.leave(trying)
	reading, started, err := s.southbound.Get(ctx, notBefore, func(ctx context.Context) (vpc.OVN, error) {
		reading, err := s.client.Read(ctx)
		s.lastRead.note(ctx, err)
		if err == nil {
			s.addAddresses(ctx, &reading)
		}
		return reading, err
	})
	if err != nil {
		return vpc.OVN{Err: err, Started: started}
	}
	return reading
}

// addAddresses adds what only the northbound database knows of ports. Where it does not say, they have none.
func (s *sharedOVN) addAddresses(ctx context.Context, reading *vpc.OVN) {
	lacking := func(binding vpc.Binding) bool { return len(binding.Addresses) == 0 }
	if !s.client.HasNorthbound() || !slices.ContainsFunc(reading.Bindings, lacking) {
		return
	}
	trying, err := s.lastAddresses.enter()
	if err != nil {
		return
	}
	defer s.lastAddresses.leave(trying)
	bounded, cancel := context.WithTimeout(ctx, ovnAddressesTimeout)
	defer cancel()
	chosen, err := s.client.Addresses(bounded)
	s.lastAddresses.note(ctx, err)
	for i := range reading.Bindings {
		if binding := &reading.Bindings[i]; lacking(*binding) {
			binding.Addresses = chosen[binding.LogicalPort]
		}
	}
}

// raise sends one increment for all who wait when it is sent. It was asked for before, so its value is of later.
func (s *sharedOVN) raise(ctx context.Context) (int64, error) {
	trying, err := s.lastRaise.enter()
	if err != nil {
		return 0, err
	}
	defer s.lastRaise.leave(trying)
	r := s.join(ctx)
	timer := s.clock.NewTimer(silentAfter)
	defer timer.Stop()
	select {
	case <-r.done:
		return r.value, r.err
	case <-timer.C():
		return 0, errOVNSlow
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for OVN's northbound database: %w", ctx.Err())
	}
}

// join takes part in the next increment, and sees to it that it is sent.
func (s *sharedOVN) join(ctx context.Context) *raising {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		s.next = &raising{done: make(chan struct{})}
	}
	if !s.busy {
		s.busy = true
		go s.send(context.WithoutCancel(ctx))
	}
	return s.next
}

// send sends increments until nobody waits for one. Each ends with the client's deadline, or when that is closed.
func (s *sharedOVN) send(ctx context.Context) {
	for {
		s.mu.Lock()
		r := s.next
		s.next, s.busy = nil, r != nil
		s.mu.Unlock()
		if r == nil {
			return
		}
		r.value, r.err = s.client.Raise(ctx)
		s.lastRaise.note(ctx, r.err)
		close(r.done)
	}
}

// probe asks the databases whether they answer; the northbound one where it is named.
func (s *sharedOVN) probe(ctx context.Context, northbound bool) map[string]error {
	answers := map[string]error{ovn.Southbound: s.reading(ctx, s.clock.Now()).Err}
	if northbound {
		ctx, cancel := context.WithTimeout(ctx, ovnProbeTimeout)
		defer cancel()
		answers[ovn.Northbound] = s.client.Probe(ctx)
	}
	return answers
}
