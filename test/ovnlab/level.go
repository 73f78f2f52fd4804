// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"
)

// Level is how much of OVN is real. A higher one proves more.
type Level int

const (
	// StandIn needs no packages: the databases are libovsdb's in-process servers, and the lab itself answers for northd and
	// ovn-controller. It has no packets.
	StandIn Level = iota
	// Switches runs OVN's own processes with Open vSwitch's dummy datapath: real flows, real Geneve frames, any user.
	Switches
	// Namespaces runs the userspace datapath in network namespaces, with a namespace per host: real pings and DHCP leases.
	Namespaces
)

// RequireVariable is the environment variable that, set to 1, makes a missing level a failure where it is skipped otherwise.
const RequireVariable = "REQUIRE_OVN"

const trialTimeout = 20 * time.Second

// String returns the level's name.
func (l Level) String() string {
	switch l {
	case StandIn:
		return "stand-in"
	case Switches:
		return "switches"
	case Namespaces:
		return "namespaces"
	default:
		return fmt.Sprintf("level %d", int(l))
	}
}

// NotProven says in one sentence what a run on this level leaves open.
func (l Level) NotProven() string {
	switch l {
	case StandIn:
		return "no frame was sent: OVN's northd, ovn-controller and Open vSwitch were played by the lab"
	case Switches:
		return "the datapath is Open vSwitch's test datapath, hosts have no network stack, and DPUs no hardware"
	default:
		return "the datapath is Open vSwitch's userspace one, and DPUs have no hardware"
	}
}

// Best returns the highest level that this machine can do and, unless it is the highest of all, what the next one lacks.
// What can be tried is tried, once per process.
func Best() (Level, string) {
	for _, level := range []Level{Namespaces, Switches} {
		if Possible(level) == nil {
			if level == Namespaces {
				return level, ""
			}
			return level, fmt.Sprintf("level %s is not possible: %v", level+1, Possible(level+1))
		}
	}
	return StandIn, fmt.Sprintf("level %s is not possible: %v", Switches, Possible(Switches))
}

// Possible returns nil if this machine can do the level, or else what it lacks, by name.
func Possible(level Level) error {
	switch level {
	case StandIn:
		return nil
	case Switches:
		return switchesPossible()
	case Namespaces:
		return namespacesPossible()
	default:
		return fmt.Errorf("there is no %s", level)
	}
}

// Test is the part of testing.TB that Require needs.
type Test interface {
	Helper()
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// Require skips the test, and says so in a line of its own, where this machine cannot do the level. With REQUIRE_OVN=1 it
// fails instead for every level up to Switches; Namespaces needs rights that a CI may not give.
func Require(t Test, level Level) {
	t.Helper()
	err := Possible(level)
	if err == nil {
		return
	}
	if os.Getenv(RequireVariable) == "1" && level <= Switches {
		t.Fatalf("%s=1, but OVN level %s is not possible: %v", RequireVariable, level, err)
	}
	t.Skipf("SKIPPED, NOT PROVEN: OVN level %s is not possible: %v", level, err)
}

var switchesPossible = sync.OnceValue(func() error {
	_, err := findPrograms()
	return err
})

var namespacesPossible = sync.OnceValue(func() error {
	if err := switchesPossible(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), trialTimeout)
	defer cancel()
	return tryNamespaces(ctx)
})
