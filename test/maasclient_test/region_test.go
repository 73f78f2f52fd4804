// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package maasclient_test runs pkg/maas against the simulated region: the client was written from MAAS' behaviour, the
// simulator too, each without the other.
package maasclient_test

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const (
	tenantKey = "consumerTenant:tokenTenant:secretTenant"
	otherKey  = "consumerOther:tokenOther:secretOther"
)

type lab struct {
	Gomega
	region        *maassim.Region
	url           string
	tenant, other *maas.Client
}

func newLab(t *testing.T, machines ...maassim.Machine) *lab {
	t.Helper()
	l := &lab{Gomega: NewWithT(t), region: maassim.New(maassim.Options{Timing: maassim.Timing{
		PowerOff: 5 * time.Millisecond, PowerOn: 5 * time.Millisecond, Deploy: 5 * time.Millisecond, Erase: 5 * time.Millisecond,
	}})}
	l.region.AddUser("tenant", tenantKey, false)
	l.region.AddUser("other", otherKey, false)
	l.region.AddZone("az1")
	l.region.AddTag("dpu")
	for _, m := range machines {
		l.Expect(l.region.AddMachine(m)).To(Succeed())
	}
	base, wait, err := l.region.Serve(t.Context(), nil)
	l.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() {
		if err := wait(); err != nil {
			t.Errorf("region: %v", err)
		}
	})
	l.url = base + "/MAAS"
	l.tenant, l.other = l.client(t, tenantKey), l.client(t, otherKey)
	return l
}

func (l *lab) client(t *testing.T, key string, change ...func(*maas.Config)) *maas.Client {
	t.Helper()
	config := maas.Config{Endpoint: l.url, APIKey: maas.NewAPIKey(key)}
	for _, f := range change {
		f(&config)
	}
	c, err := maas.New(config)
	l.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(c.Close)
	return c
}

func (l *lab) token(name string) string {
	token, err := maas.NewToken(rand.Reader, "tenant-a", name)
	l.Expect(err).NotTo(HaveOccurred())
	return token
}

// status polls until the machine is in the state, and returns it.
func (l *lab) status(c *maas.Client, id string, want maas.Status) maas.Machine {
	var m maas.Machine
	l.Eventually(func(g Gomega) {
		var err error
		m, err = c.Machine(context.Background(), id)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(m.Status).To(Equal(want), m.StatusMessage)
	}).WithTimeout(20 * time.Second).WithPolling(5 * time.Millisecond).Should(Succeed())
	return m
}

func host(id string) maassim.Machine {
	return maassim.Machine{
		SystemID: id, Zone: "az1", Tags: []string{"dpu"},
		Devices: []maassim.Device{{VendorID: "15b3", ProductID: "a2dc", PCIAddress: "0000:03:00.0"}},
	}
}

func TestLife(t *testing.T) {
	l := newLab(t, host("abc234"), maassim.Machine{SystemID: "def678"})
	ctx := t.Context()
	account, err := l.tenant.WhoAmI(ctx)
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(account).To(Equal(maas.Account{Username: "tenant"}))
	l.Expect(l.tenant.Zones(ctx)).To(ContainElements("default", "az1"))
	l.Expect(l.tenant.Pools(ctx)).To(ContainElement("default"))
	l.Expect(l.tenant.Tags(ctx)).To(ContainElement("dpu"))
	l.Expect(l.tenant.Devices(ctx, "abc234")).To(ContainElement(HaveField("BlueField()", true)))

	token := l.token("m-1")
	l.Expect(l.tenant.MachinesByToken(ctx, token)).To(BeEmpty())
	m, err := l.tenant.Allocate(ctx, token, maas.Constraints{
		SystemIDs: []string{"abc234", "def678"}, Zones: []string{"az1", "default"}, Tags: []string{"dpu"}, Architecture: "amd64",
		MinCPU: 1, MinMemoryMiB: 1024, MinDiskGB: 10, Devices: []maas.DeviceMatch{{VendorID: maas.VendorMellanox}},
	}, "for tenant-a/m-1")
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(m.SystemID).To(Equal("abc234"))
	l.Expect(m.Status).To(Equal(maas.StatusAllocated))
	l.Expect(m.Interfaces).NotTo(BeEmpty())
	l.Expect(m.ClaimedBy("tenant", token).Unannotated).To(BeTrue())
	_, ownership, err := l.tenant.ConfirmClaim(ctx, "tenant", token, "abc234")
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(ownership.Yes()).To(BeTrue(), ownership.Reason)

	annotated, err := l.tenant.Annotate(ctx, "abc234", map[string]string{maas.AnnotationToken: maas.TokenHash(token), maas.AnnotationName: "m-1"})
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(annotated.ClaimedBy("tenant", token).Yes()).To(BeTrue(), "the answer shows the annotations")
	m, err = l.tenant.Deploy(ctx, "abc234", maas.DeployRequest{UserData: []byte("#cloud-config\n"), Comment: "m-1"})
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(m.Status).To(Equal(maas.StatusDeploying))
	_, err = l.tenant.Deploy(ctx, "abc234", maas.DeployRequest{})
	l.Expect(maas.IsStateConflict(err)).To(BeTrue(), "%v", err)
	m = l.status(l.tenant, "abc234", maas.StatusDeployed)
	l.Expect(m.ClaimedBy("tenant", token).Yes()).To(BeTrue())
	l.Expect(m.IPAddresses).NotTo(BeEmpty())

	l.Expect(l.tenant.PowerOff(ctx, "abc234", "detach proven")).To(Succeed())
	l.Eventually(func() (maas.PowerState, error) { return l.tenant.QueryPower(ctx, "abc234") }).Should(Equal(maas.PowerOff))
	l.Expect(l.tenant.Release(ctx, "abc234", maas.ReleaseRequest{Erase: maas.EraseQuick})).To(Succeed())
	m = l.status(l.tenant, "abc234", maas.StatusReady)
	l.Expect(m.Owner).To(BeEmpty())
	l.Expect(m.ClaimedBy("tenant", token).No()).To(BeTrue())
	erased := slices.ContainsFunc(l.region.Machines(), func(s maassim.MachineState) bool { return s.SystemID == "abc234" && !s.Dirty })
	l.Expect(erased).To(BeTrue(), "the disks were not erased")
	events, err := l.tenant.Events(ctx, 0, maas.EventQuery{SystemID: "abc234"})
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(slices.IsSortedFunc(events, func(a, b maas.Event) int { return int(a.ID - b.ID) })).To(BeTrue())
	l.Expect(events).To(ContainElement(HaveField("Type", "Deployed")))
	l.Expect(events[0].Created).NotTo(BeZero())
}

func TestRefusals(t *testing.T) {
	l := newLab(t, host("abc234"))
	ctx := t.Context()
	_, err := l.tenant.Allocate(ctx, l.token("m-1"), maas.Constraints{Tags: []string{"nope"}}, "")
	var constraint *maas.ConstraintError
	l.Expect(errors.As(err, &constraint)).To(BeTrue(), "%v", err)
	l.Expect(constraint.Fields).To(HaveKey("tags"))
	_, err = l.tenant.Allocate(ctx, l.token("m-1"), maas.Constraints{MinMemoryMiB: 99999999}, "")
	l.Expect(maas.IsNoMatch(err)).To(BeTrue(), "%v", err)
	_, err = l.tenant.Machine(ctx, "zzzzzz")
	l.Expect(maas.IsNotFound(err)).To(BeTrue(), "%v", err)
	_, err = l.tenant.MachinesOwnedBy(ctx, "nobody")
	l.Expect(maas.IsInvalidRequest(err)).To(BeTrue(), "%v", err)

	_, err = l.other.Allocate(ctx, l.token("m-2"), maas.Constraints{}, "")
	l.Expect(err).NotTo(HaveOccurred())
	_, err = l.tenant.Machine(ctx, "abc234")
	l.Expect(maas.IsForbidden(err)).To(BeTrue(), "%v", err)
	l.Expect(l.tenant.MachinesByID(ctx, "abc234")).To(BeEmpty())
	l.Expect(maas.IsForbidden(l.tenant.Release(ctx, "abc234", maas.ReleaseRequest{Erase: maas.EraseNone}))).To(BeTrue())
	err = l.other.Abort(ctx, "abc234", "")
	l.Expect(maas.IsStateConflict(err)).To(BeTrue(), "%v", err)

	for _, key := range []string{"consumerTenant:tokenTenant:secretWrong", "consumerTenant:tokenWrong:secretTenant", "consumerWrong:tokenTenant:secretTenant"} {
		_, err = l.client(t, key).WhoAmI(ctx)
		l.Expect(maas.IsUnauthorized(err)).To(BeTrue(), "%v", err)
		l.Expect(err.Error()).NotTo(ContainSubstring("secretTenant"))
	}
}

func TestAvoidedMachinesAreNotTaken(t *testing.T) {
	l := newLab(t, host("abc234"), host("def678"))
	m, err := l.tenant.Allocate(t.Context(), l.token("m-1"), maas.Constraints{NotSystemIDs: []string{"abc234"}}, "")
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(m.SystemID).To(Equal("def678"))
	_, err = l.tenant.Allocate(t.Context(), l.token("m-1"), maas.Constraints{NotSystemIDs: []string{"abc234"}}, "")
	l.Expect(maas.IsNoMatch(err)).To(BeTrue(), "%v", err)
}

func TestParallelAllocationsTakeDifferentMachines(t *testing.T) {
	const n = 6
	var machines []maassim.Machine
	for _, id := range []string{"a2", "b2", "c2", "d2", "e2", "f2"} {
		machines = append(machines, host(id))
	}
	l := newLab(t, machines...)
	var group sync.WaitGroup
	taken := make(chan string, 2*n)
	for range 2 * n {
		token := l.token("m")
		group.Go(func() {
			m, err := l.tenant.Allocate(t.Context(), token, maas.Constraints{}, "")
			switch {
			case err == nil:
				taken <- m.SystemID
			case !maas.IsNoMatch(err):
				t.Error(err)
			}
		})
	}
	group.Wait()
	close(taken)
	seen := map[string]bool{}
	for id := range taken {
		l.Expect(seen).NotTo(HaveKey(id))
		seen[id] = true
	}
	l.Expect(seen).To(HaveLen(n))
}

func TestFaults(t *testing.T) {
	tests := []struct {
		name  string
		fault maassim.Fault
		check func(g Gomega, err error)
		// committed says whether the machine is taken in the end.
		committed bool
	}{
		{"database conflict", maassim.Fault{Kind: maassim.FaultConflict}, func(g Gomega, err error) {
			g.Expect(maas.IsRetryable(err)).To(BeTrue(), "%v", err)
			g.Expect(maas.IsUnknownOutcome(err)).To(BeFalse(), "%v", err)
			g.Expect(maas.RetryAfter(err)).To(Equal(5 * time.Second))
		}, false},
		{"unavailable", maassim.Fault{Kind: maassim.FaultStatus, Status: 503, Body: "no rack"}, func(g Gomega, err error) {
			g.Expect(maas.IsUnknownOutcome(err)).To(BeTrue(), "%v", err)
			g.Expect(maas.IsRetryable(err)).To(BeTrue(), "%v", err)
		}, false},
		{"hang", maassim.Fault{Kind: maassim.FaultHang}, func(g Gomega, err error) {
			g.Expect(maas.IsUnknownOutcome(err)).To(BeTrue(), "%v", err)
			g.Expect(errors.Is(err, context.DeadlineExceeded)).To(BeTrue(), "%v", err)
		}, false},
		{"dropped reply", maassim.Fault{Kind: maassim.FaultDropReply}, func(g Gomega, err error) {
			g.Expect(maas.IsUnknownOutcome(err)).To(BeTrue(), "%v", err)
		}, true},
		{"late commit", maassim.Fault{Kind: maassim.FaultLateCommit, Delay: 100 * time.Millisecond}, func(g Gomega, err error) {
			g.Expect(maas.IsUnknownOutcome(err)).To(BeTrue(), "%v", err)
		}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t, host("abc234"))
			tt.fault.Operation = "allocate"
			tt.fault.Count = 1
			l.region.Inject(tt.fault)
			c := l.client(t, tenantKey, func(config *maas.Config) { config.AllocateTimeout = 300 * time.Millisecond })
			token := l.token("m-1")
			_, err := c.Allocate(t.Context(), token, maas.Constraints{}, "")
			tt.check(l, err)
			if tt.committed {
				l.Eventually(func() ([]maas.Machine, error) { return c.MachinesByToken(t.Context(), token) }).Should(HaveLen(1))
				return
			}
			l.Consistently(func() ([]maas.Machine, error) { return c.MachinesByToken(t.Context(), token) }).WithTimeout(200 * time.Millisecond).Should(BeEmpty())
			_, err = c.Allocate(t.Context(), token, maas.Constraints{}, "")
			l.Expect(err).NotTo(HaveOccurred())
		})
	}
}

func TestVerifierSeesClaimsOfItsAccountOnly(t *testing.T) {
	l := newLab(t, host("abc234"))
	ctx := t.Context()
	token := l.token("m-1")
	_, err := l.tenant.Allocate(ctx, token, maas.Constraints{}, "")
	l.Expect(err).NotTo(HaveOccurred())
	for key, want := range map[string]int{tenantKey: 1, otherKey: 0} {
		v, err := maas.NewVerifier(maas.Config{Endpoint: l.url, APIKey: maas.NewAPIKey(key)})
		l.Expect(err).NotTo(HaveOccurred())
		t.Cleanup(v.Close)
		l.Expect(v.Claims(ctx, token)).To(HaveLen(want))
		l.Expect(v.MachinesByTokens(ctx, token, l.token("m-2"))).To(HaveLen(want))
		_, ownership, err := v.ConfirmClaim(ctx, "tenant", token, "abc234")
		l.Expect(ownership.Yes()).To(Equal(want == 1))
		l.Expect(maas.IsForbidden(err)).To(Equal(want == 0), "%v", err)
	}
}

// TestADeploymentThatTakesAReadyMachineIsFoundByItsToken: MAAS acquires it on the fly.
func TestADeploymentThatTakesAReadyMachineIsFoundByItsToken(t *testing.T) {
	l := newLab(t, maassim.Machine{SystemID: "abc234"})
	token, err := maas.NewToken(rand.Reader, "red", "m")
	l.Expect(err).NotTo(HaveOccurred())
	_, err = l.tenant.Deploy(t.Context(), "abc234", maas.DeployRequest{Token: token})
	l.Expect(err).NotTo(HaveOccurred())
	found, err := l.tenant.MachinesByToken(t.Context(), token)
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(found).To(HaveLen(1))
}
