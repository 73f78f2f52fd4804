// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// hostCommands are what a host with a network stack does.
type hostCommands interface {
	lease(ctx context.Context, port string) (netip.Prefix, error)
	ping(ctx context.Context, port string, target netip.Addr) error
}

// namespaceHost runs them in the host's network namespace.
type namespaceHost struct {
	namespace string
	tools     programs
	run       string
}

// leaseScript is what udhcpc calls: it configures the interface and leaves the address in a file. MTU and router are
// applied as the DHCP server gives them.
const leaseScript = `#!/bin/sh
case "$1" in bound|renew)
	%[1]s addr replace "$ip/${mask:-24}" dev "$interface" || exit 1
	[ -z "$mtu" ] || %[1]s link set "$interface" mtu "$mtu"
	[ -z "$router" ] || %[1]s route replace default via "${router%%%% *}" dev "$interface"
	echo "$ip/${mask:-24}" >%[2]s ;;
esac
`

func (h *namespaceHost) command(ctx context.Context, args ...string) error {
	return runCommand(ctx, h.tools["nsenter"], append([]string{"--net=" + namespacePath(h.namespace)}, args...)...)
}

func (h *namespaceHost) lease(ctx context.Context, port string) (netip.Prefix, error) {
	name := hostInterface(port)
	script, result := filepath.Join(h.run, name+".dhcp"), filepath.Join(h.run, name+".lease")
	content := fmt.Sprintf(leaseScript, h.tools["ip"], result)
	if err := os.WriteFile(script, []byte(content), 0o700); err != nil { //nolint:gosec // a script is executable
		return netip.Prefix{}, err
	}
	if err := os.Remove(result); err != nil && !errors.Is(err, os.ErrNotExist) {
		return netip.Prefix{}, err
	}
	if err := h.command(ctx, h.tools["ip"], "addr", "flush", "dev", name); err != nil {
		return netip.Prefix{}, err
	}
	// -q ends it with a lease, -n without one after three questions a second apart.
	err := h.command(ctx, h.tools["busybox"], "udhcpc", "-i", name, "-s", script, "-f", "-q", "-n", "-t", "3", "-T", "1")
	if err != nil {
		return netip.Prefix{}, err
	}
	answer, err := os.ReadFile(result)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.ParsePrefix(strings.TrimSpace(string(answer)))
}

// errNoAnswer is that of a ping without one.
var errNoAnswer = errors.New("no answer")

func (h *namespaceHost) ping(ctx context.Context, port string, target netip.Addr) error {
	err := h.command(ctx, h.tools["ping"], "-n", "-q", "-c", "1", "-W", "1", "-I", hostInterface(port), target.String())
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 && ctx.Err() == nil {
		return fmt.Errorf("%s: %w", target, errNoAnswer)
	}
	return err
}
