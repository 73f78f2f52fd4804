// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

const wireBridge = "fabric"

// wire is the datapath of level Switches: every port is one of Open vSwitch's dummies, and one more switch, to which the
// uplinks are joined by unix sockets, is the fabric.
type wire struct {
	lab *daemons
	// fabric is a switch like a DPU's, without controller and host ports.
	fabric *dpu
}

func newWire(l *daemons) *wire {
	return &wire{lab: l, fabric: &dpu{lab: l, name: "wire", run: filepath.Join(l.run, "w")}}
}

func (w *wire) open(ctx context.Context) error {
	if err := w.fabric.startDatabase(ctx); err != nil {
		return err
	}
	if err := w.fabric.vsctl(ctx, "--no-wait", "init", "--", "add-br", wireBridge); err != nil {
		return err
	}
	var err error
	w.fabric.vswitch, err = w.fabric.launch(ctx, "switch", tierSwitch, ovsVswitchd,
		append(w.switchFlags(), "--unixctl="+filepath.Join(w.fabric.run, "v.ctl"), w.fabric.ovsdb().address)...)
	if err != nil {
		return err
	}
	return waitUntil(ctx, "the fabric's switch", w.fabric.vswitch, func(ctx context.Context) error {
		_, err := w.fabric.switchControl().command(ctx, "version")
		return err
	})
}

func (w *wire) remote() string { return w.lab.central.southbound.listen.address }

func (w *wire) wrap(_ *dpu, path string, args []string) (string, []string) { return path, args }

// switchFlags replace the datapath of type "system" by the dummy, and nothing else: tunnels stay real.
func (w *wire) switchFlags() []string { return []string{"--enable-dummy=system", "--disable-system"} }

func (w *wire) bridgeType() string { return "system" }

func (w *wire) cable(d *dpu) string {
	return filepath.Join(w.fabric.run, fmt.Sprintf("%d.sock", d.index))
}

func (w *wire) prepare(ctx context.Context, d *dpu) error {
	for _, port := range d.ports {
		port.side = &dummySide{dpu: d, port: port.Name}
	}
	name := fmt.Sprintf("m%d", d.index)
	return w.fabric.vsctl(ctx, "add-port", wireBridge, name, "--", "set", "interface", name, "type=dummy",
		fmt.Sprintf("mtu_request=%d", fabricMTU), "options:pstream=punix:"+w.cable(d))
}

func (w *wire) uplinkOptions(d *dpu) []string {
	return []string{"type=dummy", "options:stream=unix:" + w.cable(d)}
}

func (w *wire) portOptions(d *dpu, port *hostPort) []string {
	side := port.side.(*dummySide)
	return []string{"type=dummy", "options:tx_pcap=" + side.nextFile()}
}

func (w *wire) address(ctx context.Context, d *dpu) error {
	address := fmt.Sprintf("%s/%d", d.vtep(), vtepPrefix.Bits())
	if _, err := d.switchControl().command(ctx, "netdev-dummy/ip4addr", uplinkBridge, address); err != nil {
		return err
	}
	if _, err := d.switchControl().command(ctx, "ovs/route/add", address, uplinkBridge); err != nil {
		return err
	}
	return waitUntil(ctx, "the cable to the fabric", d.vswitch, func(ctx context.Context) error {
		state, err := d.switchControl().command(ctx, "netdev-dummy/conn-state", uplink)
		if err == nil && !strings.HasSuffix(strings.TrimSpace(state), ": connected") {
			err = errors.New(state)
		}
		return err
	})
}

func (w *wire) cut(context.Context, *dpu, bool) error {
	return fmt.Errorf("level %s has no management link", Switches)
}

func (w *wire) host(*dpu) (hostCommands, error) {
	return nil, fmt.Errorf("hosts of level %s have no network stack", Switches)
}

func (w *wire) discard(ctx context.Context, d *dpu) error {
	if w.lab.life.Err() != nil {
		return nil // the whole fabric goes
	}
	return w.fabric.vsctl(ctx, "--if-exists", "del-port", wireBridge, fmt.Sprintf("m%d", d.index))
}

func (w *wire) close(context.Context) error { return nil }
