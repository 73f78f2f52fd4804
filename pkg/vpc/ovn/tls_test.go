// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovn

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// authority signs certificates.
type authority struct {
	g           *WithT
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{g: NewWithT(t)}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	certificate, _ := a.sign(template)
	a.pem = certificate
	return a
}

// sign returns a certificate and its key; the first is the authority's own.
func (a *authority) sign(template *x509.Certificate) (certificate, key []byte) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.g.Expect(err).NotTo(HaveOccurred())
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.certificate, a.key
	if parent == nil {
		parent, signer = template, private
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, private.Public(), signer)
	a.g.Expect(err).NotTo(HaveOccurred())
	if a.certificate == nil {
		a.certificate, err = x509.ParseCertificate(der)
		a.g.Expect(err).NotTo(HaveOccurred())
		a.key = private
	}
	encoded, err := x509.MarshalECPrivateKey(private)
	a.g.Expect(err).NotTo(HaveOccurred())
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encoded})
}

func (a *authority) server(addresses ...net.IP) *tls.Config {
	certificate, key := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: addresses, DNSNames: []string{"ovn.example"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	pair, err := tls.X509KeyPair(certificate, key)
	a.g.Expect(err).NotTo(HaveOccurred())
	clients := x509.NewCertPool()
	clients.AddCert(a.certificate)
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
}

func (a *authority) client() (certificate, key []byte) {
	return a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "reader"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

// TestVerifies: a server has to show a certificate of the right CA for the very address asked, and is shown ours.
func TestVerifies(t *testing.T) {
	ours, foreign := newAuthority(t, "ours"), newAuthority(t, "foreign")
	address := net.IPv4(127, 0, 0, 1)
	certificate, key := ours.client()
	foreignCertificate, foreignKey := foreign.client()
	for _, tt := range []struct {
		name             string
		server           *tls.Config
		ca               []byte
		certificate, key []byte
		fails            string
	}{
		{name: "all well", server: ours.server(address), ca: ours.pem, certificate: certificate, key: key},
		{name: "another CA", server: foreign.server(address), ca: ours.pem, certificate: certificate, key: key, fails: "unknown authority"},
		{name: "another address", server: ours.server(net.IPv4(127, 0, 0, 2)), ca: ours.pem, certificate: certificate, key: key, fails: "not 127.0.0.1"},
		{name: "a name only", server: ours.server(), ca: ours.pem, certificate: certificate, key: key, fails: "any IP SANs"},
		{name: "a client the server does not know", server: ours.server(address), ca: ours.pem, certificate: foreignCertificate, key: foreignKey, fails: "does not answer"},
		{name: "no TLS", ca: ours.pem, certificate: certificate, key: key, fails: "does not look like a TLS handshake"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := NewWithT(t)
			south := newMemory(t, tt.server, currentSchema)
			fill(south, true, true)
			c := newClient(t, Config{Southbound: "ssl:" + south.address, CA: tt.ca, Certificate: tt.certificate, Key: tt.key})
			reading, err := c.Read(t.Context())
			if tt.fails == "" {
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(reading.Bindings).To(HaveLen(3))
				return
			}
			g.Expect(KindOf(err)).To(Equal(Unreachable))
			g.Expect(err).To(MatchError(ContainSubstring(tt.fails)))
			g.Expect(err.Error()).NotTo(ContainSubstring("PRIVATE"))
		})
	}
}

func TestConfig(t *testing.T) {
	ours := newAuthority(t, "ours")
	certificate, key := ours.client()
	_, otherKey := ours.client()
	for _, tt := range []struct {
		name   string
		config Config
		fails  string
	}{
		{name: "no southbound", config: Config{Northbound: "tcp:127.0.0.1:1"}, fails: "no southbound database"},
		{name: "no port", config: Config{Southbound: "tcp:127.0.0.1"}, fails: "is not one such as"},
		{name: "a socket", config: Config{Southbound: "unix:/run/ovn/sb.sock"}, fails: "is not one such as"},
		{name: "another method", config: Config{Southbound: "http:127.0.0.1:1"}, fails: "neither method tcp nor ssl"},
		{name: "IPv6, and several", config: Config{Southbound: "tcp:[::1]:1, tcp:127.0.0.1:2"}},
		{name: "ssl without a CA", config: Config{Southbound: "ssl:127.0.0.1:1", Certificate: certificate, Key: key}, fails: "CA"},
		{name: "a key that does not fit", config: Config{Southbound: "tcp:127.0.0.1:1", Northbound: "ssl:127.0.0.1:1", CA: ours.pem, Certificate: certificate, Key: otherKey}, fails: "do not fit"},
		{name: "a key that is none", config: Config{Southbound: "ssl:127.0.0.1:1", CA: ours.pem, Certificate: certificate, Key: []byte("secret")}, fails: "those given are none"},
		{name: "ssl", config: Config{Southbound: "ssl:127.0.0.1:1", CA: ours.pem, Certificate: certificate, Key: key}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := New(tt.config)
			if tt.fails == "" {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			g.Expect(err).To(MatchError(ContainSubstring(tt.fails)))
			g.Expect(err.Error()).NotTo(ContainSubstring("secret"))
		})
	}
}
