// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas

import (
	"slices"
	"strings"
)

// Match reports whether a machine that was listed meets the constraints, as MAAS would say. Names that MAAS does not know, which
// it refuses, match nothing or everything here. Devices are not looked at: machines are listed without them.
func (k Constraints) Match(m *Machine) bool {
	switch {
	case len(k.SystemIDs) > 0 && !slices.Contains(k.SystemIDs, m.SystemID), slices.Contains(k.NotSystemIDs, m.SystemID):
		return false
	case !within(k.Zone, k.Zones, m.Zone), slices.Contains(k.NotZones, m.Zone):
		return false
	case !within(k.Pool, k.Pools, m.Pool), slices.Contains(k.NotPools, m.Pool):
		return false
	case k.Architecture != "" && m.Architecture != k.Architecture && !strings.HasPrefix(m.Architecture, k.Architecture+"/"):
		return false
	case m.CPUCount < k.MinCPU, m.MemoryMiB < k.MinMemoryMiB, m.largestDisk() < int64(k.MinDiskGB)*bytesPerGB:
		return false
	}
	has := func(tag string) bool { return slices.Contains(m.Tags, tag) }
	return !slices.ContainsFunc(k.Tags, func(tag string) bool { return !has(tag) }) && !slices.ContainsFunc(k.NotTags, has)
}

// within reports whether a value satisfies both.
func within(single string, several []string, value string) bool {
	return (single == "" || single == value) && (len(several) == 0 || slices.Contains(several, value))
}

const bytesPerGB = 1_000_000_000

// largestDisk falls back to the sum of all disks.
func (m *Machine) largestDisk() int64 {
	if m.LargestDiskBytes > 0 {
		return m.LargestDiskBytes
	}
	return int64(m.StorageMB * 1_000_000)
}
