// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"fmt"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

func optional(identity *v1beta1.MaasClusterIdentity) {
	identity.Spec.Isolation = v1beta1.IsolationOptional
}

var lives = map[string]options{
	"ports": {servers: 3, ports: true},
	"plain": {servers: 3, plain: true, identity: optional},
}

// TestLife takes a machine up and down and counts what that cost.
func TestLife(t *testing.T) {
	for name, o := range lives {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, o)
			w.until(w.provisioned, "up")
			w.expectUp()
			w.noSecrets(w.machine())
			w.remove()
			w.until(w.gone, "down")
			w.expectDown()
			calls := 0
			for _, call := range w.region.Calls() {
				// Lists by ID and owner are shared by all machines in transition.
				if call.Operation != "list_machines" && call.Operation != "whoami" {
					calls += call.Count
				}
				t.Logf("%s %s %d: %d", call.Operation, call.AgentName, call.Code, call.Count)
			}
			w.Expect(calls).To(BeNumerically("<=", 12), "MAAS calls of one machine's life")
		})
	}
}

// TestKilledAtEveryEffect kills the process after its first effect, its second, and so on to the last of a life, and lets
// fresh ones finish: the world must look as if nothing had happened.
func TestKilledAtEveryEffect(t *testing.T) {
	for name, o := range lives {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, o)
			w.until(w.provisioned, "up")
			up := len(w.process.effects)
			w.remove()
			w.until(w.gone, "down")
			effects := w.process.effects
			t.Logf("%d effects up, %d in all", up, len(effects))
			for n := 1; n <= len(effects); n++ {
				t.Run(fmt.Sprintf("%02d %s", n, effects[n-1]), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, o)
					w.restart(n)
					w.until(w.provisioned, "up")
					w.expectUp()
					w.remove()
					w.until(w.gone, "down")
					w.expectDown()
				})
			}
		})
	}
}

// TestKilledAtEveryEffectOfDeletion deletes a machine that is only half up.
func TestKilledAtEveryEffectOfDeletion(t *testing.T) {
	o := lives["ports"]
	w := newWorld(t, o)
	w.until(w.provisioned, "up")
	for n := range len(w.process.effects) {
		t.Run(fmt.Sprintf("%02d %s", n+1, w.process.effects[n]), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, o)
			w.restart(n + 1)
			w.until(w.process.dead, "killed")
			w.remove()
			w.until(w.gone, "down")
			w.expectDown()
		})
	}
}

// TestAnswersLost loses the answer to each operation, before and after the commit, and commits late.
func TestAnswersLost(t *testing.T) {
	for _, operation := range []string{"allocate", "set_workload_annotations", "deploy", "power_off", "release", "read_machine", "list_machines"} {
		for _, fault := range []maassim.Fault{
			{Kind: maassim.FaultDropReply},
			{Kind: maassim.FaultLateCommit, Delay: window / 3},
			{Kind: maassim.FaultConflict},
			{Kind: maassim.FaultStatus, Status: 500, Body: "boom"},
			{Kind: maassim.FaultStatus, Status: 503, Body: "no rack"},
		} {
			fault.Operation, fault.Count = operation, 1
			t.Run(fmt.Sprintf("%s %s %d", operation, fault.Kind, fault.Status), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, lives["ports"])
				w.region.Inject(fault)
				w.until(w.provisioned, "up")
				w.expectUp()
				w.remove()
				w.until(w.gone, "down")
				w.expectDown()
			})
		}
	}
}
