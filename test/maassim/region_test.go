// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim_test

import (
	"context"
	"net/http/httptest"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

func TestAddMachineRefusals(t *testing.T) {
	cases := map[string]maassim.Machine{
		"no system ID":   {},
		"same system ID": {SystemID: "abc123"},
		"same hostname":  {SystemID: "bbbbbb", Hostname: "node-abc123"},
		"same MAC":       {SystemID: "bbbbbb", Interfaces: []maassim.Interface{{Name: "a", MAC: "02:00:00:00:00:0A"}}},
		"unknown zone":   {SystemID: "bbbbbb", Zone: "nope"},
		"unknown pool":   {SystemID: "bbbbbb", Pool: "nope"},
		"unknown tag":    {SystemID: "bbbbbb", Tags: []string{"nope"}},
		"unknown owner":  {SystemID: "bbbbbb", Owner: "nope"},
		"unknown status": {SystemID: "bbbbbb", Status: 99},
		"amd64 DPU":      {SystemID: "bbbbbb", IsDPU: true, Architecture: "amd64"},
		"bad mode":       {SystemID: "bbbbbb", Interfaces: []maassim.Interface{{Name: "a", Mode: "MAGIC"}}},
		"bad subnet":     {SystemID: "bbbbbb", Interfaces: []maassim.Interface{{Name: "a", Subnet: "10.0.0.0"}}},
	}
	for name, spec := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			region := maassim.New(maassim.Options{})
			g.Expect(region.AddMachine(maassim.Machine{
				SystemID: "abc123", Interfaces: []maassim.Interface{{Name: "a", MAC: "02:00:00:00:00:0a", Mode: "AUTO"}},
			})).To(Succeed())
			g.Expect(region.AddMachine(spec)).NotTo(Succeed())
			g.Expect(region.Machines()).To(HaveLen(1))
		})
	}
}

// TestTimePassesByTheClock: a deployment ends when the injected clock says so, and not before.
func TestTimePassesByTheClock(t *testing.T) {
	g := NewWithT(t)
	clock := clocktesting.NewFakeClock(time.Now())
	l := newLabWith(t, maassim.Options{Clock: clock, Timing: maassim.Timing{
		Call: -1, Allocate: -1, PerMachineList: -1, PowerOn: time.Minute, Deploy: 10 * time.Minute,
	}}, maassim.Machine{SystemID: "abc123"})
	l.allocate(l.tenant, "abc123", "t")
	_, err := l.tenant.Machine.PowerOn("abc123", nil)
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(clock.HasWaiters).Should(BeTrue())
	clock.Step(59 * time.Second)
	g.Consistently(func() bool { return l.state("abc123").PoweredOn }, "30ms").Should(BeFalse())
	clock.Step(time.Second)
	g.Eventually(func() bool { return l.state("abc123").PoweredOn }).Should(BeTrue())
	g.Expect(l.state("abc123").Status).To(Equal(maassim.StatusDeploying))
	g.Eventually(func() int {
		clock.Step(time.Minute)
		return l.state("abc123").Status
	}).Should(Equal(maassim.StatusDeployed))
	deployed := l.state("abc123").DeployedAt.Sub(l.state("abc123").StatusSince)
	g.Expect(deployed).To(BeNumerically("<", time.Minute))
}

// TestRunEndsAndLetsWaitersGo: a call inside an injected delay or hang does not hold up the end.
func TestRunEndsAndLetsWaitersGo(t *testing.T) {
	for _, kind := range []maassim.FaultKind{maassim.FaultDelay, maassim.FaultHang} {
		t.Run(string(kind), func(t *testing.T) {
			g := NewWithT(t)
			region := maassim.New(maassim.Options{})
			region.AddUser("tenant", tenantKey, false)
			region.Inject(maassim.Fault{Kind: kind, Delay: time.Hour})
			server := httptest.NewServer(region.Handler())
			defer server.Close()
			l := &lab{T: t, region: region, url: server.URL}
			answered := make(chan error, 1)
			go func() {
				_, err := l.client(tenantKey).Zones.Get()
				answered <- err
			}()
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- region.Run(ctx) }()
			g.Consistently(answered, "50ms").ShouldNot(Receive())
			cancel()
			g.Eventually(ended).Should(Receive(BeNil()))
			g.Eventually(answered).Should(Receive())
		})
	}
}
