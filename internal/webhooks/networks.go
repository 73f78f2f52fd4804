// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package webhooks

import (
	"fmt"
	"net/netip"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// ovnTransit is what OVN uses inside every VPC for its own routers.
var ovnTransit = netip.MustParsePrefix("100.64.0.0/16")

// prefixOf parses a CIDR that the API server's CEL rules have already judged: what is malformed is theirs to refuse.
func prefixOf(cidr string) (netip.Prefix, bool) {
	prefix, err := netip.ParsePrefix(cidr)
	return prefix, err == nil
}

// within says whether inner lies in outer entirely.
func within(inner, outer netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// checkOverlaps refuses subnets of one VPC that overlap each other.
func checkOverlaps(path *field.Path, subnets []infrav1.VPCSubnet, v *verdict) {
	for i := range subnets {
		second, ok := prefixOf(subnets[i].CIDR)
		if !ok {
			continue
		}
		for j := range i {
			first, ok := prefixOf(subnets[j].CIDR)
			if ok && first.Overlaps(second) {
				v.refuse(field.Invalid(path.Index(i).Child("cidr"), subnets[i].CIDR, fmt.Sprintf(
					"overlaps subnet %q (%s): the subnets of one TenantVPC must not overlap", subnets[j].Name, subnets[j].CIDR)))
			}
		}
	}
}

// checkExclusions refuses excludeIPs that are no addresses of the subnet.
func checkExclusions(path *field.Path, subnet infrav1.VPCSubnet, v *verdict) {
	prefix, ok := prefixOf(subnet.CIDR)
	if !ok {
		return
	}
	for i, exclusion := range subnet.ExcludeIPs {
		if problem := judgeExclusion(exclusion, prefix); problem != "" {
			v.refuse(field.Invalid(path.Child("excludeIPs").Index(i), exclusion, problem))
			return
		}
	}
	if left, err := vpc.Capacity(subnet); err == nil && left == 0 {
		v.refuse(field.Invalid(path.Child("excludeIPs"), strings.Join(subnet.ExcludeIPs, ", "), fmt.Sprintf(
			"leave no address of %s for a machine: exclude fewer, or choose a larger network", prefix)))
	}
}

// judgeExclusion returns what is wrong with one address or range, empty if nothing.
func judgeExclusion(exclusion string, prefix netip.Prefix) string {
	low, high, isRange := strings.Cut(exclusion, "-")
	if !isRange {
		high = low
	}
	first, firstErr := netip.ParseAddr(low)
	last, lastErr := netip.ParseAddr(high)
	switch {
	case firstErr != nil || lastErr != nil:
		return "is neither an IPv4 address nor a range: write for example 10.64.0.10 or 10.64.0.10-10.64.0.20"
	case last.Less(first):
		return fmt.Sprintf("ends before it begins: write %s-%s", high, low)
	case !prefix.Contains(first) || !prefix.Contains(last):
		return fmt.Sprintf("lies outside the subnet: name addresses of %s", prefix)
	}
	return ""
}

// checkInPools refuses a subnet outside the fabric's tenant pools.
func checkInPools(path *field.Path, subnet infrav1.VPCSubnet, fabric *infrav1.DPUFabric, v *verdict) {
	prefix, ok := prefixOf(subnet.CIDR)
	if !ok {
		return
	}
	for _, pool := range fabric.Spec.TenantPools {
		if outer, ok := prefixOf(pool); ok && within(prefix, outer) {
			return
		}
	}
	v.refuse(field.Invalid(path.Child("cidr"), subnet.CIDR, fmt.Sprintf(
		"lies outside the tenant pools of DPUFabric %q: choose a network inside %s", fabric.Name, strings.Join(fabric.Spec.TenantPools, ", "))))
}

// checkPools refuses tenant pools that overlap OVN's own network or each other.
func checkPools(path *field.Path, pools []string, v *verdict) {
	for i, pool := range pools {
		second, ok := prefixOf(pool)
		if !ok {
			continue
		}
		if second.Overlaps(ovnTransit) {
			v.refuse(field.Invalid(path.Index(i), pool, fmt.Sprintf(
				"overlaps %s, which OVN uses inside every VPC: choose pools beside it, for example 10.64.0.0/10", ovnTransit)))
		}
		for j := range i {
			if first, ok := prefixOf(pools[j]); ok && first.Overlaps(second) {
				v.refuse(field.Invalid(path.Index(i), pool, fmt.Sprintf("overlaps pool %s: write the larger of the two once", pools[j])))
			}
		}
	}
}
