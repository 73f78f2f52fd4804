// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"context"
	"testing"

	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// hideServers forbids to read DPUServers.
func (s *scene) hideServers() {
	s.objects = interceptor.NewClient(s.objects, interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			if _, ok := list.(*infrav1.DPUServerList); ok {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "dpuservers"}, "", nil)
			}
			return c.List(ctx, list, opts...)
		},
	})
	s.restart()
}

// TestADPUIsNoMachine: MAAS gives out its own DPU machines as any other, the smallest first.
func TestADPUIsNoMachine(t *testing.T) {
	s := newScene(t, "a", "b", "c", "d", "e", "f", "x")
	for _, id := range []string{"a", "b", "c", "d", "e", "f"} {
		s.region.servers[id].IsDPU = true
	}
	s.hideServers()
	s.add("m")
	s.up("m")
	m := s.get("m")
	s.Expect(m.Status.SystemID).To(Equal("x"))
	s.Expect(m.Status.AvoidedServers).To(HaveLen(1), "once MAAS gave one out, none is asked for")
	s.Expect(m.Status.AvoidedServers[0].Reason).To(Equal(infrav1.ServerIsDPUReason))
	s.Expect(s.region.servers["a"].Status).To(Equal(maas.StatusReady))
	s.Expect(s.region.calls).To(ContainElement("release None"))
	s.Expect(s.region.count("power off")).To(BeZero())
}
