// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package bmcsim

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"time"
)

// Certificate says what is peculiar about a BMC's certificate; the zero value is a good one, from the site's CA.
type Certificate struct {
	// SelfSigned comes from no CA, as it does from the factory.
	SelfSigned bool
	// Expired was good until yesterday.
	Expired bool
	// OtherName names another address than the BMC's.
	OtherName bool
}

// authority is a CA.
type authority struct {
	pem         []byte
	certificate *x509.Certificate
	key         crypto.Signer
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("bmcsim: make a key: %w", err)
	}
	template, err := newTemplate("bmcsim CA")
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("bmcsim: make a CA: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("bmcsim: read the CA: %w", err)
	}
	return &authority{pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), certificate: certificate, key: key}, nil
}

func newTemplate(name string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		return nil, fmt.Errorf("bmcsim: make a serial number: %w", err)
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(365 * 24 * time.Hour),
	}, nil
}

// issue makes a BMC's certificate.
func (a *authority) issue(address netip.Addr, wanted Certificate) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("bmcsim: make a key: %w", err)
	}
	template, err := newTemplate("Bluefield_BMC")
	if err != nil {
		return nil, err
	}
	template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	template.IPAddresses = []net.IP{address.AsSlice()}
	if wanted.OtherName {
		template.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)}
	}
	if wanted.Expired {
		template.NotAfter = time.Now().Add(-24 * time.Hour)
	}
	parent, signer := a.certificate, a.key
	if wanted.SelfSigned {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("bmcsim: make a certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// SetCertificate replaces the BMC's certificate. Connections that are open stay so.
func (b *BMC) SetCertificate(wanted Certificate) error {
	certificate, err := b.site.ca.issue(b.address.Addr(), wanted)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.certificate = certificate
	return nil
}

// Fingerprint is the SHA-256 of the BMC's certificate, in hex.
func (b *BMC) Fingerprint() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	sum := sha256.Sum256(b.certificate.Certificate[0])
	return hex.EncodeToString(sum[:])
}

func (b *BMC) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.certificate, nil
		},
	}
}
