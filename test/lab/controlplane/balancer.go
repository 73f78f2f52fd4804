// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/proc"
)

const (
	healthInterval = time.Second
	// failuresUntilDown keeps a busy machine's slow answer from looking like a dead server.
	failuresUntilDown = 3
	dialTimeout       = 2 * time.Second
)

// Balancer is the operator's TCP load balancer before a cluster's API servers. It asks each for its health, passes
// connections to healthy ones in turn, and cuts those of a server that is down while another one is up. Where none is
// healthy, any that accepts a connection gets it.
type Balancer struct {
	listener net.Listener
	life     context.Context
	end      context.CancelFunc
	busy     sync.WaitGroup

	mu       sync.Mutex
	backends []*backend
	next     int
}

type backend struct {
	name, address string
	healthy       func(context.Context) error
	stop          context.CancelFunc
	down          bool
	connections   map[net.Conn]struct{}
}

// NewBalancer listens on a port of 127.0.0.1; nobody is served before Add. The error wraps proc.ErrAddressInUse if somebody
// else listens there.
func NewBalancer(port int32) (*Balancer, error) {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))
	var config net.ListenConfig // binding a socket never blocks, so there is nothing to cancel
	listener, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("load balancer at %s: %w", address, errors.Join(err, proc.ErrAddressInUse))
	}
	b := &Balancer{listener: listener}
	b.life, b.end = context.WithCancel(context.Background())
	b.busy.Go(b.accept)
	return b, nil
}

// Add puts a server into rotation, as healthy. The name must not be in rotation.
func (b *Balancer) Add(name string, server *RunningAPIServer) error {
	probe, err := clientFor(server.CA.CertPEM, server.admin)
	if err != nil {
		return err
	}
	watching, stop := context.WithCancel(b.life)
	added := &backend{
		name: name, address: net.JoinHostPort("127.0.0.1", strconv.Itoa(int(server.Port))), stop: stop, connections: map[net.Conn]struct{}{},
		healthy: func(ctx context.Context) error { return get(ctx, probe, server.url()+"/readyz") },
	}
	b.mu.Lock()
	b.backends = append(b.backends, added)
	b.mu.Unlock()
	b.busy.Go(func() { b.watch(watching, added) })
	return nil
}

// Remove takes a server out and cuts its connections.
func (b *Balancer) Remove(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	kept := b.backends[:0:0]
	for _, candidate := range b.backends {
		if candidate.name != name {
			kept = append(kept, candidate)
			continue
		}
		candidate.stop()
		candidate.cut()
	}
	b.backends = kept
}

// Close ends all connections and the listening.
func (b *Balancer) Close() error {
	b.end()
	err := b.listener.Close()
	b.mu.Lock()
	for _, candidate := range b.backends {
		candidate.cut()
	}
	b.backends = nil
	b.mu.Unlock()
	b.busy.Wait()
	return err
}

// cut closes the connections; the mutex is held. Whoever copies forgets them.
func (e *backend) cut() {
	for connection := range e.connections {
		_ = connection.Close()
	}
}

func (b *Balancer) watch(ctx context.Context, watched *backend) {
	ticker := time.NewTicker(healthInterval)
	defer ticker.Stop()
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if watched.healthy(ctx) == nil {
			failures = 0
		} else {
			failures++
		}
		b.judge(watched, failures)
	}
}

func (b *Balancer) judge(watched *backend, failures int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	watched.down = failures >= failuresUntilDown
	if !watched.down {
		return
	}
	for _, other := range b.backends {
		if !other.down {
			watched.cut()
			return
		}
	}
}

func (b *Balancer) accept() {
	for {
		connection, err := b.listener.Accept()
		if err != nil {
			return // closed: nothing else ends a loopback listener
		}
		b.busy.Go(func() { b.serve(connection) })
	}
}

// candidates are the backends in the order in which to try them: healthy ones first, another one first each time.
func (b *Balancer) candidates() []*backend {
	b.mu.Lock()
	defer b.mu.Unlock()
	var up, down []*backend
	for i := range b.backends {
		candidate := b.backends[(b.next+i)%len(b.backends)]
		if candidate.down {
			down = append(down, candidate)
		} else {
			up = append(up, candidate)
		}
	}
	b.next++
	return append(up, down...)
}

func (b *Balancer) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	dialer := net.Dialer{Timeout: dialTimeout}
	for _, candidate := range b.candidates() {
		server, err := dialer.DialContext(b.life, "tcp", candidate.address)
		if err != nil {
			continue
		}
		if b.connected(candidate, client, server) {
			relay(client, server)
			b.disconnected(candidate, client, server)
		}
		_ = server.Close()
		return
	}
}

// connected records the connection, unless the backend was taken out meanwhile.
func (b *Balancer) connected(to *backend, ends ...net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, candidate := range b.backends {
		if candidate != to {
			continue
		}
		for _, end := range ends {
			to.connections[end] = struct{}{}
		}
		return true
	}
	return false
}

func (b *Balancer) disconnected(from *backend, ends ...net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, end := range ends {
		delete(from.connections, end)
	}
}

// relay copies both ways until either side ends: neither HTTP nor TLS is of use half closed.
func relay(a, b net.Conn) {
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			_ = way[0].Close()
			_ = way[1].Close()
		})
	}
	both.Wait()
}
