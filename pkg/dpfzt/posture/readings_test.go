// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"fmt"
	"testing"
)

// TestWhoseTurnItIs: those that somebody waits for first, then who came first, and never so many that do not answer that others
// would wait for them.
func TestWhoseTurnItIs(t *testing.T) {
	type kind struct{ slow, stalled, urgent bool }
	swift, urgent, slow, hopeless := kind{}, kind{urgent: true}, kind{slow: true}, kind{slow: true, stalled: true}
	for name, c := range map[string]struct {
		waiting []kind
		want    string
	}{
		"who came first":                   {[]kind{swift, swift, swift}, "0 1 2"},
		"who is waited for":                {[]kind{swift, urgent, swift, urgent}, "1 3 0 2"},
		"half for the slow":                {[]kind{slow, slow, slow, slow, slow, slow, slow, slow, slow, slow, swift, swift}, "0 1 2 3 4 5 6 7 10 11"},
		"a quarter for the hopeless":       {[]kind{hopeless, hopeless, hopeless, hopeless, hopeless, hopeless, slow, slow, swift}, "0 1 2 3 6 7 8"},
		"no more, whoever waits for those": {[]kind{{true, true, true}, {true, true, true}, {true, true, true}, {true, true, true}, {true, true, true}, slow}, "0 1 2 3 5"},
	} {
		r := &Readings{cards: map[string]*cardReadings{}}
		for n, k := range c.waiting {
			r.cards[fmt.Sprint(n)] = &cardReadings{card: Card{Device: fmt.Sprint(n)}, wanted: true, turn: n, slow: k.slow, stalled: k.stalled, urgent: k.urgent}
		}
		got := ""
		for r.inFlight < mostInFlight {
			next := r.next()
			if next == nil {
				break
			}
			next.wanted, next.running = false, true
			r.count(next.slow, next.stalled, 1)
			got += " " + next.card.Device
		}
		if got != " "+c.want {
			t.Errorf("%s: got%s, want %s", name, got, c.want)
		}
	}
}
