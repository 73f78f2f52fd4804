// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
)

// fault is something that breaks under the provider while a server moves.
type fault struct {
	name string
	// inject breaks it; clear mends it, and may be called once.
	inject func(ctx context.Context, s *site, c cast) (clear func(context.Context) error, err error)
}

// faults are those that no object of DPF's tells of.
var faults = []fault{
	{"the server's ovn-controller hangs", func(_ context.Context, s *site, c cast) (func(context.Context) error, error) {
		resume, err := s.ovn.HangController(c.mover.dpu)
		return func(context.Context) error { return resume() }, err
	}},
	{"it hangs, and DPF's agent leaves the port plugged", func(_ context.Context, s *site, c cast) (func(context.Context) error, error) {
		remember := s.lab.DPF.Inject(dpfsim.Fault{Kind: dpfsim.AgentForgetsPort, Target: c.mover.dpu})
		resume, err := s.ovn.HangController(c.mover.dpu)
		return func(context.Context) error {
			remember()
			return resume()
		}, err
	}},
	{"DPF's agent leaves the port plugged", func(_ context.Context, s *site, c cast) (func(context.Context) error, error) {
		remember := s.lab.DPF.Inject(dpfsim.Fault{Kind: dpfsim.AgentForgetsPort, Target: c.mover.dpu})
		return func(context.Context) error {
			remember()
			return nil
		}, nil
	}},
	{"a peer's ovn-controller hangs", func(_ context.Context, s *site, c cast) (func(context.Context) error, error) {
		resume, err := s.ovn.HangController(c.red[0].dpu)
		return func(context.Context) error { return resume() }, err
	}},
	{"the server's vswitchd is dead", func(ctx context.Context, s *site, c cast) (func(context.Context) error, error) {
		err := s.ovn.KillSwitch(ctx, c.mover.dpu)
		return func(ctx context.Context) error { return s.ovn.StartDPU(ctx, c.mover.dpu) }, err
	}},
	{"northd hangs", func(_ context.Context, s *site, _ cast) (func(context.Context) error, error) {
		resume, err := s.ovn.HangNorthd()
		return func(context.Context) error { return resume() }, err
	}},
	{"northd hangs, and DPF's agent leaves the port plugged", func(_ context.Context, s *site, c cast) (func(context.Context) error, error) {
		remember := s.lab.DPF.Inject(dpfsim.Fault{Kind: dpfsim.AgentForgetsPort, Target: c.mover.dpu})
		resume, err := s.ovn.HangNorthd()
		return func(context.Context) error {
			remember()
			return resume()
		}, err
	}},
	{"the southbound database restarts", func(ctx context.Context, s *site, _ cast) (func(context.Context) error, error) {
		return func(context.Context) error { return nil }, s.ovn.RestartSouthbound(ctx)
	}},
}

// patiently is how many times longer than without a fault the provider may take before it counts as waiting, within limits.
const (
	patiently     = 3
	shortestFault = 2 * time.Second
	longestFault  = 8 * time.Second
)

// longEnough is how long a fault lasts while the provider does not say what was asked.
func (s *site) longEnough(state infrav1.AttachmentState) time.Duration {
	return min(max(patiently*s.usual[state], shortestFault), longestFault)
}

// trial is one move under a fault.
type trial struct {
	fault string
	state infrav1.AttachmentState
	// said is whether the state was said to be proven while the fault lasted, after the time it took; after, otherwise, how long
	// after the fault was mended.
	said        bool
	took, after time.Duration
	// lasted is how long the fault lasted after the state was said to be proven.
	lasted time.Duration
	// wrongly says what the frames said against it; empty if nothing.
	wrongly string
	found   finding
}

// TestChurnUnderFaults moves a server while something is broken that no object of DPF's tells of, for each grade, and says what
// the grade would have said wrongly. Barrier must say nothing wrongly of a detachment.
func TestChurnUnderFaults(t *testing.T) {
	s, c := onSwitches(t)
	rows := map[string]map[infrav1.EvidenceGrade]trial{}
	for _, grade := range chosen(*faulty) {
		t.Run(string(grade), func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(s.prove(t.Context(), grade, c.staying())).To(Succeed())
			for _, f := range faults {
				for _, state := range []infrav1.AttachmentState{infrav1.AttachmentStateAttached, infrav1.AttachmentStateDetached} {
					begun := time.Now()
					tried, err := s.try(t.Context(), c, f, state)
					g.Expect(err).NotTo(HaveOccurred(), "%s, to be %s", f.name, state)
					key := string(state) + ": " + f.name
					if rows[key] == nil {
						rows[key] = map[infrav1.EvidenceGrade]trial{}
					}
					rows[key][grade] = tried
					t.Logf("%s: %s (%s in all)", key, tried, time.Since(begun).Round(100*time.Millisecond))
					g.Expect(tried.found.between).To(BeZero(), key)
					if grade == infrav1.EvidenceBarrier {
						g.Expect(tried.found.late).To(BeZero(), key)
					}
				}
			}
		})
	}
	publish(t, "What each grade of evidence says under a fault", faultTable(rows))
}

// try lets the moving server go into red's VPC, or out of it, under a fault. Before and after it is in the pool.
func (s *site) try(ctx context.Context, c cast, f fault, state infrav1.AttachmentState) (trial, error) {
	r := trial{fault: f.name, state: state}
	t := newTraffic(s.ovn)
	if err := t.collect(c.all()...); err != nil {
		return r, err
	}
	t.arrived = nil
	it := &itinerary{mover: c.mover}
	if state == infrav1.AttachmentStateDetached {
		in, err := s.attach(ctx, c.mover, "red")
		if err != nil {
			return r, err
		}
		it.stays = []stay{{tenant: "red", asked: in.asked, attached: in.declared}}
	}
	stop := s.probeMover(ctx, t, c)
	err := s.tryMove(ctx, t, c, f, it, &r)
	if err = errors.Join(err, stop(), t.collect(c.all()...)); err != nil {
		return r, err
	}
	r.found = it.judge(t, c.staying())
	r.judge()
	return r, nil
}

// tryMove makes the move, mends the fault when the provider has spoken or had time enough, and brings the server to the pool.
func (s *site) tryMove(ctx context.Context, t *traffic, c cast, f fault, it *itinerary, r *trial) error {
	if err := s.observe(ctx, t, c); err != nil {
		return err
	}
	mend, err := f.inject(ctx, s, c)
	if err != nil {
		return fmt.Errorf("inject: %w", err)
	}
	asked, err := s.askFor(ctx, c.mover, r.state, it)
	if err == nil {
		r.said, err = s.saysWithin(ctx, c.mover, r.state, s.longEnough(r.state))
	}
	if err == nil && r.said {
		err = s.sent(ctx, t, afterwards)
	}
	mended := time.Now()
	if err = errors.Join(err, mend(context.WithoutCancel(ctx))); err != nil {
		return err
	}
	m, err := s.proven(ctx, c.mover, r.state, asked)
	if err != nil {
		return err
	}
	this := &it.stays[len(it.stays)-1]
	if r.took, r.after, r.lasted = m.took(), m.declared.Sub(mended), mended.Sub(m.declared); r.state == infrav1.AttachmentStateDetached {
		this.detached = m.declared
		return errors.Join(s.release(ctx, c.mover), s.observe(ctx, t, c))
	}
	this.attached = m.declared
	if err := s.observe(ctx, t, c); err != nil {
		return err
	}
	this.leaving = time.Now()
	out, err := s.detach(ctx, c.mover)
	this.detached = out.declared
	return errors.Join(err, s.observe(ctx, t, c))
}

func (s *site) askFor(ctx context.Context, sv *server, state infrav1.AttachmentState, it *itinerary) (time.Time, error) {
	if state == infrav1.AttachmentStateAttached {
		asked, err := s.ask(ctx, sv, "red")
		it.stays = []stay{{tenant: "red", asked: asked}}
		return asked, err
	}
	asked, err := s.askDetach(ctx, sv)
	it.stays[0].leaving = asked
	return asked, err
}

// saysWithin waits so long for the state to be said to be proven.
func (s *site) saysWithin(ctx context.Context, sv *server, state infrav1.AttachmentState, limit time.Duration) (bool, error) {
	deadline := time.Now().Add(limit)
	said := false
	err := s.until(ctx, "the provider speaks", func(ctx context.Context) (_ bool, err error) {
		said, err = s.says(ctx, sv, state)
		return said || time.Now().After(deadline), err
	})
	return said, err
}

// sent waits until so many more probes are on their way.
func (s *site) sent(ctx context.Context, t *traffic, n int) error {
	until := t.count() + n
	return s.until(ctx, "more probes are sent", func(context.Context) (bool, error) { return t.count() >= until, nil })
}

// judge compares what was said with the frames.
func (r *trial) judge() {
	if r.state == infrav1.AttachmentStateDetached {
		if r.found.late > 0 {
			r.wrongly = fmt.Sprintf("%d frames came later, for %s ms (the fault was mended after %s)", r.found.late, ms(r.found.worst), ms(r.lasted))
		}
		return
	}
	// Attached: probes sent while the fault lasted on and the provider had said so must have arrived.
	if r.said && r.found.whileAttached > 0 && r.found.lost > 0 {
		r.wrongly = fmt.Sprintf("%d of %d probes were lost, for %s ms (the fault was mended after %s)", r.found.lost, r.found.whileAttached, ms(r.found.lastLost), ms(r.lasted))
	}
}
