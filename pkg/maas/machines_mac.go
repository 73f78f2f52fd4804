// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas

import (
	"context"
	"net"
)

// macsPerQuery fits into a request line like idsPerQuery.
const macsPerQuery = 200

// MachinesByMAC lists those of the machines that have an interface with one of the MAC addresses, in whichever way they are written,
// and that the account may see: one query for each 200.
func (c *Client) MachinesByMAC(ctx context.Context, macs ...string) ([]Machine, error) {
	const operation = "list by MAC"
	canonical := make([]string, 0, len(macs))
	for _, mac := range macs {
		if _, err := net.ParseMAC(mac); err != nil {
			return nil, &ArgumentError{Call: Call{Operation: operation}, Problem: "not a MAC address: " + mac}
		}
		canonical = append(canonical, CanonicalMAC(mac))
	}
	return c.listInChunks(ctx, operation, "mac_address", canonical, macsPerQuery)
}

func (v verifier) MachinesByMAC(ctx context.Context, macs ...string) ([]Machine, error) {
	return v.client.MachinesByMAC(ctx, macs...)
}
