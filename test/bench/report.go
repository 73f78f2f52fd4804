// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"
)

// Report is what a run measured.
type Report struct {
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	Lines   []Line    `json:"lines"`
}

// Line is one figure.
type Line struct {
	Scenario string `json:"scenario"`
	What     string `json:"what"`
	// Value in Unit; with AtLeast the true one is at least this.
	Value   float64 `json:"value"`
	Unit    string  `json:"unit,omitempty"`
	AtLeast bool    `json:"atLeast,omitempty"`
	// Budget is the most Value may be; nil where there is none.
	Budget *float64 `json:"budget,omitempty"`
	Met    *bool    `json:"met,omitempty"`
}

func (r *Report) add(scenario, what string, value float64, unit string) *Line {
	r.Lines = append(r.Lines, Line{Scenario: scenario, What: what, Value: value, Unit: unit})
	return &r.Lines[len(r.Lines)-1]
}

// within says what the figure may be at most.
func (l *Line) within(budget float64) {
	met := l.Value <= budget && !l.AtLeast
	l.Budget, l.Met = &budget, &met
}

// Find returns the value of a figure.
func (r *Report) Find(scenario, what string) (float64, bool) {
	for _, line := range r.Lines {
		if line.Scenario == scenario && line.What == what {
			return line.Value, true
		}
	}
	return 0, false
}

// Missed counts the budgets that are not met.
func (r *Report) Missed() int {
	missed := 0
	for _, line := range r.Lines {
		if line.Met != nil && !*line.Met {
			missed++
		}
	}
	return missed
}

// WriteText writes the figures as a table.
func (r *Report) WriteText(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	scenario := ""
	for _, line := range r.Lines {
		if line.Scenario != scenario {
			scenario = line.Scenario
			fmt.Fprintf(table, "── %s\n", scenario)
		}
		budget, verdict := "", ""
		if line.Budget != nil {
			budget, verdict = fmt.Sprintf("≤ %s", number(*line.Budget)), "met"
			if !*line.Met {
				verdict = "MISSED"
			}
		}
		value := number(line.Value)
		if line.AtLeast {
			value = "≥ " + value
		}
		fmt.Fprintf(table, "  %s\t%s %s\t%s\t%s\n", line.What, value, line.Unit, budget, verdict)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d budget(s) MISSED; %.0f s in all\n", r.Missed(), r.Seconds)
	return nil
}

func number(value float64) string {
	switch {
	case value >= 100 || value == float64(int64(value)):
		return fmt.Sprintf("%.0f", value)
	case value >= 10:
		return fmt.Sprintf("%.1f", value)
	}
	return fmt.Sprintf("%.2f", value)
}

// Save writes bench.txt and bench.json into a folder.
func (r *Report) Save(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "bench.json"), append(content, '\n'), 0o600); err != nil {
		return err
	}
	file, err := os.Create(filepath.Join(dir, "bench.txt"))
	if err != nil {
		return err
	}
	if err := r.WriteText(file); err != nil {
		_ = file.Close() // the first error says more
		return err
	}
	return file.Close()
}
