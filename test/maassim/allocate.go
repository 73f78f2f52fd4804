// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// maxText is the longest agent_name and annotation key.
const maxText = 255

var (
	allocateFlags   = []string{"bridge_all", "bridge_stp", "dry_run", "verbose"}
	allocateIgnored = append([]string{"agent_name", "comment", "bridge_type", "bridge_fd"}, allocateFlags...)
	allocateSpecial = map[string]constraintParser{"name": parseName}
)

func parseName(set *constraints, key string, values []string) {
	values = nonEmpty(values)
	if len(values) == 0 {
		return
	}
	set.require(key, strings.Join(values, ","), func(m *machine) bool {
		return slices.Contains(values, m.spec.Hostname) || slices.Contains(values, m.fqdn())
	})
}

// allocate is machines/?op=allocate: the cheapest Ready machine that fits becomes the caller's. It is not idempotent.
func allocate(r *Region, c *call) reply {
	flags, refusal := parseFlags(c.form, allocateFlags)
	if refusal != nil {
		return *refusal
	}
	set := r.parseConstraints(c.form, allocateSpecial, allocateIgnored)
	if refusal := set.reply(); refusal != nil {
		return *refusal
	}
	if refusal := checkAgentName(c.form); refusal != nil {
		return *refusal
	}
	chosen := r.cheapest(c.user, set)
	if chosen == nil {
		return nothingToAllocate(c.form, set)
	}
	c.systemID = chosen.id()
	if flags["dry_run"] {
		return r.allocated(chosen)
	}
	c.machine = chosen
	r.request(chosen, c, "User acquiring node")
	r.acquire(chosen, c)
	return r.allocated(chosen)
}

// allocated is the object plus what only allocate adds.
func (r *Region) allocated(m *machine) reply {
	object := r.machineObject(m)
	object["constraints_by_type"] = map[string]any{}
	return json200(object)
}

// acquire makes a Ready machine the caller's.
func (r *Region) acquire(m *machine, c *call) {
	e := r.effect(c.user.name, opAllocate, m, c.form.Get("comment"))
	r.setStatus(m, StatusAllocated)
	m.owner = c.user.name
	m.agentName = c.form.Get("agent_name")
	m.claim = m.agentName
	e.Owner, e.AgentName, e.Claim = m.owner, m.agentName, m.claim
	r.write(e, m)
}

// cheapest orders by CPUs plus GiB of memory. Ties are undefined in MAAS; here the machine added first wins.
func (r *Region) cheapest(u *user, set *constraints) *machine {
	var chosen *machine
	cost := func(m *machine) float64 { return float64(m.spec.CPUCount) + float64(m.spec.MemoryMiB)/1024 }
	for _, m := range r.order {
		if m.status != StatusReady || m.locked || !u.sees(m) || !set.allow(m) {
			continue
		}
		if chosen == nil || cost(m) < cost(chosen) {
			chosen = m
		}
	}
	return chosen
}

func nothingToAllocate(form url.Values, set *constraints) reply {
	if ids := form["system_id"]; len(ids) > 0 {
		// Of several it names the last.
		return conflict("No machine with system ID %s available.", ids[len(ids)-1])
	}
	if len(set.resolved) == 0 {
		return conflict("No machine available.")
	}
	return conflict("No available machine matches constraints: %s (resolved to \"%s\")", pythonItems(form), set.describe())
}

// pythonItems is the form as Python prints a list of (key, values) tuples.
// unsure: the order, which is that of the request in MAAS and alphabetical here.
func pythonItems(form url.Values) string {
	items := []string{}
	for key, values := range form {
		quoted := make([]string, 0, len(values))
		for _, value := range values {
			quoted = append(quoted, "'"+value+"'")
		}
		items = append(items, fmt.Sprintf("('%s', [%s])", key, strings.Join(quoted, ", ")))
	}
	slices.Sort(items)
	return "[" + strings.Join(items, ", ") + "]"
}

// parseFlags reads strict booleans.
func parseFlags(form url.Values, names []string) (map[string]bool, *reply) {
	flags := map[string]bool{}
	for _, name := range names {
		switch strings.ToLower(form.Get(name)) {
		case "true", "t", "yes", "y", "on", "1":
			flags[name] = true
		case "false", "f", "no", "n", "off", "0", "":
		default:
			return nil, text400("Invalid " + name + ": Value should be 'true' or 'false'")
		}
	}
	return flags, nil
}

// laxFlag is the boolean of most operations: anything but false, False, 0 and nothing is true.
func laxFlag(form url.Values, name string) bool {
	return !slices.Contains([]string{"", "false", "False", "0"}, form.Get(name))
}

// checkAgentName refuses what does not fit the column.
// unsure: the field and wording of the 400.
func checkAgentName(form url.Values) *reply {
	if length := len([]rune(form.Get("agent_name"))); length > maxText {
		return tooLong("agent_name", length)
	}
	return nil
}

func tooLong(field string, length int) *reply {
	answer := invalidField(field, "Ensure this value has at most %d characters (it has %d).", maxText, length)
	return &answer
}
