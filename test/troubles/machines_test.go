// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package troubles

import "testing"

// TestMachineWing shows what the machine wing does about bad servers, bad luck and busy people, with Cluster API, admission and
// rights as they are shipped. The longest comes first.
func TestMachineWing(t *testing.T) {
	for _, c := range []struct {
		name string
		test func(*testing.T)
	}{
		{"deployments fail, machines are replaced", testReplaced},
		{"namespace deleted", testNamespaceDeleted},
		{"namespace deleted at several moments", testNamespaceDeletedAtMoments},
		{"cluster forced away", testClusterDeleted},
		{"server abandoned", testAbandoned},
		{"account used by hand", testOrphans},
		{"circuit breaker", testBreaker},
		{"two tenants want more than there is", testFair},
		{"key and authority rotated", testRotated},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			begin(t)
			c.test(t)
		})
	}
}
