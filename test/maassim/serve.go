// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

const readHeaderTimeout = 10 * time.Second

// Serve runs the region ([Region.Run]) and serves its [Region.Handler] on a free port of loopback, over TLS if config is
// not nil, until ctx ends. The API is below /MAAS of the returned base URL, which ends in no slash. Whoever calls ends ctx
// and then wait, which returns once both have ended, with nil if they did because of ctx.
func (r *Region) Serve(ctx context.Context, config *tls.Config) (base string, wait func() error, err error) {
	var listening net.ListenConfig
	listener, err := listening.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("serve the region: %w", err)
	}
	base = "http://" + listener.Addr().String()
	if config != nil {
		base = "https://" + listener.Addr().String()
		listener = tls.NewListener(listener, config)
	}
	group, ctx := errgroup.WithContext(ctx)
	server := &http.Server{
		Handler: r.Handler(), ReadHeaderTimeout: readHeaderTimeout, BaseContext: func(net.Listener) context.Context { return ctx },
	}
	group.Go(func() error { return r.Run(ctx) })
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve the region: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	return base, group.Wait, nil
}
