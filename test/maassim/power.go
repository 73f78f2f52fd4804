// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"net/http"
)

// switchOn sends a power-on; MAAS sees it after Timing.PowerOn. A machine whose power MAAS cannot switch is left alone.
func (r *Region) switchOn(m *machine) {
	if m.spec.PowerType == "manual" {
		return
	}
	r.addEvent(m, levelInfo, "Powering on", "", "")
	r.schedule(m, timerPower, r.timing.PowerOn, func() { r.powerSeen(m, true) })
}

// switchOff sends a power-off; MAAS sees it after Timing.PowerOff, or never.
func (r *Region) switchOff(m *machine, neverSeen bool) {
	if m.spec.PowerType == "manual" {
		return
	}
	r.cancel(m, timerPower)
	r.addEvent(m, levelInfo, "Powering off", "", "")
	if !neverSeen {
		r.schedule(m, timerPower, r.timing.PowerOff, func() { r.powerSeen(m, false) })
	}
}

// restart brings a machine up from power off, whatever its power is now.
func (r *Region) restart(m *machine) {
	if !m.on || m.spec.PowerType == "manual" {
		r.switchOn(m)
		return
	}
	r.schedule(m, timerPower, r.timing.PowerOff, func() {
		r.powerSeen(m, false)
		r.switchOn(m)
	})
}

// powerSeen is the moment power changes and MAAS sees it; what the machine was doing goes on from there.
func (r *Region) powerSeen(m *machine, on bool) {
	if m.on != on {
		operation, kind := "powered_off", "Node powered off"
		if on {
			operation, kind = "powered_on", "Node powered on"
		}
		e := r.effect("", operation, m, "")
		m.on = on
		r.write(e, m)
		r.addEvent(m, levelInfo, kind, "", "")
		id := m.id()
		r.tell(func(h Hardware) { h.PowerChanged(id, on) })
	}
	m.power = m.queriedPower()
	switch {
	case on && m.status == StatusDeploying:
		r.startInstall(m)
	case on && m.status == StatusDiskErasing:
		r.startErase(m)
	case !on && m.status == StatusReleasing:
		r.finishRelease(m)
	case !on && m.status == StatusBroken:
		r.wipe(m)
	case !on:
		// Whatever was running on the machine stops with it; MAAS' own deadlines go on.
		r.cancel(m, timerInstall, timerErase)
	}
}

// powerOn is op=power_on. On an Allocated machine it starts a deployment; on a running one it forgets stored user-data.
func powerOn(r *Region, c *call) reply {
	m := c.machine
	if m.owner == "" {
		return conflict("Can't start node: it hasn't been allocated.")
	}
	if m.status == StatusAllocated {
		// unsure: the comment's event and that the default series is taken.
		return r.startDeployment(c, deployment{userData: c.form.Get("user_data"), operation: opPowerOn})
	}
	r.request(m, c, "User powering up node")
	m.userData = c.form.Get("user_data")
	r.write(r.effect(c.user.name, opPowerOn, m, c.form.Get("comment")), m)
	if m.spec.PowerType == "manual" {
		return json200(nil)
	}
	c.after = append(c.after, func() { r.switchOn(m) })
	return r.shown(m)
}

// powerOff is op=power_off: null when MAAS has no way to send it.
func powerOff(r *Region, c *call) reply {
	m := c.machine
	if mode := c.form.Get("stop_mode"); mode != "" && mode != "soft" && mode != "hard" {
		// unsure: the text.
		return *text400("Invalid stop_mode: Value must be one of: soft; hard (not '" + mode + "')")
	}
	if m.spec.PowerType == "manual" || m.spec.IsDPU {
		return json200(nil)
	}
	r.request(m, c, "User powering down node")
	r.write(r.effect(c.user.name, opPowerOff, m, c.form.Get("comment")), m)
	c.after = append(c.after, func() { r.switchOff(m, c.hardwareFault() == FaultPowerOffNotSeen) })
	return r.shown(m)
}

// queryPower asks the BMC and writes back what it says.
func queryPower(_ *Region, c *call) reply {
	m := c.machine
	if now := m.queriedPower(); m.power != now {
		m.power = now
		m.changed()
	}
	return json200(map[string]string{"state": m.power})
}

func powerParameters(_ *Region, c *call) reply {
	if !c.user.admin {
		return forbidden()
	}
	return reply{code: http.StatusOK, contentType: contentJSON, body: []byte("{}")}
}
