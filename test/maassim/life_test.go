// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/canonical/gomaasclient/entity"
	"github.com/canonical/gomaasclient/entity/node"
	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

// TestLife walks one machine through a tenant's whole life with the real client.
func TestLife(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "abc123", Zone: "az1", Pool: "gold", Tags: []string{"dpu"}})

	l.allocate(l.tenant, "abc123", "token-1")
	_, err := l.tenant.Machine.SetWorkloadAnnotations("abc123", map[string]string{"claim": "token-1", "gone": "x"})
	g.Expect(err).NotTo(HaveOccurred())
	m, err := l.tenant.Machine.SetWorkloadAnnotations("abc123", map[string]string{"gone": ""})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(m.WorkloadAnnotations).To(Equal(map[string]string{"claim": "token-1"}))
	g.Expect(m.IPAddresses).To(BeEmpty(), "allocating claims no address")

	m, err = l.tenant.Machine.Deploy("abc123", &entity.MachineDeployParams{
		UserData: "aGVsbG8=", DistroSeries: "ubuntu/jammy", AgentName: "ignored",
	})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(m.Status).To(Equal(node.StatusDeploying))
	g.Eventually(l.status("abc123")).Should(Equal(maassim.StatusDeployed))
	g.Eventually(l.hardware.seen).Should(Equal([]string{"power abc123 true", "boot abc123 hello"}))

	m, err = l.tenant.Machine.Get("abc123")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(m.StatusName).To(Equal("Deployed"))
	g.Expect(m.Owner).To(Equal("tenant"))
	g.Expect([]string{m.OSystem, m.DistroSeries, m.PowerState}).To(Equal([]string{"ubuntu", "jammy", "on"}))
	g.Expect(m.IPAddresses).To(HaveLen(1))
	g.Expect(m.InterfaceSet[0].Links[0].IPAddress).To(Equal(m.IPAddresses[0].String()))
	g.Expect([]string{m.Zone.Name, m.Pool.Name, m.TagNames[0]}).To(Equal([]string{"az1", "gold", "dpu"}))
	g.Expect(l.state("abc123").AgentName).To(Equal("token-1"), "deploy on an Allocated machine ignores agent_name")

	_, err = l.tenant.Machine.Release("abc123", &entity.MachineReleaseParams{Erase: true})
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(l.status("abc123")).Should(Equal(maassim.StatusReady))
	g.Eventually(l.hardware.seen).Should(Equal([]string{
		"power abc123 true", "boot abc123 hello",
		"power abc123 false", "power abc123 true", "wiped abc123", "power abc123 false",
	}))
	end := l.state("abc123")
	g.Expect([]string{end.Owner, end.AgentName, end.Claim, end.OSystem}).To(Equal([]string{"", "", "", ""}))
	g.Expect(end.Annotations).To(BeEmpty())
	g.Expect(end.IPAddresses).To(BeEmpty())
	g.Expect(end.Dirty).To(BeFalse())
	g.Expect(end.ErasedSince).NotTo(BeZero())

	g.Expect(operations(l.region.Journal())).To(Equal([]string{
		"allocate", "set_workload_annotations", "set_workload_annotations", "deploy", "powered_on", "deployed",
		"release", "powered_off", "powered_on", "erased", "powered_off", "released",
	}))
}

// TestJournalTellsTheClaim checks what an invariant checker lives on.
func TestJournalTellsTheClaim(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "abc123"})
	l.deployed(l.tenant, "abc123", "token-1")
	_, err := l.tenant.Machine.SetWorkloadAnnotations("abc123", map[string]string{"k": "v"})
	g.Expect(err).NotTo(HaveOccurred())
	_, err = l.admin.Machine.Release("abc123", &entity.MachineReleaseParams{QuickErase: true, SecureErase: true, Comment: "bye"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(l.status("abc123")).Should(Equal(maassim.StatusReady))

	last := map[string]maassim.Effect{}
	for _, e := range l.region.Journal() {
		last[e.Operation] = e
		g.Expect(e.Claim).To(Equal("token-1"), e.Operation)
		g.Expect(e.Owner).To(Equal("tenant"), e.Operation)
	}
	g.Expect(last["allocate"].AgentName).To(Equal("token-1"))
	g.Expect(last["allocate"].From).To(Equal(maassim.StatusReady))
	release := last["release"]
	g.Expect([]string{release.User, release.AgentName, release.Erase, release.Detail}).To(
		Equal([]string{"admin", "token-1", "secure_erase+quick_erase", "bye"}))
	g.Expect(last["erased"].AgentName).To(Equal("token-1"), "Disk erasing keeps the agent_name")
	g.Expect(last["released"].AgentName).To(BeEmpty())
	g.Expect(last["released"].Annotations).To(HaveKeyWithValue("k", "v"))
	g.Expect(last["released"].To).To(Equal(maassim.StatusReady))
	g.Expect(l.region.JournalSince(release.Seq)[0].Operation).To(Equal("powered_off"))
}

// TestWhatReleaseForgetsWhen: agent_name at the start (or after erasing), owner and annotations only at the end.
func TestWhatReleaseForgetsWhen(t *testing.T) {
	for name, erase := range map[string]bool{"plain": false, "erase": true} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			l := newLab(t, maassim.Timing{Erase: -1}, maassim.Machine{SystemID: "abc123"})
			l.deployed(l.tenant, "abc123", "token-1")
			_, err := l.tenant.Machine.SetWorkloadAnnotations("abc123", map[string]string{"k": "v"})
			g.Expect(err).NotTo(HaveOccurred())
			if !erase {
				l.region.Inject(maassim.Fault{Operation: "release", Kind: maassim.FaultPowerOffNotSeen})
			}
			_, err = l.tenant.Machine.Release("abc123", &entity.MachineReleaseParams{Erase: erase})
			g.Expect(err).NotTo(HaveOccurred())
			found, err := l.tenant.Machines.Get(&entity.MachinesParams{AgentName: []string{"token-1"}})
			g.Expect(err).NotTo(HaveOccurred())
			if erase {
				g.Expect(found).To(HaveLen(1))
				g.Expect(found[0].Status).To(Equal(node.StatusDiskErasing))
			} else {
				g.Expect(found).To(BeEmpty())
			}
			m, err := l.tenant.Machine.SetWorkloadAnnotations("abc123", map[string]string{"late": "yes"})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(m.Owner).To(Equal("tenant"))
			g.Expect(m.WorkloadAnnotations).To(Equal(map[string]string{"k": "v", "late": "yes"}))
		})
	}
}

func TestReleaseEndings(t *testing.T) {
	cases := map[string]struct {
		machine maassim.Machine
		deploy  bool
		want    node.Status // in the answer
		end     int
	}{
		"power off already: inside the call":     {maassim.Machine{}, false, node.StatusReady, maassim.StatusReady},
		"manual power: inside the call":          {maassim.Machine{PowerType: "manual", PoweredOn: true}, false, node.StatusReady, maassim.StatusReady},
		"never commissioned: ends in New":        {maassim.Machine{Uncommissioned: true}, false, node.StatusNew, maassim.StatusNew},
		"running: waits for the power":           {maassim.Machine{}, true, node.StatusReleasing, maassim.StatusReady},
		"a DPU is Ready at once, and stays on":   {maassim.Machine{IsDPU: true}, true, node.StatusReady, maassim.StatusReady},
		"switched on by hand: waits, then Ready": {maassim.Machine{PoweredOn: true}, false, node.StatusReleasing, maassim.StatusReady},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			tc.machine.SystemID = "abc123"
			l := newLab(t, maassim.Timing{}, tc.machine)
			l.allocate(l.tenant, "abc123", "token-1")
			if tc.deploy {
				_, err := l.tenant.Machine.Deploy("abc123", &entity.MachineDeployParams{})
				g.Expect(err).NotTo(HaveOccurred())
				g.Eventually(l.status("abc123")).Should(Equal(maassim.StatusDeployed))
			}
			m, err := l.tenant.Machine.Release("abc123", &entity.MachineReleaseParams{})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(m.Status).To(Equal(tc.want))
			g.Eventually(l.status("abc123")).Should(Equal(tc.end))
			if tc.machine.IsDPU {
				g.Expect(l.state("abc123").PoweredOn).To(BeTrue())
				g.Expect(l.hardware.seen()).NotTo(ContainElement("wiped abc123"))
			}
		})
	}
}

func TestReleaseIsANoOpInReadyAndRefusedInNew(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "ready1"}, maassim.Machine{SystemID: "new111", Status: maassim.AddAsNew})
	m, err := l.tenant.Machine.Release("ready1", &entity.MachineReleaseParams{Erase: true})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(m.Status).To(Equal(node.StatusReady))
	g.Expect(l.region.Journal()).To(BeEmpty())
	_, err = l.tenant.Machine.Release("new111", &entity.MachineReleaseParams{})
	code, body := serverError(t, err)
	g.Expect(code).To(Equal(http.StatusConflict))
	g.Expect(body).To(Equal("Machine cannot be released in its current state ('New')."))
}

func TestReleaseRefusals(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{Erase: -1}, maassim.Machine{SystemID: "abc123"}, maassim.Machine{SystemID: "dpu111", IsDPU: true})
	l.deployed(l.tenant, "abc123", "a")
	l.allocate(l.tenant, "dpu111", "b")
	_, err := l.tenant.Machine.Release("dpu111", &entity.MachineReleaseParams{QuickErase: true})
	code, body := serverError(t, err)
	g.Expect(code).To(Equal(http.StatusBadRequest))
	g.Expect(body).To(ContainSubstring("Erasing disk is disabled for DPUs."))
	_, err = l.tenant.Machine.Release("abc123", &entity.MachineReleaseParams{Scripts: "nosuch"})
	code, body = serverError(t, err)
	g.Expect(code).To(Equal(http.StatusBadRequest))
	g.Expect(body).To(MatchJSON(`{"scripts": ["Select a valid choice. nosuch is not one of the available choices."]}`))

	// Booleans are lax here.
	answer := l.raw(http.MethodPost, "machines/abc123/?op=release", l.oauth(tenantKey, nil), url.Values{"erase": {"maybe"}})
	g.Expect(answer.code).To(Equal(http.StatusOK))
	g.Expect(l.state("abc123").Status).To(Equal(maassim.StatusDiskErasing))
	_, err = l.tenant.Machine.Release("abc123", &entity.MachineReleaseParams{})
	code, body = serverError(t, err)
	g.Expect(code).To(Equal(http.StatusConflict))
	g.Expect(body).To(Equal("Machine cannot be released in its current state ('Disk erasing')."))
}

func TestAbortAnswersTheOldStatus(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{Deploy: -1}, maassim.Machine{SystemID: "abc123"})
	l.allocate(l.tenant, "abc123", "token-1")
	_, err := l.tenant.Machine.Deploy("abc123", &entity.MachineDeployParams{})
	g.Expect(err).NotTo(HaveOccurred())
	m, err := l.tenant.Machine.Abort("abc123", "")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(m.Status).To(Equal(node.StatusDeploying))
	m, err = l.tenant.Machine.Get("abc123")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(m.Status).To(Equal(node.StatusAllocated))
	g.Expect(m.Owner).To(Equal("tenant"))
	g.Expect(l.state("abc123").AgentName).To(Equal("token-1"))
	_, err = l.tenant.Machine.Abort("abc123", "")
	code, body := serverError(t, err)
	g.Expect(code).To(Equal(http.StatusConflict))
	g.Expect(body).To(Equal("Cannot abort in current state: node abc123 is in state Allocated."))
}

func TestDeployTimesOut(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{Deploy: -1, DeployTimeout: 20 * time.Millisecond}, maassim.Machine{SystemID: "abc123"})
	l.allocate(l.tenant, "abc123", "token-1")
	_, err := l.tenant.Machine.Deploy("abc123", &entity.MachineDeployParams{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(l.status("abc123")).Should(Equal(maassim.StatusFailedDeployment))
	g.Expect(l.state("abc123").ErrorDescription).To(Equal("time-out during deployment"))
	_, err = l.tenant.Machine.Deploy("abc123", &entity.MachineDeployParams{})
	code, body := serverError(t, err)
	g.Expect(code).To(Equal(http.StatusConflict))
	g.Expect(body).To(Equal("Can't deploy a machine that is in the 'Failed deployment' state"))
}

// TestSiteErasesOnRelease erases whatever a release asks for, and knows the site's own release scripts.
func TestSiteErasesOnRelease(t *testing.T) {
	g := NewWithT(t)
	l := newLabWith(t, maassim.Options{
		Timing:         maassim.Timing{PowerOff: time.Millisecond, PowerOn: time.Millisecond, Deploy: time.Millisecond, Erase: time.Millisecond},
		EraseOnRelease: true, ReleaseScripts: []string{"reset-bmc"},
	}, maassim.Machine{SystemID: "abc123"})
	l.deployed(l.tenant, "abc123", "a")
	_, err := l.tenant.Machine.Release("abc123", &entity.MachineReleaseParams{Scripts: "reset-bmc"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(l.status("abc123")).Should(Equal(maassim.StatusReady))
	g.Expect(l.state("abc123").Dirty).To(BeFalse())
	g.Expect(l.region.Journal()).To(ContainElement(And(HaveField("Operation", "release"), HaveField("Erase", "erase"))))
}
