// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package bmcsim

import (
	"slices"
	"strings"
)

// State is what a BMC answers with. Set changes it.
type State struct {
	Card
	// Mode and HostRshim are of Systems/Bluefield/Oem/Nvidia.
	Mode, HostRshim string
	// PrivilegeMode is of HostPrivilegeConfig, which newer firmware has.
	PrivilegeMode string
	// HostPrivilegeLevel and InternalCPUModel are BIOS attributes.
	HostPrivilegeLevel, InternalCPUModel string
	// CurrentBoot is SecureBootCurrentBoot.
	CurrentBoot string
	// OldSpelling writes the BIOS attributes with spaces, as firmware did before.
	OldSpelling bool
	// NotThere are resources the firmware does not have, by the end of their path, such as "/HostPrivilegeConfig".
	NotThere []string
	// Missing are properties and attributes the firmware leaves out.
	Missing []string
	// NoSessions makes the BMC answer 503 to who wants a session, as one does that has given out all.
	NoSessions bool
	// Faults come upon the requests they match, the first that does.
	Faults []Fault
}

// Kind of a Fault.
type Kind string

// What goes wrong.
const (
	// Hang never answers.
	Hang Kind = "Hang"
	// Drip answers, a byte now and then.
	Drip Kind = "Drip"
	// Huge answers what never ends.
	Huge Kind = "Huge"
	// Redirect sends the client to Fault.To.
	Redirect Kind = "Redirect"
	// Garbage is no JSON.
	Garbage Kind = "Garbage"
	// Status is an error with Fault.Code.
	Status Kind = "Status"
	// Cut ends the connection in the middle of the answer.
	Cut Kind = "Cut"
)

// Fault makes requests fail.
type Fault struct {
	Kind Kind
	// Path ends the path of the requests it comes upon; empty is every one.
	Path string
	// Method of the requests; empty is every one.
	Method string
	Code   int
	To     string
}

func (f Fault) matches(method, path string) bool {
	return (f.Method == "" || f.Method == method) && strings.HasSuffix(path, f.Path)
}

func goodState(card Card) State {
	return State{
		Card: card, Mode: "DpuMode", HostRshim: "Disabled", PrivilegeMode: "Restricted",
		HostPrivilegeLevel: "Restricted", InternalCPUModel: "Embedded", CurrentBoot: "Enabled",
	}
}

func (s *State) fault(method, path string) (Fault, bool) {
	i := slices.IndexFunc(s.Faults, func(f Fault) bool { return f.matches(method, path) })
	if i < 0 {
		return Fault{}, false
	}
	return s.Faults[i], true
}

func (s *State) clone() State {
	next := *s
	next.NotThere, next.Missing, next.Faults = slices.Clone(s.NotThere), slices.Clone(s.Missing), slices.Clone(s.Faults)
	return next
}
