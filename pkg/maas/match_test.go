// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas

import "testing"

func TestMatch(t *testing.T) {
	server := Machine{
		SystemID: "abc123", Zone: "z1", Pool: "gold", Tags: []string{"bf3", "rack-7"}, Architecture: "amd64/generic",
		CPUCount: 32, MemoryMiB: 131072, StorageMB: 1_440_000, LargestDiskBytes: 960_000_000_000,
	}
	summed := server
	summed.LargestDiskBytes = 0
	cases := map[string]struct {
		constraints Constraints
		server      Machine
		want        bool
	}{
		"none":                        {Constraints{}, server, true},
		"all":                         {Constraints{SystemIDs: []string{"x", "abc123"}, Zone: "z1", Zones: []string{"z1", "z2"}, Pool: "gold", Pools: []string{"gold"}, Tags: []string{"rack-7", "bf3"}, NotTags: []string{"old"}, Architecture: "amd64", MinCPU: 32, MinMemoryMiB: 131072, MinDiskGB: 960}, server, true},
		"other server":                {Constraints{SystemIDs: []string{"x"}}, server, false},
		"server excluded":             {Constraints{NotSystemIDs: []string{"abc123"}}, server, false},
		"other zone":                  {Constraints{Zone: "z2"}, server, false},
		"one of the zones":            {Constraints{Zones: []string{"z2", "z1"}}, server, true},
		"none of the zones":           {Constraints{Zones: []string{"z2"}}, server, false},
		"zone against zones":          {Constraints{Zone: "z1", Zones: []string{"z2"}}, server, false},
		"zone excluded":               {Constraints{NotZones: []string{"z1"}}, server, false},
		"other pool":                  {Constraints{Pool: "default"}, server, false},
		"none of the pools":           {Constraints{Pools: []string{"default"}}, server, false},
		"pool excluded":               {Constraints{NotPools: []string{"gold"}}, server, false},
		"one tag missing":             {Constraints{Tags: []string{"bf3", "gpu"}}, server, false},
		"unwanted tag":                {Constraints{NotTags: []string{"bf3"}}, server, false},
		"whole architecture":          {Constraints{Architecture: "amd64/generic"}, server, true},
		"other architecture":          {Constraints{Architecture: "arm64"}, server, false},
		"architecture is no prefix":   {Constraints{Architecture: "amd"}, server, false},
		"too few CPUs":                {Constraints{MinCPU: 33}, server, false},
		"too little memory":           {Constraints{MinMemoryMiB: 131073}, server, false},
		"no disk is large enough":     {Constraints{MinDiskGB: 961}, server, false},
		"the sum where no disk shows": {Constraints{MinDiskGB: 1440}, summed, true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := c.constraints.Match(&c.server); got != c.want {
				t.Errorf("%+v: %v", c.constraints, got)
			}
		})
	}
}

func TestDisksAreRead(t *testing.T) {
	m, err := decodeMachine([]byte(`{"system_id": "abc123", "status": 4, "boot_disk": {"size": 480}, "physicalblockdevice_set": [{"size": 480}, {"size": 960}]}`))
	if err != nil || m.BootDiskBytes != 480 || m.LargestDiskBytes != 960 {
		t.Errorf("boot disk %d, largest %d, %v", m.BootDiskBytes, m.LargestDiskBytes, err)
	}
	if m, err = decodeMachine([]byte(`{"system_id": "abc123", "status": 0, "boot_disk": null, "physicalblockdevice_set": []}`)); err != nil || m.BootDiskBytes != 0 {
		t.Errorf("boot disk %d, %v", m.BootDiskBytes, err)
	}
}
