// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import "fmt"

// Proven says in one sentence what a run on this level shows; NotProven, what it leaves open.
func (l Level) Proven() string {
	switch l {
	case StandIn:
		return "what DPF's objects say is what OVN's databases say, and the provider reads it there"
	case Switches:
		return "OVN itself makes flows of it, and frames go where they are to go, and nowhere else"
	default:
		return "OVN itself makes flows of it, and frames of hosts with a network of their own go where they are to go, and nowhere else"
	}
}

// ParseLevel reads a level's name, or "best".
func ParseLevel(name string) (Level, error) {
	if name == "best" {
		level, _ := Best()
		return level, nil
	}
	for _, level := range []Level{StandIn, Switches, Namespaces} {
		if name == level.String() {
			return level, nil
		}
	}
	return StandIn, fmt.Errorf("OVN level %q: want best, %s, %s or %s", name, StandIn, Switches, Namespaces)
}
