// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"crypto/tls"
	"crypto/x509"
	"path/filepath"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/pki"
)

// Names of certificates; those of DPUs have numbers.
const (
	serverKey = "server"
	clientKey = "client"
)

// keys are the lab's certificates: one authority, the servers' pair, the clients', and one for every DPU.
type keys struct {
	dir            string
	ca             *pki.CA
	server, client pki.KeyPair
}

// newKeys makes the authority and the pairs of servers and clients, and writes them to dir.
func newKeys(dir string) (*keys, error) {
	k := &keys{dir: dir}
	var err error
	if k.ca, err = pki.NewCA("ovn"); err != nil {
		return nil, err
	}
	if _, err := k.ca.WriteCert(dir, "ca"); err != nil {
		return nil, err
	}
	server := pki.Request{CommonName: "server", Server: true, Client: true}.Loopback()
	server.IPs = append(server.IPs, managementAddress.AsSlice())
	if k.server, err = k.issue(serverKey, server); err != nil {
		return nil, err
	}
	k.client, err = k.issue(clientKey, pki.Request{CommonName: "client", Client: true})
	return k, err
}

// issue makes a pair and writes it under the name.
func (k *keys) issue(name string, request pki.Request) (pki.KeyPair, error) {
	pair, err := k.ca.Issue(request)
	if err != nil {
		return pair, err
	}
	_, _, err = pair.Write(k.dir, name)
	return pair, err
}

// material is what a client of the lab gets.
func (k *keys) material() *TLS {
	return &TLS{CA: k.ca.CertPEM, Certificate: k.client.CertPEM, Key: k.client.KeyPEM}
}

// clientConfig verifies the server in full and presents the client's certificate.
func (k *keys) clientConfig() (*tls.Config, error) {
	certificate, err := tls.X509KeyPair(k.client.CertPEM, k.client.KeyPEM)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(k.ca.CertPEM)
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{certificate}}, nil
}

// flags are those by which a daemon presents a certificate and verifies the other side's.
func (k *keys) flags(name string) []string {
	file := func(name string) string { return filepath.Join(k.dir, name) }
	return []string{"--private-key=" + file(name+".key"), "--certificate=" + file(name+".crt"), "--ca-cert=" + file("ca.crt")}
}
