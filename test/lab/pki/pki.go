// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package pki issues the lab's certificates. Everything in the lab is verified: servers by a pinned CA, clients by theirs.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

const (
	// The lab lives for hours; a clock that jumps back by less than the backdate breaks nothing.
	backdate = time.Hour
	lifetime = 365 * 24 * time.Hour
)

// CA is a certificate authority with its private key.
type CA struct {
	// CertPEM and KeyPEM are the encoded pair, as files and Secrets hold them.
	CertPEM, KeyPEM []byte

	cert *x509.Certificate
	key  crypto.Signer
}

// Request says what a certificate is for.
type Request struct {
	CommonName   string
	Organization []string
	// Server and Client choose the extended key usages; at least one is needed.
	Server, Client bool
	IPs            []net.IP
	DNSNames       []string
}

// KeyPair is an issued certificate with its key, PEM encoded.
type KeyPair struct {
	CertPEM, KeyPEM []byte
}

// Loopback adds what a server on this machine is addressed by.
func (r Request) Loopback() Request {
	r.IPs = append(r.IPs, net.IPv4(127, 0, 0, 1))
	r.DNSNames = append(r.DNSNames, "localhost")
	return r
}

// NewCA makes a self-signed authority.
func NewCA(commonName string) (*CA, error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: commonName},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(lifetime),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign,
	}
	certPEM, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making CA %q: %w", commonName, err)
	}
	return LoadCA(certPEM, keyPEM)
}

// LoadCA reads an authority as kubeadm and Cluster API store it: PEM certificate and RSA or EC key.
func LoadCA(certPEM, keyPEM []byte) (*CA, error) {
	certs, err := cert.ParseCertsPEM(certPEM)
	if err != nil {
		return nil, fmt.Errorf("reading a CA certificate: %w", err)
	}
	private, err := keyutil.ParsePrivateKeyPEM(keyPEM)
	if err != nil {
		return nil, errors.New("reading a CA key: not a PEM private key")
	}
	key, ok := private.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("reading a CA key: a %T cannot sign", private)
	}
	if public, ok := certs[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(key.Public()) {
		return nil, errors.New("reading a CA: the key does not belong to the certificate")
	}
	return &CA{CertPEM: certPEM, KeyPEM: keyPEM, cert: certs[0], key: key}, nil
}

// Issue makes a new key and a certificate for it.
func (ca *CA) Issue(request Request) (KeyPair, error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return KeyPair{}, err
	}
	serial, err := serialNumber()
	if err != nil {
		return KeyPair{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: request.CommonName, Organization: request.Organization},
		NotBefore:    now.Add(-backdate), NotAfter: now.Add(lifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		IPAddresses: request.IPs, DNSNames: request.DNSNames,
	}
	if request.Server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if request.Client {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	certPEM, err := sign(template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return KeyPair{}, fmt.Errorf("issuing a certificate for %q: %w", request.CommonName, err)
	}
	return KeyPair{CertPEM: certPEM, KeyPEM: keyPEM}, nil
}

// PublicKeyHash returns the digest of the CA's public key as kubeadm pins it: sha256:<hex>.
func (ca *CA) PublicKeyHash() string { return publicKeyHash(ca.cert) }

// PublicKeyHash returns the digest of a PEM certificate's public key as kubeadm pins it: sha256:<hex>.
func PublicKeyHash(certPEM []byte) (string, error) {
	certs, err := cert.ParseCertsPEM(certPEM)
	if err != nil {
		return "", fmt.Errorf("reading a CA certificate: %w", err)
	}
	return publicKeyHash(certs[0]), nil
}

func publicKeyHash(certificate *x509.Certificate) string {
	digest := sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
	return "sha256:" + hex.EncodeToString(digest[:])
}

// WriteCert stores the authority's certificate, not its key, as <dir>/<name>.crt.
func (ca *CA) WriteCert(dir, name string) (string, error) {
	return writeFile(dir, name+".crt", ca.CertPEM)
}

// Write stores the pair as <dir>/<name>.crt and .key, readable by the owner only.
func (k KeyPair) Write(dir, name string) (certFile, keyFile string, err error) {
	if certFile, err = writeFile(dir, name+".crt", k.CertPEM); err != nil {
		return "", "", err
	}
	if keyFile, err = writeFile(dir, name+".key", k.KeyPEM); err != nil {
		return "", "", err
	}
	return certFile, keyFile, nil
}

func writeFile(dir, name string, content []byte) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	return path, os.WriteFile(path, content, 0o600)
}

// NewSigningKey makes a key for service account tokens: the private key and its public half, PEM encoded.
func NewSigningKey() (KeyPair, error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return KeyPair{}, err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return KeyPair{}, err
	}
	return KeyPair{CertPEM: pemBlock("PUBLIC KEY", public), KeyPEM: keyPEM}, nil
}

func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	encoded, err := keyutil.MarshalPrivateKeyToPEM(key)
	return key, encoded, err
}

func serialNumber() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("drawing a serial number: %w", err)
	}
	return serial, nil
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return pemBlock(cert.CertificateBlockType, der), nil
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
