// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

var eraseFlags = []string{"erase", "secure_erase", "quick_erase"}

// wipeScript is the release script every region has.
const wipeScript = "wipe-disks"

// release is op=release. In Ready and Releasing it does nothing and says 200, whoever asks.
func release(r *Region, c *call) reply {
	m := c.machine
	erase, refusal := r.parseErase(c)
	if refusal != nil {
		return *refusal
	}
	if m.status == StatusReady || m.status == StatusReleasing {
		return r.shown(m)
	}
	if !releasable(m.status) {
		return conflict("Machine cannot be released in its current state ('%s').", StatusName(m.status))
	}
	if erase != "" && m.spec.IsDPU {
		return invalidField("__all__",
			"Erasing disk is disabled for DPUs. For more information, refer to the documentation.")
	}
	r.request(m, c, "User releasing node")
	r.startRelease(c, m, opRelease, erase)
	return r.shown(m)
}

// parseErase joins the flags that ask for erasing; any of them does, and so does the site's own setting for everybody.
// unsure: that the wipe-disks script alone asks for it too, and which way a site's setting erases where no flag is given.
func (r *Region) parseErase(c *call) (string, *reply) {
	flags := []string{}
	for _, flag := range eraseFlags {
		if laxFlag(c.form, flag) {
			flags = append(flags, flag)
		}
	}
	for _, value := range c.form["scripts"] {
		for script := range strings.SplitSeq(value, ",") {
			switch script = strings.TrimSpace(script); {
			case script == "", slices.Contains(r.releaseScripts, script):
			case script == wipeScript:
				if len(flags) == 0 {
					flags = append(flags, "erase")
				}
			default:
				answer := invalidField("scripts", "Select a valid choice. %s is not one of the available choices.", script)
				return "", &answer
			}
		}
	}
	if r.eraseOnRelease && len(flags) == 0 && !c.machine.spec.IsDPU {
		flags = append(flags, "erase")
	}
	return strings.Join(flags, "+"), nil
}

// startRelease begins to give a machine back, erasing first if asked.
func (r *Region) startRelease(c *call, m *machine, operation, erase string) {
	r.cancel(m, timerInstall, timerErase, timerTimeout, timerPower)
	e := r.effect(c.user.name, operation, m, c.form.Get("comment"))
	e.Erase = erase
	m.powerOffFault = c.hardwareFault() == FaultPowerOffNotSeen
	m.eraseFail = c.hardwareFault()
	if erase != "" {
		r.setStatus(m, StatusDiskErasing)
		r.write(e, m)
		r.addEvent(m, levelInfo, "Disk erasing", "", "")
		c.after = append(c.after, func() { r.restart(m) })
		return
	}
	r.setStatus(m, StatusReleasing)
	m.clearSystem()
	r.write(e, m)
	r.addEvent(m, levelInfo, "Releasing", "", "")
	r.releasePower(m)
}

// releasePower ends a release at once where there is no power to wait for, else sends the power-off and waits.
func (r *Region) releasePower(m *machine) {
	if m.spec.IsDPU || m.spec.PowerType == "manual" || m.power == "off" {
		r.finishRelease(m)
		return
	}
	r.schedule(m, timerTimeout, r.timing.ReleaseTimeout, func() { r.failRelease(m) })
	r.switchOff(m, m.powerOffFault)
}

// finishRelease is MAAS seeing the power off: the machine is anybody's, and what the claim left on it is forgotten.
func (r *Region) finishRelease(m *machine) {
	r.cancel(m, timerInstall, timerErase, timerTimeout, timerPower)
	if !m.on {
		r.wipe(m)
	}
	to := StatusNew
	if m.spec.Commissioned {
		to = StatusReady
	}
	e := r.effect("", "released", m, "")
	r.addEvent(m, levelInfo, "Released", "", "")
	r.setStatus(m, to)
	r.write(e, m)
}

func (r *Region) failRelease(m *machine) {
	const reason = "Failed to release: the power did not go off in time"
	e := r.effect("", "release_failed", m, reason)
	r.setStatus(m, StatusFailedReleasing)
	m.errorDescription = reason
	r.write(e, m)
	r.addEvent(m, levelError, "Failed to release", reason, "")
}

// startErase runs when the ephemeral system has booted: the installed OS is gone, then the disks are.
func (r *Region) startErase(m *machine) {
	r.wipe(m)
	if m.eraseFail == FaultEraseFails {
		r.schedule(m, timerErase, r.timing.Erase, func() { r.failErase(m, "Failed to erase disks.") })
		return
	}
	r.schedule(m, timerErase, r.timing.Erase, func() { r.finishErase(m) })
}

func (r *Region) finishErase(m *machine) {
	e := r.effect("", "erased", m, "")
	m.dirty, m.erasedSince = false, r.clock.Now()
	r.addEvent(m, levelInfo, "Erased disk", "", "")
	r.setStatus(m, StatusReleasing)
	m.clearSystem()
	r.write(e, m)
	r.addEvent(m, levelInfo, "Releasing", "", "")
	r.releasePower(m)
}

func (r *Region) failErase(m *machine, reason string) {
	r.cancel(m, timerErase)
	e := r.effect("", "erase_failed", m, reason)
	r.setStatus(m, StatusFailedDiskErasing)
	m.errorDescription = reason
	r.write(e, m)
	r.addEvent(m, levelError, "Failed to erase disks", reason, "")
}

// wipe tells the hardware once that the installed OS will not run again.
func (r *Region) wipe(m *machine) {
	if !m.installed {
		return
	}
	m.installed = false
	id := m.id()
	r.tell(func(h Hardware) { h.Wiped(id) })
}

// releaseMachines is machines/?op=release: all or nothing, never erasing, and Releasing counts as not releasable.
func releaseMachines(r *Region, c *call) reply {
	ids := c.form["machines"]
	unknown, denied, stuck := []string{}, []string{}, []string{}
	for _, id := range ids {
		m := r.machines[id]
		switch {
		case m == nil:
			unknown = append(unknown, id)
		case !c.user.edits(m):
			denied = append(denied, id)
		case m.status != StatusReady && !releasable(m.status):
			stuck = append(stuck, fmt.Sprintf("%s ('%s')", id, StatusName(m.status)))
		}
	}
	switch {
	case len(unknown) > 0:
		return *text400("Unknown machine(s): " + strings.Join(unknown, ", ") + ".")
	case len(denied) > 0:
		return text(http.StatusForbidden,
			"You don't have the required permission to release the following machine(s): "+strings.Join(denied, ", ")+".")
	case len(stuck) > 0:
		return conflict("Machine(s) cannot be released in their current state: %s.", strings.Join(stuck, ", "))
	}
	started := []string{}
	for _, id := range ids {
		m := r.machines[id]
		if len(ids) == 1 {
			c.claim = m.claim
		}
		if m.status == StatusReady || slices.Contains(started, id) {
			continue
		}
		r.request(m, c, "User releasing node")
		r.startRelease(c, m, opRelease, "")
		started = append(started, id)
	}
	return json200(started)
}
