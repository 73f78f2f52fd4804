// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package checker

import (
	"slices"
	"time"
)

// Statuses of MAAS that the invariants speak of, by MAAS' own numbers.
const (
	maasNew       = 0
	maasReady     = 4
	maasDeployed  = 6
	maasReleasing = 12
)

// Annotations of a server in MAAS that name the MaasMachine it is held for.
const (
	annotatedNamespace = "maas-dpu.namespace"
	annotatedName      = "maas-dpu.name"
)

// Machine is a server as MAAS has it now.
type Machine struct {
	SystemID    string
	Status      int
	Owner       string
	AgentName   string
	Annotations map[string]string
}

// Effect is one change of a server in MAAS, in the order they happened.
type Effect struct {
	Time        time.Time
	User        string
	Operation   string
	SystemID    string
	Owner       string // before the effect; after it for allocate
	Token       string // the agent_name under which the server was held then
	From, To    int
	Erase       string
	Annotations map[string]string
	PoweredOn   bool
}

// MAAS tells what MAAS is and did. A real MAAS has no journal: then Effects is nil and the invariants about the past are sampled
// by what the API servers recorded alone, which the verdict says.
type MAAS interface {
	Machines() []Machine
	Effects() []Effect
}

// Plug is one stretch of time during which a port was on a VPC in the data plane.
type Plug struct {
	MAC     string
	VPC     string // DPF's form namespace_name
	Network string
	From    time.Time
	To      time.Time // zero while it lasts
}

func (p Plug) at(t time.Time) bool { return !p.From.After(t) && (p.To.IsZero() || p.To.After(t)) }

// LabelChange is one change somebody other than DPF made to the labels or annotations of a DPU.
type LabelChange struct {
	Time time.Time
	DPU  string
	Key  string
	Who  string
}

// Fabric tells what the data plane is and did.
type Fabric interface {
	// Plugs are all stretches so far, in the order they began.
	Plugs() []Plug
	// LabelChanges are all changes to DPUs by others than DPF so far.
	LabelChanges() []LabelChange
	// Reachable says whether a frame from one port reaches the other now.
	Reachable(macA, macB string) bool
}

// Server ties what the operator knows: which ports a server has behind DPUs.
type Server struct {
	SystemID string
	// MACs of its DPU ports; none for a server without DPU.
	MACs []string
	// DPU objects of the server.
	DPUs []string
}

// Inventory is the operator's list of servers, and what is nobody's business.
type Inventory struct {
	Servers []Server
	// Accounts are the MAAS accounts of the installation.
	Accounts []string
	// ForeignVPCs are the VPCs of others, in DPF's form.
	ForeignVPCs []string
	// LabelPrefix is what the fabric wing may write on DPUs.
	LabelPrefix string
}

func (i Inventory) server(systemID string) (Server, bool) {
	at := slices.IndexFunc(i.Servers, func(s Server) bool { return s.SystemID == systemID })
	if at < 0 {
		return Server{}, false
	}
	return i.Servers[at], true
}

// foreign are the stretches on a VPC of others that began before the account ever touched the port.
func (i Inventory) foreign(p Plug) bool { return slices.Contains(i.ForeignVPCs, p.VPC) }
