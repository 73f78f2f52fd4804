// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfzt

import (
	"cmp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
)

// Cards are all cards DPF knows, in order, whether or not a server has them: each DPUDevice with each of its DPUs, and each DPU
// whose DPUDevice is gone.
func (i *Inventory) Cards() []Member {
	servers := map[string]*provisioningv1alpha1.DPUNode{}
	for n := range i.nodes {
		for _, ref := range i.nodes[n].Spec.DPUs {
			servers[strings.ToLower(ref.Name)] = &i.nodes[n]
		}
	}
	var cards []Member
	for name, device := range i.devices {
		if len(i.dpus[name]) == 0 {
			cards = append(cards, Member{Node: servers[name], Device: device})
		}
	}
	for name, dpus := range i.dpus {
		for _, dpu := range dpus {
			cards = append(cards, Member{Node: servers[name], Device: i.devices[name], DPU: dpu})
		}
	}
	slices.SortFunc(cards, func(a, b Member) int { return cmp.Compare(a.CardName(), b.CardName()) })
	return cards
}

// ClusterOf is the DPUCluster that the DPU of that name has joined; ok is false if there is no such DPU, or it has joined none.
func (i *Inventory) ClusterOf(dpu string) (key types.NamespacedName, ok bool) {
	for _, dpus := range i.dpus {
		for _, found := range dpus {
			if found.Name == dpu {
				return Member{DPU: found}.ClusterKey()
			}
		}
	}
	return types.NamespacedName{}, false
}

// CardName is the name of the member's DPUDevice, also where that is gone.
func (m Member) CardName() string {
	switch {
	case m.Device != nil:
		return m.Device.Name
	case m.DPU != nil:
		return strings.ToLower(m.DPU.Spec.DPUDeviceName)
	default:
		return ""
	}
}
