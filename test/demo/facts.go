// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"strings"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/checker"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

// maasFacts lets the checker read the MAAS simulator and its journal.
type maasFacts struct{ region *maassim.Region }

func (f maasFacts) Machines() []checker.Machine {
	var machines []checker.Machine
	for _, m := range f.region.Machines() {
		machines = append(machines, checker.Machine{
			SystemID: m.SystemID, Status: m.Status, Owner: m.Owner, AgentName: m.AgentName, Annotations: m.Annotations,
		})
	}
	return machines
}

func (f maasFacts) Effects() []checker.Effect {
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

// fabricFacts lets the checker read the DPF simulator's data plane and journal.
type fabricFacts struct{ fabric *dpfsim.Fabric }

func (f fabricFacts) Plugs() []checker.Plug {
	var plugs []checker.Plug
	open := map[string]int{}
	for _, e := range f.fabric.Journal() {
		if e.Port == nil {
			continue
		}
		mac := strings.ToLower(e.Port.HostMAC)
		switch e.Kind {
		case dpfsim.EffectPlug:
			open[mac] = len(plugs)
			plugs = append(plugs, checker.Plug{MAC: mac, VPC: e.Port.VPC, Network: e.Port.VirtualNetwork, From: e.Time})
		case dpfsim.EffectUnplug:
			if at, plugged := open[mac]; plugged {
				plugs[at].To = e.Time
				delete(open, mac)
			}
		}
	}
	return plugs
}

// LabelChanges are the changes others than DPF made to DPUs: one per key, from the journal's "<path> +key=value" and "-key".
func (f fabricFacts) LabelChanges() []checker.LabelChange {
	var changes []checker.LabelChange
	for _, e := range f.fabric.Journal() {
		kind, name, _ := strings.Cut(e.Object, " ")
		if e.Kind != dpfsim.EffectChanged || (kind != "DPU" && kind != "DPUDevice") {
			continue
		}
		_, dpu, _ := strings.Cut(name, "/")
		for _, word := range strings.Fields(e.Change) {
			if !strings.HasPrefix(word, "+") && !strings.HasPrefix(word, "-") {
				continue
			}
			key, _, _ := strings.Cut(word[1:], "=")
			changes = append(changes, checker.LabelChange{Time: e.Time, DPU: dpu, Key: strings.TrimSuffix(key, ","), Who: e.Writer})
		}
	}
	return changes
}

func (f fabricFacts) Reachable(macA, macB string) bool { return f.fabric.Reachable(macA, macB) }
