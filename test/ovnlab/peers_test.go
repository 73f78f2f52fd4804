// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"context"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// TestPeersAreKnown: no tunnel's first frame is lost to address resolution, whoever of two DPUs came first or booted last.
func TestPeersAreKnown(t *testing.T) {
	for _, level := range []Level{Switches, Namespaces} {
		t.Run(level.String(), func(t *testing.T) {
			Require(t, level)
			t.Parallel()
			g := NewWithT(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			lab, err := Start(ctx, Options{Level: level})
			g.Expect(err).NotTo(HaveOccurred())
			defer func() { g.Expect(lab.Close(ctx)).To(Succeed()) }()
			g.Expect(lab.AddDPU(ctx, "one")).To(Succeed())
			g.Expect(lab.AddDPU(ctx, "two")).To(Succeed())
			expectAcquainted(ctx, g, lab)
			g.Expect(lab.StartDPU(ctx, "one")).To(Succeed())
			expectAcquainted(ctx, g, lab)
		})
	}
}

func expectAcquainted(ctx context.Context, g *WithT, lab *Lab) {
	for name, peer := range map[string]string{"one": "two", "two": "one"} {
		of := map[string]*dpu{name: nil, peer: nil}
		for n := range of {
			var err error
			of[n], err = lab.plane.(*daemons).get(n)
			g.Expect(err).NotTo(HaveOccurred())
		}
		known, err := of[name].switchControl().command(ctx, "tnl/neigh/show")
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(known).To(And(ContainSubstring(of[peer].vtep().String()), ContainSubstring(of[peer].uplinkMAC())))
	}
}
