// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/answer"
)

// Check is one thing asked of a BMC.
type Check string

// The checks. All but Identity can be named in a DPUFabric's overrides.
const (
	// Identity asks whether the BMC belongs to the DPUDevice: without it no other answer says anything.
	Identity Check = "Identity"
	// DPUMode asks whether the card runs as a DPU, under its own operating system.
	DPUMode Check = "DPUMode"
	// HostPrivilegeRestricted asks whether the host is kept from changing the card's firmware and settings.
	HostPrivilegeRestricted Check = "HostPrivilegeRestricted"
	// HostRShimDisabled asks whether the host's own way into the card's console and boot stream is closed.
	HostRShimDisabled Check = "HostRShimDisabled"
	// SecureBoot asks whether the card's present boot was of signed images only.
	SecureBoot Check = "SecureBoot"
)

// Checks are all of them, in the order in which they are reported.
var Checks = []Check{Identity, DPUMode, HostPrivilegeRestricted, HostRShimDisabled, SecureBoot}

// Result is the answer to one check.
type Result struct {
	Check  Check
	Answer answer.Answer
	// Message says what was read and, unless the answer is Yes, what to do.
	Message string
}

// Reading is what one BMC answered.
type Reading struct {
	// At is when the BMC was begun to be asked.
	At time.Time
	// Took is how long it took.
	Took time.Duration
	// Results has one result for each of Checks.
	Results []Result
	// Err is why the BMC as a whole could not be asked; nil if it answered.
	Err error
	// stalled says that some request was not answered in time.
	stalled bool
}

// Result returns the answer to one check; Unknown if it was not asked.
func (r Reading) Result(check Check) Result {
	for _, result := range r.Results {
		if result.Check == check {
			return result
		}
	}
	return Result{Check: check, Message: "not asked yet"}
}

// Good reports whether every check passed.
func (r Reading) Good() bool {
	for _, check := range Checks {
		if r.Result(check).Answer != answer.Yes {
			return false
		}
	}
	return true
}

// failed is the reading of a BMC that could not be asked.
func failed(at time.Time, err error) Reading {
	reading := Reading{At: at, Err: err}
	for _, check := range Checks {
		reading.Results = append(reading.Results, Result{Check: check, Answer: answer.Unknown, Message: err.Error()})
	}
	return reading
}

// property is what a resource says of one thing.
type property struct {
	// name and resource say where it is read.
	name, resource string
	// value is empty if the resource does not have the property.
	value string
	// err is why the resource could not be read.
	err error
}

// absent reports whether the BMC positively does not have it, as older firmware may.
func (p property) absent() bool {
	var resource *ResourceError
	if errors.As(p.err, &resource) {
		return resource.NotFound()
	}
	return p.err == nil && p.value == ""
}

func (p property) String() string {
	switch {
	case p.err != nil:
		return fmt.Sprintf("%s cannot be read: %v", p.resource, p.err)
	case p.value == "":
		return fmt.Sprintf("%s has no %s", p.resource, p.name)
	default:
		return fmt.Sprintf("%s of %s is %s", p.name, p.resource, p.value)
	}
}

// facts are what was read of one card.
type facts struct {
	serial                property
	mode, rshim           property
	privilege, biosHost   property
	cpuModel, currentBoot property
	expectedSerial        string
}

// results answers all checks. It is pure.
func (f *facts) results() []Result {
	identity := f.identity()
	results := []Result{identity, f.dpuMode(), f.hostPrivilege(), f.hostRShim(), f.secureBoot()}
	if identity.Answer != answer.Yes {
		for i := range results[1:] {
			// Good or bad, it may be said of another card.
			results[i+1].Answer = answer.Unknown
			results[i+1].Message = "not known to be read from this card: " + identity.Message
		}
	}
	return results
}

func (f *facts) identity() Result {
	switch {
	case f.serial.err != nil || f.serial.value == "":
		return unknown(Identity, "look at the BMC, or at its firmware", f.serial)
	case f.expectedSerial == "":
		return Result{Check: Identity, Message: "DPF does not say the card's serial number: look at the DPUDevice"}
	case !strings.EqualFold(f.serial.value, f.expectedSerial):
		return no(Identity, fmt.Sprintf("the DPUDevice's serial number is %s: correct the BMC address of the DPUDevice, or find out where the card went", f.expectedSerial), f.serial)
	}
	return yes(Identity, f.serial)
}

func (f *facts) dpuMode() Result {
	const repair = "set the card to DPU mode (Mode.Set, InternalCPUModel Embedded), then power-cycle the host"
	switch {
	case f.mode.value == "NicMode":
		return no(DPUMode, repair, f.mode)
	case f.cpuModel.value == "NicMode", f.cpuModel.value == "Separated":
		return no(DPUMode, repair, f.cpuModel)
	case f.mode.value == "DpuMode":
		return yes(DPUMode, f.mode)
	case f.mode.absent() && f.cpuModel.value == "Embedded":
		return yes(DPUMode, f.cpuModel)
	}
	return unknown(DPUMode, "boot the card's operating system, or update its BMC firmware", f.mode, f.cpuModel)
}

func (f *facts) hostPrivilege() Result {
	const repair = "set it to Restricted (HostPrivilegeConfig, or mlxprivhost on the card), then reboot the card"
	switch {
	case f.privilege.value == "Privileged":
		return no(HostPrivilegeRestricted, repair, f.privilege)
	case f.biosHost.value == "Privileged":
		return no(HostPrivilegeRestricted, repair, f.biosHost)
	case f.privilege.value == "Restricted":
		return yes(HostPrivilegeRestricted, f.privilege)
	case f.privilege.absent() && f.biosHost.value == "Restricted":
		return yes(HostPrivilegeRestricted, f.biosHost)
	}
	return unknown(HostPrivilegeRestricted, "boot the card's operating system, or update its BMC firmware", f.privilege, f.biosHost)
}

func (f *facts) hostRShim() Result {
	switch f.rshim.value {
	case "Disabled":
		return yes(HostRShimDisabled, f.rshim)
	case "Enabled":
		return no(HostRShimDisabled, "disable it (HostRshim.Set), then power-cycle the host", f.rshim)
	}
	return unknown(HostRShimDisabled, "look at the BMC, or update its firmware", f.rshim)
}

func (f *facts) secureBoot() Result {
	switch f.currentBoot.value {
	case "Enabled":
		return yes(SecureBoot, f.currentBoot)
	case "Disabled":
		return no(SecureBoot, "enable UEFI Secure Boot and reboot the card", f.currentBoot)
	}
	return unknown(SecureBoot, "boot the card's operating system, or update its UEFI", f.currentBoot)
}

func yes(check Check, p property) Result {
	return Result{Check: check, Answer: answer.Yes, Message: p.String()}
}

func no(check Check, repair string, p property) Result {
	return Result{Check: check, Answer: answer.No, Message: p.String() + ": " + repair}
}

func unknown(check Check, repair string, asked ...property) Result {
	said := make([]string, 0, len(asked))
	for _, p := range asked {
		said = append(said, p.String())
	}
	return Result{Check: check, Answer: answer.Unknown, Message: strings.Join(said, "; ") + ": " + repair}
}

// longestValue of a property that is repeated to people.
const longestValue = 64

// text is what a BMC wrote, fit for a condition.
func text(value any) string {
	if value == nil {
		return ""
	}
	s, ok := value.(string)
	if !ok {
		return "no text"
	}
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, strings.TrimSpace(s))
	if runes := []rune(s); len(runes) > longestValue {
		return string(runes[:longestValue]) + "..."
	}
	return s
}
