// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"context"
	"encoding/json"
	"fmt"
)

// Names of databases.
const (
	northbound = "OVN_Northbound"
	southbound = "OVN_Southbound"
	vswitch    = "Open_vSwitch"
)

// operation is one of an OVSDB transaction, as RFC 7047 writes it.
type operation struct {
	Op      string   `json:"op"`
	Table   string   `json:"table"`
	Where   [][]any  `json:"where"`
	Columns []string `json:"columns,omitempty"`
}

// outcome is an operation's.
type outcome struct {
	Rows    []map[string]json.RawMessage `json:"rows"`
	Error   string                       `json:"error"`
	Details string                       `json:"details"`
}

// everything is the condition that holds for every row.
func everything() [][]any { return [][]any{} }

// transact runs operations in one transaction. An operation that failed is an error.
func (e endpoint) transact(ctx context.Context, database string, operations ...operation) ([]outcome, error) {
	params := []any{database}
	for _, op := range operations {
		params = append(params, op)
	}
	result, err := e.call(ctx, "transact", params)
	if err != nil {
		return nil, err
	}
	var outcomes []outcome
	if err := json.Unmarshal(result, &outcomes); err != nil {
		return nil, fmt.Errorf("answer of %s to a transaction: %w", e.address, err)
	}
	for _, o := range outcomes {
		if o.Error != "" {
			return nil, fmt.Errorf("%s refuses a transaction: %s: %s", e.address, o.Error, o.Details)
		}
	}
	if len(outcomes) < len(operations) {
		return nil, fmt.Errorf("%s answered %d of %d operations", e.address, len(outcomes), len(operations))
	}
	return outcomes, nil
}

// selectRows returns columns of the rows that fit.
func (e endpoint) selectRows(ctx context.Context, database, table string, where [][]any, columns ...string) ([]map[string]json.RawMessage, error) {
	outcomes, err := e.transact(ctx, database, operation{Op: "select", Table: table, Where: where, Columns: columns})
	if err != nil {
		return nil, err
	}
	return outcomes[0].Rows, nil
}
