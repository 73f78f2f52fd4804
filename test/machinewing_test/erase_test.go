// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

// eraseCase is what tenant and operator ask for, and what MAAS is told.
type eraseCase struct {
	tenant, standard, minimum infrav1.ReleaseErase
	scripts                   []string
	flags                     string
	sent                      string
}

// Flags of a release, as the gate notes them.
const (
	flagsNone   = ""
	flagsQuick  = "erase+quick_erase"
	flagsSecure = "erase+secure_erase"
	flagsFull   = "erase"
)

var eraseCases = map[string]eraseCase{
	"nobody says":                     {flags: flagsQuick},
	"none, where the operator allows": {tenant: infrav1.ReleaseEraseNone, minimum: infrav1.ReleaseEraseNone, flags: flagsNone},
	"never less than the minimum":     {tenant: infrav1.ReleaseEraseNone, minimum: infrav1.ReleaseEraseSecure, flags: flagsSecure},
	"quick is less than secure":       {tenant: infrav1.ReleaseEraseQuick, minimum: infrav1.ReleaseEraseSecure, flags: flagsSecure},
	"the operator's default":          {standard: infrav1.ReleaseEraseSecure, minimum: infrav1.ReleaseEraseQuick, flags: flagsSecure},
	"a tenant may ask for more":       {tenant: infrav1.ReleaseEraseFull, standard: infrav1.ReleaseEraseQuick, flags: flagsFull},
	"a tenant may ask for secure":     {tenant: infrav1.ReleaseEraseSecure, flags: flagsSecure},
	"a tenant may ask for quick":      {tenant: infrav1.ReleaseEraseQuick, standard: infrav1.ReleaseEraseFull, minimum: infrav1.ReleaseEraseNone, flags: flagsQuick},
	"default none, minimum none":      {standard: infrav1.ReleaseEraseNone, minimum: infrav1.ReleaseEraseNone, flags: flagsNone},
	"the full minimum":                {minimum: infrav1.ReleaseEraseFull, flags: flagsFull},
	"release scripts":                 {scripts: []string{"wipe-nvram", "reset-bmc"}, flags: flagsQuick, sent: "wipe-nvram,reset-bmc"},
}

func TestErase(t *testing.T) {
	for name, c := range eraseCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{
				servers: 1, ports: true, site: func(o *maassim.Options) { o.ReleaseScripts = c.scripts },
				identity: func(i *infrav1.MaasClusterIdentity) {
					i.Spec.Release = infrav1.IdentityRelease{EraseDefault: c.standard, EraseMinimum: c.minimum, Scripts: c.scripts}
				},
				machine: func(m *infrav1.MaasMachine) { m.Spec.Release.Erase = c.tenant },
			})
			w.until(w.provisioned, "up")
			w.remove()
			w.until(w.gone, "down")
			releases := w.calls(opRelease)
			w.Expect(releases).To(HaveLen(1))
			w.Expect(releases[0].erase).To(Equal(c.flags))
			w.Expect(releases[0].scripts).To(Equal(c.sent))
			w.Expect(w.owned(account)).To(BeEmpty())
			w.Expect(w.server(serverID(0)).Dirty).To(Equal(c.flags == flagsNone))
		})
	}
}

// TestFailedEraseIsHeld keeps a server whose disks may still hold the tenant's data, until an operator has released it with erase;
// the machine goes by itself then.
func TestFailedEraseIsHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 2, ports: true, audit: time.Hour})
	w.until(w.provisioned, "up")
	id := w.machine().Status.SystemID
	mend := w.region.Inject(maassim.Fault{Kind: maassim.FaultEraseFails, Operation: "release"})
	w.remove()
	w.until(w.says(infrav1.ReleasedCondition, infrav1.HeldReason), "held")
	w.until(func() bool {
		s := w.server(id)
		return s.Annotations[maas.AnnotationHold] == infrav1.EraseFailedReason && s.Owner == account && !s.PoweredOn
	}, "annotated, allocated, off")
	w.Expect(conditions.GetMessage(w.machine(), infrav1.ReleasedCondition)).To(And(ContainSubstring(id), ContainSubstring("erase")))
	w.until(func() bool {
		held := w.identity("identity").Status.Held
		return len(held) == 1 && held[0].SystemID == id && held[0].Reason == infrav1.EraseFailedReason && held[0].Machine == tenant+"/"+machineName
	}, "listed")
	w.quiet()
	mend()
	w.Expect(w.as("admin").Release(w.Context(), id, maas.ReleaseRequest{Erase: maas.EraseQuick})).To(Succeed())
	w.until(w.gone, "down")
	w.expectDown()
	w.until(func() bool { return len(w.identity("identity").Status.Held) == 0 }, "no longer listed")
}

// TestFailedEraseIsTriedAgain by the machine itself, at the pace of the audit.
func TestFailedEraseIsTriedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 1, ports: true})
	w.until(w.provisioned, "up")
	mend := w.region.Inject(maassim.Fault{Kind: maassim.FaultEraseFails, Operation: "release"})
	w.remove()
	w.until(w.says(infrav1.ReleasedCondition, infrav1.HeldReason), "held")
	mend()
	w.until(w.gone, "down")
	w.expectDown()
}

// TestUnprovenDetachIsHeld keeps a server whose DPU may still carry the tenant: off, allocated, never released.
func TestUnprovenDetachIsHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withPorts())
	w.until(w.provisioned, "up")
	id := w.machine().Status.SystemID
	w.fabric.tell(func(f *fabric) { f.unproven = true })
	w.remove()
	w.until(w.says(infrav1.ReleasedCondition, infrav1.HeldReason), "held")
	w.until(func() bool { s := w.server(id); return s.Annotations[maas.AnnotationHold] != "" && !s.PoweredOn }, "annotated and off")
	w.Expect(w.server(id).StatusName).To(Equal("Deployed"))
	w.quiet()
	w.Expect(w.calls(opRelease)).To(BeEmpty())
	w.fabric.tell(func(f *fabric) { f.unproven = false })
	w.until(w.gone, "down")
	w.expectDown()
}

// TestLockedServer waits until somebody unlocks it.
func TestLockedServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 1, ports: true})
	w.until(w.provisioned, "up")
	id := w.machine().Status.SystemID
	_, err := w.admin().Machine.Lock(id, "hands off")
	w.Expect(err).NotTo(HaveOccurred())
	w.remove()
	w.until(w.says(infrav1.ReleasedCondition, infrav1.ServerLockedReason), "said")
	w.quiet()
	_, err = w.admin().Machine.Unlock(id, "go on")
	w.Expect(err).NotTo(HaveOccurred())
	w.until(w.gone, "down")
	w.expectDown()
}

// TestReleasingFailed lets MAAS never see the power off, which ends in Releasing failed: it is released again.
func TestReleasingFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 1, ports: true, timing: func(timing *maassim.Timing) { timing.ReleaseTimeout = 200 * time.Millisecond }})
	w.until(w.provisioned, "up")
	id := w.machine().Status.SystemID
	w.region.Inject(maassim.Fault{Kind: maassim.FaultPowerOffNotSeen, Operation: "release", Count: 1})
	w.remove()
	w.until(w.gone, "down")
	w.Expect(w.journal("release_failed", id)).To(HaveLen(1))
	w.Expect(w.journal("release", id)).To(HaveLen(2))
	w.expectDown()
}

// TestSiteForcesErase: a machine that asks for no erase, on a site that erases always, goes the longer way.
func TestSiteForcesErase(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{
		servers: 1, ports: true, site: func(o *maassim.Options) { o.EraseOnRelease = true },
		machine:  func(m *infrav1.MaasMachine) { m.Spec.Release.Erase = infrav1.ReleaseEraseNone },
		identity: func(i *infrav1.MaasClusterIdentity) { i.Spec.Release.EraseMinimum = infrav1.ReleaseEraseNone },
	})
	w.live()
	w.Expect(w.calls(opRelease)[0].erase).To(BeEmpty())
	w.Expect(w.journal("erased", serverID(0))).To(HaveLen(1))
}

// TestAbandon lets an operator give a server up whose detachment nobody can prove: the machine goes, the server stays allocated,
// off, annotated and listed as held, until the operator releases it with erase.
func TestAbandon(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withPorts())
	w.until(w.provisioned, "up")
	id := w.machine().Status.SystemID
	w.fabric.tell(func(f *fabric) { f.unproven = true })
	w.remove()
	w.until(w.says(infrav1.ReleasedCondition, infrav1.HeldReason), "held")
	w.changeMachine(func(m *infrav1.MaasMachine) {
		m.Spec.Override = &infrav1.MachineOverride{Override: infrav1.Override{Action: infrav1.OverrideAbandon, By: "olga", Reason: "DPU replaced"}}
	})
	w.until(w.gone, "abandoned")
	s := w.server(id)
	w.Expect(s.Owner).To(Equal(account), "the server stays allocated")
	w.Expect(s.Annotations[maas.AnnotationHold]).NotTo(BeEmpty())
	w.Expect(s.PoweredOn).To(BeFalse())
	w.until(func() bool {
		held := w.identity("identity").Status.Held
		return len(held) == 1 && held[0].SystemID == id
	}, "listed")
	w.Expect(w.calls(opRelease)).To(BeEmpty())
	w.quiet()
	w.fabric.tell(func(f *fabric) { f.unproven = false })
	w.clear(id)
	w.until(func() bool { w.look(); return len(w.identity("identity").Status.Held) == 0 }, "no longer listed")
	w.expectDown()
}
