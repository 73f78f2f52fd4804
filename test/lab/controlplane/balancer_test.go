// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/pki"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/proc"
)

const (
	soon = 2 * time.Minute
	poll = 50 * time.Millisecond
)

// fakeServer answers /readyz and says its name on every other path.
type fakeServer struct {
	*httptest.Server
	running *RunningAPIServer
	sick    atomic.Bool
}

func newFakeServer(g Gomega, ca *pki.CA, name string) *fakeServer {
	identity, err := ca.Issue(pki.Request{CommonName: name, Server: true, Client: true}.Loopback())
	g.Expect(err).NotTo(HaveOccurred())
	pair, err := tls.X509KeyPair(identity.CertPEM, identity.KeyPEM)
	g.Expect(err).NotTo(HaveOccurred())
	f := &fakeServer{}
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" && f.sick.Load() {
			http.Error(w, "etcd is gone", http.StatusInternalServerError)
			return
		}
		_, _ = fmt.Fprintln(w, name)
	}))
	f.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	f.StartTLS()
	_, port, err := net.SplitHostPort(f.Listener.Addr().String())
	g.Expect(err).NotTo(HaveOccurred())
	var number int32
	_, err = fmt.Sscan(port, &number)
	g.Expect(err).NotTo(HaveOccurred())
	f.running = &RunningAPIServer{CA: ca, Port: number, admin: identity}
	return f
}

// caller opens a connection through the balancer and says who answers on it.
type caller struct{ *tls.Conn }

// dialer trusts the servers' CA.
type dialer struct {
	port  int32
	roots *x509.CertPool
}

func newDialer(port int32, ca *pki.CA) dialer {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.CertPEM)
	return dialer{port, roots}
}

func (d dialer) dial() (*caller, error) {
	connection, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", d.port), &tls.Config{RootCAs: d.roots, MinVersion: tls.VersionTLS12})
	if err != nil {
		return nil, err
	}
	return &caller{connection}, nil
}

func (c *caller) ask() (string, error) {
	if err := c.SetDeadline(time.Now().Add(soon)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprint(c, "GET /name HTTP/1.1\r\nHost: any\r\n\r\n"); err != nil {
		return "", err
	}
	reader := bufio.NewReader(c)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	name, err := bufio.NewReader(response.Body).ReadString('\n')
	return strings.TrimSpace(name), err
}

// whoAnswers calls a few times, with a new connection each.
func (d dialer) whoAnswers(g Gomega) map[string]bool {
	names := map[string]bool{}
	for range 4 {
		c, err := d.dial()
		g.Expect(err).NotTo(HaveOccurred())
		name, err := c.ask()
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(c.Close()).To(Succeed())
		names[name] = true
	}
	return names
}

func TestBalancer(t *testing.T) {
	g := NewWithT(t)
	ca, err := pki.NewCA("test")
	g.Expect(err).NotTo(HaveOccurred())
	port, err := proc.FreePort()
	g.Expect(err).NotTo(HaveOccurred())
	d := newDialer(port, ca)
	balancer, err := NewBalancer(port)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = NewBalancer(port)
	g.Expect(err).To(MatchError(proc.ErrAddressInUse))
	_, err = d.dial()
	g.Expect(err).To(HaveOccurred(), "nobody serves yet")

	one, two := newFakeServer(g, ca, "one"), newFakeServer(g, ca, "two")
	defer one.Close()
	defer two.Close()
	g.Expect(balancer.Add("one", one.running)).To(Succeed())
	g.Expect(balancer.Add("two", two.running)).To(Succeed())
	g.Expect(d.whoAnswers(g)).To(HaveLen(2), "both take turns")

	var stuck *caller
	g.Eventually(func(g Gomega) {
		stuck, err = d.dial()
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(stuck.ask()).To(Equal("one"))
	}, soon, poll).Should(Succeed())
	one.sick.Store(true)
	g.Eventually(func() error {
		_, err := stuck.ask()
		return err
	}, soon, poll).Should(HaveOccurred(), "its connections are cut")
	g.Expect(d.whoAnswers(g)).To(Equal(map[string]bool{"two": true}))

	two.sick.Store(true)
	g.Eventually(func() map[string]bool { return d.whoAnswers(g) }, soon, poll).Should(HaveLen(2), "with none healthy any is tried")

	two.CloseClientConnections()
	two.Close()
	g.Expect(d.whoAnswers(g)).To(Equal(map[string]bool{"one": true}), "a dead server is passed over")
	one.sick.Store(false)

	last, err := d.dial()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(last.ask()).To(Equal("one"))
	balancer.Remove("one")
	_, err = last.ask()
	g.Expect(err).To(HaveOccurred(), "taking a server out cuts its connections")
	g.Expect(balancer.Close()).To(Succeed())
}
