// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package maas_test says whether a MAAS behaves as the provider needs it to: what the simulator is held against, and what
// a real region can be held against. It talks to the API over plain HTTP and knows nothing of the provider.
//
// Against a real MAAS run it with "make test-conformance-maas"; see docs/book/conformance.md.
package maas_test

import (
	"fmt"
	"os"
	"testing"
)

// summary is what TestConformance has to say at the very end.
var summary string

func TestMain(m *testing.M) {
	code := m.Run()
	if summary != "" {
		fmt.Fprintln(os.Stdout, "\n"+summary)
	}
	os.Exit(code)
}

// areas are the cases in the order they run; the first needs least.
var areas = []struct {
	name  string
	cases func(*suite, *testing.T)
}{
	{"authentication", authentication},
	{"dispatch", dispatch},
	{"inventory", inventory},
	{"allocate", allocation},
	{"race", races},
	{"agent name", agentNames},
	{"annotations", annotations},
	{"other account", otherAccount},
	{"listing", listing},
	{"deploy", deploys},
	{"states", states},
	{"release", releases},
	{"power", power},
	{"events", events},
	{"gomaasclient", clientLibrary},
}

// TestConformance runs the whole suite: against the MAAS at -url, else against the simulator, where nothing may be skipped.
func TestConformance(t *testing.T) {
	if *urlFlag == "" {
		simulator := newSimulator(t, drivenTiming)
		summary = conformance(t, simulator.settings()).report()
		simulator.checkTouched(t)
		return
	}
	s, err := fromFlags()
	if err != nil {
		t.Fatal(err)
	}
	summary = conformance(t, s).report()
}

// conformance runs all cases and then holds that every machine is as it was found.
func conformance(t *testing.T, settings settings) *suite {
	t.Helper()
	s, err := newSuite(t, settings)
	if err != nil {
		t.Fatal(err)
	}
	for _, area := range areas {
		t.Run(area.name, func(t *testing.T) { area.cases(s, t) })
	}
	t.Run("all machines are as they were found", func(t *testing.T) { s.inspect(t) })
	return s
}
