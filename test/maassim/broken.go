// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

// markBroken is op=mark_broken, for the owner only, not even for an admin. From a state that can be released it
// releases first, without erasing; then the machine stays Broken until an admin fixes it.
func markBroken(r *Region, c *call) reply {
	m := c.machine
	if m.owner == "" || m.owner != c.user.name {
		return forbidden()
	}
	if !TransitionAllowed(m.status, StatusBroken) {
		return conflict("Invalid transition: %s -> Broken.", StatusName(m.status))
	}
	reason := c.form.Get("comment")
	r.request(m, c, "User marking node broken")
	if m.status != StatusBroken && releasable(m.status) {
		r.cancel(m, timerInstall, timerErase, timerTimeout, timerPower)
		off := m.power == "off"
		m.clearSystem()
		r.breakMachine(c, m, reason)
		if off {
			// unsure: that annotations go together with the owner here.
			m.owner, m.claim = "", ""
			clear(m.annotations)
		} else {
			c.after = append(c.after, func() { r.switchOff(m, c.hardwareFault() == FaultPowerOffNotSeen) })
		}
		// unsure: that addresses are freed here rather than when the machine is fixed.
		r.freeAddresses(m)
	} else {
		r.breakMachine(c, m, reason)
	}
	return r.shown(m)
}

func (r *Region) breakMachine(c *call, m *machine, reason string) {
	e := r.effect(c.user.name, opMarkBroken, m, reason)
	r.setStatus(m, StatusBroken)
	m.errorDescription = reason
	r.write(e, m)
	r.addEvent(m, levelInfo, "Marked broken", reason, c.user.name)
}

// markFixed is op=mark_fixed, for admins.
// unsure: when exactly a machine that was Deployed becomes Deployed again; here never, as mark_broken released it.
func markFixed(r *Region, c *call) reply {
	m := c.machine
	if m.status != StatusBroken {
		return conflict("Can't mark a non-broken node as 'Ready'.")
	}
	r.request(m, c, "User marking node fixed")
	e := r.effect(c.user.name, "mark_fixed", m, c.form.Get("comment"))
	r.setStatus(m, StatusReady)
	r.write(e, m)
	return r.shown(m)
}

// lock is op=lock: nothing that edits works on the machine until it is unlocked.
func lock(r *Region, c *call) reply {
	m := c.machine
	if m.locked {
		return conflict("Machine is already locked")
	}
	if m.status != StatusDeployed && m.status != StatusDeploying {
		return conflict("Can't lock, node is not deployed or deploying")
	}
	return r.setLocked(c, "lock", true)
}

func unlock(r *Region, c *call) reply {
	if !c.machine.locked {
		return conflict("Machine is not locked")
	}
	return r.setLocked(c, "unlock", false)
}

func (r *Region) setLocked(c *call, operation string, locked bool) reply {
	m := c.machine
	e := r.effect(c.user.name, operation, m, c.form.Get("comment"))
	m.locked = locked
	r.write(e, m)
	return r.shown(m)
}
