// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package controlplane starts real etcd, kube-apiserver and kube-controller-manager processes on loopback, with TLS and
// client certificates, both for the lab's own clusters and for the control planes that simulated servers boot.
package controlplane

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/pki"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/proc"
)

// Tiers order the stop: an API server whose etcd has gone first does not end.
const (
	TierEtcd = iota
	TierAPIServer
	TierController
	TierProvider
)

const (
	startAttempts = 3
	probeTimeout  = 2 * time.Second
	// smallHeap trades some CPU for a third of the memory: the lab runs a dozen of these processes beside each other.
	smallHeap = "GOGC=50"
)

// Etcd describes an etcd member: the only one of a new cluster, unless Join says otherwise.
type Etcd struct {
	// Name of the process; MemberName (default Name) is what the member calls itself: KCP expects the Node's name.
	Name, MemberName string
	// Binary is etcd's path, Dir holds its data and certificates.
	Binary, Dir string
	// CA signs the server certificate and every client's.
	CA *pki.CA
	// Ports to listen on; zero takes free ones. A member that has data must get the ports it had: the others know them.
	Ports EtcdPorts
	// Join are the members of the cluster that it joins. They must have been told of it, at its peer port, before it starts.
	Join []EtcdMember
}

// EtcdPorts are a member's ports on loopback.
type EtcdPorts struct {
	Client, Peer int32
}

// NewEtcdPorts chooses free ports, for a member that must be announced before it starts.
func NewEtcdPorts() (EtcdPorts, error) {
	ports, err := proc.FreePorts(2)
	if err != nil {
		return EtcdPorts{}, err
	}
	return EtcdPorts{Client: ports[0], Peer: ports[1]}, nil
}

// ClientURL is where clients reach the member.
func (p EtcdPorts) ClientURL() string { return fmt.Sprintf("https://127.0.0.1:%d", p.Client) }

// PeerURL is where the other members reach it.
func (p EtcdPorts) PeerURL() string { return fmt.Sprintf("https://127.0.0.1:%d", p.Peer) }

// RunningEtcd is a started member and how to reach it.
type RunningEtcd struct {
	Process *proc.Process
	Ports   EtcdPorts
	// CAFile, CertFile, KeyFile are a client's credentials.
	CAFile, CertFile, KeyFile string
}

// Start starts the member and waits until it answers. The data directory is expected to be empty or its own. A member that
// joins answers for itself only: whether the cluster has a quorum is not waited for, as a learner has none to wait for.
func (e Etcd) Start(ctx context.Context, supervisor *proc.Supervisor) (*RunningEtcd, error) {
	if e.MemberName == "" {
		e.MemberName = e.Name
	}
	client, err := e.CA.Issue(pki.Request{CommonName: "kube-apiserver-etcd-client", Client: true})
	if err != nil {
		return nil, err
	}
	running := &RunningEtcd{}
	common, err := e.args(running, client)
	if err != nil {
		return nil, err
	}
	probe, err := clientFor(e.CA.CertPEM, client)
	if err != nil {
		return nil, err
	}
	health := "/health"
	if e.Ports != (EtcdPorts{}) {
		health = "/health?serializable=true"
	}
	return running, retryOnCollision(func() error {
		running.Ports = e.Ports
		if running.Ports == (EtcdPorts{}) {
			if running.Ports, err = NewEtcdPorts(); err != nil {
				return err
			}
		}
		running.Process, err = supervisor.Start(ctx, proc.Spec{
			Name: e.Name, Path: e.Binary, Tier: TierEtcd, Env: []string{smallHeap},
			Args:  slices.Concat(common, e.addresses(running.Ports)),
			Ready: func(ctx context.Context) error { return get(ctx, probe, running.Ports.ClientURL()+health) },
		})
		return err
	})
}

// args writes the certificates and returns all arguments but those with a port.
func (e Etcd) args(running *RunningEtcd, client pki.KeyPair) ([]string, error) {
	server, err := e.CA.Issue(pki.Request{CommonName: "etcd-server", Server: true, Client: true}.Loopback())
	if err != nil {
		return nil, err
	}
	serverCert, serverKey, err := server.Write(e.Dir, "server")
	if err != nil {
		return nil, err
	}
	if running.CertFile, running.KeyFile, err = client.Write(e.Dir, "client"); err != nil {
		return nil, err
	}
	if running.CAFile, err = e.CA.WriteCert(e.Dir, "ca"); err != nil {
		return nil, err
	}
	return []string{
		"--name=" + e.MemberName, "--data-dir=" + filepath.Join(e.Dir, "data"),
		// Scratch data: losing it with the machine is what scratch means.
		"--unsafe-no-fsync",
		"--cert-file=" + serverCert, "--key-file=" + serverKey,
		"--client-cert-auth", "--trusted-ca-file=" + running.CAFile,
		"--peer-cert-file=" + serverCert, "--peer-key-file=" + serverKey,
		"--peer-client-cert-auth", "--peer-trusted-ca-file=" + running.CAFile,
		"--log-level=warn",
	}, nil
}

// addresses are the arguments with a port. What they say of the cluster counts only while the data directory is empty.
func (e Etcd) addresses(ports EtcdPorts) []string {
	cluster, state := []string{e.MemberName + "=" + ports.PeerURL()}, "new"
	for _, member := range e.Join {
		state = "existing"
		if slices.Contains(member.PeerURLs, ports.PeerURL()) {
			continue
		}
		for _, peer := range member.PeerURLs {
			cluster = append(cluster, member.label()+"="+peer)
		}
	}
	return []string{
		"--listen-client-urls=" + ports.ClientURL(), "--advertise-client-urls=" + ports.ClientURL(),
		"--listen-peer-urls=" + ports.PeerURL(), "--initial-advertise-peer-urls=" + ports.PeerURL(),
		"--initial-cluster=" + strings.Join(cluster, ","), "--initial-cluster-state=" + state,
	}
}

// retryOnCollision starts something again with new ports while another process was quicker to take one.
func retryOnCollision(start func() error) error {
	var err error
	for range startAttempts {
		if err = start(); !errors.Is(err, proc.ErrAddressInUse) {
			return err
		}
	}
	return err
}

// clientFor returns an HTTP client that trusts only ca and shows the given certificate.
func clientFor(ca []byte, identity pki.KeyPair) (*http.Client, error) {
	pair, err := tls.X509KeyPair(identity.CertPEM, identity.KeyPEM)
	if err != nil {
		return nil, fmt.Errorf("reading a client certificate: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("reading a CA certificate: no PEM certificate in it")
	}
	return &http.Client{Timeout: probeTimeout, Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
		DisableKeepAlives: true,
	}}, nil
}

// get returns nil if url answers 200.
func get(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, response.Status)
	}
	return nil
}
