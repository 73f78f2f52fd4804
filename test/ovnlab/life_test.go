// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab_test

import (
	"testing"
	"time"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/ovnlab"
)

// TestFrames: what hosts of one tenant send each other arrives unchanged; a host of nobody, or of another tenant, hears nothing,
// until it is plugged into the tenant by mistake.
func TestFrames(t *testing.T) {
	atLevels(t, func(t *testing.T, level ovnlab.Level) {
		begun := time.Now()
		s := start(t, ovnlab.Options{Level: level}, 4)
		t.Logf("4 DPUs after %s", time.Since(begun).Round(time.Millisecond))
		s.tenant("red", 1, 2)
		s.tenant("blue", 3)
		s.eventuallyArrives(1, 2)
	})
}
