// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package dpffacts lets the checker read the DPF simulator's data plane and its journal.
package dpffacts

import (
	"strings"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/checker"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
)

// Of is what a simulated fabric is and did; only the effects that counts keeps, all where it is nil.
func Of(fabric *dpfsim.Fabric, counts func(dpfsim.Effect) bool) checker.Fabric {
	return facts{fabric: fabric, counts: counts}
}

type facts struct {
	fabric *dpfsim.Fabric
	counts func(dpfsim.Effect) bool
}

func (f facts) journal() (kept []dpfsim.Effect) {
	for _, e := range f.fabric.Journal() {
		if f.counts == nil || f.counts(e) {
			kept = append(kept, e)
		}
	}
	return kept
}

// Plugs implements checker.Fabric.
func (f facts) Plugs() []checker.Plug {
	var plugs []checker.Plug
	open := map[string]int{}
	for _, e := range f.journal() {
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

// LabelChanges implements checker.Fabric: the changes others than DPF made to DPUs, one per key, from the journal's
// "<path> +key=value" and "-key".
func (f facts) LabelChanges() []checker.LabelChange {
	var changes []checker.LabelChange
	for _, e := range f.journal() {
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

// Reachable implements checker.Fabric.
func (f facts) Reachable(macA, macB string) bool { return f.fabric.Reachable(macA, macB) }
