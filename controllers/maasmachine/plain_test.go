// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// TestPlainServers gives a machine without ports a server without DPUs, or one of which the fabric says, and not long ago, that its
// DPUs are on no VPC. Whatever is not known is no.
func TestPlainServers(t *testing.T) {
	bluefield := []maas.Device{{VendorID: "8086"}, {VendorID: maas.VendorMellanox, ProductID: maas.ProductBlueField3}}
	said := func(change func(*infrav1.DPUServer)) func(*scene) {
		return func(s *scene) {
			s.region.devices["a"] = bluefield
			server := &infrav1.DPUServer{ObjectMeta: metav1.ObjectMeta{Name: infrav1.DPUServerName(sourceName, "a")}}
			s.Expect(s.objects.Get(s.Context(), client.ObjectKeyFromObject(server), server)).To(Succeed())
			server.Status.ObservedAt = ptr.To(metav1.NewTime(s.clock.Now().Add(-time.Minute)))
			change(server)
			s.Expect(s.objects.Update(s.Context(), server)).To(Succeed())
		}
	}
	for _, tc := range []struct {
		name   string
		change func(*scene)
		taken  bool
	}{
		{"no DPU", func(*scene) {}, true},
		{"no DPU, whatever the fabric says", func(s *scene) {
			said(func(server *infrav1.DPUServer) { server.Status.Eligibility = infrav1.Ineligible })(s)
			delete(s.region.devices, "a")
		}, true},
		{"MAAS lists no devices at all", func(s *scene) { s.region.devices["a"] = []maas.Device{} }, false},
		{"a DPU, not in a VPC", said(func(*infrav1.DPUServer) {}), true},
		{"a DPU, ineligible", said(func(server *infrav1.DPUServer) { server.Status.Eligibility = infrav1.Ineligible }), false},
		{"a DPU, not known", said(func(server *infrav1.DPUServer) { server.Status.Eligibility = infrav1.EligibilityUnknown }), false},
		{"a DPU, held", said(func(server *infrav1.DPUServer) {
			server.Status.Holder = &infrav1.DPUServerHolder{Namespace: "blue", Name: "x", TokenHash: "h"}
		}), false},
		{"a DPU, the fabric's word is old", said(func(server *infrav1.DPUServer) {
			server.Status.ObservedAt = ptr.To(metav1.NewTime(now.Add(-31 * time.Minute)))
		}), false},
		{"a DPU, the fabric never looked", said(func(server *infrav1.DPUServer) { server.Status.ObservedAt = nil }), false},
		{"a DPU, no DPUServer", func(s *scene) {
			s.region.devices["a"] = bluefield
			s.Expect(s.objects.Delete(s.Context(), &infrav1.DPUServer{ObjectMeta: metav1.ObjectMeta{Name: infrav1.DPUServerName(sourceName, "a")}})).To(Succeed())
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScene(t, "a")
			s.ports = false
			tc.change(s)
			s.add("m")
			for range 12 {
				s.step("m")
			}
			if taken := s.region.servers["a"].Owner != ""; taken != tc.taken {
				t.Errorf("taken: %t", taken)
			}
		})
	}
}
