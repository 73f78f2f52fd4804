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
		{"Machine going", with(fresh(), func(o *Observation) { o.OwnerGoing = true }), ActionWait, infrav1.DeletingReason},
		{"Machine going, allocation lost", with(fresh(), func(o *Observation) { o.OwnerGoing, o.AllocateUntil = true, now.Add(time.Second) }), ActionWait, infrav1.AllocateOutcomeUnknownReason},
		{"Machine going, found by token", with(held(maas.StatusAllocated), func(o *Observation) { o.OwnerGoing, o.SystemID = true, "" }), ActionRecordServer, ""},
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
