// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// floorRepeats is how often OVN alone is measured.
const floorRepeats = 20

// floor measures OVN without DPF and provider: ovn-nbctl adds a logical port of a tenant for the moving server's card, which is
// plugged already, and waits until all chassis have passed a barrier; and removes it the same way.
func (s *site) floor(ctx context.Context, c cast, repeats int) (row figure, err error) {
	const port = "dataplane-floor"
	row.name = "OVN alone (ovn-nbctl --wait=hv)"
	theirs, err := s.ifaceID(c.red[0])
	if err != nil {
		return row, err
	}
	network, err := s.switchOf(ctx, theirs)
	if err != nil {
		return row, err
	}
	if err := s.ovn.Plug(ctx, c.mover.dpu, hostPort, port); err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, s.ovn.Unplug(context.WithoutCancel(ctx), c.mover.dpu, hostPort)) }()
	for range repeats {
		begun := time.Now()
		_, err := s.nbctl(ctx, "--wait=hv", "lsp-add", network, port, "--", "lsp-set-addresses", port, c.mover.station.MAC.String())
		if err != nil {
			return row, err
		}
		row.attach = append(row.attach, time.Since(begun))
		begun = time.Now()
		if _, err := s.nbctl(ctx, "--wait=hv", "lsp-del", port); err != nil {
			return row, err
		}
		row.detach = append(row.detach, time.Since(begun))
	}
	return row, nil
}

// switchOf is the logical switch of a logical port.
func (s *site) switchOf(ctx context.Context, port string) (string, error) {
	id, err := s.nbctl(ctx, "--bare", "--columns=_uuid", "find", "logical_switch_port", "name="+port)
	if err != nil {
		return "", err
	}
	name, err := s.nbctl(ctx, "--bare", "--columns=name", "find", "logical_switch", "ports{>=}"+id)
	if err == nil && name == "" {
		err = fmt.Errorf("no switch has the port %s (%s)", port, id)
	}
	return name, err
}

// nbctl runs ovn-nbctl.
func (s *site) nbctl(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ovn-nbctl", append([]string{"--db=" + s.ovn.Northbound()}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ovn-nbctl %v: %w: %s", args, err, out)
	}
	return strings.TrimSpace(string(out)), nil
}
