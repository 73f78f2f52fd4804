// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"testing"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

func TestCapacity(t *testing.T) {
	for _, c := range []struct {
		name    string
		cidr    string
		exclude []string
		want    int32
	}{
		{name: "network, broadcast and gateway are not leased", cidr: "10.64.0.0/24", want: 253},
		{name: "smallest subnet there is", cidr: "10.64.0.0/29", want: 5},
		{name: "largest subnet there is", cidr: "10.0.0.0/8", want: 1<<24 - 3},
		{name: "one address", cidr: "10.64.0.0/24", exclude: []string{"10.64.0.10"}, want: 252},
		{name: "a range counts both ends", cidr: "10.64.0.0/24", exclude: []string{"10.64.0.10-10.64.0.20"}, want: 242},
		{name: "overlapping ranges count once", cidr: "10.64.0.0/24", exclude: []string{"10.64.0.15-10.64.0.30", "10.64.0.10-10.64.0.20", "10.64.0.12"}, want: 232},
		{name: "the gateway is not taken off twice", cidr: "10.64.0.0/24", exclude: []string{"10.64.0.0-10.64.0.2"}, want: 252},
		{name: "nor is the broadcast address", cidr: "10.64.0.0/24", exclude: []string{"10.64.0.255"}, want: 253},
		{name: "nothing is left", cidr: "10.64.0.0/29", exclude: []string{"10.64.0.0-10.64.0.7"}, want: 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Capacity(infrav1.VPCSubnet{Name: "s", CIDR: c.cidr, ExcludeIPs: c.exclude})
			if err != nil || got != c.want {
				t.Errorf("Capacity = %d, %v; want %d", got, err, c.want)
			}
		})
	}
	for _, broken := range []infrav1.VPCSubnet{
		{CIDR: "10.64.0.0"}, {CIDR: "fd00::/64"}, {CIDR: "10.64.0.0/24", ExcludeIPs: []string{"10.65.0.1"}},
		{CIDR: "10.64.0.0/24", ExcludeIPs: []string{"10.64.0.9-10.64.0.3"}},
	} {
		if got, err := Capacity(broken); err == nil {
			t.Errorf("Capacity(%v) = %d, want an error", broken, got)
		}
	}
}

func TestInPools(t *testing.T) {
	pools := []string{"10.64.0.0/16", "10.80.0.0/20", "nonsense"}
	for cidr, want := range map[string]bool{
		"10.64.3.0/24": true, "10.64.0.0/16": true, "10.80.15.0/24": true,
		"10.64.0.0/15": false, "10.80.16.0/24": false, "192.168.0.0/24": false, "10.64.3.0": false, "": false,
	} {
		if got := InPools(cidr, pools); got != want {
			t.Errorf("InPools(%q) = %v, want %v", cidr, got, want)
		}
	}
}

func TestOverlap(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"10.64.0.0/24", "10.64.0.128/25", true},
		{"10.64.0.0/24", "10.64.1.0/24", false},
		{"10.64.0.0/24", "nonsense", true},
	} {
		if Overlap(c.a, c.b) != c.want || Overlap(c.b, c.a) != c.want {
			t.Errorf("Overlap(%q, %q) is not %v both ways", c.a, c.b, c.want)
		}
	}
}
