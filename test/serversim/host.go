// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package serversim

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	providerIDPrefix = "maas:///"
	kubeadmDirectory = "/run/kubeadm"
	leaseInterval    = 100 * time.Millisecond
)

// lease is what DHCP on a tenant port answered.
type lease struct {
	address          netip.Addr
	externallyRouted bool
}

// host is a booted operating system while it carries out its user data.
type host struct {
	server Server
	fabric Fabric
	// patience limits waits that the user data itself would allow to take longer.
	patience time.Duration

	files      map[string]string
	configured []Port           // by netplan, with DHCP
	leases     map[string]lease // by interface
	ignored    []string
	// problems are failed commands: cloud-init carries on after them, and what they break is seen later.
	problems []error
}

var (
	waitOnlineCommand = regexp.MustCompile(`^/lib/systemd/systemd-networkd-wait-online --ipv4 --timeout=(\d+) --interface=(\S+|\$\(basename \S+\))$`)
	addressCommand    = regexp.MustCompile(`^sed -i "s/([A-Z][A-Z0-9_]*)/\$\(ip -4 -o address show scope global dev (\S+|\$\(basename \S+\)) \| awk '\{print \$4\}' \| cut -d/ -f1\)/" ` +
		regexp.QuoteMeta(kubeadmDirectory) + `/\*\.yaml$`)
	kubeadmCommand = regexp.MustCompile(`^kubeadm (init|join) --config (\S+)(?: |$)`)
	basename       = regexp.MustCompile(`^\$\(basename /sys/class/net/([^/\s]+)\)$`)
)

// bootstrap carries out the commands and returns what kubeadm was started with. An error says why kubeadm does not run.
func (h *host) bootstrap(ctx context.Context, config *cloudConfig) (*kubeadmConfig, error) {
	h.files = config.files
	h.leases = map[string]lease{}
	h.ignored = config.ignored
	for _, command := range config.commands {
		if match := kubeadmCommand.FindStringSubmatch(command); match != nil {
			return h.kubeadm(match[1], match[2])
		}
		if err := h.run(ctx, command); err != nil {
			h.problems = append(h.problems, err)
		}
	}
	return nil, errors.New("the user data never runs kubeadm")
}

// run carries out one command, if it is an understood one.
func (h *host) run(ctx context.Context, command string) error {
	if command == "netplan apply" {
		return h.netplanApply()
	}
	if match := waitOnlineCommand.FindStringSubmatch(command); match != nil {
		return h.waitOnline(ctx, match[1], match[2])
	}
	if match := addressCommand.FindStringSubmatch(command); match != nil {
		return h.substituteAddress(match[1], match[2])
	}
	// Only its first word is kept: arguments may hold a secret.
	first, _, _ := strings.Cut(strings.TrimSpace(command), " ")
	h.ignored = append(h.ignored, "command "+first)
	return nil
}

func (h *host) netplanApply() error {
	configured, err := dhcpPorts(h.files, h.server.TenantPorts)
	if err != nil {
		return fmt.Errorf("netplan apply: %w", err)
	}
	h.configured = configured
	for _, port := range configured {
		h.askLease(port)
	}
	return nil
}

// askLease is one DHCP exchange.
func (h *host) askLease(port Port) bool {
	address, routed, ok := h.fabric.Lease(port.MAC)
	if ok {
		h.leases[port.Interface] = lease{address: address, externallyRouted: routed}
	}
	return ok
}

// waitOnline waits until DHCP has answered on the interface.
func (h *host) waitOnline(ctx context.Context, seconds, name string) error {
	timeout, err := strconv.Atoi(seconds)
	if err != nil {
		return fmt.Errorf("wait-online: %q is no number of seconds", seconds)
	}
	port, err := h.resolve(name)
	if err != nil {
		return fmt.Errorf("wait-online: %w", err)
	}
	var managed bool
	for _, candidate := range h.configured {
		managed = managed || candidate == port
	}
	if !managed {
		return fmt.Errorf("wait-online: netplan does not configure %s with DHCP", port.Interface)
	}
	limit := min(time.Duration(timeout)*time.Second, h.patience)
	err = wait.PollUntilContextTimeout(ctx, leaseInterval, limit, true, func(context.Context) (bool, error) {
		return h.askLease(port), nil
	})
	if err != nil {
		return fmt.Errorf("wait-online: no DHCP answer on %s (%s): is its DPU attached to a network?", port.Interface, port.MAC)
	}
	return nil
}

// substituteAddress writes an interface's address into kubeadm's files. Without an address the placeholder becomes empty,
// as it would on a real server.
func (h *host) substituteAddress(placeholder, name string) error {
	var text string
	port, err := h.resolve(name)
	if err == nil {
		if leased, ok := h.leases[port.Interface]; ok {
			text = leased.address.String()
		} else {
			err = fmt.Errorf("%s has no address", port.Interface)
		}
	}
	for file, content := range h.files {
		if path.Dir(file) != kubeadmDirectory || path.Ext(file) != ".yaml" {
			continue
		}
		lines := strings.Split(content, "\n")
		for i := range lines { // sed without the g flag: once a line
			lines[i] = strings.Replace(lines[i], placeholder, text, 1)
		}
		h.files[file] = strings.Join(lines, "\n")
	}
	if err != nil {
		return fmt.Errorf("replacing %s: %w", placeholder, err)
	}
	return nil
}

// resolve finds the port that a command means by an interface name or a glob below /sys/class/net.
func (h *host) resolve(name string) (Port, error) {
	pattern := name
	if match := basename.FindStringSubmatch(name); match != nil {
		pattern = match[1]
	} else if strings.ContainsAny(name, "$*?[") {
		return Port{}, fmt.Errorf("%s is neither a name nor $(basename /sys/class/net/<glob>)", name)
	}
	var found []Port
	for _, port := range h.server.TenantPorts {
		matched, err := path.Match(pattern, port.Interface)
		if err != nil {
			return Port{}, fmt.Errorf("%s is no pattern", pattern)
		}
		if matched {
			found = append(found, port)
		}
	}
	if len(found) != 1 {
		return Port{}, fmt.Errorf("%d interfaces of this server match %s, one must", len(found), pattern)
	}
	return found[0], nil
}

// kubeadm reads the command's file.
func (h *host) kubeadm(verb, file string) (*kubeadmConfig, error) {
	content, ok := h.files[file]
	if !ok {
		return nil, fmt.Errorf("kubeadm %s: %s does not exist", verb, file)
	}
	config, err := parseKubeadm(content)
	if err != nil {
		return nil, fmt.Errorf("kubeadm %s: %w", verb, err)
	}
	if verb == "init" && (config.init == nil || config.cluster == nil) || verb == "join" && config.join == nil {
		return nil, fmt.Errorf("kubeadm %s: %s lacks the configuration for it", verb, file)
	}
	if verb == "init" {
		config.join = nil
	} else {
		config.init, config.cluster = nil, nil
	}
	return config, nil
}

// verify says which address the node will have, or why this server cannot be the node it should be.
func (h *host) verify(config *kubeadmConfig) (netip.Addr, error) {
	address, err := h.verifyRegistration(config)
	if err != nil {
		return netip.Addr{}, errors.Join(append([]error{err}, h.problems...)...)
	}
	return address, nil
}

func (h *host) verifyRegistration(config *kubeadmConfig) (netip.Addr, error) {
	registration := config.registration()
	if want, got := providerIDPrefix+h.server.SystemID, registration.kubeletArgument("provider-id"); got != want {
		return netip.Addr{}, fmt.Errorf("the kubelet's provider-id is %q, this server is %q", got, want)
	}
	nodeIP, given, err := registration.nodeIP()
	if err != nil {
		return netip.Addr{}, err
	}
	if len(h.server.TenantPorts) == 0 {
		if given && nodeIP != h.server.ProvisioningAddress {
			return netip.Addr{}, fmt.Errorf("the kubelet's node-ip is %s, this server has only %s", nodeIP, h.server.ProvisioningAddress)
		}
		return h.server.ProvisioningAddress, nil
	}
	if len(h.configured) == 0 {
		return netip.Addr{}, errors.New("netplan configures no tenant port of this server with DHCP")
	}
	if !given {
		return netip.Addr{}, errors.New("the kubelet has no node-ip: it would take the provisioning network's address")
	}
	for _, leased := range h.leases {
		if leased.address != nodeIP {
			continue
		}
		// Control-plane servers reach the endpoint by their provisioning interface, on which they answer it.
		if !config.controlPlane() && !leased.externallyRouted {
			return netip.Addr{}, fmt.Errorf("the network of %s is not routed outward: the control plane endpoint cannot be reached", nodeIP)
		}
		return nodeIP, nil
	}
	return netip.Addr{}, fmt.Errorf("the kubelet's node-ip is %s, which no tenant port of this server has leased", nodeIP)
}
