// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ovn-kubernetes/libovsdb/client"
	"github.com/ovn-kubernetes/libovsdb/model"
	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// errMissing is that something isn't there that has to be first.
var errMissing = errors.New("not in the northbound database")

const connectTimeout = 5 * time.Second

// table says how rows of a table are told apart and where they hang.
type table struct {
	// key are the columns that no two rows of an owner share.
	key []string
	// parent has the row's reference in column; rows of a table without one stand for themselves.
	parent, column string
	// read are the columns beside key and external_ids.
	read []string
}

var tables = map[string]table{
	tableSwitch:     {key: []string{"name"}, read: []string{"other_config"}},
	tableRouter:     {key: []string{"name"}, read: []string{"options"}},
	tableDHCP:       {key: []string{"cidr"}, read: []string{"options"}},
	tablePort:       {key: []string{"name"}, parent: tableSwitch, column: "ports", read: []string{"type", "addresses", "options", "dhcpv4_options", "dynamic_addresses"}},
	tableRouterPort: {key: []string{"name"}, parent: tableRouter, column: "ports", read: []string{"mac", "networks"}},
	tablePolicy:     {key: []string{"priority", "match"}, parent: tableRouter, column: "policies", read: []string{"action", "nexthops"}},
	tableRoute:      {key: []string{"ip_prefix", "output_port"}, parent: tableRouter, column: "static_routes", read: []string{"nexthop"}},
	tableNAT:        {key: []string{"type", "logical_ip", "external_ip"}, parent: tableRouter, column: "nat"},
}

// tableOrder puts parents first.
var tableOrder = []string{tableSwitch, tableRouter, tableDHCP, tablePort, tableRouterPort, tablePolicy, tableRoute, tableNAT}

// row is one of the northbound database, or to be one.
type row struct {
	table, uuid, parent string
	columns             map[string]any
}

func (r *row) text(column string) string { return strings.Join(canonical(r.columns[column]), " ") }

// identity tells rows of one owner apart. A port is another one on another network.
func (r *row) identity() string {
	out := []string{r.table}
	for _, column := range tables[r.table].key {
		out = append(out, r.text(column))
	}
	for _, id := range canonical(r.columns["external_ids"]) {
		if r.table == tablePort && strings.HasPrefix(id, vnetRef+"=") {
			out = append(out, id)
		}
	}
	return strings.Join(out, "\x00")
}

// bring has exactly the wanted rows among those that are marked so.
func (t *Topology) bring(ctx context.Context, marked externalIDs, wanted []*row) error {
	t.write.Lock()
	defer t.write.Unlock()
	present, err := t.read(ctx, marked)
	if err != nil {
		return err
	}
	return t.change(ctx, present, wanted)
}

// read returns the rows that are marked so.
func (t *Topology) read(ctx context.Context, marked externalIDs) ([]*row, error) {
	where := []ovsdb.Condition{ovsdb.NewCondition("external_ids", ovsdb.ConditionIncludes, ovsdbValue(map[string]string(marked)))}
	var questions []ovsdb.Operation
	for _, name := range tableOrder {
		columns := slices.Concat([]string{"_uuid", "external_ids"}, tables[name].key, tables[name].read)
		questions = append(questions, ovsdb.Operation{Op: ovsdb.OperationSelect, Table: name, Where: where, Columns: columns})
	}
	answers, err := t.transact(ctx, questions)
	if err != nil {
		return nil, err
	}
	var out []*row
	for i, answer := range answers {
		for _, columns := range answer.Rows {
			uuid, ok := columns["_uuid"].(ovsdb.UUID)
			if !ok {
				return nil, fmt.Errorf("table %s: a row without UUID", tableOrder[i])
			}
			out = append(out, &row{table: tableOrder[i], uuid: uuid.GoUUID, columns: columns})
		}
	}
	return out, nil
}

// change makes present rows into the wanted ones, in one transaction.
func (t *Topology) change(ctx context.Context, present, wanted []*row) error {
	old := map[string]*row{}
	for _, r := range present {
		old[r.identity()] = r
	}
	slices.SortStableFunc(wanted, func(a, b *row) int {
		return cmp.Compare(slices.Index(tableOrder, a.table), slices.Index(tableOrder, b.table))
	})
	var operations []ovsdb.Operation
	made := map[string]bool{}
	var parents [][2]string
	for i, r := range wanted {
		before := old[r.identity()]
		delete(old, r.identity())
		if before != nil {
			operations = append(operations, r.update(before)...)
			continue
		}
		if r.parent == "" {
			made[r.table+r.text("name")] = true
		} else if parent := tables[r.table].parent; !made[parent+r.parent] {
			parents = append(parents, [2]string{parent, r.parent})
		}
		operations = append(operations, r.insert(fmt.Sprintf("row%d", i))...)
	}
	if err := t.check(ctx, parents); err != nil {
		return err
	}
	var removals []ovsdb.Operation
	for _, r := range present {
		if old[r.identity()] == r {
			removals = append(removals, r.remove()...)
		}
	}
	if operations = append(removals, operations...); len(operations) == 0 {
		return nil
	}
	_, err := t.transact(ctx, operations)
	return err
}

// check fails if one of the switches and routers isn't there.
func (t *Topology) check(ctx context.Context, parents [][2]string) error {
	slices.SortFunc(parents, func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	parents = slices.Compact(parents)
	var questions []ovsdb.Operation
	for _, parent := range parents {
		questions = append(questions, ovsdb.Operation{
			Op: ovsdb.OperationSelect, Table: parent[0], Where: named(parent[1]), Columns: []string{"_uuid"},
		})
	}
	if len(questions) == 0 {
		return nil
	}
	answers, err := t.transact(ctx, questions)
	if err != nil {
		return err
	}
	for i, answer := range answers {
		if len(answer.Rows) == 0 {
			return fmt.Errorf("%s %s: %w", parents[i][0], parents[i][1], errMissing)
		}
	}
	return nil
}

func named(name string) []ovsdb.Condition {
	return []ovsdb.Condition{ovsdb.NewCondition("name", ovsdb.ConditionEqual, name)}
}

func (r *row) insert(id string) []ovsdb.Operation {
	operations := []ovsdb.Operation{{Op: ovsdb.OperationInsert, Table: r.table, Row: r.columns, UUIDName: id}}
	if r.parent == "" {
		return operations
	}
	place := tables[r.table]
	return append(operations, ovsdb.Operation{
		Op: ovsdb.OperationMutate, Table: place.parent, Where: named(r.parent),
		Mutations: []ovsdb.Mutation{*ovsdb.NewMutation(place.column, ovsdb.MutateOperationInsert, ovsdbValue([]ovsdb.UUID{{GoUUID: id}}))},
	})
}

func (r *row) update(before *row) []ovsdb.Operation {
	changed := ovsdb.Row{}
	for column, value := range r.columns {
		if !slices.Equal(canonical(value), canonical(before.columns[column])) {
			changed[column] = value
		}
	}
	if len(changed) == 0 {
		return nil
	}
	return []ovsdb.Operation{{Op: ovsdb.OperationUpdate, Table: r.table, Where: is(before.uuid), Row: changed}}
}

// remove takes a row from its parent, which ends it, or deletes it where it has none.
func (r *row) remove() []ovsdb.Operation {
	place := tables[r.table]
	if place.parent == "" {
		return []ovsdb.Operation{{Op: ovsdb.OperationDelete, Table: r.table, Where: is(r.uuid)}}
	}
	reference := ovsdbValue([]ovsdb.UUID{{GoUUID: r.uuid}})
	return []ovsdb.Operation{{
		Op: ovsdb.OperationMutate, Table: place.parent,
		Where:     []ovsdb.Condition{ovsdb.NewCondition(place.column, ovsdb.ConditionIncludes, reference)},
		Mutations: []ovsdb.Mutation{*ovsdb.NewMutation(place.column, ovsdb.MutateOperationDelete, reference)},
	}}
}

func is(uuid string) []ovsdb.Condition {
	return []ovsdb.Condition{ovsdb.NewCondition("_uuid", ovsdb.ConditionEqual, ovsdb.UUID{GoUUID: uuid})}
}

// transact runs the operations in one transaction and looks at each result.
func (t *Topology) transact(ctx context.Context, operations []ovsdb.Operation) ([]ovsdb.OperationResult, error) {
	nb, err := t.connect(ctx)
	if err != nil {
		return nil, err
	}
	results, err := nb.Transact(ctx, operations...)
	if err != nil {
		return nil, fmt.Errorf("northbound transaction: %w", err)
	}
	if failed, err := ovsdb.CheckOperationResults(results, operations); err != nil {
		return nil, fmt.Errorf("northbound transaction: %w: %v", err, failed)
	}
	return results, nil
}

// nbGlobal is there because a client wants a model; everything is asked for by name.
type nbGlobal struct {
	UUID  string `ovsdb:"_uuid"`
	NBCfg int    `ovsdb:"nb_cfg"`
}

func (t *Topology) connect(ctx context.Context) (client.Client, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.nb != nil && t.nb.Connected() {
		return t.nb, nil
	}
	if t.nb != nil {
		t.nb.Close()
		t.nb = nil
	}
	wanted, err := model.NewClientDBModel("OVN_Northbound", map[string]model.Model{"NB_Global": &nbGlobal{}})
	if err != nil {
		return nil, err
	}
	options := []client.Option{client.WithEndpoint(t.address)}
	if t.tls != nil {
		config, err := t.tls.config()
		if err != nil {
			return nil, err
		}
		options = append(options, client.WithTLSConfig(config))
	}
	nb, err := client.NewOVSDBClient(wanted, options...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := nb.Connect(ctx); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", t.address, err)
	}
	t.nb = nb
	return nb, nil
}
