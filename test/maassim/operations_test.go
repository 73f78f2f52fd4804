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

func TestDeployOfAReadyMachineAcquiresIt(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "abc123"})
	_, err := l.tenant.Machine.Deploy("abc123", &entity.MachineDeployParams{DistroSeries: "nosuch", AgentName: "t"})
	code, body := serverError(t, err)
	g.Expect(code).To(Equal(http.StatusBadRequest))
	g.Expect(body).To(MatchJSON(
		`{"distro_series": ["'nosuch' is not a valid distro_series.  It should be one of: '', 'ubuntu/jammy', 'ubuntu/noble'."]}`))
	g.Expect(l.state("abc123").Status).To(Equal(maassim.StatusReady), "a refused deploy rolls the acquire back")
	g.Expect(l.state("abc123").Owner).To(BeEmpty())

	_, err = l.tenant.Machine.Deploy("abc123", &entity.MachineDeployParams{AgentName: "t", UserData: "no base64!"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(l.state("abc123").AgentName).To(Equal("t"))
	_, err = l.tenant.Machine.Deploy("abc123", &entity.MachineDeployParams{})
	code, _ = serverError(t, err)
	g.Expect(code).To(Equal(http.StatusConflict))
	g.Eventually(l.hardware.seen).Should(ContainElement("boot abc123 no base64!"))
}

func TestDeployRefusals(t *testing.T) {
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "abc123"},
		maassim.Machine{SystemID: "nonet1", Interfaces: []maassim.Interface{{Name: "eth0", MAC: "02:00:00:00:00:09"}}})
	l.allocate(l.tenant, "abc123", "t")
	cases := map[string]struct {
		id   string
		form url.Values
		code int
		body string
	}{
		"VM host":         {"abc123", url.Values{"install_kvm": {"true"}}, 403, "Only administratros can deploy VM hosts"},
		"rackd":           {"abc123", url.Values{"install_rackd": {"true"}}, 400, "Deploying a machine as a rackd has been disabled and it's not supported anymore."},
		"kernel":          {"abc123", url.Values{"hwe_kernel": {"vmlinuz"}}, 400, "{\n    \"hwe_kernel\": [\n        \"'vmlinuz' is not a valid hwe_kernel.\"\n    ]\n}"},
		"no network":      {"nonet1", url.Values{}, 400, "{\n    \"network\": [\n        \"Node must be configured to use a network\"\n    ]\n}"},
		"unknown is fine": {"abc123", url.Values{"frobnicate": {"yes"}}, 200, ""},
	}
	for _, name := range []string{"VM host", "rackd", "kernel", "no network", "unknown is fine"} {
		tc := cases[name]
		t.Run(name, func(t *testing.T) {
			answer := l.raw(http.MethodPost, "machines/"+tc.id+"/?op=deploy", l.oauth(tenantKey, nil), tc.form)
			NewWithT(t).Expect(answer.code).To(Equal(tc.code), answer.body)
			if tc.code != 200 {
				NewWithT(t).Expect(answer.body).To(Equal(tc.body))
			}
		})
	}
}

func TestBulkReleaseIsAllOrNothing(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{PowerOff: -1}, maassim.Machine{SystemID: "aaaaaa"}, maassim.Machine{SystemID: "bbbbbb"},
		maassim.Machine{SystemID: "theirs"}, maassim.Machine{SystemID: "free11"}, maassim.Machine{SystemID: "moving", PoweredOn: true})
	for _, id := range []string{"aaaaaa", "bbbbbb", "moving"} {
		l.allocate(l.tenant, id, id)
	}
	l.allocate(l.other, "theirs", "x")
	_, err := l.tenant.Machine.Release("moving", &entity.MachineReleaseParams{})
	g.Expect(err).NotTo(HaveOccurred())
	bulk := func(ids ...string) answer {
		return l.raw(http.MethodPost, "machines/?op=release", l.oauth(tenantKey, nil), url.Values{"machines": ids, "erase": {"true"}})
	}
	for _, tc := range []struct {
		ids  []string
		code int
		body string
	}{
		{[]string{"aaaaaa", "zzzzzz"}, 400, "Unknown machine(s): zzzzzz."},
		{[]string{"aaaaaa", "theirs"}, 403, "You don't have the required permission to release the following machine(s): theirs."},
		{[]string{"aaaaaa", "moving"}, 409, "Machine(s) cannot be released in their current state: moving ('Releasing')."},
	} {
		got := bulk(tc.ids...)
		g.Expect(got.code).To(Equal(tc.code))
		g.Expect(got.body).To(Equal(tc.body))
		g.Expect(l.state("aaaaaa").Status).To(Equal(maassim.StatusAllocated))
	}
	got := bulk("aaaaaa", "free11", "bbbbbb")
	g.Expect(got.code).To(Equal(200))
	g.Expect(got.body).To(MatchJSON(`["aaaaaa", "bbbbbb"]`))
	g.Expect(l.state("aaaaaa").Status).To(Equal(maassim.StatusReady), "the erase flag is ignored")
	g.Expect(bulk().body).To(Equal("[]"))
}

func TestBrokenAndFixed(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "abc123"})
	l.deployed(l.tenant, "abc123", "token")
	_, err := l.admin.Machine.MarkBroken("abc123", "no")
	code, _ := serverError(t, err)
	g.Expect(code).To(Equal(http.StatusForbidden), "only the owner may, not even an admin")
	m, err := l.tenant.Machine.MarkBroken("abc123", "fan")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(m.Status).To(Equal(node.StatusBroken))
	g.Expect(m.Owner).To(Equal("tenant"))
	g.Expect(l.state("abc123").AgentName).To(BeEmpty())
	g.Expect(l.state("abc123").ErrorDescription).To(Equal("fan"))
	g.Eventually(l.hardware.seen).Should(ContainElement("wiped abc123"))
	m, err = l.admin.Machine.MarkFixed("abc123", "")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(m.Status).To(Equal(node.StatusReady))
	g.Expect(m.Owner).To(BeEmpty())
	_, err = l.admin.Machine.MarkFixed("abc123", "")
	code, body := serverError(t, err)
	g.Expect(code).To(Equal(http.StatusConflict))
	g.Expect(body).To(Equal("Can't mark a non-broken node as 'Ready'."))
}

func TestLock(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "abc123"})
	_, err := l.tenant.Machine.Lock("abc123", "")
	code, body := serverError(t, err)
	g.Expect(code).To(Equal(http.StatusConflict))
	g.Expect(body).To(Equal("Can't lock, node is not deployed or deploying"))
	l.deployed(l.tenant, "abc123", "token")
	m, err := l.tenant.Machine.Lock("abc123", "")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(m.Locked).To(BeTrue())
	_, err = l.tenant.Machine.Release("abc123", &entity.MachineReleaseParams{})
	code, body = serverError(t, err)
	g.Expect(code).To(Equal(http.StatusForbidden))
	g.Expect(body).To(BeEmpty())
	_, err = l.tenant.Machine.Unlock("abc123", "")
	g.Expect(err).NotTo(HaveOccurred())
	_, err = l.tenant.Machine.Release("abc123", &entity.MachineReleaseParams{})
	g.Expect(err).NotTo(HaveOccurred())
}

func TestPower(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "abc123"}, maassim.Machine{SystemID: "byhand", PowerType: "manual"})
	_, err := l.tenant.Machine.PowerOn("abc123", &entity.MachinePowerOnParams{})
	code, body := serverError(t, err)
	g.Expect(code).To(Equal(http.StatusConflict))
	g.Expect(body).To(Equal("Can't start node: it hasn't been allocated."))
	g.Expect(l.raw(http.MethodPost, "machines/byhand/?op=power_off", l.oauth(tenantKey, nil), url.Values{}).body).To(Equal("null"))

	l.deployed(l.tenant, "abc123", "token")
	_, err = l.other.Machine.PowerOff("abc123", &entity.MachinePowerOffParams{})
	code, _ = serverError(t, err)
	g.Expect(code).To(Equal(http.StatusForbidden))
	_, err = l.tenant.Machine.PowerOff("abc123", &entity.MachinePowerOffParams{StopMode: "hard"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(func() bool { return l.state("abc123").PoweredOn }).Should(BeFalse())
	state, err := l.tenant.Machine.GetPowerState("abc123")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(state.State).To(Equal("off"))
	g.Expect(l.state("abc123").Status).To(Equal(maassim.StatusDeployed))
	_, err = l.tenant.Machine.PowerOn("abc123", &entity.MachinePowerOnParams{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(l.hardware.seen).Should(Equal([]string{
		"power abc123 true", "boot abc123 hello", "power abc123 false", "power abc123 true"}), "no second Boot")
}

func TestPowerOnOfAnAllocatedMachineDeploys(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "abc123"})
	l.allocate(l.tenant, "abc123", "token")
	_, err := l.tenant.Machine.PowerOn("abc123", &entity.MachinePowerOnParams{UserData: "aGk="})
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(l.hardware.seen).Should(ContainElement("boot abc123 hi"))
}

func TestDriver(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{Deploy: -1}, maassim.Machine{SystemID: "abc123"},
		maassim.Machine{SystemID: "new111", Status: maassim.AddAsNew})
	of := func(id, state, comment string) url.Values {
		return url.Values{"system_id": {id}, "state": {state}, "comment": {comment}}
	}
	g.Expect(l.drive("deployed", of("abc123", "", ""))).To(Equal(http.StatusConflict), "not Deploying")
	g.Expect(l.drive("deployed", of("zzzzzz", "", ""))).To(Equal(http.StatusNotFound))
	g.Expect(l.drive("nosuch", of("abc123", "", ""))).To(Equal(http.StatusNotFound))
	g.Expect(l.drive("power", of("abc123", "sideways", ""))).To(Equal(http.StatusConflict))

	l.allocate(l.tenant, "abc123", "token")
	_, err := l.tenant.Machine.Deploy("abc123", &entity.MachineDeployParams{UserData: "aGk="})
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(func() bool { return l.state("abc123").PoweredOn }).Should(BeTrue())
	g.Expect(l.drive("deployed", of("abc123", "", ""))).To(Equal(http.StatusNoContent))
	g.Expect(l.state("abc123").Status).To(Equal(maassim.StatusDeployed))
	g.Eventually(l.hardware.seen).Should(ContainElement("boot abc123 hi"))
	g.Expect(l.drive("netboot", of("abc123", "on", ""))).To(Equal(http.StatusNoContent))
	g.Expect(l.state("abc123").Netboot).To(BeTrue())
	g.Expect(l.drive("power", of("abc123", "off", ""))).To(Equal(http.StatusNoContent))
	g.Expect(l.state("abc123").Power).To(Equal("off"))
	g.Expect(l.drive("failed", of("abc123", "", ""))).To(Equal(http.StatusConflict), "nothing under way")

	g.Expect(l.drive("commissioned", of("new111", "", ""))).To(Equal(http.StatusNoContent))
	g.Expect(l.state("new111").Status).To(Equal(maassim.StatusReady))
	_, err = l.tenant.Machine.Deploy("new111", &entity.MachineDeployParams{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(l.drive("failed", of("new111", "", "curtin said no"))).To(Equal(http.StatusNoContent))
	g.Expect(l.state("new111").Status).To(Equal(maassim.StatusFailedDeployment))
	g.Expect(l.state("new111").ErrorDescription).To(Equal("curtin said no"))
}

func TestAdministration(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "new111", Status: maassim.AddAsNew})
	_, err := l.admin.Machine.Commission("new111", &entity.MachineCommissionParams{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(l.status("new111")).Should(Equal(maassim.StatusReady))
	m, err := l.admin.Machine.Update("new111", &entity.MachineUpdateParams{Zone: "az1", Pool: "gold"}, nil)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect([]string{m.Zone.Name, m.Pool.Name}).To(Equal([]string{"az1", "gold"}))
	g.Expect(l.admin.Tag.AddMachines("dpu", []string{"new111", "zzzzzz"})).To(Succeed())
	tagged, err := l.tenant.Tag.GetMachines("dpu")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(tagged).To(HaveLen(1))
	g.Expect(l.admin.Machine.Delete("new111")).To(Succeed())
	_, err = l.tenant.Machine.Get("new111")
	code, _ := serverError(t, err)
	g.Expect(code).To(Equal(http.StatusNotFound))
}

func TestInjectedHardwareFaults(t *testing.T) {
	cases := map[string]struct {
		operation string
		kind      maassim.FaultKind
		erase     bool
		status    int
		on        bool
	}{
		"power off never seen":         {"release", maassim.FaultPowerOffNotSeen, false, maassim.StatusFailedReleasing, true},
		"erase fails":                  {"release", maassim.FaultEraseFails, true, maassim.StatusFailedDiskErasing, true},
		"power stays on after erasing": {"release", maassim.FaultPowerOffNotSeen, true, maassim.StatusFailedReleasing, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			l := newLab(t, maassim.Timing{ReleaseTimeout: 40 * time.Millisecond}, maassim.Machine{SystemID: "abc123"})
			l.deployed(l.tenant, "abc123", "token")
			remove := l.region.Inject(maassim.Fault{Kind: tc.kind, Operation: tc.operation})
			_, err := l.tenant.Machine.Release("abc123", &entity.MachineReleaseParams{Erase: tc.erase})
			g.Expect(err).NotTo(HaveOccurred())
			g.Eventually(l.status("abc123")).Should(Equal(tc.status))
			state := l.state("abc123")
			g.Expect(state.Owner).To(Equal("tenant"))
			g.Expect(state.PoweredOn).To(Equal(tc.on))
			g.Expect(state.Claim).To(Equal("token"))
			remove()
			_, err = l.tenant.Machine.Release("abc123", &entity.MachineReleaseParams{})
			g.Expect(err).NotTo(HaveOccurred())
			g.Eventually(l.status("abc123")).Should(Equal(maassim.StatusReady))
		})
	}
}

func TestInjectedDeployFaults(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{DeployTimeout: 10 * time.Millisecond, Deploy: time.Millisecond},
		maassim.Machine{SystemID: "fails1"}, maassim.Machine{SystemID: "hangs1"})
	l.region.Inject(maassim.Fault{Kind: maassim.FaultDeployHangs, Operation: "deploy", SystemID: "hangs1"})
	l.region.Inject(maassim.Fault{Kind: maassim.FaultDeployFails, Operation: "deploy", SystemID: "fails1"})
	for _, id := range []string{"hangs1", "fails1"} {
		_, err := l.tenant.Machine.Deploy(id, &entity.MachineDeployParams{})
		g.Expect(err).NotTo(HaveOccurred())
	}
	g.Eventually(l.status("fails1")).Should(Equal(maassim.StatusFailedDeployment))
	g.Consistently(l.status("hangs1"), "100ms").Should(Equal(maassim.StatusDeploying))
}

// TestDriverFailsWhatIsUnderWay follows MAAS' failure map.
func TestDriverFailsWhatIsUnderWay(t *testing.T) {
	cases := map[string]struct {
		start func(*lab) error
		want  int
	}{
		"deploying": {func(l *lab) error {
			_, err := l.tenant.Machine.Deploy("abc123", &entity.MachineDeployParams{})
			return err
		}, maassim.StatusFailedDeployment},
		"erasing": {func(l *lab) error {
			l.allocate(l.tenant, "abc123", "t")
			_, err := l.tenant.Machine.Release("abc123", &entity.MachineReleaseParams{Erase: true})
			return err
		}, maassim.StatusFailedDiskErasing},
		"releasing": {func(l *lab) error {
			l.allocate(l.tenant, "abc123", "t")
			_, err := l.tenant.Machine.Release("abc123", &entity.MachineReleaseParams{})
			return err
		}, maassim.StatusFailedReleasing},
		"commissioning": {func(l *lab) error {
			_, err := l.admin.Machine.Commission("abc123", &entity.MachineCommissionParams{})
			return err
		}, maassim.StatusFailedCommissioning},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			l := newLab(t, maassim.Timing{PowerOff: -1, Deploy: -1, Erase: -1, Commission: -1},
				maassim.Machine{SystemID: "abc123", PoweredOn: true})
			g.Expect(tc.start(l)).To(Succeed())
			g.Expect(l.drive("failed", url.Values{"system_id": {"abc123"}, "comment": {"why"}})).To(Equal(http.StatusNoContent))
			g.Expect(l.state("abc123").Status).To(Equal(tc.want))
			g.Expect(l.state("abc123").ErrorDescription).NotTo(BeEmpty())
		})
	}
}

func TestAddressesRunOutAndComeBack(t *testing.T) {
	g := NewWithT(t)
	small := func(id, mac, mode, ip string) maassim.Machine {
		return maassim.Machine{SystemID: id, Interfaces: []maassim.Interface{
			{Name: "eth0", MAC: mac, Mode: mode, Subnet: "10.30.0.0/30", IPAddress: ip}}}
	}
	l := newLab(t, maassim.Timing{}, small("static", "02:00:00:00:02:01", "STATIC", "10.30.0.3"),
		small("first1", "02:00:00:00:02:02", "AUTO", ""), small("second", "02:00:00:00:02:03", "AUTO", ""))
	g.Expect(l.state("static").IPAddresses).To(Equal([]string{"10.30.0.3"}))
	l.deployed(l.tenant, "first1", "a")
	g.Expect(l.state("first1").IPAddresses).To(Equal([]string{"10.30.0.2"}))
	_, err := l.tenant.Machine.Deploy("second", &entity.MachineDeployParams{})
	code, body := serverError(t, err)
	g.Expect(code).To(Equal(http.StatusServiceUnavailable))
	g.Expect(body).To(Equal("second: Unable to allocate static IP due to address exhaustion."))
	g.Expect(l.state("second").Status).To(Equal(maassim.StatusReady))
	_, err = l.tenant.Machine.Release("first1", &entity.MachineReleaseParams{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(l.status("first1")).Should(Equal(maassim.StatusReady))
	l.deployed(l.other, "second", "b")
	g.Expect(l.state("second").IPAddresses).To(Equal([]string{"10.30.0.2"}))
}

func TestImagesAndTagsCanBeAdded(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "abc123"})
	l.region.AddImage("custom/capi")
	m, err := l.tenant.Machine.Deploy("abc123", &entity.MachineDeployParams{DistroSeries: "capi", HWEKernel: "hwe-22.04"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect([]string{m.OSystem, m.DistroSeries, m.HWEKernel}).To(Equal([]string{"custom", "capi", "hwe-22.04"}))
	_, err = l.admin.Tags.Create(&entity.TagParams{Name: "fresh"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(l.admin.Tag.AddMachines("fresh", []string{"abc123"})).To(Succeed())
	g.Expect(l.state("abc123").Spec.Tags).To(ContainElement("fresh"))
	g.Expect(l.admin.Tag.RemoveMachines("fresh", []string{"abc123"})).To(Succeed())
	g.Expect(l.state("abc123").Spec.Tags).NotTo(ContainElement("fresh"))
}
