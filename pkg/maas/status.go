// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas

import "fmt"

// Status of a machine, with MAAS' numbers.
type Status int

// The machine states of MAAS 3.x.
const (
	StatusNew                  Status = 0
	StatusCommissioning        Status = 1
	StatusFailedCommissioning  Status = 2
	StatusMissing              Status = 3
	StatusReady                Status = 4
	StatusReserved             Status = 5
	StatusDeployed             Status = 6
	StatusRetired              Status = 7
	StatusBroken               Status = 8
	StatusDeploying            Status = 9
	StatusAllocated            Status = 10
	StatusFailedDeployment     Status = 11
	StatusReleasing            Status = 12
	StatusFailedReleasing      Status = 13
	StatusDiskErasing          Status = 14
	StatusFailedDiskErasing    Status = 15
	StatusRescueMode           Status = 16
	StatusEnteringRescueMode   Status = 17
	StatusFailedEnteringRescue Status = 18
	StatusExitingRescueMode    Status = 19
	StatusFailedExitingRescue  Status = 20
	StatusTesting              Status = 21
	StatusFailedTesting        Status = 22
)

var statusTexts = map[Status]struct{ name, filter string }{
	StatusNew:                  {"New", "new"},
	StatusCommissioning:        {"Commissioning", "commissioning"},
	StatusFailedCommissioning:  {"Failed commissioning", "failed_commissioning"},
	StatusMissing:              {"Missing", "missing"},
	StatusReady:                {"Ready", "ready"},
	StatusReserved:             {"Reserved", "reserved"},
	StatusDeployed:             {"Deployed", "deployed"},
	StatusRetired:              {"Retired", "retired"},
	StatusBroken:               {"Broken", "broken"},
	StatusDeploying:            {"Deploying", "deploying"},
	StatusAllocated:            {"Allocated", "allocated"},
	StatusFailedDeployment:     {"Failed deployment", "failed_deployment"},
	StatusReleasing:            {"Releasing", "releasing"},
	StatusFailedReleasing:      {"Releasing failed", "failed_releasing"},
	StatusDiskErasing:          {"Disk erasing", "disk_erasing"},
	StatusFailedDiskErasing:    {"Failed disk erasing", "failed_disk_erasing"},
	StatusRescueMode:           {"Rescue mode", "rescue_mode"},
	StatusEnteringRescueMode:   {"Entering rescue mode", "entering_rescue_mode"},
	StatusFailedEnteringRescue: {"Failed to enter rescue mode", "failed_entering_rescue_mode"},
	StatusExitingRescueMode:    {"Exiting rescue mode", "exiting_rescue_mode"},
	StatusFailedExitingRescue:  {"Failed to exit rescue mode", "failed_exiting_rescue_mode"},
	StatusTesting:              {"Testing", "testing"},
	StatusFailedTesting:        {"Failed testing", "failed_testing"},
}

// String is the name as MAAS writes it. Compare values, not names.
func (s Status) String() string {
	if text, ok := statusTexts[s]; ok {
		return text.name
	}
	return fmt.Sprintf("Status %d", int(s))
}

// filter is the word that MAAS' status filter takes; "" for an unknown status.
func (s Status) filter() string { return statusTexts[s].filter }

// Free reports a machine that nobody holds: Ready, or New (released without ever
// having been commissioned).
func (s Status) Free() bool { return s == StatusReady || s == StatusNew }

// HoldsOwner reports the states in which a machine that was allocated still has its
// owner: all up to the end of release.
func (s Status) HoldsOwner() bool {
	switch s {
	case StatusAllocated, StatusReserved, StatusDeploying, StatusDeployed, StatusFailedDeployment,
		StatusReleasing, StatusFailedReleasing, StatusDiskErasing, StatusFailedDiskErasing,
		StatusBroken, StatusRescueMode, StatusEnteringRescueMode, StatusFailedEnteringRescue,
		StatusExitingRescueMode, StatusFailedExitingRescue, StatusTesting, StatusFailedTesting:
		return true
	default:
		return false
	}
}

// CanDeploy reports the only state that we deploy from. (MAAS also deploys from Ready by
// allocating on the fly, which a claim must not rely on.)
func (s Status) CanDeploy() bool { return s == StatusAllocated }

// CanRelease reports the states in which a release starts something.
func (s Status) CanRelease() bool {
	switch s {
	case StatusAllocated, StatusReserved, StatusBroken, StatusDeploying, StatusDeployed,
		StatusFailedDeployment, StatusFailedDiskErasing, StatusFailedReleasing:
		return true
	default:
		return false
	}
}

// CanAbort reports the states that abort ends.
func (s Status) CanAbort() bool {
	switch s {
	case StatusDiskErasing, StatusCommissioning, StatusDeploying, StatusTesting:
		return true
	default:
		return false
	}
}

// ReleaseUnderWay reports a release that has begun and not failed.
func (s Status) ReleaseUnderWay() bool { return s == StatusReleasing || s == StatusDiskErasing }

// ReleaseFailed reports a release that stopped half-way; releasing again is allowed.
func (s Status) ReleaseFailed() bool {
	return s == StatusFailedReleasing || s == StatusFailedDiskErasing
}

// PowerState as MAAS last saw it, refreshed about every five minutes.
type PowerState string

// The power states of MAAS.
const (
	PowerOn      PowerState = "on"
	PowerOff     PowerState = "off"
	PowerUnknown PowerState = "unknown"
	PowerError   PowerState = "error"
)
