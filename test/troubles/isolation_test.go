// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package troubles

import (
	"context"
	"strings"
	"testing"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/demo"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
)

const nsIsolationLost = "isolation-lost"

// TestIsolationLost lets a fabric ask for the power-off of what is known not to be isolated: the machine wing switches that server
// off, and no other.
func TestIsolationLost(t *testing.T) {
	begin(t)
	fabric := theFabric()
	react := func(reaction infrav1.IsolationLostReaction) {
		change(t, fabric, func() { fabric.Spec.OnIsolationLost = reaction })
	}
	react(infrav1.IsolationLostPowerOff)
	t.Cleanup(func() { react(infrav1.IsolationLostReport) })
	n := newReadyTenant(t, nsIsolationLost)
	lost, kept := n.up("lost"), n.up("kept")
	dpu := lost.dpu()
	heal := world.Fabric.Inject(dpfsim.Fault{Kind: dpfsim.VPCClaim, Target: dpu, Value: demo.ForeignVPC})
	defer heal()
	mark := "ovn.vpc.dpu.nvidia.com/vpc=" + strings.ReplaceAll(demo.ForeignVPC, "/", "_")
	defer world.Fabric.Inject(dpfsim.Fault{Kind: dpfsim.Relabel, Target: dpu, Value: mark})()

	expect(t, lost.object(), no(infrav1.IsolatedCondition, infrav1.IsolationBrokenReason))
	eventually(t, soon, "the server is off", func(context.Context) string {
		if s := server(t, lost.now().Status.SystemID); s.PoweredOn {
			return s.SystemID + " is on"
		}
		return ""
	})
	// It is off for good: nothing but the machine's deletion ends that.
	expect(t, lost.object(), no(infrav1.ReadyCondition, infrav1.IsolationBrokenReason))
	expect(t, kept.object(), yes(infrav1.IsolatedCondition))
	if s := server(t, kept.now().Status.SystemID); s.StatusName != "Deployed" || !s.PoweredOn {
		t.Errorf("the other server is %s, on=%t: it was not to be touched", s.StatusName, s.PoweredOn)
	}
	heal()
	lost.down()
	kept.down()
	lost.once("allocate", "deploy", "release")
	kept.once("allocate", "deploy", "power_off", "release")
}
