// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/pki"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/proc"
)

// Names on a DPU, as DPF's OVN service has them.
const (
	integrationBridge = "br-int"
	uplinkBridge      = "br-ovn-ext"
	uplink            = "p0"
)

const (
	// portMTU is that of host ports: DPF's node agent sets it on representors.
	portMTU = 9216
	// fabricMTU leaves room for Geneve's headers around the largest frame of a host.
	fabricMTU = 9400
	// neighbourAging is the longest that Open vSwitch takes, in seconds.
	neighbourAging = "3600"
)

// vtepPrefix is the fabric's network, managementAddress where the DPUs find the databases.
var (
	vtepPrefix        = netip.MustParsePrefix("10.99.0.0/16")
	managementAddress = netip.MustParseAddr("10.98.0.1")
)

// dpu is a chassis with its host. mu is held by whoever changes it; ports do not change after it is added.
type dpu struct {
	lab   *daemons
	name  string
	index int
	run   string
	ports []*hostPort

	mu         sync.Mutex
	up         bool
	database   *proc.Process
	vswitch    *proc.Process
	controller *proc.Process
}

// hostPort is a port between DPU and host.
type hostPort struct {
	HostPort
	// ifaceID is what is plugged, empty for nothing; guarded by the DPU's mu.
	ifaceID string
	// side is the host's: there from prepare on.
	side hostSide
}

// hostSide sends and receives a host's frames. It is safe for concurrent use.
type hostSide interface {
	send(ctx context.Context, frame []byte) error
	received() ([]Frame, error)
	close() error
}

func (d *dpu) ovsdb() endpoint { return endpoint{address: "unix:" + filepath.Join(d.run, "db.sock")} }
func (d *dpu) switchControl() endpoint {
	return endpoint{address: "unix:" + filepath.Join(d.run, "v.ctl")}
}

// controllerControl is where this ovn-controller listens: it takes no --unixctl.
func (d *dpu) controllerControl() endpoint {
	return endpoint{address: "unix:" + filepath.Join(d.run, fmt.Sprintf("ovn-controller.%d.ctl", d.controller.PID()))}
}

// address returns the DPU's in a /16, which its index chooses.
func (d *dpu) addressIn(network netip.Prefix) netip.Addr {
	octets := network.Addr().As4()
	octets[2], octets[3] = byte((d.index+10)>>8), byte(d.index+10)
	return netip.AddrFrom4(octets)
}

func (d *dpu) vtep() netip.Addr { return d.addressIn(vtepPrefix) }

// uplinkMAC is fixed, so that others know it before this DPU's switch runs.
func (d *dpu) uplinkMAC() string {
	return fmt.Sprintf("0e:00:00:00:%02x:%02x", d.index>>8&0xff, d.index&0xff)
}

func (d *dpu) port(name string) (*hostPort, error) {
	i := slices.IndexFunc(d.ports, func(p *hostPort) bool { return p.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("DPU %s has no host port %q", d.name, name)
	}
	return d.ports[i], nil
}

func (d *dpu) closePorts() error {
	var errs []error
	for _, port := range d.ports {
		if port.side != nil {
			errs = append(errs, port.side.close())
		}
	}
	return errors.Join(errs...)
}

// boot starts the DPU's daemons on an empty switch database and plugs what was plugged. The caller holds d.mu.
func (d *dpu) boot(ctx context.Context) error {
	for _, step := range []func(context.Context) error{d.startDatabase, d.startSwitch, d.meetPeers, d.startController} {
		if err := step(ctx); err != nil {
			return errors.Join(fmt.Errorf("DPU %s: %w", d.name, err), d.halt(context.WithoutCancel(ctx)))
		}
	}
	d.up = true
	return nil
}

func (d *dpu) launch(ctx context.Context, role string, tier int, program string, args ...string) (*proc.Process, error) {
	path, args := d.lab.path.wrap(d, d.lab.programs[program], append(logging(), args...))
	return d.lab.launch(ctx, proc.Spec{Name: d.name + "-" + role, Path: path, Args: args, Tier: tier, Env: environment(d.run)})
}

func (d *dpu) startDatabase(ctx context.Context) error {
	if err := os.MkdirAll(d.run, 0o700); err != nil {
		return err
	}
	file := filepath.Join(d.run, "conf.db")
	if err := removeDatabase(file); err != nil {
		return err
	}
	if err := d.lab.tool(ctx, ovsdbTool, "create", file, d.lab.programs[switchSchema]); err != nil {
		return err
	}
	var err error
	d.database, err = d.launch(ctx, "database", tierSwitchDatabase, ovsdbServer,
		"--remote=p"+d.ovsdb().address, "--unixctl="+filepath.Join(d.run, "db.ctl"), file)
	if err != nil {
		return err
	}
	return waitUntil(ctx, "the switch database", d.database, func(ctx context.Context) error {
		_, err := d.ovsdb().selectRows(ctx, vswitch, vswitch, everything(), "_uuid")
		return err
	})
}

// startSwitch starts ovs-vswitchd on a database that already says everything, and waits until it has done it.
func (d *dpu) startSwitch(ctx context.Context) error {
	if err := d.vsctl(ctx, append([]string{"--no-wait", "init", "--"}, d.settings()...)...); err != nil {
		return err
	}
	var err error
	d.vswitch, err = d.launch(ctx, "switch", tierSwitch, ovsVswitchd,
		append(d.lab.path.switchFlags(), "--unixctl="+filepath.Join(d.run, "v.ctl"), d.ovsdb().address)...)
	if err != nil {
		return err
	}
	err = waitUntil(ctx, "the switch's ports", d.vswitch, func(ctx context.Context) error {
		unset := []any{"set", []any{}}
		rows, err := d.ovsdb().selectRows(ctx, vswitch, "Interface", [][]any{{"ofport", "==", unset}}, "name")
		if err != nil || len(rows) > 0 {
			return errors.Join(err, fmt.Errorf("%d interfaces are not there yet", len(rows)))
		}
		_, err = d.switchControl().command(ctx, "version")
		return err
	})
	if err != nil {
		return err
	}
	return d.lab.path.address(ctx, d)
}

// settings are ovs-vsctl's arguments for the whole switch.
func (d *dpu) settings() []string {
	path := d.lab.path
	bridge := func(name, mac string, more ...string) []string {
		args := []string{"--may-exist", "add-br", name, "--", "set", "bridge", name, "fail-mode=" + more[0], "datapath_type=" + path.bridgeType()}
		if mac != "" {
			args = append(args, "other_config:hwaddr="+mac)
		}
		return append(args, "--")
	}
	args := []string{"set", "open", ".",
		"external_ids:system-id=" + d.name, "external_ids:hostname=" + d.name,
		"external_ids:ovn-remote=" + path.remote(), "external_ids:ovn-encap-type=geneve", "external_ids:ovn-encap-ip=" + d.vtep().String(),
		"external_ids:ovn-bridge-mappings=physnet-" + d.name + ":" + uplinkBridge,
		"external_ids:ovn-bridge-datapath-type=" + path.bridgeType(), "--"}
	args = append(args, bridge(uplinkBridge, d.uplinkMAC(), "standalone")...)
	args = append(args, bridge(integrationBridge, "", "secure")...)
	args = append(args, "add-port", uplinkBridge, uplink, "--", "set", "interface", uplink, fmt.Sprintf("mtu_request=%d", fabricMTU))
	args = append(args, path.uplinkOptions(d)...)
	args = append(args, "--", "set", "interface", uplinkBridge, fmt.Sprintf("mtu_request=%d", fabricMTU))
	for _, port := range d.ports {
		if port.ifaceID != "" {
			args = append(append(args, "--"), d.plugging(port)...)
		}
	}
	return args
}

// plugging are ovs-vsctl's arguments that put the representor on br-int for the port's ifaceID.
func (d *dpu) plugging(port *hostPort) []string {
	args := []string{"--may-exist", "add-port", integrationBridge, port.Name, "--", "set", "interface", port.Name,
		fmt.Sprintf("mtu_request=%d", portMTU), "external_ids:iface-id=" + port.ifaceID}
	return append(args, d.lab.path.portOptions(d, port)...)
}

func (d *dpu) vsctl(ctx context.Context, args ...string) error {
	return d.lab.tool(ctx, ovsVsctl, append([]string{"--db=" + d.ovsdb().address, "--timeout=25"}, args...)...)
}

// meetPeers tells this DPU's switch the fabric addresses of all others, and theirs this one's: a tunnel's first frame would
// else be lost to address resolution, and the dummy datapath has nobody who answers.
func (d *dpu) meetPeers(ctx context.Context) error {
	if _, err := d.switchControl().command(ctx, "tnl/neigh/aging", neighbourAging); err != nil {
		return err
	}
	for _, peer := range d.lab.members() {
		if peer == d {
			continue
		}
		if err := d.meet(ctx, peer); err != nil {
			return err
		}
		_ = peer.meet(ctx, d) // one whose switch does not run meets everybody when it boots
	}
	return nil
}

func (d *dpu) meet(ctx context.Context, peer *dpu) error {
	_, err := d.switchControl().command(ctx, "tnl/neigh/set", uplinkBridge, peer.vtep().String(), peer.uplinkMAC())
	return err
}

// startController starts ovn-controller and waits until its chassis is registered and it is connected.
func (d *dpu) startController(ctx context.Context) error {
	var args []string
	central := d.lab.central
	if central.keys != nil {
		if _, err := central.keys.issue(d.keyName(), pki.Request{CommonName: d.name, Client: true}); err != nil {
			return err
		}
		args = central.keys.flags(d.keyName())
	}
	var err error
	d.controller, err = d.launch(ctx, "controller", tierController, ovnController, append(args, d.ovsdb().address)...)
	if err != nil {
		return err
	}
	return waitUntil(ctx, "chassis "+d.name, d.controller, func(ctx context.Context) error {
		status, err := d.controllerControl().command(ctx, "connection-status")
		if err != nil || strings.TrimSpace(status) != "connected" {
			return errors.Join(err, fmt.Errorf("ovn-controller is %s", strings.TrimSpace(status)))
		}
		rows, err := central.southbound.socket.selectRows(ctx, southbound, "Chassis", [][]any{{"name", "==", d.name}}, "name")
		if err != nil || len(rows) == 0 {
			return errors.Join(err, errors.New("no such chassis yet"))
		}
		return nil
	})
}

// keyName is short and safe as a file's name.
func (d *dpu) keyName() string { return fmt.Sprintf("d%d", d.index) }

// halt ends the DPU's daemons without a farewell. The caller holds d.mu.
func (d *dpu) halt(ctx context.Context) error {
	d.up = false
	var errs []error
	for _, p := range []*proc.Process{d.controller, d.vswitch, d.database} {
		if p != nil {
			errs = append(errs, p.Kill(ctx))
		}
	}
	return errors.Join(errs...)
}
