// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package maasfacts lets the checker read the MAAS simulator and its journal.
package maasfacts

import (
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/checker"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

// Of is what a simulated region is and did.
func Of(region *maassim.Region) checker.MAAS { return facts{region: region} }

type facts struct{ region *maassim.Region }

// Machines implements checker.MAAS.
func (f facts) Machines() []checker.Machine {
	var machines []checker.Machine
	for _, m := range f.region.Machines() {
		machines = append(machines, checker.Machine{
			SystemID: m.SystemID, Status: m.Status, Owner: m.Owner, AgentName: m.AgentName, Annotations: m.Annotations,
		})
	}
	return machines
}

// Effects implements checker.MAAS. An effect belongs to the token under which the server was held, also where MAAS has
// forgotten it already.
func (f facts) Effects() []checker.Effect {
	effects := []checker.Effect{}
	for _, e := range f.region.Journal() {
		token := e.AgentName
		if token == "" {
			token = e.Claim
		}
		effects = append(effects, checker.Effect{
			Time: e.Time, User: e.User, Operation: e.Operation, SystemID: e.SystemID, Owner: e.Owner, Token: token,
			From: e.From, To: e.To, Erase: e.Erase, Annotations: e.Annotations, PoweredOn: e.PoweredOn,
		})
	}
	return effects
}
