// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// figures are what churn has measured, by grade.
type figures struct {
	rows []figure
}

type figure struct {
	name            string
	attach, detach  []time.Duration
	found           finding
	withoutFindings bool
}

func (f *figures) add(grade infrav1.EvidenceGrade, moves []move, found finding) {
	row := figure{name: string(grade), found: found}
	for _, m := range moves {
		if m.state == infrav1.AttachmentStateAttached {
			row.attach = append(row.attach, m.took())
		} else {
			row.detach = append(row.detach, m.took())
		}
	}
	f.rows = append(f.rows, row)
}

// table compares the grades with OVN alone.
func (f *figures) table(floor figure) string {
	var b strings.Builder
	b.WriteString("| evidence | attach write to proof, ms (min/median/max) | detach write to proof, ms | n | late frames (worst, ms) | early frames (ms before the proof) | lost while attached |\n")
	b.WriteString("|---|---|---|---|---|---|---|\n")
	floor.withoutFindings = true
	for _, row := range append([]figure{floor}, f.rows...) {
		fmt.Fprintf(&b, "| %s | %s | %s | %d |", row.name, spread(row.attach), spread(row.detach), len(row.attach))
		if row.withoutFindings {
			b.WriteString(" | | |\n")
			continue
		}
		fmt.Fprintf(&b, " %d (%s) | %d (%s) | %d of %d (last %s ms after the proof) |\n", row.found.late, ms(row.found.worst),
			row.found.early, ms(row.found.earliest), row.found.lost, row.found.whileAttached, ms(row.found.lastLost))
	}
	return b.String()
}

func (f finding) String() string {
	return fmt.Sprintf("%d probes, %d arrived; %d frames between the tenants, %d before an attachment was asked for, %d after detachment was said to be proven "+
		"(worst %s ms), %d before attachment was (earliest %s ms), %d of %d lost while attached (last %s ms after the proof)",
		f.probes, f.arrived, f.between, f.before, f.late, ms(f.worst), f.early, ms(f.earliest), f.lost, f.whileAttached, ms(f.lastLost))
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond)) }

func spread(of []time.Duration) string {
	if len(of) == 0 {
		return "-"
	}
	sorted := slices.Sorted(slices.Values(of))
	return fmt.Sprintf("%s / %s / %s", ms(sorted[0]), ms(sorted[len(sorted)/2]), ms(sorted[len(sorted)-1]))
}

// String says what came of a trial, as a cell of a table.
func (r trial) String() string {
	switch {
	case r.wrongly != "" && !r.said:
		return fmt.Sprintf("waited, but WRONG %s ms after the fault; %s", ms(r.after), r.wrongly)
	case r.wrongly != "":
		return fmt.Sprintf("WRONG: said so after %s ms; %s", ms(r.took), r.wrongly)
	case r.said:
		return fmt.Sprintf("right, after %s ms", ms(r.took))
	default:
		return fmt.Sprintf("waited, and was right %s ms after the fault", ms(r.after))
	}
}

// faultTable has a row for each move under a fault, and a column for each grade.
func faultTable(rows map[string]map[infrav1.EvidenceGrade]trial) string {
	var b strings.Builder
	b.WriteString("| fault | asked | ServiceInterface | Bound | Barrier |\n|---|---|---|---|---|\n")
	for _, f := range faults {
		for _, state := range []infrav1.AttachmentState{infrav1.AttachmentStateAttached, infrav1.AttachmentStateDetached} {
			cells := rows[string(state)+": "+f.name]
			fmt.Fprintf(&b, "| %s | %s |", f.name, state)
			for _, grade := range []infrav1.EvidenceGrade{infrav1.EvidenceServiceInterface, infrav1.EvidenceBound, infrav1.EvidenceBarrier} {
				cell := "not run"
				if tried, ok := cells[grade]; ok {
					cell = tried.String()
				}
				fmt.Fprintf(&b, " %s |", cell)
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}
