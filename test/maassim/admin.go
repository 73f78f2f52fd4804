// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// updateMachine is an admin's PUT machines/{id}/ for hostname, description, zone and pool; other fields are ignored.
func updateMachine(r *Region, c *call) reply {
	m := c.machine
	errors := invalid{}
	if zone := c.form.Get("zone"); zone != "" && !slices.Contains(r.zones, zone) {
		errors.add("zone", "Select a valid choice. That choice is not one of the available choices.")
	}
	if pool := c.form.Get("pool"); pool != "" && !slices.Contains(r.pools, pool) {
		errors.add("pool", "Select a valid choice. That choice is not one of the available choices.")
	}
	if answer := errors.reply(); answer != nil {
		return *answer
	}
	e := r.effect(c.user.name, "update_machine", m, "")
	for field, target := range map[string]*string{
		"zone": &m.spec.Zone, "pool": &m.spec.Pool, "hostname": &m.spec.Hostname, "description": &m.description,
	} {
		if value := c.form.Get(field); value != "" {
			*target = value
		}
	}
	r.write(e, m)
	return r.shown(m)
}

// deleteMachine is an admin's DELETE.
func deleteMachine(r *Region, c *call) reply {
	m := c.machine
	r.write(r.effect(c.user.name, "delete_machine", m, ""), m)
	for key := range m.pending {
		delete(m.pending, key)
	}
	for _, address := range m.addresses {
		delete(r.ips, address)
	}
	delete(r.machines, m.id())
	r.order = slices.DeleteFunc(r.order, func(other *machine) bool { return other == m })
	return text(http.StatusNoContent, "")
}

// createMachine is POST machines/ by anybody: the machine lands in New.
func createMachine(r *Region, c *call) reply {
	macs := c.form["mac_addresses"]
	if len(macs) == 0 {
		return invalidField("mac_addresses", "One or more MAC addresses is invalid. ('')")
	}
	if laxFlag(c.form, "is_dpu") && !strings.HasPrefix(c.form.Get("architecture"), "arm64") {
		return invalidField("__all__",
			"Invalid DPU architecture provided. Only 'arm64' architecture is supported.")
	}
	spec := Machine{
		SystemID: r.newSystemID(), Hostname: c.form.Get("hostname"), Architecture: c.form.Get("architecture"),
		PowerType: c.form.Get("power_type"), IsDPU: laxFlag(c.form, "is_dpu"), Status: AddAsNew,
		Zone: c.form.Get("zone"), Pool: c.form.Get("pool"),
	}
	for i, mac := range macs {
		spec.Interfaces = append(spec.Interfaces, Interface{Name: "eth" + strconv.Itoa(i), MAC: mac, Mode: "AUTO", LinkConnected: true})
	}
	spec, err := spec.withDefaults()
	if err == nil {
		err = r.checkNewMachine(spec)
	}
	if err != nil {
		return invalidField("__all__", "%s", err.Error())
	}
	c.machine = r.insertMachine(spec)
	r.write(r.effect(c.user.name, "create_machine", c.machine, ""), c.machine)
	return r.shown(c.machine)
}

// newSystemID counts in MAAS' alphabet, which has no look-alikes.
func (r *Region) newSystemID() string {
	const alphabet = "34678abcdefghkmnpqrstwxy"
	for n := len(r.order) + 1; ; n++ {
		id := []byte("aaaaaa")
		for i, rest := len(id)-1, n; i >= 0; i, rest = i-1, rest/len(alphabet) {
			id[i] = alphabet[rest%len(alphabet)]
		}
		if r.machines[string(id)] == nil {
			return string(id)
		}
	}
}

// commission is an admin's op=commission.
func commission(r *Region, c *call) reply {
	m := c.machine
	if m.status == StatusCommissioning || !TransitionAllowed(m.status, StatusCommissioning) {
		return conflict("Invalid transition: %s -> Commissioning.", StatusName(m.status))
	}
	e := r.effect(c.user.name, "commission", m, "")
	r.setStatus(m, StatusCommissioning)
	r.write(e, m)
	c.after = append(c.after, func() {
		r.switchOn(m)
		r.schedule(m, timerOther, r.timing.Commission, func() { r.finishCommissioning(m) })
	})
	return r.shown(m)
}

func (r *Region) finishCommissioning(m *machine) {
	r.cancel(m, timerOther)
	e := r.effect("", "commissioned", m, "")
	m.spec.Commissioned = true
	r.setStatus(m, StatusReady)
	r.write(e, m)
	r.switchOff(m, false)
}

func unsupported(what string) func(*Region, *call) reply {
	return func(*Region, *call) reply { return notSimulated(what) }
}
