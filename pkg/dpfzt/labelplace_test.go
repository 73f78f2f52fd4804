// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfzt

import (
	"slices"
	"testing"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// TestCarriers writes where the release takes labels, and reads wherever there are any.
func TestCarriers(t *testing.T) {
	labels := map[string]string{vpc.VPCKey: "v"}
	for _, tc := range []struct {
		name   string
		place  LabelPlace
		change func(*Member)
		want   []string
	}{
		{"the earlier release", LabelsOnDPU, func(*Member) {}, []string{"DPU"}},
		{"the later release", LabelsOnDPUDevice, func(*Member) {}, []string{"DPUDevice", "DPU"}},
		{"not installed, earlier", LabelsOnDPU, func(m *Member) { m.DPU = nil }, nil},
		{"not installed, later", LabelsOnDPUDevice, func(m *Member) { m.DPU = nil }, []string{"DPUDevice"}},
		{"upgraded unseen, labels on the card", LabelsOnDPU, func(m *Member) {
			m.Device.Spec.Cluster = &provisioningv1alpha1.DPUDeviceCluster{NodeLabels: labels}
		}, []string{"DPU", "DPUDevice"}},
		{"upgraded unseen, a record on the card", LabelsOnDPU, func(m *Member) {
			m.Device.Annotations = map[string]string{vpc.HolderAnnotation: "{}"}
		}, []string{"DPU", "DPUDevice"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			member := Member{Device: device("d1", ""), DPU: dpu("u1", "d1", true)}
			tc.change(&member)
			var got []string
			for _, carrier := range member.carriers(tc.place) {
				got = append(got, carrier.Kind)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}
