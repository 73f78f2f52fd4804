// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/go-logr/logr"
)

// Options say what to start.
type Options struct {
	// Level to run; Start fails where it is not possible.
	Level Level
	// Dir keeps databases and the daemons' logs; created if missing, left in place by Close. Default: a new temporary
	// directory, which Close removes. One living lab per directory.
	Dir string
	// TLS makes both databases listen with TLS only, and everybody present a certificate. Default: TCP on loopback.
	TLS bool
	// Log receives progress; the zero value is silent.
	Log logr.Logger
}

// TLS is what a client of the lab's databases needs, PEM encoded. The server's certificate names 127.0.0.1.
type TLS struct {
	CA, Certificate, Key []byte
}

// HostPort is a port between a DPU and its host, named after the DPU's representor, such as pf0hpf.
type HostPort struct {
	Name string
	// MAC is the address of the host's interface. At Switches and StandIn, where hosts have none, it is not used.
	MAC net.HardwareAddr
}

// Ports makes HostPorts of names alone; the host's interfaces then have addresses of the kernel's choice.
func Ports(names ...string) []HostPort {
	var ports []HostPort
	for _, name := range names {
		ports = append(ports, HostPort{Name: name})
	}
	return ports
}

// Frame is an Ethernet frame that a host received, with the time of its arrival.
type Frame struct {
	At   time.Time
	Data []byte
}

// ErrNoFrames is the answer of a level that has no packets.
var ErrNoFrames = errors.New("this OVN level has no packets")

// ErrDown is wrapped where something was asked of a DPU that StopDPU has switched off.
var ErrDown = errors.New("the DPU is off")

// plane is what differs between levels. Lab's methods of the same names say what each must do.
type plane interface {
	northbound() string
	southbound() string
	tls() *TLS

	addDPU(ctx context.Context, name string, ports []HostPort) error
	removeDPU(ctx context.Context, name string) error
	stopDPU(ctx context.Context, name string) error
	startDPU(ctx context.Context, name string) error
	plug(ctx context.Context, dpu, port, ifaceID string) error
	unplug(ctx context.Context, dpu, port string) error

	send(ctx context.Context, dpu, port string, frame []byte) error
	received(dpu, port string) ([]Frame, error)
	lease(ctx context.Context, dpu, port string) (netip.Prefix, error)
	ping(ctx context.Context, dpu, port string, target netip.Addr) error

	hangController(dpu string) (func() error, error)
	killController(ctx context.Context, dpu string) error
	killSwitch(ctx context.Context, dpu string) error
	cutManagement(ctx context.Context, dpu string) (func(context.Context) error, error)
	hangNorthd() (func() error, error)
	restartSouthbound(ctx context.Context) error

	processes() []Process
	close(ctx context.Context) error
}

// Process is one of the lab's daemons.
type Process struct {
	Name string
	PID  int
	// RSS is the resident memory in bytes, 0 once it has ended.
	RSS uint64
	Log string
}

// Lab is a running OVN. Its methods are safe for concurrent use; those that change one DPU wait for each other.
type Lab struct {
	level Level
	plane plane
}

// Start starts databases and northd and returns when they answer; DPUs are added after. On failure nothing stays behind.
// ctx limits the start only: the lab lives until Close.
func Start(ctx context.Context, options Options) (*Lab, error) {
	if err := Possible(options.Level); err != nil {
		return nil, fmt.Errorf("OVN level %s is not possible: %w", options.Level, err)
	}
	start := startDaemons
	if options.Level == StandIn {
		start = startStandIn
	}
	plane, err := start(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("starting OVN at level %s: %w", options.Level, err)
	}
	return &Lab{level: options.Level, plane: plane}, nil
}

// Close ends everything: processes, namespaces, sockets. It may be called more than once.
func (l *Lab) Close(ctx context.Context) error { return l.plane.close(ctx) }

// Level returns the level that runs.
func (l *Lab) Level() Level { return l.level }

// Northbound returns the northbound database's address on loopback as OVN writes it, tcp:127.0.0.1:port or ssl:127.0.0.1:port.
func (l *Lab) Northbound() string { return l.plane.northbound() }

// Southbound returns the southbound database's address, as Northbound does.
func (l *Lab) Southbound() string { return l.plane.southbound() }

// TLS returns a client's material for both databases, nil where they listen without TLS.
func (l *Lab) TLS() *TLS { return l.plane.tls() }

// Processes returns the daemons that were started and not replaced since.
func (l *Lab) Processes() []Process { return l.plane.processes() }

// AddDPU starts a DPU with these host ports, plugged into nothing, and returns when its chassis is registered under the name.
func (l *Lab) AddDPU(ctx context.Context, name string, ports ...HostPort) error {
	return l.plane.addDPU(ctx, name, ports)
}

// RemoveDPU ends the DPU and its host for good and deletes its chassis, as decommissioning does.
func (l *Lab) RemoveDPU(ctx context.Context, name string) error {
	return l.plane.removeDPU(ctx, name)
}

// StopDPU switches the DPU off as a loss of power does: its chassis and port bindings stay in the southbound database.
func (l *Lab) StopDPU(ctx context.Context, name string) error { return l.plane.stopDPU(ctx, name) }

// StartDPU boots the DPU, off or not, with everything it had plugged, and returns when its controller has come back.
func (l *Lab) StartDPU(ctx context.Context, name string) error {
	return l.plane.startDPU(ctx, name)
}

// Plug gives the host port of the DPU to the logical switch port ifaceID, as DPF's node agent does: it puts the representor on
// br-int with that iface-id. It returns before ovn-controller has acted on it.
func (l *Lab) Plug(ctx context.Context, dpu, port, ifaceID string) error {
	return l.plane.plug(ctx, dpu, port, ifaceID)
}

// Unplug takes the representor off br-int, whatever it was plugged into: no controller is needed to end its traffic.
func (l *Lab) Unplug(ctx context.Context, dpu, port string) error {
	return l.plane.unplug(ctx, dpu, port)
}

// Send sends a whole Ethernet frame, without checksum, from the host into the port. It says nothing of its fate: a dead
// DPU swallows it without an error, as a wire would. Frames longer than 9216 bytes behind the header are refused.
func (l *Lab) Send(ctx context.Context, dpu, port string, frame []byte) error {
	return l.plane.send(ctx, dpu, port, frame)
}

// Received returns the frames that reached the host through the port since the last call, oldest first. Each frame is
// returned once, to whoever asks first.
func (l *Lab) Received(dpu, port string) ([]Frame, error) { return l.plane.received(dpu, port) }

// Lease runs a DHCP client on the host's side of the port and configures the interface as it is told. Namespaces only.
func (l *Lab) Lease(ctx context.Context, dpu, port string) (netip.Prefix, error) {
	return l.plane.lease(ctx, dpu, port)
}

// Ping sends one echo request from the host's side of the port and returns nil when the answer has come. Namespaces only.
func (l *Lab) Ping(ctx context.Context, dpu, port string, target netip.Addr) error {
	return l.plane.ping(ctx, dpu, port, target)
}

// HangController stops the DPU's ovn-controller without ending it, until resume is called.
func (l *Lab) HangController(dpu string) (resume func() error, err error) {
	return l.plane.hangController(dpu)
}

// KillController ends the DPU's ovn-controller without a farewell: its chassis and the flows of its switch stay.
func (l *Lab) KillController(ctx context.Context, dpu string) error {
	return l.plane.killController(ctx, dpu)
}

// KillSwitch ends the DPU's ovs-vswitchd: no packet passes, and nothing in OVN's databases says so. StartDPU repairs it.
func (l *Lab) KillSwitch(ctx context.Context, dpu string) error {
	return l.plane.killSwitch(ctx, dpu)
}

// CutManagement takes the DPU's link to the databases down until restore is called. Namespaces only.
func (l *Lab) CutManagement(ctx context.Context, dpu string) (restore func(context.Context) error, err error) {
	return l.plane.cutManagement(ctx, dpu)
}

// HangNorthd stops northd without ending it, until resume is called.
func (l *Lab) HangNorthd() (resume func() error, err error) { return l.plane.hangNorthd() }

// RestartSouthbound stops the southbound database's server and starts it again at the same address; its contents stay.
func (l *Lab) RestartSouthbound(ctx context.Context) error { return l.plane.restartSouthbound(ctx) }
