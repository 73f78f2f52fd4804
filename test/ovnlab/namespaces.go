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
	"strings"
)

const (
	fabricBridge     = "fabric"
	managementBridge = "management"
	managementPort   = "oob0"
	// southboundPort is OVN's usual one.
	southboundPort = 6642
)

var managementPrefix = netip.MustParsePrefix("10.98.0.0/16")

// namespaces is the datapath of level Namespaces: one network namespace for the fabric's and the management network's bridges,
// and for every DPU one for itself and one for its host.
type namespaces struct {
	lab     *daemons
	prefix  string // of the namespaces' names
	tools   programs
	forward *forwarder
}

// namespaceTools are what the level needs beside OVN.
var namespaceTools = []string{"ip", "nsenter", "ethtool", "ping", "busybox"}

func newNamespaces(l *daemons) (*namespaces, error) {
	tools, err := findNamespaceTools()
	if err != nil {
		return nil, err
	}
	// The sockets' directory has a name that nobody else has.
	return &namespaces{lab: l, tools: tools, prefix: fmt.Sprintf("%s%d-%s", namespacePrefix, os.Getpid(), filepath.Base(l.run))}, nil
}

func (n *namespaces) network() string      { return n.prefix + "-net" }
func (n *namespaces) inside(d *dpu) string { return fmt.Sprintf("%s-d%d", n.prefix, d.index) }
func (n *namespaces) hostOf(d *dpu) string { return fmt.Sprintf("%s-h%d", n.prefix, d.index) }
func hostInterface(port string) string     { return strings.TrimSuffix(port, "hpf") + "h" }

func (n *namespaces) remote() string {
	kind, _, _ := strings.Cut(n.lab.central.southbound.listen.address, ":")
	return fmt.Sprintf("%s:%s:%d", kind, managementAddress, southboundPort)
}

func (n *namespaces) open(ctx context.Context) error {
	n.sweep(ctx)
	err := n.batch(ctx, "", []string{"netns add " + n.network()})
	if err != nil {
		return err
	}
	err = n.batch(ctx, n.network(), []string{
		"link set lo up",
		fmt.Sprintf("link add %s mtu %d type bridge forward_delay 0", fabricBridge, fabricMTU),
		"link set " + fabricBridge + " up",
		"link add " + managementBridge + " type bridge forward_delay 0",
		"link set " + managementBridge + " up",
		fmt.Sprintf("addr add %s/%d dev %s", managementAddress, managementPrefix.Bits(), managementBridge),
	})
	if err != nil {
		return err
	}
	_, southbound, _ := strings.Cut(n.lab.central.southbound.listen.address, ":")
	n.forward, err = startForwarder(ctx, n.network(), netip.AddrPortFrom(managementAddress, southboundPort), southbound)
	return err
}

// batch runs commands of ip in a namespace, all in one process.
func (n *namespaces) batch(ctx context.Context, namespace string, lines []string) error {
	return ipBatch(ctx, n.tools["ip"], namespace, lines)
}

// wrap runs a command in the DPU's namespace. nsenter becomes the command: process IDs stay what they are.
func (n *namespaces) wrap(d *dpu, path string, args []string) (string, []string) {
	return n.tools["nsenter"], append([]string{"--net=" + namespacePath(n.inside(d)), path}, args...)
}

// switchFlags keep ovs-vswitchd from trying a kernel datapath, which not every kernel has.
func (n *namespaces) switchFlags() []string { return []string{"--disable-system"} }

func (n *namespaces) bridgeType() string { return "netdev" }

func (n *namespaces) prepare(ctx context.Context, d *dpu) error {
	inside, host := n.inside(d), n.hostOf(d)
	if err := n.batch(ctx, "", []string{"netns add " + inside, "netns add " + host}); err != nil {
		return err
	}
	for namespace, settings := range map[string]map[string]string{
		// A bridge's tunnel address must not be answered for by its uplink, with the uplink's MAC.
		inside: {"ipv4/conf/all/arp_ignore": "1", "ipv4/conf/all/arp_announce": "2", "ipv6/conf/all/disable_ipv6": "1", "ipv6/conf/default/disable_ipv6": "1"},
		// Hosts say nothing of their own accord, so that what arrives was sent on purpose.
		host: {"ipv6/conf/all/disable_ipv6": "1", "ipv6/conf/default/disable_ipv6": "1"},
	} {
		if err := inNamespace(namespace, func() error { return writeSettings(settings) }); err != nil {
			return err
		}
	}
	if err := n.batch(ctx, inside, n.links(d)); err != nil {
		return err
	}
	lines := []string{"link set lo up"}
	for _, port := range d.ports {
		if port.MAC != nil {
			lines = append(lines, fmt.Sprintf("link set %s address %s", hostInterface(port.Name), port.MAC))
		}
		lines = append(lines, fmt.Sprintf("link set %s up", hostInterface(port.Name)))
	}
	if err := n.batch(ctx, host, lines); err != nil {
		return err
	}
	return n.openSides(ctx, d)
}

// links are the DPU's, as seen from inside it.
func (n *namespaces) links(d *dpu) []string {
	lines := []string{
		"link set lo up",
		fmt.Sprintf("link add %s mtu %d type veth peer name f%d mtu %d netns %s", uplink, fabricMTU, d.index, fabricMTU, n.network()),
		"link set " + uplink + " up",
		fmt.Sprintf("link add %s type veth peer name o%d netns %s", managementPort, d.index, n.network()),
		fmt.Sprintf("addr add %s/%d dev %s", d.addressIn(managementPrefix), managementPrefix.Bits(), managementPort),
		"link set " + managementPort + " up",
	}
	for _, port := range d.ports {
		lines = append(lines,
			fmt.Sprintf("link add %s mtu %d type veth peer name %s mtu %d netns %s", port.Name, portMTU, hostInterface(port.Name), portMTU, n.hostOf(d)),
			"link set "+port.Name+" up")
	}
	return lines
}

// openSides joins the uplinks to their bridges and opens the hosts' packet sockets.
func (n *namespaces) openSides(ctx context.Context, d *dpu) error {
	err := n.batch(ctx, n.network(), []string{
		fmt.Sprintf("link set f%d master %s up", d.index, fabricBridge),
		fmt.Sprintf("link set o%d master %s up", d.index, managementBridge),
	})
	if err != nil {
		return err
	}
	for _, port := range d.ports {
		name := hostInterface(port.Name)
		// What leaves with a checksum still to be filled in is never filled in by a userspace switch.
		err := runCommand(ctx, n.tools["nsenter"], "--net="+namespacePath(n.hostOf(d)), n.tools["ethtool"], "-K", name, "tx", "off")
		if err != nil {
			return err
		}
		err = inNamespace(n.hostOf(d), func() error {
			side, err := openPacketSide(name)
			if err == nil { // else a nil of its type would be kept
				port.side = side
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (n *namespaces) uplinkOptions(*dpu) []string          { return nil }
func (n *namespaces) portOptions(*dpu, *hostPort) []string { return nil }

// address puts the tunnel's on the bridge itself: only there does the userspace datapath find it.
func (n *namespaces) address(ctx context.Context, d *dpu) error {
	return n.batch(ctx, n.inside(d), []string{
		fmt.Sprintf("link set %s mtu %d up", uplinkBridge, fabricMTU),
		fmt.Sprintf("addr replace %s/%d dev %s", d.vtep(), vtepPrefix.Bits(), uplinkBridge),
	})
}

func (n *namespaces) cut(ctx context.Context, d *dpu, down bool) error {
	state := "up"
	if down {
		state = "down"
	}
	return n.batch(ctx, n.network(), []string{fmt.Sprintf("link set o%d %s", d.index, state)})
}

func (n *namespaces) host(d *dpu) (hostCommands, error) {
	return &namespaceHost{namespace: n.hostOf(d), tools: n.tools, run: d.run}, nil
}

// discard deletes the DPU's namespaces; the links between them go with them.
func (n *namespaces) discard(ctx context.Context, d *dpu) error {
	return n.delete(ctx, n.inside(d), n.hostOf(d))
}

func (n *namespaces) delete(ctx context.Context, names ...string) error {
	var errs []error
	for _, name := range names {
		if _, err := os.Stat(namespacePath(name)); err == nil {
			errs = append(errs, n.batch(ctx, "", []string{"netns del " + name}))
		}
	}
	return errors.Join(errs...)
}

func (n *namespaces) close(ctx context.Context) error {
	var errs []error
	if n.forward != nil {
		errs = append(errs, n.forward.close())
	}
	mine, err := filepath.Glob(namespacePath(n.prefix + "-*"))
	errs = append(errs, err)
	for _, path := range mine {
		errs = append(errs, n.delete(ctx, filepath.Base(path)))
	}
	return errors.Join(errs...)
}

// sweep deletes the namespaces of labs whose process has died without closing them.
func (n *namespaces) sweep(ctx context.Context) {
	left, err := filepath.Glob(namespacePath(namespacePrefix + "*"))
	if err != nil {
		return
	}
	for _, path := range left {
		var pid int
		if _, err := fmt.Sscanf(strings.TrimPrefix(filepath.Base(path), namespacePrefix), "%d-", &pid); err != nil {
			continue
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); errors.Is(err, os.ErrNotExist) {
			_ = n.delete(ctx, filepath.Base(path)) // another lab may have swept it meanwhile
		}
	}
}
