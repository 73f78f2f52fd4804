// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"testing"
	"time"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// fresh is a machine that may claim and has not; the functions below take it further.
func fresh() Observation {
	return Observation{
		Now: now, Intact: true, Owned: true, ClusterReady: true, BootstrapData: true, Ports: true,
		Claim:    ClaimView{Present: true, Fits: true},
		Identity: IdentityView{Allowed: maas.Yes, IsolationRequired: true, PortIsolationRequired: true},
		Server:   ServerView{Held: maas.No}, Attachment: AttachmentView{Exists: maas.No},
	}
}

func held(status maas.Status) Observation {
	o := fresh()
	o.SystemID = "abc123"
	o.Server = ServerView{Held: maas.Yes, Machine: maas.Machine{
		SystemID: "abc123", Status: status, PowerType: "ipmi", PowerState: maas.PowerOff, Annotations: map[string]string{},
	}}
	if status != maas.StatusAllocated {
		o.DeployDeadline = now.Add(time.Hour)
		o.Server.Machine.PowerState = maas.PowerOn
	}
	return o
}

func attached(status maas.Status) Observation {
	o := held(status)
	o.Attachment = AttachmentView{
		Exists: maas.Yes, Asked: infrav1.AttachmentStateAttached, Proven: infrav1.AttachmentStateAttached,
		Valid: true, ValidUntil: now.Add(time.Minute), PortIsolation: infrav1.PortIsolationAsserted,
	}
	return o
}

func provisioned() Observation {
	o := attached(maas.StatusDeployed)
	o.Provisioned = true
	return o
}

func deleting(o Observation) Observation { o.Deleting = true; return o }

func detached(status maas.Status) Observation {
	o := deleting(attached(status))
	o.Attachment.Asked, o.Attachment.Proven = infrav1.AttachmentStateDetached, infrav1.AttachmentStateDetached
	return o
}

func with(o Observation, change func(*Observation)) Observation { change(&o); return o }

func off(o Observation) Observation { o.Server.Machine.PowerState = maas.PowerOff; return o }

func ordered(o Observation, operation infrav1.MachineOrderOperation, left time.Duration) Observation {
	o.Order = OrderView{Operation: operation, SystemID: o.SystemID, Until: o.Now.Add(left)}
	return o
}

var (
	listedTwice = SuspicionView{Recorded: true, Machines: 2}
	listedHeld  = SuspicionView{Recorded: true, Machines: 2, Held: true}
)

func failed(o Observation, listed SuspicionView) Observation {
	o.Avoided, o.Suspicion = infrav1.DeployFailedReason, listed
	return o
}

func marked(o Observation) Observation {
	o.Server.Machine.Annotations = map[string]string{maas.AnnotationHold: infrav1.ServerSuspectReason}
	return o
}

func unattached(o Observation) Observation { o.Attachment = AttachmentView{Exists: maas.No}; return o }

func TestDecide(t *testing.T) {
	unusable := &Problem{Reason: infrav1.SecretNotFoundReason, Message: "no Secret"}
	unreachable := &Problem{Reason: infrav1.MaasUnreachableReason, Message: "no answer"}
	cases := []struct {
		name   string
		o      Observation
		action Action
		reason string // of the first thing said
	}{
		{"no Machine", with(fresh(), func(o *Observation) { o.Owned = false }), ActionWait, infrav1.WaitingForMachineReason},
		{"lost status", with(fresh(), func(o *Observation) { o.Intact = false }), ActionInitialize, infrav1.NotStartedReason},
		{"cluster not ready", with(fresh(), func(o *Observation) { o.ClusterReady = false }), ActionWait, infrav1.WaitingForClusterInfrastructureReason},
		{"no bootstrap data", with(fresh(), func(o *Observation) { o.BootstrapData = false }), ActionWait, infrav1.WaitingForBootstrapDataReason},
		{"identity unusable", with(fresh(), func(o *Observation) { o.Identity.Unusable = unusable }), ActionWait, infrav1.SecretNotFoundReason},
		{"namespace not allowed", with(fresh(), func(o *Observation) { o.Identity.Allowed = maas.No }), ActionWait, infrav1.NamespaceNotAllowedReason},
		{"namespace unknown", with(fresh(), func(o *Observation) { o.Identity.Allowed = maas.Unknown }), ActionWait, infrav1.IdentityNotReadyReason},
		{"isolation required", with(fresh(), func(o *Observation) { o.Ports = false }), ActionWait, infrav1.IsolationRequiredReason},
		{"isolation optional", with(fresh(), func(o *Observation) { o.Ports, o.Identity.IsolationRequired = false, false }), ActionAllocate, infrav1.ClaimingReason},
		{"no VPC", with(fresh(), func(o *Observation) { o.Placement = &Problem{Reason: infrav1.VPCNotFoundReason} }), ActionWait, infrav1.VPCNotFoundReason},
		{"no claim", with(fresh(), func(o *Observation) { o.Claim = ClaimView{} }), ActionStoreClaim, infrav1.ClaimingReason},
		{"copied claim", with(fresh(), func(o *Observation) { o.Claim.Fits = false }), ActionWait, infrav1.TokenMismatchReason},
		{"claim", fresh(), ActionAllocate, infrav1.ClaimingReason},
		{"MAAS silent", with(fresh(), func(o *Observation) { o.Server = ServerView{Problem: unreachable} }), ActionWait, infrav1.MaasUnreachableReason},
		{"allocation lost", with(fresh(), func(o *Observation) { o.AllocateUntil = now.Add(time.Second) }), ActionWait, infrav1.AllocateOutcomeUnknownReason},
		{"allocation lost for ever", with(fresh(), func(o *Observation) { o.AllocateUntil = now.Add(-time.Second) }), ActionAllocate, infrav1.ClaimingReason},
		{"found by token", with(held(maas.StatusAllocated), func(o *Observation) { o.SystemID = "" }), ActionRecordServer, ""},
		{"found though not allowed", with(held(maas.StatusAllocated), func(o *Observation) { o.SystemID, o.Identity.Allowed = "", maas.No }), ActionRecordServer, ""},
		{"two deployments failed", with(fresh(), func(o *Observation) { o.DeployFailures = 2 }), ActionWait, infrav1.DeployFailedReason},
		{"five servers refused", with(fresh(), func(o *Observation) { o.Refusals = 5 }), ActionWait, infrav1.AttachmentRefusedReason},
		{"two deployments failed, identity unusable", with(fresh(), func(o *Observation) { o.DeployFailures, o.Identity.Unusable = 2, unusable }), ActionWait, infrav1.DeployFailedReason},
		{"two deployments failed, MAAS silent", with(fresh(), func(o *Observation) { o.DeployFailures, o.Server = 2, ServerView{Problem: unreachable} }), ActionWait, infrav1.DeployFailedReason},
		{"breaker open", with(fresh(), func(o *Observation) { o.Identity.BreakerOpen = true }), ActionWait, infrav1.CircuitBreakerOpenReason},

		{"surplus", with(held(maas.StatusAllocated), func(o *Observation) { o.Server.Surplus = []string{"other"} }), ActionReleaseSurplus, ""},
		{"a DPU", with(held(maas.StatusAllocated), func(o *Observation) { o.Server.Machine.IsDPU, o.Server.Unannotated = true, true }), ActionAvoid, ""},
		{"a DPU, avoided", with(held(maas.StatusAllocated), func(o *Observation) { o.Server.Machine.IsDPU, o.Avoided = true, infrav1.ServerIsDPUReason }), ActionRelease, infrav1.ReleasingReason},
		{"collision", with(held(maas.StatusAllocated), func(o *Observation) { o.Server.Collision = "a/b" }), ActionAvoid, ""},
		{"not annotated", with(held(maas.StatusAllocated), func(o *Observation) { o.Server.Unannotated = true }), ActionAnnotate, ""},
		{"lost on the way up", with(held(maas.StatusAllocated), func(o *Observation) { o.Server.Held = maas.No }), ActionAvoid, ""},
		{"unclear on the way up", with(held(maas.StatusAllocated), func(o *Observation) { o.Server.Held = maas.Unknown }), ActionWait, infrav1.OwnershipUnclearReason},
		{"not attached", held(maas.StatusAllocated), ActionAttach, infrav1.AttachingReason},
		{"attachment unknown", with(attached(maas.StatusAllocated), func(o *Observation) { o.Attachment = AttachmentView{} }), ActionWait, infrav1.FabricUnreachableReason},
		{"proof missing", with(attached(maas.StatusAllocated), func(o *Observation) { o.Attachment.Proven = "" }), ActionWait, infrav1.AttachingReason},
		{"proof stale", with(attached(maas.StatusAllocated), func(o *Observation) { o.Attachment.Valid = false }), ActionWait, infrav1.AttachingReason},
		{"refused", with(attached(maas.StatusAllocated), func(o *Observation) {
			o.Attachment.Proven, o.Attachment.Refused = "", &Problem{Reason: infrav1.ForeignVPCReason}
		}), ActionAvoid, ""},
		{"provisioning network", with(attached(maas.StatusAllocated), func(o *Observation) { o.Attachment.PortIsolation = infrav1.PortIsolationNotAsserted }), ActionWait, infrav1.PortIsolationNotAssertedReason},
		{"locked", with(attached(maas.StatusAllocated), func(o *Observation) { o.Server.Machine.Locked = true }), ActionWait, infrav1.ServerLockedReason},
		{"deploy", attached(maas.StatusAllocated), ActionDeploy, infrav1.DeployingReason},
		{"deploying", attached(maas.StatusDeploying), ActionWait, infrav1.DeployingReason},
		{"deploying for too long", with(attached(maas.StatusDeploying), func(o *Observation) { o.DeployDeadline = now.Add(-time.Second) }), ActionAvoid, ""},
		{"deployment failed", attached(maas.StatusFailedDeployment), ActionAvoid, ""},
		{"marked broken", attached(maas.StatusBroken), ActionAvoid, ""},
		{"released by somebody", attached(maas.StatusReleasing), ActionAvoid, ""},
		{"in rescue mode", attached(maas.StatusRescueMode), ActionWait, infrav1.ServerStateUnexpectedReason},
		{"deployed", attached(maas.StatusDeployed), ActionProvision, ""},
		{"deployed, proof stale", with(attached(maas.StatusDeployed), func(o *Observation) { o.Attachment.Valid = false }), ActionWait, ""},
		{"deployed, moved", held(maas.StatusDeployed), ActionAttach, ""},

		{"steady", provisioned(), ActionWait, ""},
		{"lost when steady", with(provisioned(), func(o *Observation) { o.Server.Held = maas.No }), ActionWait, infrav1.ServerLostReason},
		{"unclear when steady", with(provisioned(), func(o *Observation) { o.Server.Held = maas.Unknown }), ActionWait, infrav1.OwnershipUnclearReason},
		{"identity gone when steady", with(provisioned(), func(o *Observation) { o.Identity.Unusable = unusable }), ActionWait, infrav1.SecretNotFoundReason},
		{"not allowed when steady", with(provisioned(), func(o *Observation) { o.Identity.Allowed = maas.No }), ActionWait, ""},
		{"isolation broken", with(provisioned(), func(o *Observation) { o.Attachment.Broken = &Problem{} }), ActionWait, ""},
		{"power off asked", with(provisioned(), func(o *Observation) { o.Attachment.PowerOff = true }), ActionPowerOff, ""},
		{"power off asked and done", with(provisioned(), func(o *Observation) { o.Attachment.PowerOff, o.Server.Machine.PowerState = true, maas.PowerOff }), ActionWait, ""},

		{"delete without claim", deleting(with(fresh(), func(o *Observation) { o.Claim = ClaimView{} })), ActionDropFinalizer, ""},
		{"delete with a copied claim", deleting(with(fresh(), func(o *Observation) { o.Claim.Fits = false })), ActionDropFinalizer, ""},
		{"delete before any server", deleting(fresh()), ActionDropFinalizer, ""},
		{"delete before any server, identity gone", deleting(with(fresh(), func(o *Observation) { o.Identity.Unusable = unusable })), ActionDropFinalizer, ""},
		{"delete with lost status", deleting(with(fresh(), func(o *Observation) { o.Intact = false })), ActionInitialize, ""},
		{"delete with lost allocation", deleting(with(fresh(), func(o *Observation) { o.AllocateUntil = now.Add(time.Second) })), ActionWait, infrav1.LookingForClaimReason},
		{"delete long after a lost allocation", deleting(with(fresh(), func(o *Observation) { o.AllocateUntil = now.Add(-time.Second) })), ActionDropFinalizer, ""},
		{"delete, found by token", deleting(with(held(maas.StatusAllocated), func(o *Observation) { o.SystemID, o.AllocateUntil = "", now })), ActionRecordServer, ""},
		{"delete, identity gone", deleting(with(provisioned(), func(o *Observation) { o.Identity.Unusable = unusable })), ActionWait, infrav1.SecretNotFoundReason},
		{"delete, MAAS silent", deleting(with(provisioned(), func(o *Observation) { o.Server = ServerView{Problem: unreachable} })), ActionWait, infrav1.MaasUnreachableReason},
		{"delete", deleting(provisioned()), ActionDetach, infrav1.DetachingReason},
		{"delete, fabric silent", deleting(with(provisioned(), func(o *Observation) { o.Attachment = AttachmentView{} })), ActionWait, infrav1.FabricUnreachableReason},
		{"detaching", with(detached(maas.StatusDeployed), func(o *Observation) { o.Attachment.Proven = "" }), ActionWait, infrav1.DetachingReason},
		{"detach unproven, on", with(detached(maas.StatusDeployed), func(o *Observation) { o.Attachment.Proven, o.Attachment.Unproven = "", true }), ActionPowerOff, infrav1.HeldReason},
		{"detach unproven, off", with(detached(maas.StatusDeployed), func(o *Observation) {
			o.Attachment.Proven, o.Attachment.Unproven, o.Server.Machine.PowerState = "", true, maas.PowerOff
		}), ActionHold, infrav1.HeldReason},
		{"held", with(detached(maas.StatusDeployed), func(o *Observation) {
			o.Attachment.Proven, o.Attachment.Unproven, o.Server.Machine.PowerState = "", true, maas.PowerOff
			o.Server.Machine.Annotations = map[string]string{maas.AnnotationHold: infrav1.DetachUnprovenReason}
		}), ActionWait, infrav1.HeldReason},
		{"detached, on", detached(maas.StatusDeployed), ActionPowerOff, infrav1.PoweringOffReason},
		{"detached, going off", with(detached(maas.StatusDeployed), func(o *Observation) { o.PowerOffUntil = now.Add(time.Second) }), ActionWait, infrav1.PoweringOffReason},
		{"detached, off", with(detached(maas.StatusDeployed), func(o *Observation) { o.Server.Machine.PowerState = maas.PowerOff }), ActionRelease, infrav1.ReleasingReason},
		{"detached, power by hand", with(detached(maas.StatusDeployed), func(o *Observation) { o.Server.Machine.PowerType = "manual" }), ActionRelease, infrav1.ReleasingReason},
		{"never deployed", detached(maas.StatusAllocated), ActionRelease, infrav1.ReleasingReason},
		{"deployment lost", with(detached(maas.StatusAllocated), func(o *Observation) { o.DeployDeadline, o.DeployUntil = now, now.Add(time.Second) }), ActionWait, infrav1.DeployOutcomeUnknownReason},
		{"order lost", ordered(detached(maas.StatusDeployed), infrav1.MachineOrderRelease, time.Second), ActionWait, infrav1.ReleaseOutcomeUnknownReason},
		{"order lost for ever", off(ordered(detached(maas.StatusDeployed), infrav1.MachineOrderRelease, -time.Second)), ActionRelease, infrav1.ReleasingReason},
		{"power-off lost, seen off", off(ordered(detached(maas.StatusDeployed), infrav1.MachineOrderPowerOff, time.Second)), ActionWait, infrav1.ReleaseOutcomeUnknownReason},
		{"release lost, seen under way", with(ordered(detached(maas.StatusReleasing), infrav1.MachineOrderRelease, time.Second), func(o *Observation) { o.ReleaseRecorded = true }), ActionWait, infrav1.ReleasingReason},
		{"release lost, seen done", with(ordered(detached(maas.StatusReady), infrav1.MachineOrderRelease, time.Second), func(o *Observation) { o.Server.Held, o.Attachment = maas.No, AttachmentView{Exists: maas.No} }), ActionDropFinalizer, ""},
		{"release lost, proof lost", with(ordered(detached(maas.StatusDeployed), infrav1.MachineOrderRelease, time.Second), func(o *Observation) { o.Attachment.Proven, o.Attachment.Unproven = "", true }), ActionHold, infrav1.HeldReason},
		{"surplus, order open", ordered(with(held(maas.StatusAllocated), func(o *Observation) { o.Server.Surplus = []string{"other"} }), infrav1.MachineOrderRelease, time.Second), ActionWait, infrav1.ReleaseOutcomeUnknownReason},
		{"deploy, release lost", ordered(attached(maas.StatusAllocated), infrav1.MachineOrderRelease, time.Second), ActionWait, infrav1.ReleaseOutcomeUnknownReason},
		{"put off", with(attached(maas.StatusAllocated), func(o *Observation) { o.NotBefore = now.Add(time.Second) }), ActionWait, infrav1.DeployingReason},
		{"release not recorded", detached(maas.StatusReleasing), ActionRecordRelease, infrav1.ReleasingReason},
		{"releasing", with(detached(maas.StatusReleasing), func(o *Observation) { o.ReleaseRecorded = true }), ActionWait, infrav1.ReleasingReason},
		{"releasing for too long", with(detached(maas.StatusReleasing), func(o *Observation) { o.ReleaseRecorded, o.ReleaseDeadline = true, now.Add(-time.Second) }), ActionWait, infrav1.ReleasingReason},
		{"erasing", with(detached(maas.StatusDiskErasing), func(o *Observation) { o.ReleaseRecorded = true }), ActionWait, infrav1.ReleasingReason},
		{"erase failed", with(detached(maas.StatusFailedDiskErasing), func(o *Observation) { o.Server.Machine.PowerState = maas.PowerOff }), ActionHold, infrav1.HeldReason},
		{"erase failed long ago", with(detached(maas.StatusFailedDiskErasing), func(o *Observation) { o.ReleaseRetry, o.Server.Machine.PowerState = true, maas.PowerOff }), ActionRelease, infrav1.ReleasingReason},
		{"release failed", detached(maas.StatusFailedReleasing), ActionWait, infrav1.ReleasingReason},
		{"in rescue mode when detached", detached(maas.StatusRescueMode), ActionWait, infrav1.ServerStateUnexpectedReason},
		{"locked when detached", with(detached(maas.StatusDeployed), func(o *Observation) { o.Server.Machine.Locked = true }), ActionWait, infrav1.ServerLockedReason},
		{"released, attachment left", with(detached(maas.StatusReady), func(o *Observation) { o.Server.Held = maas.No }), ActionDeleteAttachment, infrav1.CleaningUpReason},
		{"released, attachment going", with(detached(maas.StatusReady), func(o *Observation) { o.Server.Held, o.Attachment.Deleting = maas.No, true }), ActionWait, infrav1.CleaningUpReason},
		{"released, all gone", with(detached(maas.StatusReady), func(o *Observation) { o.Server.Held, o.Attachment = maas.No, AttachmentView{Exists: maas.No} }), ActionDropFinalizer, ""},
		{"lost before detach", deleting(with(provisioned(), func(o *Observation) { o.Server.Held = maas.No })), ActionDetach, infrav1.DetachingReason},
		{"delete, not annotated", deleting(with(held(maas.StatusAllocated), func(o *Observation) { o.Server.Unannotated = true })), ActionAnnotate, ""},

		{"abandon, not detached", with(deleting(provisioned()), func(o *Observation) { o.Abandon = true }), ActionDetach, infrav1.AbandonedReason},
		{"abandon, on", with(detached(maas.StatusDeployed), func(o *Observation) { o.Abandon, o.Attachment.Proven = true, "" }), ActionPowerOff, infrav1.AbandonedReason},
		{"abandon, not annotated", with(detached(maas.StatusDeployed), func(o *Observation) { o.Abandon, o.Server.Machine.PowerState = true, maas.PowerOff }), ActionHold, infrav1.AbandonedReason},
		{"abandon, attachment left", with(detached(maas.StatusDeployed), func(o *Observation) {
			o.Abandon, o.Server.Machine.PowerState, o.Attachment.Proven, o.Attachment.Forced = true, maas.PowerOff, "", true
			o.Server.Machine.Annotations = map[string]string{maas.AnnotationHold: infrav1.DetachUnprovenReason}
		}), ActionDeleteAttachment, infrav1.AbandonedReason},
		{"abandoned", with(detached(maas.StatusDeployed), func(o *Observation) {
			o.Abandon, o.Server.Machine.PowerState, o.Attachment.Proven = true, maas.PowerOff, ""
			o.Server.Machine.Annotations = map[string]string{maas.AnnotationHold: infrav1.DetachUnprovenReason}
		}), ActionDropFinalizer, infrav1.AbandonedReason},

		{"failed, being deleted", deleting(attached(maas.StatusFailedDeployment)), ActionAvoid, ""},
		{"too long, being deleted", deleting(with(attached(maas.StatusDeploying), func(o *Observation) { o.DeployDeadline = now.Add(-time.Second) })), ActionAvoid, ""},
		{"deploying, being deleted", deleting(attached(maas.StatusDeploying)), ActionDetach, infrav1.DetachingReason},
		{"failed, recorded, being deleted", deleting(failed(attached(maas.StatusFailedDeployment), SuspicionView{})), ActionDetach, infrav1.DetachingReason},
		{"failed, not listed", failed(detached(maas.StatusFailedDeployment), SuspicionView{}), ActionWait, infrav1.RecordingSuspicionReason},
		{"failed, others listed", failed(detached(maas.StatusFailedDeployment), SuspicionView{Machines: 3}), ActionWait, infrav1.RecordingSuspicionReason},
		{"failed, listed, on", failed(detached(maas.StatusFailedDeployment), SuspicionView{Recorded: true, Machines: 1}), ActionPowerOff, infrav1.PoweringOffReason},
		{"failed, listed, off", failed(off(detached(maas.StatusFailedDeployment)), SuspicionView{Recorded: true, Machines: 1}), ActionRelease, infrav1.ReleasingReason},
		{"suspect, attached", failed(attached(maas.StatusFailedDeployment), listedTwice), ActionDetach, infrav1.DetachingReason},
		{"suspect, on", failed(detached(maas.StatusFailedDeployment), listedTwice), ActionPowerOff, infrav1.ServerSuspectReason},
		{"suspect, going off", with(failed(detached(maas.StatusFailedDeployment), listedTwice), func(o *Observation) { o.PowerOffUntil = now.Add(time.Second) }), ActionWait, infrav1.ServerSuspectReason},
		{"suspect, off", failed(off(detached(maas.StatusFailedDeployment)), listedTwice), ActionHold, infrav1.ServerSuspectReason},
		{"suspect, held, attachment left", marked(failed(off(detached(maas.StatusFailedDeployment)), listedTwice)), ActionDeleteAttachment, infrav1.ServerSuspectReason},
		{"suspect, held, attachment going", with(marked(failed(off(detached(maas.StatusFailedDeployment)), listedTwice)), func(o *Observation) { o.Attachment.Deleting = true }), ActionWait, infrav1.ServerSuspectReason},
		{"suspect, held, not listed as held", unattached(marked(failed(off(detached(maas.StatusFailedDeployment)), listedTwice))), ActionWait, infrav1.ServerSuspectReason},
		{"suspect, listed as held, being deleted", unattached(marked(failed(off(detached(maas.StatusFailedDeployment)), listedHeld))), ActionDropFinalizer, ""},
		{"suspect, listed as held, living", with(unattached(marked(failed(off(detached(maas.StatusFailedDeployment)), listedHeld))), func(o *Observation) { o.Deleting = false }), ActionForget, ""},
		{"suspect, locked", with(failed(detached(maas.StatusFailedDeployment), listedTwice), func(o *Observation) { o.Server.Machine.Locked = true }), ActionWait, infrav1.ServerLockedReason},
		{"suspect, released by an operator", with(failed(detached(maas.StatusDiskErasing), listedTwice), func(o *Observation) { o.ReleaseRecorded = true }), ActionWait, infrav1.ReleasingReason},

		{"avoided, attached", with(attached(maas.StatusAllocated), func(o *Observation) { o.Avoided = infrav1.ForeignVPCReason }), ActionDetach, infrav1.DetachingReason},
		{"avoided, given back", with(attached(maas.StatusReady), func(o *Observation) {
			o.Avoided, o.Server.Held, o.Attachment = infrav1.ForeignVPCReason, maas.No, AttachmentView{Exists: maas.No}
		}), ActionForget, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			step := decide(c.o)
			said := ""
			if len(step.Say) > 0 {
				said = step.Say[0].Reason
			}
			if step.Action != c.action || said != c.reason {
				t.Errorf("got %s, saying %q; want %s, saying %q", step.Action, said, c.action, c.reason)
			}
		})
	}
}

// TestReleaseErases: what was deployed is erased, what never was is not.
func TestReleaseErases(t *testing.T) {
	if step := decide(detached(maas.StatusAllocated)); step.Action != ActionRelease || step.Erase {
		t.Errorf("never deployed: %+v", step)
	}
	for name, o := range map[string]Observation{
		"deployed":         with(detached(maas.StatusDeployed), func(o *Observation) { o.Server.Machine.PowerState = maas.PowerOff }),
		"aborted":          with(detached(maas.StatusAllocated), func(o *Observation) { o.Server.Machine.OSystem = "ubuntu" }),
		"deployment lost":  with(detached(maas.StatusAllocated), func(o *Observation) { o.DeployDeadline = now }),
		"failed to deploy": failed(off(detached(maas.StatusFailedDeployment)), SuspicionView{Recorded: true, Machines: 1}),
	} {
		if step := decide(o); step.Action != ActionRelease || !step.Erase {
			t.Errorf("%s: %+v", name, step)
		}
	}
}

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
	for flags := range 1 << 12 {
		bit := func(n int) bool { return flags>>n&1 == 1 }
		if bit(10) && !bit(8) || bit(11) && !bit(0) && !bit(8) {
			continue // Suspicion and open orders matter on the way back only.
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
