// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfzt

import (
	"slices"
	"strings"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// cardsByMAC are the names of the DPUDevices whose PF0 has one of the MAC addresses. One address on two cards leads nowhere.
func cardsByMAC(devices []provisioningv1alpha1.DPUDevice, labelKey string, macs []string) (map[string]bool, error) {
	wanted := map[string]bool{}
	for _, mac := range macs {
		wanted[vpc.NormalizeMAC(mac)] = true
	}
	cards, owners := map[string]bool{}, map[string]string{}
	for i := range devices {
		mac := vpc.NormalizeMAC(devices[i].Status.PF0MAC)
		if mac == "" || !wanted[mac] {
			continue
		}
		if other, taken := owners[mac]; taken {
			return nil, resolveError(infrav1.AmbiguousDPUReason, "DPUDevices %s and %s have the same PF0 MAC address %s: label the DPUNode of this server with %s",
				other, devices[i].Name, mac, labelKey)
		}
		owners[mac] = devices[i].Name
		cards[devices[i].Name] = true
	}
	return cards, nil
}

// nodesOfCards are the DPUNodes that list one of the cards. One whose label says that it is another server's is not taken by its
// MAC address: the label wins.
func nodesOfCards(nodes []provisioningv1alpha1.DPUNode, labelKey string, cards map[string]bool) ([]provisioningv1alpha1.DPUNode, error) {
	var found []provisioningv1alpha1.DPUNode
	for i := range nodes {
		if !slices.ContainsFunc(nodes[i].Spec.DPUs, func(r provisioningv1alpha1.DPURef) bool { return cards[strings.ToLower(r.Name)] }) {
			continue
		}
		if nodes[i].Labels[labelKey] != "" {
			return nil, resolveError(infrav1.AmbiguousDPUReason, "the MAC address leads to DPUNode %s, whose label %s says that it is another server", nodes[i].Name, labelKey)
		}
		found = append(found, nodes[i])
	}
	return found, nil
}

// ServerByMAC assembles the server that has one of the MAC addresses as PF0, where no label leads to it. Errors are ResolveErrors.
func (i *Inventory) ServerByMAC(labelKey string, macs []string) (Server, error) {
	devices := make([]provisioningv1alpha1.DPUDevice, 0, len(i.devices))
	for _, device := range i.devices {
		devices = append(devices, *device)
	}
	cards, err := cardsByMAC(devices, labelKey, macs)
	if err != nil {
		return Server{}, err
	}
	nodes, err := nodesOfCards(i.nodes, labelKey, cards)
	if err != nil {
		return Server{}, err
	}
	if len(nodes) == 0 {
		return Server{}, resolveError(infrav1.ServerNotMappedReason, "no DPUNode without the label %s lists a card with a PF0 MAC address of this server", labelKey)
	}
	return i.assemble(nodes)
}

// UnlabelledMACs are the PF0 MAC addresses of the cards that DPUNodes without the label list, in order.
func (i *Inventory) UnlabelledMACs(labelKey string) []string {
	var macs []string
	for n := range i.nodes {
		if i.nodes[n].Labels[labelKey] != "" {
			continue
		}
		for _, ref := range i.nodes[n].Spec.DPUs {
			if device := i.devices[strings.ToLower(ref.Name)]; device != nil && device.Status.PF0MAC != "" {
				macs = append(macs, vpc.NormalizeMAC(device.Status.PF0MAC))
			}
		}
	}
	slices.Sort(macs)
	return slices.Compact(macs)
}
