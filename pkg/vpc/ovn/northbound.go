// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovn

import (
	"context"
	"net/netip"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

const logicalSwitchPort = "Logical_Switch_Port"

// HasNorthbound says whether a northbound database is named.
func (c *Client) HasNorthbound() bool { return c.northbound != nil }

// Addresses returns, by logical port, the addresses that northd chose, which the southbound database does not tell. It is no
// evidence: ports that have addresses of their own, or none yet, are not in it. It is empty where the schema has no such column.
func (c *Client) Addresses(ctx context.Context) (map[string][]netip.Addr, error) {
	if c.northbound == nil {
		return nil, errNoNorthbound
	}
	started := c.config.Clock.Now()
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	var chosen map[string][]netip.Addr
	err := c.northbound.use(ctx, true, func(s *session) error {
		var err error
		chosen, err = readAddresses(ctx, s)
		return err
	})
	if err != nil {
		err = about(err, Northbound, c.config.Northbound)
	}
	c.observe("Addresses", started, err)
	return chosen, err
}

func readAddresses(ctx context.Context, s *session) (map[string][]netip.Addr, error) {
	columns := s.schema.columns(logicalSwitchPort, "name", "dynamic_addresses")
	if len(columns) != 2 {
		return nil, nil
	}
	results, err := s.transact(ctx, northboundDatabase, ovsdb.Operation{Op: ovsdb.OperationSelect, Table: logicalSwitchPort, Columns: columns})
	if err != nil {
		return nil, err
	}
	chosen := map[string][]netip.Addr{}
	for _, r := range results[0].Rows {
		name, errName := one[string](r["name"], false)
		elements, errChosen := atoms[string](r["dynamic_addresses"])
		if errName != nil || errChosen != nil {
			return nil, malformed("a row of %s: %w", logicalSwitchPort, errNotation)
		}
		if _, found := addresses(elements); len(found) > 0 {
			chosen[name] = found
		}
	}
	return chosen, nil
}
