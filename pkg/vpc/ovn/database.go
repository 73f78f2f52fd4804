// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovn

import (
	"context"
	"errors"
	"sync"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

var errClosed = errors.New("it is no longer asked")

// schema says which columns the tables have.
type schema struct {
	Tables map[string]struct {
		Columns map[string]any `json:"columns"`
	} `json:"tables"`
}

func (s *schema) has(table, column string) bool {
	_, has := s.Tables[table].Columns[column]
	return has
}

// columns are those of the wanted that the table has.
func (s *schema) columns(table string, wanted ...string) []string {
	var has []string
	for _, column := range wanted {
		if column == "_uuid" || s.has(table, column) {
			has = append(has, column)
		}
	}
	return has
}

// result is what became of one operation.
type result struct {
	Count   *int64  `json:"count"`
	Rows    []row   `json:"rows"`
	Error   *string `json:"error"`
	Details string  `json:"details"`
}

// session is one connection to a server of the database, and what that says its database is like.
type session struct {
	*connection
	schema schema
	// mayLag says that the database may be a member of a cluster, which may lag behind its leader.
	mayLag bool
}

// database is asked one thing at a time, over a connection that is made when it is needed.
type database struct {
	name, kind string
	endpoints  []endpoint
	maxAnswer  int64
	// slot is held by whoever asks.
	slot chan struct{}
	// session is the slot's holder's; nil if there is none.
	session *session

	mu     sync.Mutex
	closed bool
	// open is what close ends.
	open *connection
}

func newDatabase(name, kind string, endpoints []endpoint, maxAnswer int64) *database {
	return &database{name: name, kind: kind, endpoints: endpoints, maxAnswer: maxAnswer, slot: make(chan struct{}, 1)}
}

// use runs a question with a connection. It is repeated on a new connection if that is allowed, or if it was surely not sent, where
// the connection was an old one, which may have ended unnoticed.
func (d *database) use(ctx context.Context, repeatable bool, question func(*session) error) error {
	select {
	case d.slot <- struct{}{}:
		defer func() { <-d.slot }()
	case <-ctx.Done():
		return unreachable(cause(ctx))
	}
	for {
		old := d.session != nil
		if !old {
			if err := d.connect(ctx); err != nil {
				return err
			}
		}
		err := question(d.session)
		if err == nil {
			return nil
		}
		d.session.end(err)
		d.session = nil
		var known *Error
		lost := errors.As(err, &known) && known.Kind == Unreachable
		if !old || !lost || ctx.Err() != nil || (!repeatable && !known.unsent) {
			return err
		}
	}
}

// connect opens a session with the first server that will do.
func (d *database) connect(ctx context.Context) error {
	var first error
	for _, to := range d.endpoints {
		s, err := d.openSession(ctx, to)
		if err == nil {
			d.session = s
			return nil
		}
		if first == nil {
			first = about(err, "", to.text)
		}
	}
	return first
}

func (d *database) openSession(ctx context.Context, to endpoint) (*session, error) {
	c, err := dial(ctx, to, d.maxAnswer)
	if err != nil {
		return nil, err
	}
	if !d.adopt(c) {
		c.end(unreachable(errClosed))
		return nil, unreachable(errClosed)
	}
	s := &session{connection: c}
	if err := d.inspect(ctx, s); err != nil {
		c.end(err)
		return nil, err
	}
	return s, nil
}

// adopt makes a connection the one that close ends.
func (d *database) adopt(c *connection) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.open = c
	return true
}

func (d *database) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.open != nil {
		d.open.end(unreachable(errClosed))
	}
}

func (d *database) inspect(ctx context.Context, s *session) error {
	var names []string
	if err := s.ask(ctx, "list_dbs", []any{}, &names); err != nil {
		return err
	}
	found := false
	for _, name := range names {
		found = found || name == d.name
		s.mayLag = s.mayLag || name == serverDatabase
	}
	if !found {
		return refused("it has no database %s: is this the endpoint of another?", d.name)
	}
	if err := s.ask(ctx, "get_schema", []any{d.name}, &s.schema); err != nil {
		return err
	}
	return s.leads(ctx, d.name)
}

const serverDatabase = "_Server"

// leads says whether the server's word is the database's: of a cluster, only the leader's is.
func (s *session) leads(ctx context.Context, name string) error {
	if !s.mayLag {
		return nil
	}
	where := []ovsdb.Condition{ovsdb.NewCondition("name", ovsdb.ConditionEqual, name)}
	results, err := s.transact(ctx, serverDatabase,
		ovsdb.Operation{Op: ovsdb.OperationSelect, Table: "Database", Columns: []string{"model", "connected", "leader"}, Where: where})
	if err != nil {
		return err
	}
	if len(results[0].Rows) != 1 {
		return refused("it does not say whether it leads the cluster of database %s", name)
	}
	r := results[0].Rows[0]
	model, errModel := one[string](r["model"], false)
	connected, errConnected := one[bool](r["connected"], false)
	leader, errLeader := one[bool](r["leader"], false)
	switch {
	case errModel != nil:
		return malformed("column model of Database: %w", errModel)
	case model != "clustered":
		s.mayLag = false
	case errConnected != nil || errLeader != nil:
		return malformed("columns connected and leader of Database")
	case !connected || !leader:
		return refused("this server does not lead the cluster of the database, so its answers may be old: name all its members, separated by commas")
	}
	return nil
}

// transact returns the results of the operations, all of which succeeded.
func (s *session) transact(ctx context.Context, name string, operations ...ovsdb.Operation) ([]result, error) {
	var results []result
	if err := s.ask(ctx, "transact", ovsdb.NewTransactArgs(name, operations...), &results); err != nil {
		return nil, err
	}
	// A transaction that could not be committed has one result more.
	for i := range results {
		if said := results[i].Error; said != nil {
			about := "the transaction"
			if i < len(operations) {
				about = operations[i].Op + " on " + operations[i].Table
			}
			return nil, refused("%s: %s (%s)", about, saidBy(*said), saidBy(results[i].Details))
		}
	}
	if len(results) != len(operations) {
		return nil, malformed("%d results of %d operations", len(results), len(operations))
	}
	return results, nil
}
