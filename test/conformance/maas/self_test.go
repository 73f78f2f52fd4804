// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas_test

import (
	"context"
	"net/url"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

// These tests are about the suite: what it refuses, skips and leaves.

func TestRunNeedsKeysAndURL(t *testing.T) {
	g := NewWithT(t)
	set := func(target *string, value string) {
		before := *target
		*target = value
		t.Cleanup(func() { *target = before })
	}
	set(urlFlag, "http://127.0.0.1:1/MAAS/")
	for _, target := range []*string{poolFlag, tagFlag, machinesFlag, caFlag, driverFlag} {
		set(target, "")
	}
	for _, key := range []string{"MAAS_USER_KEY", "MAAS_OTHER_KEY", "MAAS_ADMIN_KEY"} {
		t.Setenv(key, "")
	}
	refusal := func() error { _, err := fromFlags(); return err }
	g.Expect(refusal()).To(MatchError(ContainSubstring("MAAS_USER_KEY")))
	t.Setenv("MAAS_USER_KEY", "a:b:c")
	g.Expect(refusal()).To(Succeed())
	*machinesFlag = "abc123, def456"
	g.Expect(refusal()).To(Succeed())
	s, _ := fromFlags()
	g.Expect(s.url).To(Equal("http://127.0.0.1:1/MAAS"))
	g.Expect(s.machines).To(Equal([]string{"abc123", "def456"}))
	t.Setenv("MAAS_ADMIN_KEY", "secret")
	g.Expect(refusal()).To(MatchError("MAAS_ADMIN_KEY is not of the form consumer:token:secret"))
	t.Setenv("MAAS_ADMIN_KEY", "")
	*urlFlag = "http://127.0.0.1:1"
	g.Expect(refusal()).To(MatchError(ContainSubstring("does not end in /MAAS")))
}

func TestRunRefusesWrongAccountsAndMachines(t *testing.T) {
	simulator := newSimulator(t, selfTiming)
	cases := map[string]struct {
		change func(*settings)
		want   string
	}{
		"a wrong key":          {func(s *settings) { s.userKey = "consumerUser:tokenUser:wrong" }, "does not accept the key in MAAS_USER_KEY"},
		"an administrator":     {func(s *settings) { s.userKey = simulatedAdmin }, "is administrator true, want false"},
		"an ordinary as admin": {func(s *settings) { s.adminKey = simulatedOther }, "is administrator false, want true"},
		"one account twice":    {func(s *settings) { s.otherKey = simulatedUser }, "are of the same account"},
		"no such pool":         {func(s *settings) { s.pool = "nosuch" }, "list the Ready machines in pool nosuch"},
		"no Ready machine":     {func(s *settings) { s.machines = []string{"theirs", "fixme3"} }, "there is no Ready machine"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := simulator.settings()
			tc.change(&s)
			_, err := newSuite(t, s)
			g.Expect(err).To(MatchError(ContainSubstring(tc.want)))
			g.Expect(err.Error()).NotTo(ContainSubstring("secret"))
		})
	}
	if effects := simulator.region.Journal(); len(effects) > 0 {
		t.Errorf("a refused run changed something: %v", effects)
	}
}

func TestRunTakesWhatPoolTagAndListAllow(t *testing.T) {
	simulator := newSimulator(t, selfTiming)
	cases := map[string]struct {
		change func(*settings)
		want   []string
	}{
		"a tag, in any pool":  {func(s *settings) { s.pool, s.tag = "", "gpu" }, []string{"alien4", "confab", "confba", "confbf", "confce"}},
		"pool and tag":        {func(s *settings) { s.tag = "gpu" }, []string{"confab", "confba", "confbf", "confce"}},
		"pool and list":       {func(s *settings) { s.machines = []string{"confaa", "alien3", "theirs"} }, []string{"confaa"}},
		"a DPU that is named": {func(s *settings) { s.machines = []string{"mydpu3"} }, []string{"mydpu3"}},
		"no more than wanted": {func(s *settings) { s.maxMachines = 2 }, []string{"confaa", "confab"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := simulator.settings()
			tc.change(&s)
			run, err := newSuite(t, s)
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
			NewWithT(t).Expect(run.all()).To(Equal(tc.want))
		})
	}
}

// skips runs the suite where it may skip, and returns how many cases there were and the skipped ones by reason.
func skips(t *testing.T, settings settings) (int64, map[string][]string) {
	t.Helper()
	settings.strict = false
	s := conformance(t, settings)
	reasons := map[string][]string{}
	for _, line := range s.skipped {
		name, reason, _ := strings.Cut(line, ": ")
		reasons[reason] = append(reasons[reason], name)
	}
	if len(s.wordings) > 0 {
		t.Errorf("differences in wording: %v", s.wordings)
	}
	return s.cases.Load(), reasons
}

const (
	noDriver = "needs a driver (MAAS_DRIVER)"
	noAdmin  = "needs an administrator's key (MAAS_ADMIN_KEY)"
	noOther  = "needs a second ordinary account (MAAS_OTHER_KEY, or an administrator who may create one)"
)

// TestOneOrdinaryKeyIsEnough: all that needs more is skipped by name, and nothing else.
func TestOneOrdinaryKeyIsEnough(t *testing.T) {
	g := NewWithT(t)
	simulator := newSimulator(t, selfTiming)
	settings := simulator.settings()
	settings.adminKey, settings.otherKey, settings.driver = "", "", ""
	_, skipped := skips(t, settings)
	g.Expect(skipped).To(And(HaveLen(3), HaveKey(noDriver), HaveKey(noAdmin), HaveKey(noOther)))
	g.Expect(skipped[noDriver]).To(ContainElement("deploy/a_second_deploy_is_refused_while_the_first_runs"))
	g.Expect(skipped[noAdmin]).To(ContainElement("allocate/tags"))
	g.Expect(skipped[noOther]).To(ContainElement("other_account/it_may_do_nothing_to_another's_machine"))
	for _, m := range simulator.region.Machines() {
		if !m.DeployedAt.IsZero() {
			t.Errorf("machine %s was deployed without a driver", m.SystemID)
		}
	}
	simulator.checkTouched(t)
}

// TestSecondAccountIsMadeAndRemoved: with an administrator nothing is skipped for want of a second key.
func TestSecondAccountIsMadeAndRemoved(t *testing.T) {
	simulator := newSimulator(t, drivenTiming)
	settings := simulator.settings()
	settings.otherKey = ""
	var made *suite
	t.Run("run", func(t *testing.T) { made = conformance(t, settings) })
	g := NewWithT(t)
	g.Expect(made.other.name).To(Equal(made.prefix))
	got, err := made.do(t.Context(), made.admin, request{method: get, path: "users/" + made.prefix + "/"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(got.code).To(Equal(404), "the account is left behind")
	simulator.checkTouched(t)
}

// TestOtherKindsOfServers: few machines whose power MAAS cannot switch, and servers that move by themselves.
func TestOtherKindsOfServers(t *testing.T) {
	t.Run("manual power", func(t *testing.T) {
		simulator := newSimulator(t, drivenTiming)
		settings := simulator.settings()
		settings.pool, settings.machines = "", []string{"manua3", "manua4", "manua6"}
		for _, id := range settings.machines {
			if err := simulator.region.AddMachine(maassim.Machine{SystemID: id, PowerType: "manual"}); err != nil {
				t.Fatal(err)
			}
		}
		_, skipped := skips(t, settings)
		const held = "a machine of power type manual with power unknown cannot be held in Releasing, it is Ready"
		NewWithT(t).Expect(skipped).To(And(HaveLen(2), HaveKey(held), HaveKey("MAAS shows no power for power type manual: unknown")))
	})
	t.Run("they move by themselves too", func(t *testing.T) {
		simulator := newSimulator(t, selfTiming)
		_, skipped := skips(t, simulator.settings())
		for reason, names := range skipped {
			// What has passed cannot be looked at, and the driver is not needed.
			moved := Or(ContainSubstring("by itself meanwhile"), ContainSubstring("cannot be held in Releasing"), ContainSubstring("the driver answers 409"))
			NewWithT(t).Expect(reason).To(moved, "%v", names)
		}
		simulator.checkTouched(t)
	})
	t.Run("one machine", func(t *testing.T) {
		settings := newSimulator(t, drivenTiming).settings()
		settings.maxMachines = 1
		_, skipped := skips(t, settings)
		NewWithT(t).Expect(skipped).To(And(HaveLen(2), HaveKey("needs 2 machines, there are 1"), HaveKey("needs 3 machines, there are 1")))
	})
}

// TestSweepLeavesEveryMachineIdle, from whatever state a case may leave one in.
func TestSweepLeavesEveryMachineIdle(t *testing.T) {
	for name, timing := range map[string]maassim.Timing{"driven": drivenTiming, "by itself": selfTiming} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			simulator := newSimulator(t, timing)
			settings := simulator.settings()
			s, err := newSuite(t, settings)
			g.Expect(err).NotTo(HaveOccurred())
			c := &check{T: t, Gomega: g, suite: s, stop: t.Fatalf}
			id := c.all()
			c.allocated(c.user, id[0])
			c.allocated(c.other, id[1])
			c.deploy(c.user, c.take(id[2]))
			c.deploy(c.user, c.take(id[3]))
			c.expect(c.on(c.user, id[3], "lock", nil), 200)
			c.expect(c.on(c.user, c.take(id[4]), "release", url.Values{"erase": {"true"}}), 200)
			c.expect(c.on(c.user, c.take(id[5]), "mark_broken", nil), 200)
			c.move("power", c.take(id[6]), "on")
			c.expect(c.on(c.user, id[6], "release", nil), 200)
			if timing.Erase == drivenTiming.Erase {
				c.failedErase(c.user, id[7])
				c.deployed(c.user, id[8])
				c.failedDeployment(c.user, id[9])
			}
			s.sweep(t)
			s.inspect(t)
			simulator.checkTouched(t)
			g.Expect(s.touched.Load()).To(BeFalse())
		})
	}
}

// take allocates and returns the machine's ID.
func (c *check) take(id string) string {
	c.Helper()
	c.allocated(c.user, id)
	return id
}

// TestInterruptLeavesEveryMachineIdle: cleaning up does not use the context that an interrupt ends.
func TestInterruptLeavesEveryMachineIdle(t *testing.T) {
	g := NewWithT(t)
	simulator := newSimulator(t, drivenTiming)
	s, err := newSuite(t, simulator.settings())
	g.Expect(err).NotTo(HaveOccurred())
	ctx, interrupt := context.WithCancel(s.ctx)
	s.ctx = ctx
	s.run(t, "a case", func(c *check) {
		c.deploying(c.user, c.oneMachine())
		interrupt()
		_, err := c.do(c.ctx, c.user, request{method: get, path: "version/"})
		c.Expect(err).To(MatchError(context.Canceled))
	})
	s.inspect(t)
	g.Expect(simulator.region.Machines()).NotTo(ContainElement(HaveField("Owner", "user")))
}
