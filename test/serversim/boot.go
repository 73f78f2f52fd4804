// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package serversim

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/controlplane"
)

const (
	// haltTimeout limits what is done for a server that has lost its power: nothing of it may hold up the next event.
	haltTimeout   = 20 * time.Second
	appearTimeout = time.Minute
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
	// cluster is the one it has joined; certificates and etcdPorts are on the disk of a control-plane server.
	cluster      *cluster
	certificates certificates
	etcdPorts    controlplane.EtcdPorts
}

// boot installs the system and lets it join; whatever happens is recorded.
func (r *Rack) boot(ctx context.Context, s *server, userData []byte) {
	r.wipe(ctx, s)
	s.off = false
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
	installed := &node{name: config.registration().Name, config: config, files: system.files, controlPlane: config.controlPlane()}
	if installed.name == "" {
		installed.name = s.Hostname
	}
	switch {
	case config.init != nil:
		installed.endpoint = config.cluster.ControlPlaneEndpoint
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
	if err := r.enter(ctx, s, installed); err != nil {
		return errors.Join(err, r.retreat(ctx, s, installed))
	}
	// From here on the disk knows its node: it comes back after a power cycle.
	s.disk = installed
	if err := r.appear(ctx, s, installed); err != nil {
		return err
	}
	installed.reporting = true
	return nil
}

// appear makes the node visible in its cluster. Kubelets try again and again, while etcd elects a leader or a balancer notices a
// dead server.
func (r *Rack) appear(ctx context.Context, s *server, n *node) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, joinInterval, appearTimeout, true, func(ctx context.Context) (bool, error) {
		last = r.register(ctx, s, n)
		return last == nil, nil
	})
	if err != nil {
		return errors.Join(last, ctx.Err())
	}
	return nil
}

func (r *Rack) register(ctx context.Context, s *server, n *node) error {
	version, err := controlplane.PublishedVersion(ctx, n.cluster.clients)
	if err != nil {
		return fmt.Errorf("reading kubeadm's configuration: %w", err)
	}
	if err := r.registerNode(ctx, s, n, version); err != nil || !n.controlPlane {
		return err
	}
	return n.cluster.mirror(ctx, n, r.member(n.cluster, s), version)
}

// enter makes the server part of a cluster, so far without a Node.
func (r *Rack) enter(ctx context.Context, s *server, installed *node) error {
	if installed.config.init != nil {
		return r.initControlPlane(ctx, s, installed)
	}
	if err := r.discover(ctx, installed); err != nil {
		return err
	}
	if !installed.controlPlane {
		return nil
	}
	return r.joinControlPlane(ctx, s, installed)
}

// retreat ends what a failed kubeadm has started. What it told the other members of etcd stays, as it does after a real one.
func (r *Rack) retreat(ctx context.Context, s *server, installed *node) error {
	if !installed.controlPlane || installed.cluster == nil {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	return errors.Join(r.stopMember(ctx, installed.cluster, s), r.leave(ctx, installed.cluster, s))
}

// halt is the loss of power. The node's last report stands until the cluster notices its silence, which happens at once
// here: no test gains by waiting 40 s for it.
func (r *Rack) halt(ctx context.Context, s *server) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), haltTimeout)
	defer cancel()
	s.off = true
	installed := s.disk
	if installed == nil {
		return
	}
	if installed.controlPlane {
		if err := r.stopMember(ctx, installed.cluster, s); err != nil {
			r.options.Log.Error(err, "stopping a control plane", "server", s.SystemID)
		}
	}
	r.checkLink(ctx, s) // and again, if the cluster cannot be told now
}

// wipe makes the disk empty.
func (r *Rack) wipe(ctx context.Context, s *server) {
	r.halt(ctx, s)
	if installed := s.disk; installed != nil && installed.controlPlane {
		if err := r.leave(context.WithoutCancel(ctx), installed.cluster, s); err != nil {
			r.options.Log.Error(err, "ending a cluster", "server", s.SystemID)
		}
	}
	s.disk = nil
	if err := os.RemoveAll(r.diskDir(s)); err != nil {
		r.options.Log.Error(err, "wiping a disk", "server", s.SystemID)
	}
}

// resume boots the installed system after a power cycle.
func (r *Rack) resume(ctx context.Context, s *server) {
	s.off = false
	installed := s.disk
	if installed == nil {
		return
	}
	if installed.controlPlane && r.member(installed.cluster, s) == nil {
		if err := r.restartMember(ctx, s, installed); err != nil {
			if ctx.Err() == nil {
				r.options.Log.Error(err, "a control plane stays down", "server", s.SystemID)
			}
			return
		}
		installed.reporting = false // its new kubelet listens elsewhere
	}
	r.checkLink(ctx, s)
}

// checkLink lets the kubelet report while the server has power and its port its address, and fall silent while it has not.
func (r *Rack) checkLink(ctx context.Context, s *server) {
	installed := s.disk
	if installed == nil {
		return
	}
	c := installed.cluster
	connected := !s.off
	if connected && installed.port != "" {
		address, routed, ok := r.options.Fabric.Lease(installed.port)
		connected = ok && address == installed.address && (routed || installed.controlPlane)
	}
	if installed.controlPlane && r.member(c, s) == nil {
		connected = false
	}
	if connected == installed.reporting || r.cluster(installed.endpoint) != c || !r.answers(c) {
		return
	}
	if r.report(ctx, s, installed, connected) {
		installed.reporting = connected
	}
}
