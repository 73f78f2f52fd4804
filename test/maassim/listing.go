// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"net/http"
	"slices"
	"strings"
)

// listSpecial are the filters that only lists know. agent_name can be filtered on but is never shown.
var listSpecial = map[string]constraintParser{
	"id": anyOf((*machine).id), "not_id": anyOf((*machine).id),
	"hostname": anyOf(hostname), "not_hostname": anyOf(hostname),
	"domain": anyOf(domain), "not_domain": anyOf(domain),
	// unsure: an empty agent_name is taken literally and finds the machines without one.
	"agent_name": anyOf(agentName), "not_agent_name": anyOf(agentName),
	"mac_address": parseMAC,
	"status":      parseStatus, "not_status": parseStatus,
	"simple_status": parseSimpleStatus, "not_simple_status": parseSimpleStatus,
}

func hostname(m *machine) string  { return m.spec.Hostname }
func domain(*machine) string      { return "maas" }
func agentName(m *machine) string { return m.agentName }

func parseMAC(set *constraints, key string, values []string) {
	set.require(key, strings.Join(values, ","), func(m *machine) bool { return slices.ContainsFunc(values, m.hasMAC) })
}

func parseStatus(set *constraints, key string, values []string) {
	wanted := []int{}
	for _, value := range values {
		number, ok := statusByValue(value)
		if !ok {
			set.errors.add(key, "Select a valid choice. %s is not one of the available choices.", value)
			return
		}
		wanted = append(wanted, number)
	}
	set.require(key, strings.Join(values, ","), func(m *machine) bool { return slices.Contains(wanted, m.status) })
}

// parseSimpleStatus crashes as the real one does.
func parseSimpleStatus(set *constraints, _ string, _ []string) {
	answer := text(http.StatusInternalServerError, "Cannot resolve keyword 'simple_status' into field.")
	set.refusal = &answer
}

// listMachines is GET machines/: whole objects of everything the caller may see and the filters let through.
func listMachines(r *Region, c *call) reply {
	set := r.parseConstraints(c.form, listSpecial, nil)
	if refusal := set.reply(); refusal != nil {
		return *refusal
	}
	return list200(r, r.visible(c.user, set.allow))
}

// listAllocated is op=list_allocated: the caller's machines in status Allocated, optionally of given ids.
func listAllocated(r *Region, c *call) reply {
	return list200(r, r.visible(c.user, func(m *machine) bool {
		return m.status == StatusAllocated && m.owner == c.user.name && any1(c.form["id"], m.id())
	}))
}

func (r *Region) visible(u *user, allow func(*machine) bool) []*machine {
	machines := []*machine{}
	for _, m := range r.order {
		if u.sees(m) && allow(m) {
			machines = append(machines, m)
		}
	}
	return machines
}

func readMachine(r *Region, c *call) reply { return raw200(r.objectJSON(c.machine)) }

// isRegistered is a bare true or false, whoever owns the machine.
func isRegistered(r *Region, c *call) reply {
	mac := c.form.Get("mac_address")
	if mac == "" {
		return *text400("No provided mac_address!")
	}
	return json200(slices.ContainsFunc(r.order, func(m *machine) bool { return m.hasMAC(mac) }))
}
