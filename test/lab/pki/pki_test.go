// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package pki_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/client-go/util/keyutil"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/pki"
)

// serve answers on loopback over TLS, to clients of the CA only.
func serve(t *testing.T, g Gomega, ca *pki.CA) *httptest.Server {
	t.Helper()
	serving, err := ca.Issue(pki.Request{CommonName: "server", Server: true}.Loopback())
	g.Expect(err).NotTo(HaveOccurred())
	pair, err := tls.X509KeyPair(serving.CertPEM, serving.KeyPEM)
	g.Expect(err).NotTo(HaveOccurred())
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(r.TLS.PeerCertificates[0].Subject.CommonName))
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: poolOf(ca), ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

func poolOf(ca *pki.CA) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.CertPEM)
	return pool
}

func TestCertificatesAreVerifiedOnBothSides(t *testing.T) {
	g := NewWithT(t)
	ca, err := pki.NewCA("ours")
	g.Expect(err).NotTo(HaveOccurred())
	stranger, err := pki.NewCA("ours")
	g.Expect(err).NotTo(HaveOccurred())
	server := serve(t, g, ca)

	for name, test := range map[string]struct {
		trusts, issuedBy *pki.CA
		request          pki.Request
		accepted         bool
	}{
		"a client of the CA":               {trusts: ca, issuedBy: ca, request: pki.Request{CommonName: "me", Client: true}, accepted: true},
		"a client of another CA":           {trusts: ca, issuedBy: stranger, request: pki.Request{CommonName: "me", Client: true}},
		"a server's certificate":           {trusts: ca, issuedBy: ca, request: pki.Request{CommonName: "me", Server: true}},
		"a client that trusts another one": {trusts: stranger, issuedBy: ca, request: pki.Request{CommonName: "me", Client: true}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			identity, err := test.issuedBy.Issue(test.request)
			g.Expect(err).NotTo(HaveOccurred())
			pair, err := tls.X509KeyPair(identity.CertPEM, identity.KeyPEM)
			g.Expect(err).NotTo(HaveOccurred())
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
				RootCAs: poolOf(test.trusts), Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12,
			}}}
			response, err := client.Get(server.URL)
			if !test.accepted {
				g.Expect(err).To(HaveOccurred())
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(response.Body.Close()).To(Succeed())
		})
	}
}

func TestLoadCAReadsWhatClusterAPIStores(t *testing.T) {
	g := NewWithT(t)
	ca, err := pki.NewCA("ours")
	g.Expect(err).NotTo(HaveOccurred())
	again, err := pki.LoadCA(ca.CertPEM, ca.KeyPEM)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(again.PublicKeyHash()).To(And(Equal(ca.PublicKeyHash()), MatchRegexp(`^sha256:[0-9a-f]{64}$`)))

	_, err = pki.LoadCA(ca.CertPEM, []byte("secret"))
	g.Expect(err).To(MatchError(Not(ContainSubstring("secret"))))
	_, err = pki.LoadCA(nil, ca.KeyPEM)
	g.Expect(err).To(HaveOccurred())

	private, err := rsa.GenerateKey(rand.Reader, 2048)
	g.Expect(err).NotTo(HaveOccurred())
	encoded, err := keyutil.MarshalPrivateKeyToPEM(private)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = pki.LoadCA(ca.CertPEM, encoded)
	g.Expect(err).To(MatchError(ContainSubstring("does not belong")), "a certificate needs its own key")
}

func TestWriteKeepsKeysPrivate(t *testing.T) {
	g := NewWithT(t)
	ca, err := pki.NewCA("ours")
	g.Expect(err).NotTo(HaveOccurred())
	pair, err := ca.Issue(pki.Request{CommonName: "me", Client: true})
	g.Expect(err).NotTo(HaveOccurred())
	_, keyFile, err := pair.Write(t.TempDir()+"/new", "me")
	g.Expect(err).NotTo(HaveOccurred())
	info, err := os.Stat(keyFile)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(info.Mode().Perm()).To(Equal(os.FileMode(0o600)))
}
