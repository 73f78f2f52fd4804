// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"time"
)

// callTimeout limits one question to a daemon. They answer in milliseconds; a compile job beside the lab makes them slow.
const callTimeout = 20 * time.Second

// endpoint is where a daemon listens for JSON-RPC, as OVN writes it: unix:path, tcp:host:port or ssl:host:port. OVSDB and the
// control sockets of OVS's daemons speak the same protocol.
type endpoint struct {
	address string
	// tls is for ssl only.
	tls *tls.Config
}

func (e endpoint) dial(ctx context.Context) (net.Conn, error) {
	kind, address, _ := strings.Cut(e.address, ":")
	switch kind {
	case "unix", "tcp":
		var dialer net.Dialer
		return dialer.DialContext(ctx, kind, address)
	case "ssl":
		dialer := tls.Dialer{Config: e.tls}
		return dialer.DialContext(ctx, "tcp", address)
	default:
		return nil, fmt.Errorf("address %q begins with neither unix, tcp nor ssl", e.address)
	}
}

type request struct {
	ID     int    `json:"id"`
	Method string `json:"method"`
	Params any    `json:"params"`
}

type response struct {
	ID     *int            `json:"id"`
	Method string          `json:"method"`
	Result json.RawMessage `json:"result"`
	Error  json.RawMessage `json:"error"`
}

// refusedError is a daemon's answer that it will not do what it was asked for. All other errors are of the way to it.
type refusedError struct {
	address, method, reason string
}

func (e *refusedError) Error() string {
	return fmt.Sprintf("%s refuses %s: %s", e.address, e.method, e.reason)
}

// call asks one question on a connection of its own, so that no restart of the daemon outdates it.
func (e endpoint) call(ctx context.Context, method string, params any) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	conn, err := e.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.address, err)
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	const id = 1
	if err := json.NewEncoder(conn).Encode(request{ID: id, Method: method, Params: params}); err != nil {
		return nil, fmt.Errorf("asking %s for %s: %w", e.address, method, err)
	}
	for decoder := json.NewDecoder(conn); ; {
		var answer response
		if err := decoder.Decode(&answer); err != nil {
			return nil, fmt.Errorf("waiting for %s's answer to %s: %w", e.address, method, err)
		}
		if answer.Method != "" || answer.ID == nil || *answer.ID != id { // the server's own echo requests
			continue
		}
		if len(answer.Error) > 0 && string(answer.Error) != "null" {
			return nil, &refusedError{address: e.address, method: method, reason: string(answer.Error)}
		}
		return answer.Result, nil
	}
}

// command runs a command of a daemon's control socket, as ovs-appctl does, and returns what it printed.
func (e endpoint) command(ctx context.Context, name string, args ...string) (string, error) {
	if args == nil {
		args = []string{} // null is not a list
	}
	result, err := e.call(ctx, name, args)
	if err != nil {
		return "", err
	}
	var output string
	if err := json.Unmarshal(result, &output); err != nil {
		return "", fmt.Errorf("answer of %s to %s: %w", e.address, name, err)
	}
	return output, nil
}
