// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/proc"
)

const (
	centralAttempts = 3
	loopback        = "127.0.0.1"
)

// central is what DPF's ovn-central runs: both databases and northd.
type central struct {
	lab                    *daemons
	northbound, southbound *database
	northd                 *proc.Process
	// keys and clientTLS are nil without TLS.
	keys      *keys
	clientTLS *tls.Config
}

// database is one served by an ovsdb-server.
type database struct {
	name, daemon string
	file         string
	socket       endpoint // for those on this machine
	listen       endpoint // for everybody
	global       string   // the table whose only row tells this database from any other
	args         []string
	process      *proc.Process
}

// startCentral starts the databases on free ports and northd. A port that somebody takes meanwhile is replaced.
func startCentral(ctx context.Context, l *daemons) (*central, error) {
	c := &central{lab: l}
	var err error
	if l.options.TLS {
		if c.keys, err = newKeys(filepath.Join(l.run, "keys")); err != nil {
			return nil, err
		}
		if c.clientTLS, err = c.keys.clientConfig(); err != nil {
			return nil, err
		}
	}
	for range centralAttempts {
		if err = c.start(ctx); !errors.Is(err, proc.ErrAddressInUse) {
			break
		}
		if stopErr := c.stop(ctx); stopErr != nil {
			return nil, errors.Join(err, stopErr)
		}
	}
	return c, err
}

// stop ends what an attempt has started.
func (c *central) stop(ctx context.Context) error {
	var errs []error
	if c.northd != nil {
		errs = append(errs, c.northd.Stop(ctx))
	}
	for _, d := range []*database{c.southbound, c.northbound} {
		if d != nil && d.process != nil {
			errs = append(errs, d.process.Stop(ctx))
		}
	}
	return errors.Join(errs...)
}

func (c *central) start(ctx context.Context) error {
	var err error
	if c.northbound, err = c.startDatabase(ctx, northbound, "northbound", northboundSchema, "NB_Global"); err != nil {
		return err
	}
	if c.southbound, err = c.startDatabase(ctx, southbound, "southbound", southboundSchema, "SB_Global"); err != nil {
		return err
	}
	control := filepath.Join(c.lab.run, "northd.ctl")
	args := append(logging(), "--unixctl="+control, "--ovnnb-db="+c.northbound.socket.address, "--ovnsb-db="+c.southbound.socket.address)
	c.northd, err = c.lab.launch(ctx, proc.Spec{
		Name: "northd", Path: c.lab.programs[ovnNorthd], Args: args, Tier: tierNorthd, Env: environment(c.lab.run),
	})
	if err != nil {
		return err
	}
	// northd has read the one and written the other once this returns.
	if err := c.lab.tool(ctx, ovnNbctl, "--db="+c.northbound.socket.address, "--timeout=25", "--wait=sb", "init"); err != nil {
		return fmt.Errorf("%w, northd's log ends:\n%s", err, tail(c.northd.LogFile()))
	}
	return errors.Join(c.northbound.confirm(ctx), c.southbound.confirm(ctx))
}

// startDatabase makes an empty database and serves it on a unix socket and on a free port of loopback.
func (c *central) startDatabase(ctx context.Context, name, daemon, schema, global string) (*database, error) {
	port, err := proc.FreePort()
	if err != nil {
		return nil, err
	}
	run := c.lab.run
	kind := "tcp"
	if c.keys != nil {
		kind = "ssl"
	}
	d := &database{
		name: name, daemon: daemon, global: global, file: filepath.Join(c.lab.dir, daemon+".db"),
		socket: endpoint{address: "unix:" + filepath.Join(run, daemon+".sock")},
		listen: endpoint{address: fmt.Sprintf("%s:%s:%d", kind, loopback, port), tls: c.clientTLS},
	}
	d.args = append(logging(), "--remote=p"+d.socket.address, fmt.Sprintf("--remote=p%s:%d:%s", kind, port, loopback),
		"--unixctl="+filepath.Join(run, daemon+".ctl"))
	if c.keys != nil {
		d.args = append(d.args, c.keys.flags(serverKey)...)
	}
	d.args = append(d.args, d.file)
	if err := removeDatabase(d.file); err != nil {
		return nil, err
	}
	if err := c.lab.tool(ctx, ovsdbTool, "create", d.file, c.lab.programs[schema]); err != nil {
		return nil, err
	}
	return d, c.serve(ctx, d)
}

// removeDatabase removes a file that an earlier lab or attempt left, and its lock.
func removeDatabase(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	lock := filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+".~lock~")
	if err := os.Remove(lock); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// serve starts the database's server and waits for an answer on the very endpoint that clients use.
func (c *central) serve(ctx context.Context, d *database) error {
	var err error
	d.process, err = c.lab.launch(ctx, proc.Spec{
		Name: d.daemon, Path: c.lab.programs[ovsdbServer], Args: d.args, Tier: tierDatabase, Env: environment(c.lab.run),
	})
	if err != nil {
		return err
	}
	taken := false
	err = waitUntil(ctx, d.name+" on "+d.listen.address, d.process, func(ctx context.Context) error {
		if taken = strings.Contains(tail(d.process.LogFile()), "Address already in use"); taken {
			return nil // the server carries on without it, and only its log says so
		}
		if _, err := d.socket.selectRows(ctx, d.name, d.global, everything(), "_uuid"); err != nil {
			return err
		}
		_, err := d.listen.selectRows(ctx, d.name, d.global, everything(), "_uuid")
		return err
	})
	if taken {
		return errors.Join(fmt.Errorf("%s: %w", d.listen.address, proc.ErrAddressInUse), d.process.Stop(ctx))
	}
	return err
}

// confirm makes sure that it is this database that answers on its port.
func (d *database) confirm(ctx context.Context) error {
	own, err := d.socket.selectRows(ctx, d.name, d.global, everything(), "_uuid")
	if err != nil {
		return err
	}
	heard, err := d.listen.selectRows(ctx, d.name, d.global, everything(), "_uuid")
	if err != nil {
		return err
	}
	if len(own) != 1 || len(heard) != 1 || string(own[0]["_uuid"]) != string(heard[0]["_uuid"]) {
		return fmt.Errorf("another database answers on %s: %w", d.listen.address, proc.ErrAddressInUse)
	}
	return nil
}

// restart stops a database's server and starts it again on the same file and port.
func (c *central) restart(ctx context.Context, d *database) error {
	if err := d.process.Stop(ctx); err != nil {
		return err
	}
	return c.serve(ctx, d)
}
