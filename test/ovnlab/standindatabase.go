// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"
	libovsdb "github.com/ovn-kubernetes/libovsdb/database"
	"github.com/ovn-kubernetes/libovsdb/database/inmemory"
	"github.com/ovn-kubernetes/libovsdb/model"
	"github.com/ovn-kubernetes/libovsdb/ovsdb"
	"github.com/ovn-kubernetes/libovsdb/server"
)

// standInDatabase is libovsdb's in-process server with one database. It listens on a unix socket that a front, on TCP, connects
// to: the server itself knows neither TLS nor how to drop its clients.
type standInDatabase struct {
	name, socket string
	rows         *watchedRows
	server       *server.OvsdbServer
	served       chan error
	front        *front
}

// watchedRows tells of every change, and lets all rows be read as they were between two.
type watchedRows struct {
	libovsdb.Database
	mu      sync.RWMutex
	changed chan<- struct{}
}

// Commit implements libovsdb.Database.
func (r *watchedRows) Commit(name string, id uuid.UUID, update libovsdb.Update) error {
	r.mu.Lock()
	err := r.Database.Commit(name, id, update)
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default: // it is known already that there is something to see
	}
	return err
}

func startStandInDatabase(ctx context.Context, name, dir string, changed chan<- struct{}, config *tls.Config) (*standInDatabase, error) {
	schema, models, err := standInSchema(name)
	if err != nil {
		return nil, err
	}
	d := &standInDatabase{name: name, socket: filepath.Join(dir, name+".sock"), served: make(chan error, 1)}
	d.rows = &watchedRows{Database: inmemory.NewDatabase(map[string]model.ClientDBModel{name: models}, nil), changed: changed}
	full, errs := model.NewDatabaseModel(schema, models)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if d.server, err = server.NewOvsdbServer(d.rows, nil, full); err != nil {
		return nil, err
	}
	go func() { d.served <- d.server.Serve("unix", d.socket) }()
	if err := d.await(ctx); err != nil {
		return nil, errors.Join(err, d.close())
	}
	if d.front, err = startFront(ctx, "127.0.0.1:0", d.socket, config); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// await waits until the server accepts connections.
func (d *standInDatabase) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	ticker := time.NewTicker(askInterval)
	defer ticker.Stop()
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "unix", d.socket)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ticker.C:
		case err := <-d.served:
			d.served <- err
			return fmt.Errorf("%s: %w", d.name, err)
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
}

func (d *standInDatabase) close() error {
	var err error
	if d.front != nil {
		err = d.front.close()
	}
	d.server.Close()
	return errors.Join(err, <-d.served)
}

// restart drops every client and listens anew at the same address.
func (d *standInDatabase) restart(ctx context.Context) error {
	address, config := d.front.listener.Addr().String(), d.front.config
	if err := d.front.close(); err != nil {
		return err
	}
	var err error
	d.front, err = startFront(ctx, address, d.socket, config)
	return err
}

// transact runs operations in one transaction, if there are any.
func (d *standInDatabase) transact(operations []ovsdb.Operation) error {
	if len(operations) == 0 {
		return nil
	}
	args := make([]json.RawMessage, 0, len(operations)+1)
	for _, part := range ovsdb.NewTransactArgs(d.name, operations...) {
		raw, err := json.Marshal(part)
		if err != nil {
			return err
		}
		args = append(args, raw)
	}
	var reply []*ovsdb.OperationResult
	if err := d.server.Transact(nil, args, &reply); err != nil {
		return err
	}
	for _, result := range reply {
		if result != nil && result.Error != "" {
			return fmt.Errorf("%s: %s: %s", d.name, result.Error, result.Details)
		}
	}
	return nil
}

// rowsOf lists a table. The caller holds d.rows.mu if it wants the tables to fit each other.
func rowsOf[T any](d *standInDatabase, table string) ([]*T, error) {
	found, err := d.rows.List(d.name, table)
	if err != nil {
		return nil, err
	}
	out := make([]*T, 0, len(found))
	for _, row := range found {
		typed, ok := row.(*T)
		if !ok {
			return nil, fmt.Errorf("%s, table %s: a row of type %T", d.name, table, row)
		}
		out = append(out, typed)
	}
	return out, nil
}

// front is where clients connect.
type front struct {
	listener net.Listener
	config   *tls.Config
	cancel   context.CancelFunc
	group    sync.WaitGroup
}

func startFront(ctx context.Context, address, socket string, config *tls.Config) (*front, error) {
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &front{listener: listener, config: config, cancel: cancel}
	f.group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			if config != nil {
				conn = tls.Server(conn, config)
			}
			f.group.Go(func() { carry(running, conn, "unix", socket) })
		}
	})
	return f, nil
}

func (f *front) close() error {
	err := f.listener.Close()
	f.cancel()
	f.group.Wait()
	return err
}
