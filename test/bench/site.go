// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const (
	account    = "capi"
	accountKey = "consumer:token:secret"

	headerTimeout = 10 * time.Second
)

// site is one MAAS region with its servers; an identity, a source and a cluster are named after it.
type site struct {
	name    string
	servers int
	// allocates is how many the identity permits at once; 0 is the default.
	allocates int32
	region    *maassim.Region
	timing    maassim.Timing
	calls     *ledger
	// base URL without a slash at the end.
	base string

	mu      sync.Mutex
	effects []maassim.Effect
}

// newSite racks the servers of a region that is not served yet.
func newSite(name string, servers int, timing maassim.Timing) (*site, error) {
	s := &site{name: name, servers: servers, timing: timing, calls: &ledger{}}
	s.region = maassim.New(maassim.Options{Timing: timing})
	s.region.AddUser(account, accountKey, false)
	for i := range servers {
		if err := s.region.AddMachine(maassim.Machine{
			SystemID: s.systemID(i), Devices: []maassim.Device{{VendorID: "15b3", ProductID: "a2dc"}},
		}); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *site) systemID(i int) string { return fmt.Sprintf("%s%04d", s.name, i) }

func (s *site) endpoint() string { return s.base + "/MAAS" }

// serve runs the region on loopback within group until ctx ends.
func (s *site) serve(ctx context.Context, group *errgroup.Group) error {
	var listening net.ListenConfig
	listener, err := listening.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("serve region %s: %w", s.name, err)
	}
	s.base = "http://" + listener.Addr().String()
	server := &http.Server{
		Handler: s.calls.recording(s.region.Handler()), ReadHeaderTimeout: headerTimeout,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	group.Go(func() error { return s.region.Run(ctx) })
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve region %s: %w", s.name, err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	return nil
}

// journal returns all effects so far.
func (s *site) journal() []maassim.Effect {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.effects = append(s.effects, s.region.JournalSince(len(s.effects))...)
	return s.effects
}

// effected returns when an operation had its first effect, by claim token.
func (s *site) effected(operation string) map[string]time.Time {
	at := map[string]time.Time{}
	for _, e := range s.journal() {
		if _, known := at[e.Claim]; e.Operation == operation && !known {
			at[e.Claim] = e.Time
		}
	}
	return at
}

// endDeployment lets a server's installation end now.
func (s *site) endDeployment(ctx context.Context, systemID string) error {
	form := url.Values{"system_id": {systemID}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.base+"/driver/deployed", strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("end the deployment of %s: %w", systemID, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusNoContent {
		return fmt.Errorf("end the deployment of %s: %s", systemID, response.Status)
	}
	return nil
}
