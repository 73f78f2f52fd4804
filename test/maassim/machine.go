// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// machine is one server's live state, guarded by Region.mu.
type machine struct {
	spec      Machine
	status    int
	owner     string
	agentName string
	// claim outlives agentName: it is kept until the machine is Ready or New again, for journal and call counts only.
	claim       string
	annotations map[string]string

	// on is the truth about power, power what MAAS last saw.
	on    bool
	power string

	locked, netboot        bool
	osystem, series, hwe   string
	ephemeral              bool
	description            string
	errorDescription       string
	statusMessage          string
	userData               string
	installed, dirty       bool
	erasedSince            time.Time
	deployedAt             time.Time
	statusSince            time.Time
	powerOffFault          bool
	deployFault, eraseFail FaultKind

	// pending maps a timer's key to the sequence number of the one that counts.
	pending map[string]int
	// firstNIC is the database id of the first interface; the others follow.
	firstNIC int
	// addresses are the claimed ones by interface index.
	addresses map[int]netip.Addr

	// object and listed cache the JSON of the machine alone and inside a list.
	object, listed []byte
}

func (m *machine) id() string { return m.spec.SystemID }

func (m *machine) hasMAC(mac string) bool {
	return slices.ContainsFunc(m.spec.Interfaces, func(nic Interface) bool { return strings.EqualFold(nic.MAC, mac) })
}

// queriedPower is what asking the BMC yields.
func (m *machine) queriedPower() string {
	switch {
	case m.spec.PowerType == "manual":
		return "unknown"
	case m.on:
		return "on"
	default:
		return "off"
	}
}

func (m *machine) ipAddresses() []string {
	addresses := []string{}
	for i := range m.spec.Interfaces {
		if address, ok := m.addresses[i]; ok {
			addresses = append(addresses, address.String())
		}
	}
	return addresses
}

// changed drops the cached JSON.
func (m *machine) changed() { m.object, m.listed = nil, nil }

// clearSystem forgets what was deployed, as every release does at its start.
func (m *machine) clearSystem() {
	m.agentName, m.osystem, m.series, m.hwe, m.userData = "", "", "", "", ""
	m.netboot, m.ephemeral = true, false
}

func (m *machine) fqdn() string { return m.spec.Hostname + ".maas" }

// setStatus moves a machine; what MAAS forgets on becoming Ready or New is forgotten here and nowhere else.
func (r *Region) setStatus(m *machine, to int) {
	if m.status == to {
		return
	}
	from := m.status
	m.status = to
	m.statusSince = r.clock.Now()
	if to == StatusReady || to == StatusNew {
		m.owner, m.claim, m.errorDescription = "", "", ""
		m.clearSystem()
		clear(m.annotations)
		r.freeAddresses(m)
	}
	r.addEvent(m, levelDebug, "Node changed status", "From '"+StatusName(from)+"' to '"+StatusName(to)+"'", "")
}
