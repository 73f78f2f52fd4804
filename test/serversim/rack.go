// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package serversim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/proc"
)

const (
	defaultLeaseTimeout = 30 * time.Second
	// defaultJoinTimeout is kubeadm's own for discovery.
	defaultJoinTimeout = 5 * time.Minute
	linkInterval       = 2 * time.Second
)

// Fabric is what the servers' tenant ports are plugged into.
type Fabric interface {
	// Lease is what DHCP answers on the port with this MAC: the address, and whether its network is routed to addresses
	// outside the VPC. ok is false while the port is on no network.
	Lease(mac string) (address netip.Addr, externallyRouted, ok bool)
}

// Port is a tenant port as the server's operating system sees it.
type Port struct {
	// Interface is the kernel's name, such as enp1s0f0np0.
	Interface string
	// MAC in the usual colon notation.
	MAC string
}

// Server is a piece of hardware.
type Server struct {
	// SystemID is MAAS' name and, by MAAS' metadata service, cloud-init's instance_id.
	SystemID string
	// Hostname as MAAS assigns it.
	Hostname string
	// TenantPorts lie behind DPUs. A server without them uses its provisioning address.
	TenantPorts         []Port
	ProvisioningAddress netip.Addr
	// CPUs and MemoryMiB are what is built in, as MAAS counts it; default 64 and 512 GiB.
	CPUs, MemoryMiB int
}

// Options configure a Rack.
type Options struct {
	// Supervisor runs the processes of booted control planes.
	Supervisor *proc.Supervisor
	// Bin is the directory with etcd, kube-apiserver and kwok.
	Bin string
	// Dir holds the servers' disks.
	Dir string
	// Fabric is asked whenever a server uses a tenant port.
	Fabric Fabric
	// KubeletVersion says which kubelet the deployed image of a server contains; empty or without it: the version of the
	// cluster it joins.
	KubeletVersion func(systemID string) string
	// LeaseTimeout limits the wait for a DHCP answer, whatever the user data allows; default 30 s.
	LeaseTimeout time.Duration
	// JoinTimeout limits the wait for a control plane to join; default 5 min, as kubeadm has it.
	JoinTimeout time.Duration
	// Clock stamps records and conditions; default the real one.
	Clock clock.PassiveClock
	Log   logr.Logger
}

// BootRecord tells how an installed operating system fared with its user data. It never contains user data.
type BootRecord struct {
	SystemID string
	// Time is when the boot ended.
	Time time.Time
	// Endpoint and Node are known once the user data was understood.
	Endpoint, Node string
	// ControlPlane says that the server was to become a control-plane node.
	ControlPlane bool
	// Address is the node's.
	Address netip.Addr
	// Joined says whether the server became a node; if not, Reason says why.
	Joined bool
	Reason string
	// Ignored names modules and commands of the user data that were not carried out.
	Ignored []string
}

// Rack holds the servers. It implements the hardware that a MAAS simulator drives: PowerChanged, Boot and Wiped return at
// once, and what they cause happens in their order for each server.
type Rack struct {
	options Options
	// life ends with Stop.
	life context.Context
	end  context.CancelFunc
	busy sync.WaitGroup

	mu       sync.Mutex
	servers  map[string]*server
	clusters map[string]*cluster // by endpoint
	founding map[string]bool     // endpoints at which kubeadm init is under way
	boots    []BootRecord
}

// New returns a rack without servers.
func New(options Options) *Rack {
	if options.LeaseTimeout == 0 {
		options.LeaseTimeout = defaultLeaseTimeout
	}
	if options.JoinTimeout == 0 {
		options.JoinTimeout = defaultJoinTimeout
	}
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	if options.Log.GetSink() == nil {
		options.Log = logr.Discard()
	}
	life, end := context.WithCancel(context.Background())
	return &Rack{
		options: options, life: life, end: end,
		servers: map[string]*server{}, clusters: map[string]*cluster{}, founding: map[string]bool{},
	}
}

// server is the state of a Server. Fields below last belong to the operation that is running.
type server struct {
	Server
	// cancel interrupts the newest operation, last is closed when it has ended. Both are guarded by the rack's mutex.
	cancel context.CancelFunc
	last   chan struct{}

	// disk is the node that was installed, nil on an empty disk.
	disk *node
	// off is the power; a server that never had any is not off, which nobody asks.
	off bool
}

// AddServer puts a server into the rack, powered off and empty. A second one with the same system ID is an error.
func (r *Rack) AddServer(hardware Server) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, exists := r.servers[hardware.SystemID]; exists || hardware.SystemID == "" {
		return fmt.Errorf("server %q: the system ID is empty or taken", hardware.SystemID)
	}
	idle := make(chan struct{})
	close(idle)
	r.servers[hardware.SystemID] = &server{Server: hardware, cancel: func() {}, last: idle}
	return nil
}

// PowerChanged says that the server's power went on or off. Without power its processes end at once and its Node stops
// reporting; with power again an installed system boots from its disk.
func (r *Rack) PowerChanged(systemID string, on bool) {
	r.enqueue(systemID, interrupting, func(ctx context.Context, s *server) {
		if on {
			r.resume(ctx, s)
		} else {
			r.halt(ctx, s)
		}
	})
}

// Boot says that a freshly installed operating system starts with this user data.
func (r *Rack) Boot(systemID string, userData []byte) {
	userData = slices.Clone(userData)
	r.enqueue(systemID, interrupting, func(ctx context.Context, s *server) { r.boot(ctx, s, userData) })
}

// Wiped says that the installed operating system will not run again.
func (r *Rack) Wiped(systemID string) {
	r.enqueue(systemID, interrupting, r.wipe)
}

// Boots returns what has become of every boot so far, in the order in which they ended.
func (r *Rack) Boots() []BootRecord {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.boots)
}

// Run watches the tenant ports of running nodes until ctx ends, then stops the rack: a node whose port loses its address
// stops reporting, and reports again once it is back.
func (r *Rack) Run(ctx context.Context) error {
	ticker := time.NewTicker(linkInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return r.Stop(context.WithoutCancel(ctx))
		case <-r.life.Done():
			return nil
		case <-ticker.C:
			r.checkLinks()
		}
	}
}

// checkLinks looks at all servers that are not busy.
func (r *Rack) checkLinks() {
	r.mu.Lock()
	ids := slices.Collect(maps.Keys(r.servers))
	r.mu.Unlock()
	for _, id := range ids {
		r.enqueue(id, onlyIdle, r.checkLink)
	}
}

// Stop pulls the plug of the whole rack and waits until all its processes are gone.
func (r *Rack) Stop(ctx context.Context) error {
	r.mu.Lock()
	r.end() // under the lock, so that nothing is enqueued after it
	r.mu.Unlock()
	r.busy.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, c := range r.clusters {
		for _, m := range c.installed {
			if m != nil {
				errs = append(errs, m.kill(ctx))
			}
		}
		errs = append(errs, c.close(ctx))
	}
	clear(r.clusters)
	return errors.Join(errs...)
}

// urgency says what an operation does to one that is running.
type urgency bool

const (
	// interrupting: power and disk change whether or not the software is ready for it.
	interrupting urgency = true
	// onlyIdle: a busy server is left alone.
	onlyIdle urgency = false
)

// enqueue runs the operation after all earlier ones of the server.
func (r *Rack) enqueue(systemID string, urgent urgency, operation func(context.Context, *server)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.servers[systemID]
	if !ok {
		r.options.Log.Info("ignoring an event of an unknown server", "server", systemID)
		return
	}
	if r.life.Err() != nil || urgent == onlyIdle && s.isBusy() {
		return
	}
	s.cancel()
	ctx, cancel := context.WithCancel(r.life)
	before, done := s.last, make(chan struct{})
	s.cancel, s.last = cancel, done
	r.busy.Go(func() {
		defer close(done)
		defer cancel()
		<-before
		operation(ctx, s)
	})
}

// isBusy says whether an operation runs or waits; the rack's mutex is held.
func (s *server) isBusy() bool {
	select {
	case <-s.last:
		return false
	default:
		return true
	}
}

func (r *Rack) record(boot BootRecord) {
	boot.Time = r.options.Clock.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.boots = append(r.boots, boot)
	r.options.Log.Info("booted", "server", boot.SystemID, "node", boot.Node, "address", boot.Address, "joined", boot.Joined, "reason", boot.Reason)
}

func (r *Rack) diskDir(s *server) string { return filepath.Join(r.options.Dir, s.SystemID) }
