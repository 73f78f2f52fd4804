// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"fmt"
	"net"
	"path/filepath"

	"k8s.io/client-go/rest"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/pki"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/proc"
)

const (
	serviceCIDR = "10.96.0.0/16"
	// adminQPS lets a test or simulator talk as fast as the API server answers.
	adminQPS, adminBurst = 200, 400
)

// APIServer describes a kube-apiserver.
type APIServer struct {
	// Name of the process.
	Name string
	// Binary is kube-apiserver's path, Dir holds certificates and keys.
	Binary, Dir string
	// Etcd is the store, Prefix separates this API server from others on the same store.
	Etcd   *RunningEtcd
	Prefix string
	// Port to serve on; 0 takes a free one.
	Port int32
	// CA signs the serving certificate and the client certificates that are accepted.
	CA *pki.CA
	// ServiceAccounts signs service account tokens; zero makes a new key.
	ServiceAccounts pki.KeyPair
	// ExtraArgs come last and so win over the defaults.
	ExtraArgs []string
}

// RunningAPIServer is a started API server and how to reach it.
type RunningAPIServer struct {
	Process *proc.Process
	// CA is the authority of both sides.
	CA   *pki.CA
	Port int32
	// SigningKeyFile holds the private key of service account tokens.
	SigningKeyFile string

	admin pki.KeyPair
}

// Start starts the API server and waits until it reports ready.
func (a APIServer) Start(ctx context.Context, supervisor *proc.Supervisor) (*RunningAPIServer, error) {
	running := &RunningAPIServer{CA: a.CA, Port: a.Port}
	var err error
	if running.admin, err = a.CA.Issue(pki.Request{CommonName: "lab-admin", Organization: []string{"system:masters"}, Client: true}); err != nil {
		return nil, err
	}
	common, err := a.args(running)
	if err != nil {
		return nil, err
	}
	probe, err := clientFor(a.CA.CertPEM, running.admin)
	if err != nil {
		return nil, err
	}
	return running, retryOnCollision(func() error {
		if a.Port == 0 {
			if running.Port, err = proc.FreePort(); err != nil {
				return err
			}
		}
		running.Process, err = supervisor.Start(ctx, proc.Spec{
			Name: a.Name, Path: a.Binary, Tier: TierAPIServer, Env: []string{smallHeap},
			Args:  append([]string{fmt.Sprintf("--secure-port=%d", running.Port)}, common...),
			Ready: func(ctx context.Context) error { return get(ctx, probe, running.url()+"/readyz") },
		})
		return err
	})
}

// args writes the certificates and returns all arguments but the port.
func (a APIServer) args(running *RunningAPIServer) ([]string, error) {
	serving, err := a.CA.Issue(pki.Request{
		CommonName: "kube-apiserver", Server: true,
		DNSNames: []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc"}, IPs: []net.IP{net.IPv4(10, 96, 0, 1)},
	}.Loopback())
	if err != nil {
		return nil, err
	}
	certFile, keyFile, err := serving.Write(a.Dir, "apiserver")
	if err != nil {
		return nil, err
	}
	caFile, err := a.CA.WriteCert(a.Dir, "ca")
	if err != nil {
		return nil, err
	}
	tokens := a.ServiceAccounts
	if tokens.KeyPEM == nil {
		if tokens, err = pki.NewSigningKey(); err != nil {
			return nil, err
		}
	}
	publicFile, privateFile, err := tokens.Write(a.Dir, "service-accounts")
	if err != nil {
		return nil, err
	}
	running.SigningKeyFile = privateFile
	return append([]string{
		"--etcd-servers=" + a.Etcd.Ports.ClientURL(), "--etcd-prefix=" + a.Prefix,
		"--etcd-cafile=" + a.Etcd.CAFile, "--etcd-certfile=" + a.Etcd.CertFile, "--etcd-keyfile=" + a.Etcd.KeyFile,
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
		"--cert-dir=" + a.Dir, "--tls-cert-file=" + certFile, "--tls-private-key-file=" + keyFile,
		"--client-ca-file=" + caFile, "--authorization-mode=Node,RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + publicFile, "--service-account-signing-key-file=" + privateFile,
		"--service-cluster-ip-range=" + serviceCIDR,
		// Nothing in the lab mounts a token into a Pod, and its tests need not wait for default service accounts.
		"--disable-admission-plugins=ServiceAccount",
	}, a.ExtraArgs...), nil
}

func (r *RunningAPIServer) url() string { return fmt.Sprintf("https://127.0.0.1:%d", r.Port) }

// Admin returns a configuration with all rights.
func (r *RunningAPIServer) Admin() *rest.Config { return r.config(r.admin) }

// As returns a configuration for a user that exists by its client certificate only.
func (r *RunningAPIServer) As(user string, groups ...string) (*rest.Config, error) {
	identity, err := r.CA.Issue(pki.Request{CommonName: user, Organization: groups, Client: true})
	if err != nil {
		return nil, err
	}
	return r.config(identity), nil
}

func (r *RunningAPIServer) config(identity pki.KeyPair) *rest.Config {
	return &rest.Config{
		Host: r.url(), QPS: adminQPS, Burst: adminBurst,
		TLSClientConfig: rest.TLSClientConfig{CAData: r.CA.CertPEM, CertData: identity.CertPEM, KeyData: identity.KeyPEM},
	}
}

// ControllerManager describes a kube-controller-manager for an API server of the lab.
type ControllerManager struct {
	// Name of the process.
	Name string
	// Binary is kube-controller-manager's path, Dir holds its serving certificate.
	Binary, Dir string
	// Kubeconfig is the file it uses.
	Kubeconfig string
	// Controllers are the names of those to run.
	Controllers string
	APIServer   *RunningAPIServer
}

// Start starts the controllers and waits until they are healthy.
func (c ControllerManager) Start(ctx context.Context, supervisor *proc.Supervisor) (*proc.Process, error) {
	serving, err := c.APIServer.CA.Issue(pki.Request{CommonName: "kube-controller-manager", Server: true}.Loopback())
	if err != nil {
		return nil, err
	}
	certFile, keyFile, err := serving.Write(c.Dir, "controller-manager")
	if err != nil {
		return nil, err
	}
	probe, err := clientFor(c.APIServer.CA.CertPEM, c.APIServer.admin)
	if err != nil {
		return nil, err
	}
	var process *proc.Process
	err = retryOnCollision(func() error {
		port, err := proc.FreePort()
		if err != nil {
			return err
		}
		process, err = supervisor.Start(ctx, proc.Spec{
			Name: c.Name, Path: c.Binary, Tier: TierController, Env: []string{smallHeap},
			Args: []string{
				"--kubeconfig=" + c.Kubeconfig, "--leader-elect=false",
				"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port),
				"--tls-cert-file=" + certFile, "--tls-private-key-file=" + keyFile, "--cert-dir=" + filepath.Clean(c.Dir),
				"--use-service-account-credentials=false", "--service-account-private-key-file=" + c.APIServer.SigningKeyFile,
				"--controllers=" + c.Controllers,
			},
			Ready: func(ctx context.Context) error {
				return get(ctx, probe, fmt.Sprintf("https://127.0.0.1:%d/healthz", port))
			},
		})
		return err
	})
	return process, err
}
