// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"testing"
	"time"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// TestInvariants holds the decision against the invariants, over every combination of answers. A step that nobody carries out
// would be a silent wait.
func TestInvariants(t *testing.T) {
	checked, known := 0, (&pass{}).actions()
	for o := range everything {
		checked++
		step := decide(o)
		if broken := breaks(o, step); broken != "" {
			t.Fatalf("%s: %+v\nof %+v", broken, step, o)
		}
		if _, ok := known[step.Action]; !ok && step.Action != ActionWait {
			t.Fatalf("nobody carries out %s", step.Action)
		}
	}
	t.Logf("%d observations", checked)
}

// breaks names the invariant a step would break.
func breaks(o Observation, step Step) string {
	ours := o.Identity.Unusable == nil && o.Server.Held == maas.Yes && o.Claim.Fits
	a := o.Attachment
	detached := a.Exists == maas.No || a.Exists == maas.Yes && a.Asked == infrav1.AttachmentStateDetached && a.Proven == infrav1.AttachmentStateDetached
	// A suspect server stays as it is: off, marked, detached, listed.
	m := o.Server.Machine
	left := ours && o.failedHere() && o.Suspicion == listedHeld && a.Exists == maas.No && m.PowerState == maas.PowerOff && m.Annotations[maas.AnnotationHold] != ""
	switch step.Action {
	case ActionDeploy:
		if !ours || o.Server.Unannotated || o.Deleting || o.Avoided != "" || o.Server.Machine.Status != maas.StatusAllocated || o.Ports && !a.ready() {
			return "I3: deploys without claim, mark or proof"
		}
	case ActionRelease:
		if !ours || o.Server.Unannotated || !detached || !o.Deleting && (o.Avoided == "" || o.Provisioned) {
			return "I4: releases what is wanted, not ours, or not proven detached"
		}
		if !step.Erase && o.deployedUnderClaim() {
			return "I4: releases without erase"
		}
		if o.Order.open(o.Now) {
			return "I2: releases while an earlier order may still come"
		}
		if o.failedHere() && (!o.Suspicion.Recorded || o.Suspicion.Machines > 1) {
			return "gives a bad server back to the next machine"
		}
	case ActionPowerOff, ActionHold, ActionAnnotate:
		if !ours {
			return "I5: touches what is not ours"
		}
		if step.Action == ActionPowerOff && !o.Deleting && (o.Avoided == "" || o.Provisioned) && !a.PowerOff {
			return "I5: powers off a wanted machine"
		}
		if step.Action == ActionPowerOff && o.Order.open(o.Now) && o.Order.Operation == infrav1.MachineOrderRelease {
			return "A: forgets an open release"
		}
	case ActionAllocate:
		if o.Server.Held != maas.No || o.SystemID != "" || pending(o.AllocateUntil, o.Now) || o.Deleting || o.Identity.Allowed != maas.Yes || !o.Claim.Fits || o.Identity.Unusable != nil {
			return "I2: allocates while a server may be there, or may not"
		}
	case ActionProvision:
		if !ours || o.Server.Machine.Status != maas.StatusDeployed || o.Ports && !a.ready() || o.Deleting {
			return "I7: promises without Deployed and proof"
		}
	case ActionAvoid, ActionForget:
		if o.Provisioned || o.Deleting && (step.Action == ActionForget || o.deployFailure() == "") {
			return "I7: gives up a provisioned machine"
		}
		if step.Action == ActionForget && (o.Server.Held != maas.No && !left || a.Exists != maas.No) {
			return "I1: forgets a server it may hold"
		}
	case ActionDropFinalizer:
		empty := !o.Claim.Fits || o.Intact && o.SystemID == "" && o.AllocateUntil.IsZero()
		given := o.Server.Held == maas.No && a.Exists == maas.No && !(o.SystemID == "" && pending(o.AllocateUntil, o.Now))
		if !o.Deleting || !empty && !given && !o.Abandon && !left {
			return "I1: lets go of a server it may hold"
		}
	case ActionWait:
		if len(step.Say) == 0 && !o.Provisioned && o.Server.Machine.Status != maas.StatusDeployed {
			return "I6: waits in silence"
		}
	}
	return ""
}

// everything yields every combination of what decisions depend on.
func everything(yield func(Observation) bool) {
	answers := []maas.Answer{maas.Unknown, maas.No, maas.Yes}
	statuses := []maas.Status{}
	for s := maas.StatusNew; s <= maas.StatusFailedTesting; s++ {
		statuses = append(statuses, s)
	}
	attachments := everyAttachment()
	few := []maas.Status{
		maas.StatusReady, maas.StatusAllocated, maas.StatusDeploying, maas.StatusFailedDeployment, maas.StatusDeployed,
		maas.StatusReleasing, maas.StatusFailedReleasing, maas.StatusFailedDiskErasing,
	}
	for flags := range 1 << 12 {
		bit := func(n int) bool { return flags>>n&1 == 1 }
		if bit(10) && !bit(8) || bit(11) && !bit(0) && !bit(8) {
			continue // Suspicion and open orders matter on the way back only.
		}
		statuses := statuses
		if bit(10) || bit(11) {
			statuses = few
		}
		for _, heldAnswer := range answers {
			for _, status := range statuses {
				for _, a := range attachments {
					o := attached(status)
					o.Deleting, o.Provisioned, o.Intact, o.Ports = bit(0), bit(1), bit(2), bit(3)
					o.Server.Held, o.Server.Unannotated = heldAnswer, bit(4)
					o.Abandon = bit(5)
					o.Attachment = a
					if bit(6) {
						o.SystemID, o.DeployDeadline = "", time.Time{}
					}
					if bit(7) {
						o.Identity.Unusable = &Problem{Reason: "Broken", Message: "broken"}
					}
					if bit(8) && o.SystemID != "" {
						o.Avoided = infrav1.DeployFailedReason
					}
					if bit(9) {
						o.AllocateUntil = now.Add(time.Minute)
						o.DeployUntil = now.Add(time.Minute)
						o.Server.Machine.PowerState = maas.PowerOff
					}
					if bit(10) {
						o.Suspicion = listedHeld
						o = marked(o)
					}
					if bit(11) {
						o = ordered(o, infrav1.MachineOrderRelease, time.Second)
					}
					if !o.Ports {
						o.Attachment = AttachmentView{Exists: maas.No}
					}
					if !yield(o) {
						return
					}
				}
			}
		}
	}
}

func everyAttachment() []AttachmentView {
	views := []AttachmentView{{Exists: maas.Unknown}, {Exists: maas.No}}
	for _, asked := range []infrav1.AttachmentState{infrav1.AttachmentStateAttached, infrav1.AttachmentStateDetached} {
		for _, proven := range []infrav1.AttachmentState{"", infrav1.AttachmentStateAttached, infrav1.AttachmentStateDetached} {
			view := AttachmentView{Exists: maas.Yes, Asked: asked, Proven: proven, Valid: true, PortIsolation: infrav1.PortIsolationAsserted}
			views = append(views, view)
			view.Valid = false
			views = append(views, view)
			view.Valid, view.Unproven, view.PowerOff = true, true, true
			views = append(views, view)
		}
	}
	return views
}
