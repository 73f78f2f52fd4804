// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// tiny are all scenarios with few machines and a quick MAAS.
func tiny(t *testing.T) Options {
	t.Helper()
	repo, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	o := DefaultOptions(repo, t.TempDir())
	o.Progress = t.Output()
	o.PollInterval = time.Second
	quick := maassim.Timing{Deploy: -1, Workers: 4, Call: time.Millisecond, Allocate: 2 * time.Millisecond}
	o.Fifty = Fifty{Machines: 4, Servers: 8, Timing: quick, Spread: time.Second, Patience: time.Minute}
	o.Polls = Polls{Servers: 6, InTransition: []int{0, 2}, Settle: time.Second, Window: 3 * o.PollInterval, Timing: quick, Patience: time.Minute}
	o.Hung = Hung{Machines: 2, Others: 2, Timing: quick, Patience: time.Minute, Slack: 30}
	return o
}

// TestScenarios runs every scenario in small, so that none rots: a scenario ends without error only if its machines got where
// they should. That the figures are good is not asked here.
func TestScenarios(t *testing.T) {
	expected := map[string]map[string]func(float64) bool{
		ScenarioFifty: {
			"created → deploy accepted, median":                   positive,
			"the straight line of this run, median":               positive,
			"Deployed → machine ready, p95":                       positive,
			"MAAS calls a machine life: allocate":                 once,
			"MAAS calls a machine life: deploy":                   once,
			"MAAS calls a machine life: release":                  once,
			"MAAS calls a machine life: power_off":                once,
			"stage, median: allocate sent → answered":             positive,
			"MAAS' own time, to the last deploy: allocate":        positive,
			"manager memory (RSS), while installations end":       positive,
			"MAAS calls a machine life, together":                 positive,
			"MAAS' own time, straight line: allocate":             positive,
			"ratio to the straight line, median":                  positive,
			"API server requests a machine life: PATCH":           positive,
			"deleted → gone, median":                              positive,
			"stage, median: → deploy sent":                        positive,
			"MAAS' own time, to the last deploy: together":        positive,
			"created → deploy accepted, p95":                      positive,
			"the straight line of this run, p95":                  positive,
			"MAAS calls a machine life: set_workload_annotations": once,
		},
		ScenarioPolls: {
			"0 in transition: machines read":        none,
			"2 in transition: requests, together":   positive,
			"manager memory (RSS), 2 in transition": positive,
		},
		ScenarioHung: {
			"without fault: created → deploy accepted, p95":              positive,
			"other region hangs: created → deploy accepted, p95":         positive,
			"other region hangs: machines without deployment at the end": none,
			"ratio to the run without fault, p95":                        positive,
		},
	}
	// They mostly wait, and more of them at once than there are processors.
	type result struct {
		report *Report
		err    error
	}
	results := map[string]chan result{}
	for _, scenario := range Scenarios {
		o, done := tiny(t), make(chan result, 1)
		results[scenario] = done
		go func() {
			report, err := Run(t.Context(), o, scenario)
			done <- result{report, err}
		}()
	}
	for _, scenario := range Scenarios {
		ended := <-results[scenario]
		t.Run(scenario, func(t *testing.T) {
			report := ended.report
			if ended.err != nil {
				t.Fatal(ended.err)
			}
			for what, good := range expected[scenario] {
				if value, ok := report.Find(scenario, what); !ok || !good(value) {
					t.Errorf("%q is %v (reported: %v)", what, value, ok)
				}
			}
			if t.Failed() {
				_ = report.WriteText(t.Output())
			}
		})
	}
}

func positive(value float64) bool { return value > 0 }
func once(value float64) bool     { return value == 1 }
func none(value float64) bool     { return value == 0 }
