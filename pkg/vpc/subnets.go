// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
)

// Capacity is how many addresses of a subnet can be leased: all of them but the network's own, the broadcast address, the
// gateway, which is the first usable one, and those excluded.
func Capacity(subnet infrav1.VPCSubnet) (int32, error) {
	excluded, err := excludeIPs(subnet)
	if err != nil {
		return 0, fmt.Errorf("subnet %s: %w", subnet.Name, err)
	}
	return capacity(subnet.Name, subnet.CIDR, excluded)
}

// NetworkCapacity is how many addresses of a DPUVirtualNetwork can be leased; ok is false if nothing is leased there.
func NetworkCapacity(network *vpcv1alpha1.DPUVirtualNetwork) (addresses int32, ok bool) {
	bridged := network.Spec.BridgedNetwork
	if bridged == nil || bridged.IPAM == nil || bridged.IPAM.IPv4 == nil || !bridged.IPAM.IPv4.DHCP {
		return 0, false
	}
	addresses, err := capacity(network.Name, bridged.IPAM.IPv4.Subnet, bridged.IPAM.IPv4.ExcludeIPs)
	return addresses, err == nil
}

func capacity(name, cidr string, excluded []vpcv1alpha1.ExcludeIP) (int32, error) {
	network, err := netip.ParsePrefix(cidr)
	if err != nil || !network.Addr().Is4() {
		return 0, fmt.Errorf("subnet %s: cidr %q is no IPv4 network", name, cidr)
	}
	first, last := bounds(network)
	// The gateway takes the first usable address; what is left is first+2 .. last-1.
	if last-first < 3 {
		return 0, nil
	}
	free := span{first + 2, last - 1}
	spans, err := spansOf(excluded)
	if err != nil {
		return 0, fmt.Errorf("subnet %s: %w", name, err)
	}
	return int32(min(free.size()-overlap(free, spans), math.MaxInt32)), nil
}

func spansOf(excluded []vpcv1alpha1.ExcludeIP) ([]span, error) {
	spans := make([]span, 0, len(excluded))
	for _, entry := range excluded {
		first, last := entry.IP, entry.IP
		if entry.Range != nil {
			first, last = entry.Range.Start, entry.Range.End
		}
		from, err := netip.ParseAddr(first)
		if err != nil {
			return nil, fmt.Errorf("excludeIPs: %w", err)
		}
		to, err := netip.ParseAddr(last)
		if err != nil {
			return nil, fmt.Errorf("excludeIPs: %w", err)
		}
		if !from.Is4() || !to.Is4() {
			return nil, fmt.Errorf("excludeIPs: %s-%s are no IPv4 addresses", first, last)
		}
		spans = append(spans, span{number(from), number(to)})
	}
	return spans, nil
}

// span is a range of addresses, both ends included.
type span struct{ from, to uint32 }

func (s span) size() int64 { return int64(s.to) - int64(s.from) + 1 }

// overlap counts the addresses of s that lie in any of the spans, each once.
func overlap(s span, spans []span) int64 {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	var count int64
	next := int64(s.from)
	for _, other := range spans {
		from, to := max(next, int64(other.from)), min(int64(s.to), int64(other.to))
		if from <= to {
			count += to - from + 1
			next = to + 1
		}
	}
	return count
}

func bounds(network netip.Prefix) (first, last uint32) {
	first = number(network.Masked().Addr())
	return first, first | uint32(math.MaxUint32>>network.Bits())
}

func number(address netip.Addr) uint32 {
	bytes := address.As4()
	return binary.BigEndian.Uint32(bytes[:])
}

// InPools reports whether a CIDR lies wholly inside one of the pools.
func InPools(cidr string, pools []string) bool {
	network, err := netip.ParsePrefix(cidr)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(pools, func(text string) bool {
		pool, err := netip.ParsePrefix(text)
		return err == nil && pool.Bits() <= network.Bits() && pool.Overlaps(network)
	})
}

// Overlap reports whether two CIDRs have addresses in common; one that cannot be read overlaps everything.
func Overlap(a, b string) bool {
	left, leftErr := netip.ParsePrefix(a)
	right, rightErr := netip.ParsePrefix(b)
	return leftErr != nil || rightErr != nil || left.Overlaps(right)
}
