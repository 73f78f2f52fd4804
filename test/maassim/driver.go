// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"net/http"
	"strings"
)

// driverActions are what a machine or a person in the lab tells the region, by path below /driver/.
var driverActions = map[string]func(*Region, *machine, map[string]string) string{
	"deployed":     driveDeployed,
	"failed":       driveFailed,
	"power":        drivePower,
	"commissioned": driveCommissioned,
	"netboot":      driveNetboot,
}

// serveDriver answers POST /driver/<action> with form fields system_id, state (on or off) and comment: 204 when done,
// 404 for an unknown action or machine, 405 for another verb, 409 with a sentence when the machine's state forbids it.
// It takes the lock.
func (r *Region) serveDriver(w http.ResponseWriter, request *http.Request) {
	action := driverActions[strings.Trim(strings.TrimPrefix(request.URL.Path, driverRoot), "/")]
	if action == nil {
		http.Error(w, "no such driver action", http.StatusNotFound)
		return
	}
	if request.Method != http.MethodPost {
		http.Error(w, "use POST", http.StatusMethodNotAllowed)
		return
	}
	fields := map[string]string{}
	for _, key := range []string{"system_id", "state", "comment"} {
		fields[key] = request.FormValue(key)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.machines[fields["system_id"]]
	if m == nil {
		http.Error(w, "no such machine", http.StatusNotFound)
		return
	}
	complaint := action(r, m, fields)
	m.changed()
	if complaint != "" {
		http.Error(w, complaint, http.StatusConflict)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// driveDeployed is the installed OS asking for its user-data now.
func driveDeployed(r *Region, m *machine, fields map[string]string) string {
	if m.status != StatusDeploying {
		return "the machine is " + StatusName(m.status) + ", not Deploying"
	}
	r.finishDeployment(m, fields["comment"])
	return ""
}

// driveFailed fails what is under way, as MAAS' failure map says.
func driveFailed(r *Region, m *machine, fields map[string]string) string {
	reason := fields["comment"]
	switch m.status {
	case StatusDeploying:
		setDefault(&reason, "Installation failed (refer to the installation log for more information).")
		r.failDeployment(m, reason)
	case StatusDiskErasing:
		setDefault(&reason, "Failed to erase disks.")
		r.failErase(m, reason)
	case StatusReleasing:
		r.cancel(m, timerTimeout, timerPower)
		r.failRelease(m)
	case StatusCommissioning:
		r.cancel(m, timerOther)
		e := r.effect("", "failed", m, reason)
		r.setStatus(m, StatusFailedCommissioning)
		m.errorDescription = reason
		r.write(e, m)
	default:
		return "nothing is under way on a machine that is " + StatusName(m.status)
	}
	return ""
}

// drivePower is the power changing, whoever did it, and MAAS seeing it.
func drivePower(r *Region, m *machine, fields map[string]string) string {
	switch fields["state"] {
	case "on", "off":
		r.cancel(m, timerPower)
		r.powerSeen(m, fields["state"] == "on")
		return ""
	}
	return "state must be on or off"
}

// driveCommissioned ends commissioning, or does what commissioning of a New machine would have done.
func driveCommissioned(r *Region, m *machine, _ map[string]string) string {
	if m.status != StatusCommissioning && m.status != StatusNew {
		return "the machine is " + StatusName(m.status) + ", not New or Commissioning"
	}
	r.finishCommissioning(m)
	return ""
}

func driveNetboot(_ *Region, m *machine, fields map[string]string) string {
	switch fields["state"] {
	case "on", "off":
		m.netboot = fields["state"] == "on"
		return ""
	}
	return "state must be on or off"
}
