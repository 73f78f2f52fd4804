// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/go-logr/logr"
	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/pki"
)

// standIn is a lab without OVN. Its databases answer as OVN's do; what northd and the DPUs' ovn-controllers would write there,
// it writes itself, a moment after the rows it follows from. Nothing in it carries a packet, so that all it can show is what
// OVN's databases say when OVN works as it should, or hangs.
type standIn struct {
	log     logr.Logger
	nb, sb  *standInDatabase
	keys    *TLS
	changed chan struct{}
	stop    context.CancelFunc
	stopped chan struct{}
	dir     string

	mu         sync.Mutex
	northdHung bool
	cards      map[string]*standInCard
}

// standInCard is a DPU.
type standInCard struct {
	ports   []string
	plugged map[string]string // port → iface-id
	// off is without power, hung without a controller that does anything, dead without a controller at all.
	off, hung, dead bool
}

// able says whether the card's ovn-controller does its work.
func (c *standInCard) able() bool { return !c.off && !c.hung && !c.dead }

// startStandIn starts the level StandIn.
func startStandIn(ctx context.Context, options Options) (plane, error) {
	// The socket of an options.Dir may be too long a path, and nothing is worth keeping.
	dir, err := os.MkdirTemp("", "ovn-")
	if err != nil {
		return nil, err
	}
	s := &standIn{log: options.Log, dir: dir, changed: make(chan struct{}, 1), cards: map[string]*standInCard{}, stopped: make(chan struct{})}
	if s.log.GetSink() == nil {
		s.log = logr.Discard()
	}
	if err := s.start(ctx, options.TLS); err != nil {
		return nil, errors.Join(err, s.closeDatabases())
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	go s.follow(running)
	return s, nil
}

func (s *standIn) start(ctx context.Context, secure bool) error {
	var config *tls.Config
	var err error
	if secure {
		if s.keys, config, err = standInKeys(); err != nil {
			return err
		}
	}
	for _, d := range []struct {
		name, global string
		database     **standInDatabase
	}{{northbound, "NB_Global", &s.nb}, {southbound, "SB_Global", &s.sb}} {
		if *d.database, err = startStandInDatabase(ctx, d.name, s.dir, s.changed, config); err != nil {
			return err
		}
		err := (*d.database).transact([]ovsdb.Operation{{Op: ovsdb.OperationInsert, Table: d.global, Row: ovsdb.Row{"nb_cfg": 0}}})
		if err != nil {
			return err
		}
	}
	return nil
}

func standInKeys() (*TLS, *tls.Config, error) {
	ca, err := pki.NewCA("ovn")
	if err != nil {
		return nil, nil, err
	}
	server, err := ca.Issue(pki.Request{CommonName: serverKey, Server: true}.Loopback())
	if err != nil {
		return nil, nil, err
	}
	client, err := ca.Issue(pki.Request{CommonName: clientKey, Client: true})
	if err != nil {
		return nil, nil, err
	}
	certificate, err := tls.X509KeyPair(server.CertPEM, server.KeyPEM)
	if err != nil {
		return nil, nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.CertPEM)
	return &TLS{CA: ca.CertPEM, Certificate: client.CertPEM, Key: client.KeyPEM}, &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert,
	}, nil
}

func (s *standIn) northbound() string { return s.address(s.nb) }
func (s *standIn) southbound() string { return s.address(s.sb) }
func (s *standIn) tls() *TLS          { return s.keys }

func (s *standIn) address(d *standInDatabase) string {
	return map[bool]string{true: "ssl:", false: "tcp:"}[s.keys != nil] + d.front.listener.Addr().String()
}

// wake has the databases looked at.
func (s *standIn) wake() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// follow keeps the databases as OVN would, until ctx ends.
func (s *standIn) follow(ctx context.Context) {
	defer close(s.stopped)
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		}
		if err := s.pass(); err != nil {
			s.log.Error(err, "stand-in for OVN")
		}
	}
}

func (s *standIn) close(context.Context) error {
	s.stop()
	<-s.stopped
	return s.closeDatabases()
}

func (s *standIn) closeDatabases() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, d := range []**standInDatabase{&s.nb, &s.sb} {
		if *d != nil {
			errs = append(errs, (*d).close())
		}
		*d = nil
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// change runs what changes a card, and lets the databases follow.
func (s *standIn) change(name string, change func(*standInCard) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	card, ok := s.cards[name]
	if !ok {
		return fmt.Errorf("the lab has no DPU %q", name)
	}
	if err := change(card); err != nil {
		return fmt.Errorf("DPU %s: %w", name, err)
	}
	s.wake()
	return nil
}

func (s *standIn) port(name, port string, change func(*standInCard) error) error {
	return s.change(name, func(c *standInCard) error {
		switch {
		case !slices.Contains(c.ports, port):
			return fmt.Errorf("it has no host port %q", port)
		case c.off:
			return ErrDown
		}
		return change(c)
	})
}

func (s *standIn) plug(_ context.Context, dpu, port, ifaceID string) error {
	return s.port(dpu, port, func(c *standInCard) error {
		if ifaceID == "" {
			return fmt.Errorf("port %s: nothing to plug: no iface-id", port)
		}
		c.plugged[port] = ifaceID
		return nil
	})
}

func (s *standIn) unplug(_ context.Context, dpu, port string) error {
	return s.port(dpu, port, func(c *standInCard) error {
		delete(c.plugged, port)
		return nil
	})
}

func (s *standIn) stopDPU(_ context.Context, name string) error {
	return s.change(name, func(c *standInCard) error { c.off = true; return nil })
}

func (s *standIn) startDPU(_ context.Context, name string) error {
	err := s.change(name, func(c *standInCard) error { c.off, c.hung, c.dead = false, false, false; return nil })
	return errors.Join(err, s.pass())
}

func (s *standIn) hangController(dpu string) (func() error, error) {
	err := s.change(dpu, func(c *standInCard) error {
		if c.off || c.dead {
			return errors.New("its ovn-controller does not run")
		}
		c.hung = true
		return nil
	})
	return func() error { return s.change(dpu, func(c *standInCard) error { c.hung = false; return nil }) }, err
}

func (s *standIn) killController(_ context.Context, dpu string) error {
	return s.change(dpu, func(c *standInCard) error { c.dead = true; return nil })
}

// killSwitch changes nothing: OVN's databases do not say so, and there are no packets.
func (s *standIn) killSwitch(_ context.Context, dpu string) error {
	return s.change(dpu, func(*standInCard) error { return nil })
}

func (s *standIn) hangNorthd() (func() error, error) {
	set := func(hung bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.northdHung = hung
		s.wake()
	}
	set(true)
	return func() error { set(false); return nil }, nil
}

func (s *standIn) restartSouthbound(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sb.restart(ctx)
}

func (s *standIn) cutManagement(context.Context, string) (func(context.Context) error, error) {
	return nil, ErrNoFrames
}
func (s *standIn) send(context.Context, string, string, []byte) error     { return ErrNoFrames }
func (s *standIn) received(string, string) ([]Frame, error)               { return nil, ErrNoFrames }
func (s *standIn) ping(context.Context, string, string, netip.Addr) error { return ErrNoFrames }
func (s *standIn) processes() []Process                                   { return nil }

func (s *standIn) lease(context.Context, string, string) (netip.Prefix, error) {
	return netip.Prefix{}, ErrNoFrames
}
