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
)

// TestChurn moves one server red, pool, blue, pool through the provider, again and again, while a server of red, one of blue and
// the moving one itself send every few milliseconds. Whatever the grade, the server may exchange frames with a tenant only from
// the moment an attachment to it is asked for until its detachment is said to be proven; Barrier must keep that promise, and of
// the others the window is measured.
//
// All instants are of this machine's one clock: the captured frames', and those of the statements, which are taken before the
// provider sends them. There is no margin to their disadvantage.
func TestChurn(t *testing.T) {
	s, c := onSwitches(t)
	var measured figures
	for _, grade := range chosen(*grades) {
		t.Run(string(grade), func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(s.prove(t.Context(), grade, c.staying())).To(Succeed())
			moves, found, err := s.churn(t.Context(), c, *rounds)
			g.Expect(err).NotTo(HaveOccurred())
			for _, m := range moves {
				g.Expect(m.grade).To(Equal(grade), "%s of %s", m.state, m.tenant)
			}
			measured.add(grade, moves, found)
			t.Logf("%d rounds: %s", *rounds, found)
			g.Expect(found.between).To(BeZero(), "frames between red's and blue's own servers")
			g.Expect(found.before).To(BeZero(), "frames before any attachment was asked for")
			g.Expect(found.probes).To(BeNumerically(">=", 100*(*rounds)), "probed all the while")
			g.Expect(found.arrived).To(BeNumerically(">", 0))
			if grade == infrav1.EvidenceBarrier {
				g.Expect(found.late).To(BeZero(), "frames after detachment was said to be proven")
			}
		})
	}
	floor, err := s.floor(t.Context(), c, floorRepeats)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, fmt.Sprintf("%d rounds red, pool, blue, pool for each grade of evidence", *rounds), measured.table(floor))
}

// churn moves the server so many times through both VPCs, and judges what was captured meanwhile. It ends in the pool.
func (s *site) churn(ctx context.Context, c cast, rounds int) (moves []move, f finding, err error) {
	it := &itinerary{mover: c.mover}
	t := newTraffic(s.ovn)
	if err := t.collect(c.all()...); err != nil { // what is left of others
		return nil, f, err
	}
	t.arrived = nil
	stop := s.probeMover(ctx, t, c)
	err = func() error {
		for range rounds {
			for _, tenant := range tenants {
				ways, err := s.visit(ctx, t, it, tenant)
				moves = append(moves, ways...)
				if err != nil {
					return err
				}
			}
		}
		return nil
	}()
	if err = errors.Join(err, s.observe(ctx, t, c), stop()); err != nil {
		return moves, f, err
	}
	if err := t.collect(c.all()...); err != nil {
		return moves, f, err
	}
	f = it.judge(t, c.staying())
	return moves, f, nil
}

// probeMover sends between the moving server and one of each tenant, both ways, and to everybody.
func (s *site) probeMover(ctx context.Context, t *traffic, c cast) (stop func() error) {
	return t.probe(ctx, []route{
		{c.red[0], c.mover}, {c.blue[0], c.mover}, {c.mover, c.red[0]}, {c.mover, c.blue[0]},
	}, c.all()...)
}

// visit has the server stay in a tenant's VPC until some probes were sent there, and leave it.
func (s *site) visit(ctx context.Context, t *traffic, it *itinerary, tenant string) (ways []move, err error) {
	in, err := s.attach(ctx, it.mover, tenant)
	it.stays = append(it.stays, stay{tenant: tenant, asked: in.asked, attached: in.declared})
	this := &it.stays[len(it.stays)-1]
	if err != nil {
		return ways, err
	}
	ways = append(ways, in)
	if err := s.sent(ctx, t, afterwards); err != nil {
		return ways, err
	}
	this.leaving = time.Now()
	out, err := s.detach(ctx, it.mover)
	if err != nil {
		return ways, err
	}
	this.detached = out.declared
	return append(ways, out), nil
}

// afterwards is how many probes are sent after an event before it is judged, so that what it did not prevent can be seen.
const afterwards = 60

// observe lets so many probes be sent, and waits until frames sent still later have arrived.
func (s *site) observe(ctx context.Context, t *traffic, c cast) error {
	if err := s.sent(ctx, t, afterwards); err != nil {
		return err
	}
	return t.settle(ctx, [2]*server{c.red[0], c.red[1]}, [2]*server{c.blue[0], c.blue[1]})
}
