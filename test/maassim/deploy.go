// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"encoding/base64"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

var kernelName = regexp.MustCompile(`^(ga|hwe|edge)-[0-9]{2}\.[0-9]{2}(-[a-z]+)*$`)

// deployment is what a start of deployment was asked for.
type deployment struct {
	userData, image, kernel, operation string
	ephemeral                          bool
}

// deploy is op=deploy. It wants Allocated, or Ready, which it acquires on the fly. Parameters it does not know are
// ignored, and so is agent_name on a machine that is allocated already.
func deploy(r *Region, c *call) reply {
	if (laxFlag(c.form, "install_kvm") || laxFlag(c.form, "register_vmhost")) && !c.user.admin {
		return text(http.StatusForbidden, "Only administratros can deploy VM hosts")
	}
	if laxFlag(c.form, "install_rackd") {
		return *text400("Deploying a machine as a rackd has been disabled and it's not supported anymore.")
	}
	m := c.machine
	if m.status != StatusReady && m.status != StatusAllocated {
		return conflict("Can't deploy a machine that is in the '%s' state", StatusName(m.status))
	}
	if refusal := checkAgentName(c.form); refusal != nil {
		return *refusal
	}
	return r.startDeployment(c, deployment{
		userData: c.form.Get("user_data"), image: c.form.Get("distro_series"), kernel: c.form.Get("hwe_kernel"),
		ephemeral: laxFlag(c.form, "ephemeral_deploy"), operation: opDeploy,
	})
}

// startDeployment checks everything before it changes anything: a refused deploy of a Ready machine leaves it Ready.
func (r *Region) startDeployment(c *call, d deployment) reply {
	m := c.machine
	image, refusal := r.findImage(d.image)
	if refusal != nil {
		return *refusal
	}
	if d.kernel != "" && !kernelName.MatchString(d.kernel) {
		// unsure: the list of kernels that follows in a real answer.
		return invalidField("hwe_kernel", "'%s' is not a valid hwe_kernel.", d.kernel)
	}
	if !slices.ContainsFunc(m.spec.Interfaces, func(nic Interface) bool { return nic.Mode != "" }) {
		return invalidField("network", "Node must be configured to use a network")
	}
	if !r.claimAddresses(m) {
		return text(http.StatusServiceUnavailable, m.id()+": Unable to allocate static IP due to address exhaustion.")
	}
	// The claim was to see that it works; the one that counts is post-commit work, so that the answer shows none yet.
	r.freeAddresses(m)
	if m.status == StatusReady {
		r.acquire(m, c)
	}
	r.request(m, c, "User starting deployment")
	e := r.effect(c.user.name, d.operation, m, c.form.Get("comment"))
	r.setStatus(m, StatusDeploying)
	m.osystem, m.series, _ = strings.Cut(image, "/")
	m.hwe, m.userData, m.ephemeral = d.kernel, d.userData, d.ephemeral
	m.errorDescription = ""
	m.deployFault = c.hardwareFault()
	r.write(e, m)
	r.addEvent(m, levelInfo, "Deploying", "", "")
	c.after = append(c.after, func() { r.beginDeployment(m) })
	return r.shown(m)
}

// findImage resolves "os/series" or a bare series; empty is the newest Ubuntu.
func (r *Region) findImage(wanted string) (string, *reply) {
	if wanted == "" {
		return "ubuntu/noble", nil
	}
	for _, image := range r.images {
		if _, series, _ := strings.Cut(image, "/"); image == wanted || series == wanted {
			return image, nil
		}
	}
	choices := []string{"''"}
	for _, image := range r.images {
		choices = append(choices, "'"+image+"'")
	}
	answer := invalidField("distro_series", "'%s' is not a valid distro_series.  It should be one of: %s.",
		wanted, strings.Join(choices, ", "))
	return "", &answer
}

// beginDeployment is the post-commit work: addresses, power, the deadline.
// unsure: whether AUTO addresses are claimed before or after the answer is rendered; after it here.
func (r *Region) beginDeployment(m *machine) {
	if m.deployFault != FaultDeployHangs {
		r.schedule(m, timerTimeout, r.timing.DeployTimeout, func() { r.failDeployment(m, "time-out during deployment") })
	}
	r.claimAddresses(m)
	r.restart(m)
}

// startInstall runs when a deploying machine has booted: the installer overwrites the disk, then the new OS asks for
// its user-data.
func (r *Region) startInstall(m *machine) {
	m.installed, m.dirty = true, true
	m.erasedSince = time.Time{}
	switch m.deployFault {
	case FaultDeployHangs:
		r.cancel(m, timerInstall)
	case FaultDeployFails:
		r.schedule(m, timerInstall, r.timing.Deploy, func() {
			r.failDeployment(m, "Installation failed (refer to the installation log for more information).")
		})
	default:
		r.schedule(m, timerInstall, r.timing.Deploy, func() { r.finishDeployment(m, "") })
	}
}

// finishDeployment is the installed OS fetching its user-data: the machine is Deployed, whatever becomes of cloud-init.
func (r *Region) finishDeployment(m *machine, detail string) {
	r.cancel(m, timerInstall, timerTimeout)
	e := r.effect("", "deployed", m, detail)
	r.setStatus(m, StatusDeployed)
	m.netboot = false
	m.installed, m.dirty, m.erasedSince = true, true, time.Time{}
	m.deployedAt = r.clock.Now()
	r.write(e, m)
	r.addEvent(m, levelInfo, "Deployed", "", "")
	id, data := m.id(), decodeUserData(m.userData)
	r.tell(func(h Hardware) { h.Boot(id, data) })
}

// decodeUserData gives the machine what was stored: MAAS checks nothing, so what is no base64 arrives as it was sent.
// unsure: what exactly a machine is served when the stored text is no base64.
func decodeUserData(stored string) []byte {
	data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(stored), ""))
	if err != nil {
		return []byte(stored)
	}
	return data
}

func (r *Region) failDeployment(m *machine, reason string) {
	r.cancel(m, timerInstall, timerTimeout)
	e := r.effect("", "deploy_failed", m, reason)
	r.setStatus(m, StatusFailedDeployment)
	m.errorDescription = reason
	r.write(e, m)
	r.addEvent(m, levelError, "Failed deployment", reason, "")
}

// abort ends what is under way; the answer still shows the old status.
func abort(r *Region, c *call) reply {
	m := c.machine
	to := map[int]int{
		StatusDeploying:     StatusAllocated,
		StatusCommissioning: StatusNew,
		StatusDiskErasing:   StatusFailedDiskErasing,
		StatusTesting:       StatusReady,
	}
	target, ok := to[m.status]
	if !ok {
		return conflict("Cannot abort in current state: node %s is in state %s.", m.id(), StatusName(m.status))
	}
	deploying := m.status == StatusDeploying
	r.request(m, c, "User aborting operation")
	r.write(r.effect(c.user.name, opAbort, m, c.form.Get("comment")), m)
	answer := r.shown(m)
	c.after = append(c.after, func() {
		r.cancel(m, timerInstall, timerErase, timerTimeout, timerOther)
		e := r.effect("", "aborted", m, "")
		r.setStatus(m, target)
		r.write(e, m)
		if deploying {
			// unsure: that aborting gives the AUTO addresses back at once.
			r.freeAddresses(m)
			r.addEvent(m, levelInfo, "Aborted deployment", "", "")
		}
		r.switchOff(m, c.hardwareFault() == FaultPowerOffNotSeen)
	})
	return answer
}
