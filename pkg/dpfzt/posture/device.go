// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"cmp"
	"net/netip"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
)

// defaultPort is where a BMC serves Redfish, unless its DPUDevice says otherwise.
const defaultPort = 443

// CardOf is the card behind a DPUDevice. Its BMC is where the operator says, or else where DPF found it.
func CardOf(device *provisioningv1alpha1.DPUDevice) Card {
	card := Card{Device: device.Name, SerialNumber: device.Spec.SerialNumber}
	address, err := netip.ParseAddr(cmp.Or(device.Spec.BMCIP, device.Status.BMCIP))
	port := cmp.Or(device.Spec.BMCPort, defaultPort)
	if err == nil && port > 0 && port < 1<<16 {
		card.BMC = netip.AddrPortFrom(address, uint16(port))
	}
	return card
}
