// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package serversim

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	joinInterval = 200 * time.Millisecond
	// tokenPatience covers the moment until an API server has seen a new token.
	tokenPatience = 15 * time.Second
	// haltTimeout limits what is done for a server that has lost its power: nothing of it may hold up the next event.
	haltTimeout = 20 * time.Second

	bootstrapGroup = "system:bootstrappers"
)

// node is an installed system that is, or is to become, a node of a cluster.
type node struct {
	name         string
	address      netip.Addr
	port         string // MAC of the tenant port with the address, empty without one
	endpoint     string // of its cluster, host:port
	config       *kubeadmConfig
	files        map[string]string
	reporting    bool // the kubelet runs and reaches its API server
	controlPlane bool
}

// boot installs the system and lets it join; whatever happens is recorded.
func (r *Rack) boot(ctx context.Context, s *server, userData []byte) {
	boot := BootRecord{SystemID: s.SystemID}
	system := &host{server: s.Server, fabric: r.options.Fabric, patience: r.options.LeaseTimeout}
	installed, err := r.install(ctx, system, userData)
	if installed != nil {
		boot.Endpoint, boot.Node, boot.ControlPlane, boot.Address = installed.endpoint, installed.name, installed.controlPlane, installed.address
	}
	if err == nil {
		err = r.join(ctx, s, installed)
	}
	boot.Ignored = system.ignored
	boot.Joined = err == nil
	switch {
	case ctx.Err() != nil && err != nil:
		boot.Reason = "interrupted: the server lost its power, was wiped, or booted anew"
	case err != nil:
		boot.Reason = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	r.record(boot)
}

// install is cloud-init's part, up to the start of kubeadm.
func (r *Rack) install(ctx context.Context, system *host, userData []byte) (*node, error) {
	s := system.server
	cloudConfig, err := parseUserData(userData, map[string]string{
		"v1.instance_id": s.SystemID, "ds.meta_data.instance_id": s.SystemID,
		"v1.local_hostname": s.Hostname, "ds.meta_data.local_hostname": s.Hostname,
	})
	if err != nil {
		return nil, err
	}
	config, err := system.bootstrap(ctx, cloudConfig)
	if err != nil {
		return nil, errors.Join(append([]error{err}, system.problems...)...)
	}
	installed := &node{name: config.registration().Name, config: config, files: system.files, controlPlane: config.init != nil}
	if installed.name == "" {
		installed.name = s.Hostname
	}
	switch {
	case config.init != nil:
		installed.endpoint = config.cluster.ControlPlaneEndpoint
	case config.join.ControlPlane != nil:
		return installed, errors.New("joining a further control-plane machine is not simulated")
	case config.join.Discovery.BootstrapToken == nil:
		return installed, errors.New("kubeadm join: only discovery by bootstrap token is simulated")
	default:
		installed.endpoint = config.join.Discovery.BootstrapToken.APIServerEndpoint
	}
	if installed.address, err = system.verify(config); err != nil {
		return installed, err
	}
	for _, port := range system.configured {
		if leased, ok := system.leases[port.Interface]; ok && leased.address == installed.address {
			installed.port = port.MAC
		}
	}
	return installed, nil
}

// join is kubeadm's part.
func (r *Rack) join(ctx context.Context, s *server, installed *node) error {
	var w *workload
	var err error
	if installed.controlPlane {
		w, err = r.startControlPlane(ctx, s, installed)
	} else {
		w, err = r.discover(ctx, installed)
	}
	if err != nil {
		return err
	}
	// From here on the disk knows its node: it comes back after a power cycle.
	s.disk = installed
	if err := r.registerNode(ctx, w, s, installed); err != nil {
		return err
	}
	if installed.controlPlane {
		if err := w.initialize(ctx, installed); err != nil {
			return err
		}
	}
	installed.reporting = true
	return nil
}

// discover finds the cluster and checks what kubeadm checks: that its CA is the pinned one and that the token is accepted.
func (r *Rack) discover(ctx context.Context, installed *node) (*workload, error) {
	discovery := installed.config.join.Discovery.BootstrapToken
	var w *workload
	err := wait.PollUntilContextTimeout(ctx, joinInterval, r.options.JoinTimeout, true, func(context.Context) (bool, error) {
		w = r.workload(installed.endpoint)
		return w != nil, nil
	})
	if err != nil {
		return nil, fmt.Errorf("kubeadm join: no API server answers at %s", installed.endpoint)
	}
	if !slices.Contains(discovery.CACertHashes, w.server.CA.PublicKeyHash()) {
		return nil, fmt.Errorf("kubeadm join: the CA at %s has none of the pinned public key hashes", installed.endpoint)
	}
	return w, w.checkToken(ctx, discovery.Token, min(tokenPatience, r.options.JoinTimeout))
}

// checkToken lets the API server say who the bearer of the token is.
func (w *workload) checkToken(ctx context.Context, token string, patience time.Duration) error {
	config := rest.AnonymousClientConfig(w.server.Admin())
	config.BearerToken = token
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	err = wait.PollUntilContextTimeout(ctx, joinInterval, patience, true, func(ctx context.Context) (bool, error) {
		review, err := clients.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil {
			return false, nil // not yet, or never: the wait's end tells
		}
		return slices.Contains(review.Status.UserInfo.Groups, bootstrapGroup), nil
	})
	if err != nil {
		return fmt.Errorf("kubeadm join: the API server at %s does not accept the bootstrap token", w.endpoint)
	}
	return nil
}

// halt is the loss of power. The node's last report stands until the cluster notices its silence, which happens at once
// here: no test gains by waiting 40 s for it.
func (r *Rack) halt(ctx context.Context, s *server) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), haltTimeout)
	defer cancel()
	installed := s.disk
	if installed == nil {
		return
	}
	if w := r.workload(installed.endpoint); w != nil {
		if w.owner == s.SystemID {
			r.forget(w)
			if err := w.kill(ctx); err != nil {
				r.options.Log.Error(err, "stopping a control plane", "server", s.SystemID)
			}
		} else if installed.reporting {
			r.report(ctx, w, installed, false)
		}
	}
	installed.reporting = false
}

// resume boots the installed system after a power cycle.
func (r *Rack) resume(ctx context.Context, s *server) {
	installed := s.disk
	if installed == nil || installed.reporting {
		return
	}
	if installed.controlPlane && r.workload(installed.endpoint) == nil {
		if _, err := r.startControlPlane(ctx, s, installed); err != nil {
			r.options.Log.Error(err, "restarting a control plane", "server", s.SystemID)
			return
		}
	}
	r.checkLink(ctx, s)
}

// checkLink lets the kubelet report while the server's port has its address, and fall silent while it has not.
func (r *Rack) checkLink(ctx context.Context, s *server) {
	installed := s.disk
	if installed == nil {
		return
	}
	connected := true
	if installed.port != "" {
		address, routed, ok := r.options.Fabric.Lease(installed.port)
		connected = ok && address == installed.address && (routed || installed.controlPlane)
	}
	w := r.workload(installed.endpoint)
	if w == nil || connected == installed.reporting {
		return
	}
	if r.report(ctx, w, installed, connected) {
		installed.reporting = connected
	}
}
