// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"testing"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
)

func TestCardOf(t *testing.T) {
	for name, c := range map[string]struct {
		spec   provisioningv1alpha1.DPUDeviceSpec
		status provisioningv1alpha1.DPUDeviceStatus
		want   string
	}{
		"spec":            {spec: provisioningv1alpha1.DPUDeviceSpec{BMCIP: "192.0.2.1", BMCPort: 8443}, status: provisioningv1alpha1.DPUDeviceStatus{BMCIP: "192.0.2.2"}, want: "192.0.2.1:8443"},
		"status":          {status: provisioningv1alpha1.DPUDeviceStatus{BMCIP: "192.0.2.2"}, want: "192.0.2.2:443"},
		"neither":         {want: "invalid AddrPort"},
		"no address":      {spec: provisioningv1alpha1.DPUDeviceSpec{BMCIP: "bmc.example.com"}, want: "invalid AddrPort"},
		"impossible port": {spec: provisioningv1alpha1.DPUDeviceSpec{BMCIP: "192.0.2.1", BMCPort: 70000}, want: "invalid AddrPort"},
	} {
		device := &provisioningv1alpha1.DPUDevice{Spec: c.spec, Status: c.status}
		device.Name, device.Spec.SerialNumber = "mt1", "MT1"
		card := CardOf(device)
		if card.Device != "mt1" || card.SerialNumber != "MT1" || card.BMC.String() != c.want {
			t.Errorf("%s: %+v, want %s", name, card, c.want)
		}
	}
}
