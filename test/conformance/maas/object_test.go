// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas_test

import "slices"

// Machine statuses by MAAS' numbers.
const (
	statusNew               = 0
	statusCommissioning     = 1
	statusReady             = 4
	statusDeployed          = 6
	statusBroken            = 8
	statusDeploying         = 9
	statusAllocated         = 10
	statusFailedDeployment  = 11
	statusReleasing         = 12
	statusFailedReleasing   = 13
	statusDiskErasing       = 14
	statusFailedDiskErasing = 15
)

// machine is what the suite reads of a machine object.
type machine struct {
	SystemID     string            `json:"system_id"`
	Hostname     string            `json:"hostname"`
	Status       int               `json:"status"`
	StatusName   string            `json:"status_name"`
	Owner        *string           `json:"owner"`
	Annotations  map[string]string `json:"workload_annotations"`
	OwnerData    map[string]string `json:"owner_data"`
	PowerType    string            `json:"power_type"`
	PowerState   string            `json:"power_state"`
	Locked       bool              `json:"locked"`
	OSystem      string            `json:"osystem"`
	Series       string            `json:"distro_series"`
	Architecture string            `json:"architecture"`
	CPUs         float64           `json:"cpu_count"`
	MemoryMiB    float64           `json:"memory"`
	Pool         named             `json:"pool"`
	Zone         named             `json:"zone"`
	Tags         []string          `json:"tag_names"`
	Disks        []struct {
		Size float64 `json:"size"`
	} `json:"physicalblockdevice_set"`
	Interfaces []struct {
		MAC string `json:"mac_address"`
	} `json:"interface_set"`
	IsDPU bool `json:"is_dpu"`
}

type named struct {
	Name string `json:"name"`
}

// owner is the account's name, empty for none.
func (m machine) owner() string {
	if m.Owner == nil {
		return ""
	}
	return *m.Owner
}

// largestDisk is in whole GB of 10^9 bytes, 0 without disks.
func (m machine) largestDisk() int {
	largest := 0.0
	for _, disk := range m.Disks {
		largest = max(largest, disk.Size)
	}
	return int(largest / 1e9)
}

// idle is how a machine is found and has to be left.
func (m machine) idle() bool {
	return m.Status == statusReady && m.Owner == nil && !m.Locked && len(m.Annotations) == 0
}

func ids(machines []machine) []string {
	list := make([]string, 0, len(machines))
	for i := range machines {
		list = append(list, machines[i].SystemID)
	}
	slices.Sort(list)
	return list
}

// device is one entry of nodes/{id}/devices/.
type device struct {
	VendorID  string `json:"vendor_id"`
	ProductID string `json:"product_id"`
}
