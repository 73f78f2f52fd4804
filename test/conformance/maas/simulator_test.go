// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const (
	simulatedUser  = "consumerUser:tokenUser:secretUser"
	simulatedOther = "consumerOther:tokenOther:secretOther"
	simulatedAdmin = "consumerAdmin:tokenAdmin:secretAdmin"
	simulatedPool  = "lab"
)

// drivenTiming lets machines move by the driver only, selfTiming by themselves.
var (
	drivenTiming = maassim.Timing{PowerOn: -1, PowerOff: -1, Deploy: -1, Erase: 5 * time.Millisecond, Commission: -1, Call: -1}
	selfTiming   = maassim.Timing{
		PowerOn: time.Millisecond, PowerOff: time.Millisecond, Deploy: time.Millisecond, Erase: time.Millisecond,
		Commission: time.Millisecond, Call: -1,
	}
)

// simulator is a region of eighteen servers that may be used, and some that may not.
type simulator struct {
	region *maassim.Region
	base   string
}

func newSimulator(t *testing.T, timing maassim.Timing) *simulator {
	t.Helper()
	region := maassim.New(maassim.Options{Timing: timing})
	region.AddUser("user", simulatedUser, false)
	region.AddUser("other", simulatedOther, false)
	region.AddUser("admin", simulatedAdmin, true)
	region.AddPool(simulatedPool)
	region.AddZone("az1")
	region.AddZone("az2")
	region.AddTag("gpu")
	for _, spec := range simulatedFleet() {
		if err := region.AddMachine(spec); err != nil {
			t.Fatal(err)
		}
	}
	base, wait, err := region.Serve(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := wait(); err != nil {
			t.Errorf("region: %v", err)
		}
	})
	return &simulator{region: region, base: base}
}

// simulatedFleet has servers of different kinds in the pool that may be used, and outside it what must not be touched.
func simulatedFleet() []maassim.Machine {
	specs := []maassim.Machine{
		{SystemID: "alien3", PoweredOn: true}, {SystemID: "alien4", Zone: "az1", Tags: []string{"gpu"}},
		{SystemID: "mydpu3", Pool: simulatedPool, IsDPU: true}, {SystemID: "fixme3", Pool: simulatedPool, Status: maassim.StatusBroken},
		{SystemID: "theirs", Pool: simulatedPool, Status: maassim.StatusDeployed, Owner: "other", PoweredOn: true},
	}
	bluefield := maassim.Device{VendorID: "15b3", ProductID: "a2dc", PCIAddress: "0000:03:00.0"}
	for i := range 18 {
		spec := maassim.Machine{
			SystemID: fmt.Sprintf("conf%c%c", "abcdef"[i/6], "abcdef"[i%6]), Pool: simulatedPool, Zone: fmt.Sprintf("az%d", 1+i%2),
			CPUCount: 8 + 8*(i%3), MemoryMiB: 32768 << (i % 4), StorageMB: 500000 + 500000*float64(i%3),
		}
		if i%4 == 1 {
			spec.Devices = []maassim.Device{bluefield}
		}
		if i%5 == 1 {
			spec.Tags = []string{"gpu"}
		}
		if i == 17 {
			spec.Architecture = "arm64"
		}
		specs = append(specs, spec)
	}
	return specs
}

func (s *simulator) settings() settings {
	return settings{
		url: s.base + "/MAAS", userKey: simulatedUser, otherKey: simulatedOther, adminKey: simulatedAdmin,
		driver: s.base + "/driver", pool: simulatedPool, callTimeout: 20 * time.Second, wait: 20 * time.Second,
		poll: 2 * time.Millisecond, maxMachines: 20, strict: true,
	}
}

// checkTouched holds that the suite changed nothing but the machines it was given and those it made.
func (s *simulator) checkTouched(t *testing.T) {
	t.Helper()
	known := map[string]bool{}
	for _, spec := range simulatedFleet() {
		known[spec.SystemID] = true
	}
	for _, e := range s.region.Journal() {
		if known[e.SystemID] && !strings.HasPrefix(e.SystemID, "conf") {
			t.Errorf("%s of %s, which was not the suite's to touch", e.Operation, e.SystemID)
		}
	}
	for _, m := range s.region.Machines() {
		if !known[m.SystemID] {
			t.Errorf("machine %s was left behind", m.SystemID)
		}
	}
}
