// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// The range lies below Linux' default ephemeral ports (32768 and up), so that an outgoing connection cannot take a port
// between the moment it is chosen and the moment the child binds it.
const (
	firstPort    = 20000
	lastPort     = 31999
	portAttempts = 200
)

// errNoFreePort says that the range is exhausted or that something refuses every bind.
var errNoFreePort = errors.New("no free TCP port found")

var handedOut = struct {
	sync.Mutex
	ports map[int32]bool
}{ports: map[int32]bool{}}

// FreePort returns a TCP port that nothing listens on, on loopback or on all interfaces, and that it has not returned to
// this process before. Another process can still take it: whoever starts a server on it retries with a new one on
// ErrAddressInUse.
func FreePort() (int32, error) {
	handedOut.Lock()
	defer handedOut.Unlock()
	for range portAttempts {
		port := firstPort + rand.Int32N(lastPort-firstPort+1)
		if handedOut.ports[port] || !bindable(port) {
			continue
		}
		handedOut.ports[port] = true
		return port, nil
	}
	return 0, fmt.Errorf("%w between %d and %d after %d attempts", errNoFreePort, firstPort, lastPort, portAttempts)
}

// FreePorts returns n different ports as FreePort does.
func FreePorts(n int) ([]int32, error) {
	ports := make([]int32, 0, n)
	for range n {
		port, err := FreePort()
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}

// bindable tries loopback and the wildcard address: the managers' webhook servers have no flag for the host.
func bindable(port int32) bool {
	for _, host := range []string{"127.0.0.1", ""} {
		var config net.ListenConfig // binding a socket never blocks, so there is nothing to cancel
		listener, err := config.Listen(context.Background(), "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
		if err != nil {
			return false
		}
		if err := listener.Close(); err != nil {
			return false
		}
	}
	return true
}
