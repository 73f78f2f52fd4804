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

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/proc"
)

// maxDPUs is what the fabric's addresses suffice for.
const maxDPUs = 60000

// get returns a DPU of the lab.
func (l *daemons) get(name string) (*dpu, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d, ok := l.dpus[name]
	if !ok {
		return nil, fmt.Errorf("the lab has no DPU %q", name)
	}
	return d, nil
}

// register reserves the name, so that adding and removing it cannot overlap.
func (l *daemons) register(name string, ports []HostPort) (*dpu, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return nil, proc.ErrStopping
	case l.dpus[name] != nil:
		return nil, fmt.Errorf("the lab has a DPU %q already", name)
	case l.last >= maxDPUs:
		return nil, errors.New("the fabric has no more addresses")
	}
	if err := checkPorts(ports); err != nil {
		return nil, err
	}
	l.last++
	d := &dpu{lab: l, name: name, index: l.last, run: filepath.Join(l.run, fmt.Sprintf("d%d", l.last))}
	for _, port := range ports {
		d.ports = append(d.ports, &hostPort{HostPort: port})
	}
	d.mu.Lock() // nobody has seen it: this does not wait
	l.dpus[name] = d
	return d, nil
}

// checkPorts refuses names that the kernel or the switch would refuse later, or mistake for something else.
func checkPorts(ports []HostPort) error {
	names := []string{integrationBridge, uplinkBridge, uplink, managementPort, "lo"}
	for _, port := range ports {
		switch {
		case port.Name == "" || len(port.Name) > maxInterfaceName:
			return fmt.Errorf("host port %q: a name has 1 to %d characters", port.Name, maxInterfaceName)
		case slices.Contains(names, port.Name):
			return fmt.Errorf("host port %q: the name is taken", port.Name)
		}
		names = append(names, port.Name)
	}
	return nil
}

func (l *daemons) forget(d *dpu) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.dpus, d.name)
}

func (l *daemons) addDPU(ctx context.Context, name string, ports []HostPort) error {
	d, err := l.register(name, ports)
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	if err = l.path.prepare(ctx, d); err == nil {
		err = d.boot(ctx)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("adding DPU %s: %w", name, err), l.dismantle(context.WithoutCancel(ctx), d))
	}
	return nil
}

func (l *daemons) removeDPU(ctx context.Context, name string) error {
	d, err := l.get(name)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := l.dismantle(ctx, d); err != nil {
		return fmt.Errorf("removing DPU %s: %w", name, err)
	}
	_, err = l.central.southbound.socket.transact(ctx, southbound,
		operation{Op: "delete", Table: "Chassis", Where: [][]any{{"name", "==", name}}},
		operation{Op: "delete", Table: "Chassis_Private", Where: [][]any{{"name", "==", name}}})
	return err
}

// dismantle takes away all of a DPU but its rows in the southbound database. The caller holds d.mu.
func (l *daemons) dismantle(ctx context.Context, d *dpu) error {
	errs := []error{d.halt(ctx), d.closePorts(), l.path.discard(ctx, d), os.RemoveAll(d.run)}
	l.forget(d)
	return errors.Join(errs...)
}

// change runs what changes a DPU, alone.
func (l *daemons) change(name string, change func(*dpu) error) error {
	d, err := l.get(name)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := change(d); err != nil {
		return fmt.Errorf("DPU %s: %w", name, err)
	}
	return nil
}

func (l *daemons) stopDPU(ctx context.Context, name string) error {
	return l.change(name, func(d *dpu) error { return d.halt(ctx) })
}

func (l *daemons) startDPU(ctx context.Context, name string) error {
	return l.change(name, func(d *dpu) error {
		if err := d.halt(ctx); err != nil {
			return err
		}
		return d.boot(ctx)
	})
}

func (l *daemons) plug(ctx context.Context, name, port, ifaceID string) error {
	return l.change(name, func(d *dpu) error {
		p, err := d.port(port)
		switch {
		case err != nil:
			return err
		case ifaceID == "":
			return fmt.Errorf("port %s: nothing to plug: no iface-id", port)
		case !d.up:
			return ErrDown
		}
		p.ifaceID = ifaceID
		return d.replug(ctx, d.plugging(p)...)
	})
}

func (l *daemons) unplug(ctx context.Context, name, port string) error {
	return l.change(name, func(d *dpu) error {
		p, err := d.port(port)
		if err != nil {
			return err
		}
		if !d.up {
			return ErrDown
		}
		p.ifaceID = ""
		return d.replug(ctx, "--if-exists", "del-port", integrationBridge, port)
	})
}

// replug changes br-int's ports. A switch that runs has done it on return; one that does not cannot be waited for.
func (d *dpu) replug(ctx context.Context, args ...string) error {
	if !d.vswitch.Running() {
		args = append([]string{"--no-wait"}, args...)
	}
	return d.vsctl(ctx, args...)
}

// side returns the host's end of a port.
func (l *daemons) side(name, port string) (hostSide, error) {
	d, err := l.get(name)
	if err != nil {
		return nil, err
	}
	p, err := d.port(port)
	if err != nil {
		return nil, err
	}
	if p.side == nil {
		return nil, fmt.Errorf("DPU %s is being added", name)
	}
	return p.side, nil
}

func (l *daemons) send(ctx context.Context, name, port string, frame []byte) error {
	side, err := l.side(name, port)
	if err != nil {
		return err
	}
	if len(frame) < headerLength || len(frame) > headerLength+vlanLength+portMTU {
		return fmt.Errorf("a frame has %d to %d bytes, not %d", headerLength, headerLength+vlanLength+portMTU, len(frame))
	}
	if err := side.send(ctx, frame); err != nil {
		return fmt.Errorf("sending from the host of DPU %s: %w", name, err)
	}
	return nil
}

func (l *daemons) received(name, port string) ([]Frame, error) {
	side, err := l.side(name, port)
	if err != nil {
		return nil, err
	}
	frames, err := side.received()
	if err != nil {
		return nil, fmt.Errorf("receiving at the host of DPU %s: %w", name, err)
	}
	return frames, nil
}

func (l *daemons) lease(ctx context.Context, name, port string) (netip.Prefix, error) {
	host, err := l.host(name, port)
	if err != nil {
		return netip.Prefix{}, err
	}
	return host.lease(ctx, port)
}

func (l *daemons) ping(ctx context.Context, name, port string, target netip.Addr) error {
	host, err := l.host(name, port)
	if err != nil {
		return err
	}
	return host.ping(ctx, port, target)
}

func (l *daemons) host(name, port string) (hostCommands, error) {
	d, err := l.get(name)
	if err != nil {
		return nil, err
	}
	if _, err := d.port(port); err != nil {
		return nil, err
	}
	return l.path.host(d)
}
