// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"time"
)

// Trust says by what a BMC is known to be itself.
type Trust struct {
	// CABundle are PEM certificates. A BMC's certificate must come from one of them and name the address it is asked at.
	CABundle []byte
	// PinnedCertificates are SHA-256 fingerprints of BMC certificates, in lower-case hex, accepted besides. Without CABundle
	// nothing else is accepted; without both the system's CAs decide.
	PinnedCertificates []string
}

var errNoCertificate = errors.New("posture.caBundle holds no certificate: write PEM certificates into it")

// config verifies the BMC at an address, host:port, whose name in certificates is host.
func (t Trust) config(address, host string, now func() time.Time) (*tls.Config, error) {
	var roots *x509.CertPool
	if len(t.CABundle) > 0 {
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(t.CABundle) {
			return nil, errNoCertificate
		}
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: host, Time: now}
	if len(t.PinnedCertificates) == 0 {
		return config, nil
	}
	pins := map[string]bool{}
	for _, pin := range t.PinnedCertificates {
		pins[pin] = true
	}
	// The standard verification knows no pins: where there are some, VerifyConnection does all of it, for every connection.
	config.InsecureSkipVerify = true
	config.VerifyConnection = func(state tls.ConnectionState) error {
		return verifyPinned(state.PeerCertificates, roots, pins, address, host, now())
	}
	return config, nil
}

// notVerified says which certificate the standard verification did not accept.
func notVerified(address string, err *tls.CertificateVerificationError) *CertificateError {
	refused := &CertificateError{Address: address, Fingerprint: "none", Expired: isExpired(err)}
	if len(err.UnverifiedCertificates) > 0 {
		refused.Fingerprint = fingerprint(err.UnverifiedCertificates[0])
	}
	return refused
}

func fingerprint(certificate *x509.Certificate) string {
	sum := sha256.Sum256(certificate.Raw)
	return hex.EncodeToString(sum[:])
}

func isExpired(err error) bool {
	var invalid x509.CertificateInvalidError
	return errors.As(err, &invalid) && invalid.Reason == x509.Expired
}

// verifyPinned accepts a certificate that is pinned and in its time, or else, with CAs, one that is verified as any HTTPS server's is.
func verifyPinned(chain []*x509.Certificate, roots *x509.CertPool, pins map[string]bool, address, host string, now time.Time) error {
	if len(chain) == 0 {
		return &CertificateError{Address: address, Fingerprint: "none"}
	}
	leaf := chain[0]
	refused := &CertificateError{Address: address, Fingerprint: fingerprint(leaf)}
	if pins[refused.Fingerprint] {
		if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
			refused.Expired = true
			return refused
		}
		return nil
	}
	if roots == nil {
		return refused
	}
	options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), DNSName: host, CurrentTime: now}
	for _, issuer := range chain[1:] {
		options.Intermediates.AddCert(issuer)
	}
	if _, err := leaf.Verify(options); err != nil {
		refused.Expired = isExpired(err)
		return refused
	}
	return nil
}
