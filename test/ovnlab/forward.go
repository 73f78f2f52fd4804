// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
)

// forwarder is the only way from the DPUs' management network to the southbound database: it listens there and connects on
// loopback here, and knows nothing of what it carries, TLS or not.
type forwarder struct {
	listener net.Listener
	target   string
	cancel   context.CancelFunc
	group    sync.WaitGroup
}

func startForwarder(ctx context.Context, namespace string, listen netip.AddrPort, target string) (*forwarder, error) {
	f := &forwarder{target: target}
	err := inNamespace(namespace, func() error {
		var config net.ListenConfig
		var err error
		f.listener, err = config.Listen(ctx, "tcp", listen.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f.cancel = cancel
	f.group.Go(func() { f.serve(running) })
	return f, nil
}

func (f *forwarder) serve(ctx context.Context) {
	for {
		conn, err := f.listener.Accept()
		if err != nil {
			return // closed
		}
		f.group.Go(func() { carry(ctx, conn, "tcp", f.target) })
	}
}

// carry copies both ways between a client and the server at an address, until either side ends.
func carry(ctx context.Context, client net.Conn, network, address string) {
	var dialer net.Dialer
	server, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		_ = client.Close() // as a server that does not run
		return
	}
	both := func() { _, _ = client.Close(), server.Close() }
	stop := context.AfterFunc(ctx, both)
	defer stop()
	var group sync.WaitGroup
	for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
		group.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			both()
		})
	}
	group.Wait()
}

func (f *forwarder) close() error {
	err := f.listener.Close()
	f.cancel()
	f.group.Wait()
	return err
}
