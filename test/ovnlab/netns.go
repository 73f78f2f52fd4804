// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	namespacePrefix    = "ovnlab"
	namespaceDirectory = "/run/netns"
	tunDevice          = "/dev/net/tun"
	// maxInterfaceName is IFNAMSIZ without its zero, less the letter that the host's interface may have more.
	maxInterfaceName = 14
)

func namespacePath(name string) string { return filepath.Join(namespaceDirectory, name) }

// inNamespace runs f on a thread of its own inside the network namespace. What f opens stays there; the thread ends with it.
func inNamespace(name string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread with the goroutine
		done <- func() error {
			file, err := os.Open(namespacePath(name))
			if err != nil {
				return err
			}
			defer func() { _ = file.Close() }()
			if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("entering network namespace %s: %w", name, err)
			}
			return f()
		}()
	}()
	return <-done
}

// writeSettings writes kernel settings below /proc/sys/net of the thread's namespace.
func writeSettings(settings map[string]string) error {
	var errs []error
	for name, value := range settings {
		err := os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0o600)
		if strings.HasPrefix(name, "ipv6/") && errors.Is(err, os.ErrNotExist) {
			continue // a kernel without IPv6 needs no switching off
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ipBatch runs commands of ip in one process, in a namespace or, without one, in this process's own.
func ipBatch(ctx context.Context, ip, namespace string, lines []string) error {
	var args []string
	if namespace != "" {
		args = append(args, "-n", namespace)
	}
	file, err := os.CreateTemp("", "ip-*.batch")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }()
	_, err = file.WriteString(strings.Join(lines, "\n") + "\n")
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := runCommand(ctx, ip, append(args, "-batch", file.Name())...); err != nil {
		return fmt.Errorf("%w, of: %s", err, strings.Join(lines, "; "))
	}
	return nil
}

func findNamespaceTools() (programs, error) {
	tools := programs{}
	var missing []string
	for _, name := range namespaceTools {
		path, err := lookPath(name)
		if err != nil {
			missing = append(missing, name)
		}
		tools[name] = path
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("missing %s (Debian's packages iproute2, util-linux, ethtool, iputils-ping and busybox have them)", strings.Join(missing, ", "))
	}
	return tools, nil
}

// tryNamespaces does on a small scale what the level does: rights and kernels differ too much to conclude them from anything.
func tryNamespaces(ctx context.Context) error {
	tools, err := findNamespaceTools()
	if err != nil {
		return err
	}
	tun, err := os.OpenFile(tunDevice, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("the userspace datapath needs %s: %w", tunDevice, err)
	}
	if err := tun.Close(); err != nil {
		return err
	}
	name := fmt.Sprintf("%s%d-trial", namespacePrefix, os.Getpid())
	if err := ipBatch(ctx, tools["ip"], "", []string{"netns add " + name}); err != nil {
		return fmt.Errorf("making a network namespace: %w", err)
	}
	err = ipBatch(ctx, tools["ip"], name, []string{
		"link add b0 type bridge", "link add v0 type veth peer name v1", "link set v0 master b0 up",
	})
	if err != nil {
		err = fmt.Errorf("making a bridge and a pair of interfaces in a network namespace: %w", err)
	} else {
		err = inNamespace(name, func() error {
			side, err := openPacketSide("v1")
			if err != nil {
				return err
			}
			return side.close()
		})
	}
	return errors.Join(err, ipBatch(context.WithoutCancel(ctx), tools["ip"], "", []string{"netns del " + name}))
}
