// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/frames"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/ovnlab"
)

// wire is what probes are sent and captured with.
type wire interface {
	Send(ctx context.Context, dpu, port string, frame []byte) error
	Received(dpu, port string) ([]ovnlab.Frame, error)
}

// arrival is a probe that came out at a server.
type arrival struct {
	at     time.Time
	marker frames.Marker
	to     *server
}

// other is a captured frame that is no probe, by its source address.
type other struct {
	source string
	to     *server
}

// traffic sends probes and remembers which arrived where. Its clock is the machine's, for both.
type traffic struct {
	wire wire

	mu       sync.Mutex
	sequence uint32
	sent     []frames.Marker
	targets  map[uint32]*server // of each sequence number
	senders  map[uint16]*server
	arrived  []arrival
	// others are captured frames that are no probes: what hosts and OVN have to say by themselves.
	others []other
}

func newTraffic(w wire) *traffic {
	return &traffic{wire: w, targets: map[uint32]*server{}, senders: map[uint16]*server{}}
}

// send sends one probe of a kind from a server, aimed at another and in the name of a third.
func (t *traffic) send(ctx context.Context, kind frames.Kind, from, to, as *server) (frames.Marker, error) {
	t.mu.Lock()
	t.sequence++
	marker := frames.Marker{Kind: kind, Sender: from.number, Sequence: t.sequence, Sent: time.Now()}
	t.mu.Unlock()
	frame, err := frames.Build(marker, frames.Shot{From: from.station, To: to.station, As: as.station})
	if err != nil {
		return marker, err
	}
	if err := t.wire.Send(ctx, from.dpu, hostPort, frame); err != nil && !dying(err) {
		return marker, fmt.Errorf("send a %s frame from %s to %s: %w", kind, from.name, to.name, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent = append(t.sent, marker)
	t.targets[marker.Sequence], t.senders[from.number] = to, from
	return marker, nil
}

// dying reports whether a switch ended while it was handed a frame, which is lost then, as on a wire.
func dying(err error) bool {
	for _, sign := range []error{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, sign) {
			return true
		}
	}
	return false
}

// collect takes what arrived at the servers since it was last asked.
func (t *traffic) collect(servers ...*server) error {
	for _, sv := range servers {
		captured, err := t.wire.Received(sv.dpu, hostPort)
		if err != nil {
			return fmt.Errorf("frames of %s: %w", sv.name, err)
		}
		t.mu.Lock()
		for _, frame := range captured {
			if marker, ok := frames.Read(frame.Data); ok {
				t.arrived = append(t.arrived, arrival{at: frame.At, marker: marker, to: sv})
			} else if len(frame.Data) >= 12 {
				t.others = append(t.others, other{source: net.HardwareAddr(frame.Data[6:12]).String(), to: sv})
			}
		}
		t.mu.Unlock()
	}
	return nil
}

// arrivals are those that match, in the order they were collected.
func (t *traffic) arrivals(match func(arrival) bool) (out []arrival) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range t.arrived {
		if match(a) {
			out = append(out, a)
		}
	}
	return out
}

// foreign are the frames, other than probes, that came out at a server and bear the address of another VPC's.
func (t *traffic) foreign(servers []*server) (out []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range t.others {
		for _, sv := range servers {
			if sv.tenant != o.to.tenant && sv.station.MAC.String() == o.source {
				out = append(out, sv.name+" to "+o.to.name)
			}
		}
	}
	return out
}

// sender is the server with a number, for those that have sent; t.mu is held.
func (t *traffic) sender(number uint16) *server { return t.senders[number] }

// count is how many probes were sent.
func (t *traffic) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.sent)
}

// settle sends probes between two servers that talk to each other until one arrives that was sent after everything before: by
// then what was on its way has arrived, too, or never will.
func (t *traffic) settle(ctx context.Context, pairs ...[2]*server) error {
	for _, pair := range pairs {
		ctx, cancel := context.WithTimeout(ctx, patience)
		err := t.reach(ctx, pair[0], pair[1])
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// reach sends a unicast every few milliseconds until one of them arrives.
func (t *traffic) reach(ctx context.Context, from, to *server) error {
	ticker := time.NewTicker(probeEvery)
	defer ticker.Stop()
	begun := map[uint32]bool{}
	for {
		marker, err := t.send(ctx, frames.Unicast, from, to, from)
		if err != nil {
			return err
		}
		begun[marker.Sequence] = true
		select {
		case <-ctx.Done():
			return fmt.Errorf("no frame of %s reaches %s: %w", from.name, to.name, ctx.Err())
		case <-ticker.C:
		}
		if err := t.collect(to); err != nil {
			return err
		}
		if len(t.arrivals(func(a arrival) bool { return a.to == to && begun[a.marker.Sequence] })) > 0 {
			return nil
		}
	}
}

// probeEvery is how often each of the probing servers sends; a machine too slow for it sends less often, which is counted.
const probeEvery = 5 * time.Millisecond

// route is a sender and whom it aims at.
type route struct{ from, to *server }

// probe sends over all routes, unicast and broadcast in turn, and collects at the servers, until stop is called, which returns
// what went wrong.
func (t *traffic) probe(ctx context.Context, routes []route, at ...*server) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	every := func(period time.Duration, do func(n int) error) func() error {
		return func() error {
			ticker := time.NewTicker(period)
			defer ticker.Stop()
			for n := 0; ; n++ {
				select {
				case <-ctx.Done():
					return nil
				case <-ticker.C:
				}
				if err := do(n); err != nil && ctx.Err() == nil {
					return err
				}
			}
		}
	}
	for _, r := range routes {
		group.Go(every(probeEvery, func(n int) error {
			kind := frames.Unicast
			if n%2 == 1 {
				kind = frames.Broadcast
			}
			_, err := t.send(ctx, kind, r.from, r.to, r.from)
			return err
		}))
	}
	group.Go(every(100*time.Millisecond, func(int) error { return t.collect(at...) }))
	return func() error {
		cancel()
		return group.Wait()
	}
}
