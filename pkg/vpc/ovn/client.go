// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovn

import (
	"context"
	"errors"
	"time"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// The names of OVN's databases.
const (
	southboundDatabase = "OVN_Southbound"
	northboundDatabase = "OVN_Northbound"
)

// Client asks OVN's databases. It is safe for concurrent use; each database is asked one thing at a time. A connection that is lost
// is made anew when the next thing is asked.
type Client struct {
	config     Config
	southbound *database
	// northbound is nil if none is named.
	northbound *database
}

// New returns a Client. Nothing is asked yet.
func New(config Config) (*Client, error) {
	if err := config.complete(); err != nil {
		return nil, err
	}
	c := &Client{config: config}
	southbound, err := config.endpoints(config.Southbound)
	if err != nil {
		return nil, err
	}
	c.southbound = newDatabase(southboundDatabase, Southbound, southbound, config.MaxAnswer)
	if config.Northbound == "" {
		return c, nil
	}
	northbound, err := config.endpoints(config.Northbound)
	if err != nil {
		return nil, err
	}
	c.northbound = newDatabase(northboundDatabase, Northbound, northbound, config.MaxAnswer)
	return c, nil
}

// Close ends the connections. What is under way fails, and so does all that is asked later.
func (c *Client) Close() {
	c.southbound.close()
	if c.northbound != nil {
		c.northbound.close()
	}
}

// Read returns what the southbound database says at one moment, not before it was called: host ports and chassis. The error, an
// *Error, is also in the reading.
func (c *Client) Read(ctx context.Context) (reading vpc.OVN, err error) {
	started := c.config.Clock.Now()
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	err = c.southbound.use(ctx, true, func(s *session) error {
		var err error
		if reading, err = readSouthbound(ctx, s); err != nil {
			return err
		}
		return s.leads(ctx, southboundDatabase)
	})
	if err != nil {
		err = about(err, Southbound, c.config.Southbound)
		reading = vpc.OVN{Err: err}
	}
	reading.Started = started
	c.observe("Read", reading.Started, err)
	return reading, err
}

// Raise increments NB_Global.nb_cfg and returns its new value: a chassis whose own is not smaller has programmed all that was in the
// northbound database before the call. It is the only write there is. It is sent at most once: after an error it may have been
// made or not, which harms nobody.
func (c *Client) Raise(ctx context.Context) (int64, error) {
	if c.northbound == nil {
		return 0, errNoNorthbound
	}
	started := c.config.Clock.Now()
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	var value int64
	err := c.northbound.use(ctx, false, func(s *session) error {
		var err error
		value, err = raise(ctx, s)
		return err
	})
	if err != nil {
		value, err = 0, about(err, Northbound, c.config.Northbound)
	}
	c.observe("Raise", started, err)
	return value, err
}

func raise(ctx context.Context, s *session) (int64, error) {
	// An echo that fails shows that a connection was lost while it was idle, before anything is sent that counts.
	var echo []any
	if err := s.ask(ctx, "echo", []any{}, &echo); err != nil {
		var known *Error
		if errors.As(err, &known) {
			early := *known
			early.unsent = true
			return 0, &early
		}
		return 0, err
	}
	// libovsdb leaves an empty where out of a mutate, which is refused: this one holds always, and there is one row.
	always := []ovsdb.Condition{ovsdb.NewCondition("nb_cfg", ovsdb.ConditionGreaterThanOrEqual, 0)}
	results, err := s.transact(ctx, northboundDatabase,
		ovsdb.Operation{
			Op: ovsdb.OperationMutate, Table: "NB_Global", Where: always,
			Mutations: []ovsdb.Mutation{*ovsdb.NewMutation("nb_cfg", ovsdb.MutateOperationAdd, 1)},
		},
		currentValue,
	)
	if err != nil {
		return 0, err
	}
	if count := results[0].Count; count == nil || *count != 1 {
		return 0, malformed("there is not one row in NB_Global: is ovn-northd running?")
	}
	value, err := valueIn(results[1])
	if err == nil && value == 0 {
		return 0, malformed("column nb_cfg of NB_Global is 0 after it was raised")
	}
	return value, err
}

// Probe says whether the northbound database answers, and changes nothing.
func (c *Client) Probe(ctx context.Context) error {
	if c.northbound == nil {
		return errNoNorthbound
	}
	started := c.config.Clock.Now()
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	err := c.northbound.use(ctx, true, func(s *session) error {
		results, err := s.transact(ctx, northboundDatabase, currentValue)
		if err != nil {
			return err
		}
		_, err = valueIn(results[0])
		return err
	})
	if err != nil {
		err = about(err, Northbound, c.config.Northbound)
	}
	c.observe("Probe", started, err)
	return err
}

// errNoNorthbound stands for a question to a database that is not named.
var errNoNorthbound = &Error{Database: Northbound, Kind: Refused, Err: errors.New("no endpoint is named for it"), unsent: true}

// currentValue asks for NB_Global.nb_cfg.
var currentValue = ovsdb.Operation{Op: ovsdb.OperationSelect, Table: "NB_Global", Columns: []string{"nb_cfg"}}

func valueIn(selected result) (int64, error) {
	if len(selected.Rows) != 1 {
		return 0, malformed("there is not one row in NB_Global: is ovn-northd running?")
	}
	value, err := one[int64](selected.Rows[0]["nb_cfg"], true)
	if err != nil || value < 0 {
		return 0, malformed("column nb_cfg of NB_Global")
	}
	return value, nil
}

func (c *Client) observe(operation string, started time.Time, err error) {
	if c.config.Observe != nil {
		c.config.Observe(Call{Operation: operation, Kind: KindOf(err), Took: c.config.Clock.Since(started)})
	}
}
