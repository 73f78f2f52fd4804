// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package bmcsim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Card is one card whose BMC is simulated.
type Card struct {
	// SerialNumber of the card, and MAC of its first physical function.
	SerialNumber, MAC string
	// Username and Password of the only account.
	Username, Password string
	// Listen is the IPv4 address, with a port or 0, that the BMC listens at; 127.0.0.1:0 when not valid.
	Listen netip.AddrPort
}

// Site is a number of BMCs whose certificates come from one CA.
type Site struct {
	ca *authority

	mu                sync.Mutex
	bmcs              []*BMC
	inFlight, most    int
	sessionsPerCard   int
	connections, peak int
}

// maxSessions is how many sessions a BMC gives out; unsure: the real number depends on the firmware.
const maxSessions = 8

// New makes a site without BMCs.
func New() (*Site, error) {
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	return &Site{ca: ca, sessionsPerCard: maxSessions}, nil
}

// CA returns the PEM certificate that the certificates of the site's BMCs come from.
func (s *Site) CA() []byte { return s.ca.pem }

// Add starts the BMC of a card, which is as zero trust wants it.
func (s *Site) Add(card Card) (*BMC, error) {
	listen := card.Listen
	if !listen.IsValid() {
		listen = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)
	}
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp4", listen.String())
	if err != nil {
		return nil, fmt.Errorf("bmcsim: BMC of %s: %w", card.SerialNumber, err)
	}
	address, err := netip.ParseAddrPort(listener.Addr().String())
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	b := &BMC{site: s, address: address, state: goodState(card), sessions: map[string]string{}, closed: make(chan struct{})}
	if err := b.SetCertificate(Certificate{}); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	b.server = &http.Server{
		Handler: b, TLSConfig: b.tlsConfig(), ReadHeaderTimeout: time.Minute, ConnState: s.count,
		ErrorLog: log.New(io.Discard, "", 0), // Clients that refuse a certificate are not worth a word.
	}
	go func() {
		defer close(b.closed)
		_ = b.server.ServeTLS(listener, "", "")
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bmcs = append(s.bmcs, b)
	return b, nil
}

// Close stops all BMCs.
func (s *Site) Close() error {
	s.mu.Lock()
	bmcs := s.bmcs
	s.bmcs = nil
	s.mu.Unlock()
	var errs []error
	for _, b := range bmcs {
		errs = append(errs, b.Close())
	}
	return errors.Join(errs...)
}

// MostInFlight is the greatest number of requests, and of connections, there have been at once over all BMCs.
func (s *Site) MostInFlight() (requests, connections int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.most, s.peak
}

func (s *Site) enter() (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight++
	s.most = max(s.most, s.inFlight)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.inFlight--
	}
}

func (s *Site) count(_ net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew:
		s.connections++
		s.peak = max(s.peak, s.connections)
	case http.StateClosed, http.StateHijacked:
		s.connections--
	}
}
