// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/checker"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/checker/maasfacts"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/pki"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

// authority is a certificate authority and what it has issued to a MAAS.
type authority struct {
	ca          *pki.CA
	certificate tls.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	ca, err := pki.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	issued, err := ca.Issue(pki.Request{CommonName: "maas", Server: true}.Loopback())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(issued.CertPEM, issued.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{ca: ca, certificate: pair}
}

func (a *authority) bundle() []byte {
	if a == nil {
		return nil
	}
	return a.ca.CertPEM
}

// site is a MAAS region behind a gate.
type site struct {
	region *maassim.Region
	gate   *gate
	// address is MAAS' root.
	address   string
	server    *http.Server
	authority atomic.Pointer[authority]
	// prefix of its servers' system IDs.
	prefix string

	mu          sync.Mutex
	connections map[net.Conn]bool
}

// newSite racks the servers of a region and serves it until the test ends.
func newSite(t *testing.T, o options, prefix string) *site {
	t.Helper()
	timing := maassim.Timing{
		PowerOff: 5 * time.Millisecond, PowerOn: 5 * time.Millisecond, Deploy: 20 * time.Millisecond, Erase: 10 * time.Millisecond,
		Call: -1, Allocate: -1, PerMachineList: -1,
	}
	if o.timing != nil {
		o.timing(&timing)
	}
	settings := maassim.Options{Timing: timing}
	if o.site != nil {
		o.site(&settings)
	}
	s := &site{region: maassim.New(settings), prefix: prefix, connections: map[net.Conn]bool{}}
	s.authority.Store(o.tls)
	for _, name := range []string{account, other, "stranger"} {
		s.region.AddUser(name, keyOf(name), false)
	}
	s.region.AddUser("admin", keyOf("admin"), true)
	for i := range o.servers {
		server := maassim.Machine{SystemID: s.id(i)}
		if !o.plain {
			server.Devices = []maassim.Device{{VendorID: maas.VendorMellanox, ProductID: maas.ProductBlueField3}}
		}
		if err := s.region.AddMachine(server); err != nil {
			t.Fatal(err)
		}
	}
	s.gate = newGate(t.Context(), s.region.Handler())
	s.listen(t)
	return s
}

// listen runs the region and serves its gate until the test ends.
func (s *site) listen(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	scheme := "http"
	if s.authority.Load() != nil {
		scheme = "https"
		listener = tls.NewListener(listener, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &s.authority.Load().certificate, nil
		}})
	}
	s.address = fmt.Sprintf("%s://%s/MAAS", scheme, listener.Addr())
	s.server = &http.Server{
		Handler: s.gate, ReadHeaderTimeout: patience, ConnState: s.connected,
		ErrorLog: log.New(io.Discard, "", 0), // A handshake that is refused is wanted here.
	}
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.region.Run(ctx); err != nil && ctx.Err() == nil {
			t.Errorf("region: %v", err)
		}
	})
	running.Go(func() {
		if err := s.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve the region: %v", err)
		}
	})
	t.Cleanup(func() {
		if err := s.server.Close(); err != nil {
			t.Errorf("close the region: %v", err)
		}
		running.Wait()
		s.gate.late.Wait()
	})
}

// connected notes who is connected.
func (s *site) connected(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state == http.StateClosed || state == http.StateHijacked {
		delete(s.connections, c)
		return
	}
	s.connections[c] = true
}

// certify serves with a certificate of another authority from now on; whoever is connected has to connect anew.
func (s *site) certify(a *authority) {
	s.authority.Store(a)
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.connections {
		_ = c.Close() // One that is closed already is fine.
	}
}

func serverID(i int) string { return fmt.Sprintf("srv%03d", i) }

func (s *site) id(i int) string { return fmt.Sprintf("%s%03d", s.prefix, i) }

// everywhere is the MAAS of all sites of a world as the checker sees it.
type everywhere struct{ world *world }

// Machines implements checker.MAAS.
func (e everywhere) Machines() []checker.Machine {
	var machines []checker.Machine
	for _, s := range e.world.sites {
		machines = append(machines, maasfacts.Of(s.region).Machines()...)
	}
	return machines
}

// Effects implements checker.MAAS.
func (e everywhere) Effects() []checker.Effect {
	effects := []checker.Effect{}
	for _, s := range e.world.sites {
		effects = append(effects, maasfacts.Of(s.region).Effects()...)
	}
	slices.SortStableFunc(effects, func(a, b checker.Effect) int { return a.Time.Compare(b.Time) })
	return effects
}

// addSite gives the world a further region, with an identity of its own. Before the wing starts.
func (w *world) addSite(identity string, s *site, source string) {
	w.Helper()
	w.Expect(w.living()).To(BeEmpty())
	w.unchecked(func() {
		w.sites = append(w.sites, s)
		w.inventory(s)
	})
	w.addIdentity(identity, s, source)
	for _, m := range s.region.Machines() {
		w.create(dpuServer(source, m.SystemID))
	}
}
