// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"fmt"
	"slices"
)

// Machine statuses with MAAS' own numbers.
const (
	StatusNew                      = 0
	StatusCommissioning            = 1
	StatusFailedCommissioning      = 2
	StatusMissing                  = 3
	StatusReady                    = 4
	StatusReserved                 = 5
	StatusDeployed                 = 6
	StatusRetired                  = 7
	StatusBroken                   = 8
	StatusDeploying                = 9
	StatusAllocated                = 10
	StatusFailedDeployment         = 11
	StatusReleasing                = 12
	StatusFailedReleasing          = 13
	StatusDiskErasing              = 14
	StatusFailedDiskErasing        = 15
	StatusRescueMode               = 16
	StatusEnteringRescueMode       = 17
	StatusFailedEnteringRescueMode = 18
	StatusExitingRescueMode        = 19
	StatusFailedExitingRescueMode  = 20
	StatusTesting                  = 21
	StatusFailedTesting            = 22
)

// statuses gives each status its filter value and display name, indexed by number.
var statuses = [...]struct{ value, display string }{
	{"new", "New"},
	{"commissioning", "Commissioning"},
	{"failed_commissioning", "Failed commissioning"},
	{"missing", "Missing"},
	{"ready", "Ready"},
	{"reserved", "Reserved"},
	{"deployed", "Deployed"},
	{"retired", "Retired"},
	{"broken", "Broken"},
	{"deploying", "Deploying"},
	{"allocated", "Allocated"},
	{"failed_deployment", "Failed deployment"},
	{"releasing", "Releasing"},
	{"failed_releasing", "Releasing failed"},
	{"disk_erasing", "Disk erasing"},
	{"failed_disk_erasing", "Failed disk erasing"},
	{"rescue_mode", "Rescue mode"},
	{"entering_rescue_mode", "Entering rescue mode"},
	{"failed_entering_rescue_mode", "Failed to enter rescue mode"},
	{"exiting_rescue_mode", "Exiting rescue mode"},
	{"failed_exiting_rescue_mode", "Failed to exit rescue mode"},
	{"testing", "Testing"},
	{"failed_testing", "Failed testing"},
}

// transitions is the region's own table of legal status changes; same to same always passes.
var transitions = map[int][]int{
	0:  {1, 3, 4, 7, 8, 17, 21},
	1:  {0, 2, 3, 4, 7, 8, 21},
	2:  {1, 3, 7, 8, 17, 21},
	3:  {0, 1, 4, 8, 10, 17, 21},
	4:  {1, 3, 5, 7, 8, 10, 17, 21},
	5:  {3, 4, 7, 8, 10, 12, 14, 17, 21},
	6:  {3, 4, 8, 10, 12, 14, 17, 21},
	7:  {0, 3, 4, 8, 17, 21},
	8:  {1, 4, 6, 12, 14, 17, 21},
	9:  {3, 4, 6, 8, 10, 11, 12, 14},
	10: {3, 4, 7, 8, 9, 12, 14, 17, 21},
	11: {3, 4, 8, 10, 12, 14, 17, 21},
	12: {0, 3, 4, 5, 6, 8, 10, 11, 13, 15},
	13: {4, 8, 12, 14, 21},
	14: {4, 8, 12, 14, 15},
	15: {4, 8, 10, 12, 14, 17, 21},
	16: {8, 19, 21},
	17: {4, 6, 8, 16, 18, 19},
	18: {8, 17, 19, 21},
	19: {0, 2, 3, 4, 5, 6, 7, 8, 10, 11, 13, 15, 16, 18, 20, 22},
	20: {8, 19, 21},
	21: {0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 13, 15, 18, 20, 22},
	22: {1, 3, 4, 6, 8, 17, 21},
}

// StatusName is the display name MAAS gives a status number, as in status_name.
func StatusName(status int) string {
	if status < 0 || status >= len(statuses) {
		return fmt.Sprintf("Unknown status %d", status)
	}
	return statuses[status].display
}

// TransitionAllowed says whether MAAS' state table lets a machine change from one status to the other.
func TransitionAllowed(from, to int) bool {
	return from == to || slices.Contains(transitions[from], to)
}

func statusByValue(value string) (int, bool) {
	for number, s := range statuses {
		if s.value == value {
			return number, true
		}
	}
	return 0, false
}

func releasable(status int) bool {
	return slices.Contains([]int{
		StatusAllocated, StatusReserved, StatusBroken, StatusDeploying, StatusDeployed,
		StatusFailedDeployment, StatusFailedDiskErasing, StatusFailedReleasing,
	}, status)
}
