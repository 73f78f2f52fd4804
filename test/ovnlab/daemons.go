// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/proc"
)

// Tiers of the daemons: what depends on another ends before it.
const (
	tierDatabase = iota
	tierNorthd
	tierSwitchDatabase
	tierSwitch
	tierController
)

const (
	stopTimeout = 5 * time.Second
	toolTimeout = 30 * time.Second
	// longestSocket is the longest path below a run directory: ovn-controller names its control socket itself.
	longestSocket = len("/d9999/ovn-controller.4194304.ctl")
	longestPath   = 107
)

// daemons is the plane of real processes. What differs between its two levels is the datapath.
type daemons struct {
	options    Options
	programs   programs
	supervisor *proc.Supervisor
	// dir keeps databases and logs, run the sockets: their paths must be short.
	dir, run string
	central  *central
	path     datapath
	// life ends when close begins: tools that wait for a daemon wait no longer.
	life context.Context
	end  context.CancelFunc

	mu     sync.Mutex
	dpus   map[string]*dpu
	last   int // index of the last DPU added
	starts map[string]int
	closed bool
}

// datapath is how the DPUs' switches, the fabric between them and their hosts are made.
type datapath interface {
	// open makes the fabric and the management network.
	open(ctx context.Context) error
	// remote is the southbound database's address as the DPUs reach it.
	remote() string
	// prepare makes what a DPU's daemons need before they start, and connects its host ports' host sides; once per DPU.
	prepare(ctx context.Context, d *dpu) error
	// wrap turns a command into one that runs inside the DPU.
	wrap(d *dpu, path string, args []string) (string, []string)
	// switchFlags are for the DPU's ovs-vswitchd.
	switchFlags() []string
	// bridgeType is the datapath_type of its bridges.
	bridgeType() string
	// uplinkOptions and portOptions are settings of the interfaces p0 and of a host port.
	uplinkOptions(d *dpu) []string
	portOptions(d *dpu, port *hostPort) []string
	// address gives the uplink bridge its tunnel address once the switch runs.
	address(ctx context.Context, d *dpu) error
	// cut takes the link to the databases down, or up again.
	cut(ctx context.Context, d *dpu, down bool) error
	// host returns what runs commands in the DPU's host, an error if hosts run none.
	host(d *dpu) (hostCommands, error)
	// discard undoes prepare.
	discard(ctx context.Context, d *dpu) error
	close(ctx context.Context) error
}

func startDaemons(ctx context.Context, options Options) (plane, error) {
	found, err := findPrograms()
	if err != nil {
		return nil, err
	}
	run, err := runDirectory()
	if err != nil {
		return nil, err
	}
	l := &daemons{options: options, programs: found, run: run, dir: options.Dir, dpus: map[string]*dpu{}, starts: map[string]int{}}
	if l.dir == "" {
		l.dir = run
	}
	l.life, l.end = context.WithCancel(context.WithoutCancel(ctx))
	if l.dir, err = filepath.Abs(l.dir); err == nil {
		l.supervisor, err = proc.NewSupervisor(l.dir, options.Log)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(run))
	}
	if err := l.start(ctx); err != nil {
		return nil, errors.Join(err, l.close(context.WithoutCancel(ctx)))
	}
	return l, nil
}

func (l *daemons) start(ctx context.Context) error {
	var err error
	if l.central, err = startCentral(ctx, l); err != nil {
		return err
	}
	if l.options.Level == Namespaces {
		l.path, err = newNamespaces(l)
	} else {
		l.path = newWire(l)
	}
	if err != nil {
		return err
	}
	return l.path.open(ctx)
}

// runDirectory makes the directory of the sockets.
func runDirectory() (string, error) {
	dir, err := os.MkdirTemp("", "ovn")
	if err == nil && len(dir)+longestSocket > longestPath { // TMPDIR is a long one
		_ = os.Remove(dir)
		dir, err = os.MkdirTemp("/tmp", "ovn")
	}
	if err != nil {
		return "", fmt.Errorf("making a directory for sockets: %w", err)
	}
	return dir, nil
}

func (l *daemons) northbound() string { return l.central.northbound.listen.address }
func (l *daemons) southbound() string { return l.central.southbound.listen.address }

func (l *daemons) tls() *TLS {
	if l.central.keys == nil {
		return nil
	}
	return l.central.keys.material()
}

func (l *daemons) processes() []Process {
	var list []Process
	for _, p := range l.supervisor.Processes() {
		list = append(list, Process{Name: p.Name(), PID: p.PID(), RSS: p.RSS(), Log: p.LogFile()})
	}
	return list
}

// launch starts a daemon. A name that was used before gets a number, so that earlier logs stay.
func (l *daemons) launch(ctx context.Context, spec proc.Spec) (*proc.Process, error) {
	l.mu.Lock()
	l.starts[spec.Name]++
	if n := l.starts[spec.Name]; n > 1 {
		spec.Name = fmt.Sprintf("%s.%d", spec.Name, n)
	}
	l.mu.Unlock()
	spec.StopTimeout = stopTimeout
	return l.supervisor.Start(ctx, spec)
}

// tool runs one of OVN's or OVS's command line tools to its end.
func (l *daemons) tool(ctx context.Context, name string, args ...string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(l.life, cancel)
	defer stop()
	return runCommand(ctx, l.programs[name], args...)
}

// runCommand runs a command to its end; the error quotes what it printed.
func runCommand(ctx context.Context, path string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	output, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(path), strings.Join(args, " "), errors.Join(err, ctx.Err()), strings.TrimSpace(string(output)))
	}
	return nil
}

// environment keeps a daemon's files in its own run directory.
func environment(run string) []string {
	return []string{"OVS_RUNDIR=" + run, "OVN_RUNDIR=" + run, "OVS_DBDIR=" + run, "OVS_SYSCONFDIR=" + run, "OVS_LOGDIR=" + run}
}

// logging makes a daemon write to its standard error only, which the supervisor keeps.
func logging() []string { return []string{"-vconsole:info", "-vsyslog:off", "-vfile:off"} }

// members returns the DPUs in the order of their names.
func (l *daemons) members() []*dpu {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []*dpu
	for _, name := range slices.Sorted(maps.Keys(l.dpus)) {
		list = append(list, l.dpus[name])
	}
	return list
}

// close ends the daemons, then what they ran on.
func (l *daemons) close(ctx context.Context) error {
	l.mu.Lock()
	again := l.closed
	l.closed = true
	l.mu.Unlock()
	if again {
		return nil
	}
	l.end()
	ctx = context.WithoutCancel(ctx) // what was started is ended, however late it is
	for _, p := range l.supervisor.Processes() {
		_ = resume(p) // a stopped process does not hear that it should end
	}
	errs := []error{l.supervisor.Stop(ctx)}
	for _, d := range l.members() {
		d.mu.Lock() // whoever is changing it fails soon, now that its daemons are gone
		errs = append(errs, d.halt(ctx), d.closePorts())
		d.mu.Unlock()
	}
	if l.path != nil {
		errs = append(errs, l.path.close(ctx))
	}
	return errors.Join(append(errs, os.RemoveAll(l.run))...)
}
