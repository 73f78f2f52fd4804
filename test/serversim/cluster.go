// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package serversim

import (
	"context"
	_ "embed" // for kwok's stages
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/controlplane"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/pki"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/proc"
)

const (
	probeTimeout = 2 * time.Second
	// callTimeout keeps a server from hanging on a cluster that has lost its quorum.
	callTimeout = 10 * time.Second
)

//go:embed kwok/stages.yaml
var stages string

// cluster is what servers find at an endpoint. It lives as long as one control-plane server has it on its disk.
type cluster struct {
	endpoint string
	// balancer is the operator's, before the API servers; nil where the control plane is not on the rack.
	balancer *controlplane.Balancer
	ca       *pki.CA
	// clients have all rights, through the endpoint.
	clients kubernetes.Interface
	// kwok plays the kubelets; kubeletPort is where those of workers listen.
	kwok        *proc.Process
	kubeletPort int32

	// Guarded by the rack's mutex: installed are the control-plane servers by system ID, with nil while one does not run, and
	// joining those that are to become some.
	installed map[string]*member
	joining   map[string]bool
}

func newCluster(endpoint string, ca *pki.CA) *cluster {
	return &cluster{endpoint: endpoint, ca: ca, installed: map[string]*member{}, joining: map[string]bool{}}
}

// cluster returns what answers at the endpoint, nil if nothing has so far.
func (r *Rack) cluster(endpoint string) *cluster {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.clusters[endpoint]
}

// member returns the server's running part of the control plane, nil if it has none.
func (r *Rack) member(c *cluster, s *server) *member {
	r.mu.Lock()
	defer r.mu.Unlock()
	return c.installed[s.SystemID]
}

func (r *Rack) setMember(c *cluster, s *server, m *member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.installed[s.SystemID] = m
	delete(c.joining, s.SystemID)
}

// joins keeps the cluster from ending while the server joins it.
func (r *Rack) joins(c *cluster, s *server) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.joining[s.SystemID] = true
}

// answers says whether an API server of the cluster runs, which may still lack a quorum.
func (r *Rack) answers(c *cluster) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return c.answers()
}

// answers is for those who hold the rack's mutex.
func (c *cluster) answers() bool {
	if c.balancer == nil {
		return true
	}
	for _, m := range c.installed {
		if m != nil {
			return true
		}
	}
	return false
}

// reserve keeps the endpoint for a new cluster, and takes away one there that does not run any more.
func (r *Rack) reserve(ctx context.Context, endpoint string) error {
	r.mu.Lock()
	before := r.clusters[endpoint]
	if r.founding[endpoint] || before != nil && (before.answers() || len(before.joining) > 0) {
		r.mu.Unlock()
		return fmt.Errorf("kubeadm init: another control plane answers at %s already", endpoint)
	}
	r.founding[endpoint] = true
	delete(r.clusters, endpoint)
	r.mu.Unlock()
	if before == nil {
		return nil
	}
	if err := before.close(ctx); err != nil {
		r.opened(endpoint, nil)
		return err
	}
	return nil
}

// opened ends the reservation: with a cluster, or with nil if it failed.
func (r *Rack) opened(endpoint string, c *cluster) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.founding, endpoint)
	if c != nil {
		r.clusters[endpoint] = c
	}
}

// leave forgets a control-plane server whose disk is gone, and with the last one the cluster.
func (r *Rack) leave(ctx context.Context, c *cluster, s *server) error {
	if c.balancer == nil {
		return nil // others end it
	}
	r.mu.Lock()
	delete(c.installed, s.SystemID)
	delete(c.joining, s.SystemID)
	if len(c.installed)+len(c.joining) > 0 || r.clusters[c.endpoint] != c {
		r.mu.Unlock()
		return nil
	}
	delete(r.clusters, c.endpoint)
	r.mu.Unlock()
	return c.close(ctx)
}

// close ends what does not belong to a server.
func (c *cluster) close(ctx context.Context) error {
	var errs []error
	if c.kwok != nil {
		errs = append(errs, c.kwok.Kill(ctx))
	}
	if c.balancer != nil {
		errs = append(errs, c.balancer.Close())
	}
	return errors.Join(errs...)
}

// connect makes the clients, which go through the endpoint, and starts the kubelets.
func (r *Rack) connect(ctx context.Context, c *cluster, admin *rest.Config) error {
	admin = rest.CopyConfig(admin)
	admin.Host, admin.Timeout = "https://"+c.endpoint, callTimeout
	var err error
	if c.clients, err = kubernetes.NewForConfig(admin); err != nil {
		return err
	}
	return r.startKubelets(ctx, c, admin)
}

// startKubelets starts kwok, which plays the kubelets of all nodes of the cluster.
func (r *Rack) startKubelets(ctx context.Context, c *cluster, admin *rest.Config) error {
	_, port, err := net.SplitHostPort(c.endpoint)
	if err != nil {
		return err
	}
	directory := filepath.Join(r.options.Dir, "kubelets."+port)
	serving, err := c.ca.Issue(pki.Request{CommonName: "kubelet", Server: true}.Loopback())
	if err != nil {
		return err
	}
	certFile, keyFile, err := serving.Write(directory, "kubelet")
	if err != nil {
		return err
	}
	kubeconfig := filepath.Join(directory, "kubelet.kubeconfig")
	if err := controlplane.WriteKubeconfig(kubeconfig, admin); err != nil {
		return err
	}
	configFile := filepath.Join(directory, "kwok.yaml")
	if err := os.WriteFile(configFile, []byte(stages), 0o600); err != nil {
		return err
	}
	client := &http.Client{Timeout: probeTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	if c.kubeletPort, err = proc.FreePort(); err != nil {
		return err
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(c.kubeletPort)))
	c.kwok, err = r.options.Supervisor.Start(ctx, proc.Spec{
		Name: "kwok." + port, Path: filepath.Join(r.options.Bin, "kwok"), Tier: controlplane.TierController,
		Args: []string{
			"--kubeconfig=" + kubeconfig, "--manage-all-nodes", "--node-lease-duration-seconds=0",
			"--node-ip=127.0.0.1", "--node-port=" + strconv.Itoa(int(c.kubeletPort)), "--server-address=" + address,
			"--tls-cert-file=" + certFile, "--tls-private-key-file=" + keyFile, "--config=" + configFile,
		},
		Ready: func(ctx context.Context) error {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/healthz", nil)
			if err != nil {
				return err
			}
			response, err := client.Do(request)
			if err != nil {
				return err
			}
			return response.Body.Close()
		},
	})
	return err
}

// Serve lets servers join a cluster whose control plane is not on the rack, such as a hosted one: it starts the kubelets that
// they will share. The API server needs controlplane.WorkloadArgs and what controlplane.Publish leaves.
func (r *Rack) Serve(ctx context.Context, endpoint string, server *controlplane.RunningAPIServer) error {
	if err := r.reserve(ctx, endpoint); err != nil {
		return err
	}
	c := newCluster(endpoint, server.CA)
	if err := r.connect(ctx, c, server.Admin()); err != nil {
		r.opened(endpoint, nil)
		return err
	}
	r.opened(endpoint, c)
	return nil
}

// Withdraw undoes Serve; unknown endpoints are left alone.
func (r *Rack) Withdraw(ctx context.Context, endpoint string) error {
	r.mu.Lock()
	c := r.clusters[endpoint]
	if c == nil || c.balancer != nil {
		r.mu.Unlock()
		return nil
	}
	delete(r.clusters, endpoint)
	r.mu.Unlock()
	return c.close(ctx)
}
