// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/checker/dpffacts"
)

// Report writes what a run cost: times by phase, MAAS calls per machine by operation, DPF writes per attach and detach, memory.
func (r *Run) Report(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(out, "\n── times")
	var total time.Duration
	for _, p := range r.Phases {
		fmt.Fprintf(table, "%s\t  %s\t\n", p.Took.Round(100*time.Millisecond), p.Name)
		total += p.Took
	}
	fmt.Fprintf(table, "%s\t  together\t\n", total.Round(100*time.Millisecond))
	if err := table.Flush(); err != nil {
		return err
	}
	if err := r.reportCalls(out); err != nil {
		return err
	}
	r.reportWrites(out)
	return r.reportMemory(out)
}

// reportCalls counts the calls made for one claim or server. Lists by ID are the shared poll, also when only one machine was
// under way, and are counted apart with all that is asked once for everybody.
func (r *Run) reportCalls(out io.Writer) error {
	lives := map[string]bool{}
	own, shared := map[string]int{}, map[string]int{}
	for _, c := range r.World.MAAS.Calls() {
		if c.AgentName != "" {
			lives[c.AgentName] = true
		}
		if c.AgentName != "" || (c.SystemID != "" && c.Operation != "list_machines") {
			own[c.Operation] += c.Count
		} else {
			shared[c.Operation] += c.Count
		}
	}
	fmt.Fprintf(out, "\n── MAAS calls, both wings, over %d machine lives\n", len(lives))
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	sum := 0
	for _, operation := range slices.Sorted(maps.Keys(own)) {
		fmt.Fprintf(table, "%.1f\t a machine\t  %s\t\n", float64(own[operation])/float64(max(1, len(lives))), operation)
		sum += own[operation]
	}
	fmt.Fprintf(table, "%.1f\t a machine\t  together\t\n", float64(sum)/float64(max(1, len(lives))))
	for _, operation := range slices.Sorted(maps.Keys(shared)) {
		fmt.Fprintf(table, "%d\t in all\t  %s (shared)\t\n", shared[operation], operation)
	}
	return table.Flush()
}

func (r *Run) reportWrites(out io.Writer) {
	attach, detach, other := 0, 0, 0
	for _, writes := range r.World.Fabric.Writes() {
		attach, detach, other = attach+writes.Attach, detach+writes.Detach, other+writes.Other
	}
	all := dpffacts.Of(r.World.Fabric, nil).Plugs()
	plugs := len(all)
	for _, p := range all {
		if p.VPC == dpfNamespace+"_"+foreignVPC {
			plugs--
		}
	}
	fmt.Fprintf(out, "\n── DPF writes on DPUs: %d attaching, %d detaching, %d other, over %d attachments\n", attach, detach, other, plugs)
}

func (r *Run) reportMemory(out io.Writer) error {
	fmt.Fprintln(out, "\n── memory (RSS)")
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, p := range r.World.Lab.Processes() {
		if p.Running() {
			fmt.Fprintf(table, "%d MB\t  %s\t\n", p.RSS()>>20, p.Name())
		}
	}
	if w := r.World; w.OVN != nil {
		var together uint64
		for _, p := range w.OVN.Processes() {
			together += p.RSS
		}
		fmt.Fprintf(table, "%d MB\t  OVN, %d processes\t\n", together>>20, len(w.OVN.Processes()))
	}
	return table.Flush()
}
