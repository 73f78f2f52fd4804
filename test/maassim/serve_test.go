// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/pki"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

func TestServeOverTLSUntilTheEnd(t *testing.T) {
	g := NewWithT(t)
	ca, err := pki.NewCA("maas")
	g.Expect(err).NotTo(HaveOccurred())
	pair, err := ca.Issue(pki.Request{CommonName: "maas", Server: true}.Loopback())
	g.Expect(err).NotTo(HaveOccurred())
	certificate, err := tls.X509KeyPair(pair.CertPEM, pair.KeyPEM)
	g.Expect(err).NotTo(HaveOccurred())
	roots := x509.NewCertPool()
	g.Expect(roots.AppendCertsFromPEM(ca.CertPEM)).To(BeTrue())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)

	ctx, cancel := context.WithCancel(t.Context())
	base, wait, err := maassim.New(maassim.Options{}).Serve(ctx, &tls.Config{Certificates: []tls.Certificate{certificate}})
	g.Expect(err).NotTo(HaveOccurred())
	ended := make(chan error, 1)
	go func() { ended <- wait() }()
	get := func() (int, error) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/MAAS/api/2.0/version/", nil)
		g.Expect(err).NotTo(HaveOccurred())
		response, err := (&http.Client{Transport: transport}).Do(request)
		if err != nil {
			return 0, err
		}
		return response.StatusCode, response.Body.Close()
	}
	g.Expect(get()).To(Equal(http.StatusOK))
	g.Expect(ended).NotTo(Receive())
	cancel()
	g.Eventually(ended).Should(Receive(BeNil()))
	_, err = get()
	g.Expect(err).To(HaveOccurred(), "the region is served after its end")
}
