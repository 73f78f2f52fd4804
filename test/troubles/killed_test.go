// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package troubles

import (
	"context"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/demo"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const (
	nsKilled = "killed"

	// glance is how closely the moment of a kill is watched for.
	glance = 2 * time.Millisecond
	// orderWithin is longer than a call and its late effect may take.
	orderWithin = 4 * time.Minute
)

var killedYard = yard{name: "switched", servers: 1}

// TestKilledWings pulls the plug of the wings at the worst moments of a machine's life: just when MAAS or DPF has done what was
// asked and nobody has written it down, with the answer lost as well.
func TestKilledWings(t *testing.T) {
	begin(t)
	n := newReadyTenant(t, nsKilled)
	defer world.MAAS.Inject(maassim.Fault{Kind: maassim.FaultDropReply, Operation: "allocate", Count: 1})()
	m := n.createMachine("m", port(subnet))
	m.killAt("allocate", demo.MachineWing)
	m.waitClaimed()
	systemID := m.now().Status.SystemID
	dpu := ""
	for _, s := range world.Servers {
		if s.SystemID == systemID {
			dpu = s.DPU.Name
		}
	}
	for _, operation := range []string{"deploy", "release"} {
		defer world.MAAS.Inject(maassim.Fault{Kind: maassim.FaultDropReply, Operation: operation, SystemID: systemID, Count: 1})()
	}
	before := world.Fabric.Writes()[dpu]
	writes := func() (attach, detach int) {
		now := world.Fabric.Writes()[dpu]
		return now.Attach - before.Attach, now.Detach - before.Detach
	}
	killWhen(t, "the VPC's label is written", func() bool { attach, _ := writes(); return attach >= 1 }, demo.FabricWing)
	killWhen(t, "the port's label is written", func() bool { attach, _ := writes(); return attach >= 2 }, demo.FabricWing, demo.MachineWing)
	m.killAt("deploy", demo.MachineWing)
	m.waitUp()
	killWhen(t, "all is done", func() bool { return true }, demo.FabricWing)
	m.waitUp()

	m.ask()
	killWhen(t, "the port's label is removed", func() bool { _, detach := writes(); return detach >= 1 }, demo.FabricWing, demo.MachineWing)
	killWhen(t, "the VPC's label is removed", func() bool { _, detach := writes(); return detach >= 2 }, demo.FabricWing)
	m.killAt("release", demo.MachineWing, demo.FabricWing)
	m.waitDown(upWithin)
	m.once("allocate", "deploy", "release")
	if attach, detach := writes(); attach != 2 || detach != 2 {
		t.Errorf("the DPU's labels were written %d times on the way up and %d times down, want 2 and 2", attach, detach)
	}
}

// TestKilledAtPowerOff pulls the plug just when MAAS has switched a server off and nobody has written the answer down: the server is
// not given back before the order can no longer hit whoever has it next.
func TestKilledAtPowerOff(t *testing.T) {
	begin(t)
	n := killedYard.open(t, nil, killedYard.name)[0]
	m := n.upPlain("m")
	m.ask()
	m.killAt("power_off", demo.MachineWing)
	t.Parallel() // That takes minutes, in which other tests run.
	m.waitDown(orderWithin)
	m.once("allocate", "deploy", "release")
}

// killAt kills wings as soon as an operation on the machine's claim took effect in MAAS.
func (m *machine) killAt(operation string, names ...string) {
	m.Helper()
	killWhen(m.T, "MAAS did "+operation, func() bool { return len(effects(m.tenant.name, m.name, operation)) > 0 }, names...)
}

func killWhen(t *testing.T, what string, seen func() bool, names ...string) {
	t.Helper()
	when(t, what, seen)
	wings.kill(t, names...)
}

// when waits closely for the moment something is seen.
func when(t *testing.T, what string, seen func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(suite, glance, upWithin, true, func(context.Context) (bool, error) { return seen(), nil })
	if err != nil {
		t.Fatalf("waiting until %s: %v", what, err)
	}
}
