// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"fmt"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

const (
	// maxDeployFailures is how many servers may fail to deploy before the machine is given up.
	maxDeployFailures = 2
	// suspectAfter is how many machines' deployments must have failed on a server before it is held.
	suspectAfter = 2
	// maxRefusals is how many servers may be refused or lost before people have to look.
	maxRefusals = 5
)

// up brings a machine from nothing to provisioned.
func up(o Observation) Step {
	if !o.Owned {
		return wait(PaceNever, saysNo(infrav1.ServerClaimedCondition, infrav1.WaitingForMachineReason, "no Machine owns the MaasMachine yet"))
	}
	if !o.Intact {
		// From here on, an empty status proves that nothing was tried.
		return do(ActionInitialize, PaceNow, saysNo(infrav1.ServerClaimedCondition, infrav1.NotStartedReason, "nothing was tried yet"))
	}
	if o.SystemID == "" {
		return claim(o)
	}
	if o.Identity.Unusable != nil {
		return unusable(o)
	}
	switch o.Server.Held {
	case maas.Unknown:
		return unclear(o)
	case maas.No:
		return avoid(infrav1.ServerLostReason)
	}
	switch {
	case len(o.Server.Surplus) > 0:
		return releaseSurplus(o)
	case o.Server.Collision != "":
		return avoid(infrav1.SystemIDCollisionReason)
	case o.Server.Machine.IsDPU && !o.deployedUnderClaim():
		return avoid(infrav1.ServerIsDPUReason)
	case o.Server.Unannotated:
		return do(ActionAnnotate, PaceNow)
	}
	return install(o)
}

func avoid(reason string) Step { return Step{Action: ActionAvoid, Pace: PaceNow, Reason: reason} }

// releaseSurplus gives a further server under the token back, one at a time.
func releaseSurplus(o Observation) Step {
	if o.Order.open(o.Now) {
		return wait(PacePoll, orderOpen())
	}
	return Step{Action: ActionReleaseSurplus, Pace: PaceNow, SystemID: o.Server.Surplus[0]}
}

// claim looks for a server of ours and asks for one if there is none.
func claim(o Observation) Step {
	says := func(reason, message string) Saying { return saysNo(infrav1.ServerClaimedCondition, reason, message) }
	// A server that is ours already is taken in whatever stands in the way of a new claim.
	if o.Claim.Present && o.Identity.Unusable == nil && o.Server.Held == maas.Yes {
		return Step{Action: ActionRecordServer, Pace: PaceNow, SystemID: o.Server.Machine.SystemID}
	}
	if step, over := giveUp(o); over {
		return step
	}
	switch {
	case !o.ClusterReady:
		return wait(PaceNever, says(infrav1.WaitingForClusterInfrastructureReason, "the cluster's infrastructure is not provisioned yet"))
	case !o.BootstrapData:
		return wait(PaceNever, says(infrav1.WaitingForBootstrapDataReason, "the bootstrap provider has not written its data yet"))
	case o.Identity.Unusable != nil:
		return later(o.Identity.RetryAfter, wait(PaceScarce, says(o.Identity.Unusable.Reason, o.Identity.Unusable.Message)))
	case o.Identity.Allowed == maas.Unknown:
		return wait(PaceScarce, says(infrav1.IdentityNotReadyReason, "nobody knows whether the identity admits the namespace"))
	case o.Identity.Allowed == maas.No:
		return wait(PaceRare, says(infrav1.NamespaceNotAllowedReason, "the identity does not admit new claims of this namespace: ask the operator to list it in allowedNamespaces"))
	case o.Identity.IsolationRequired && !o.Ports:
		return wait(PaceNever, says(infrav1.IsolationRequiredReason, "the identity requires isolation: name ports in the MaasMachineTemplate, and vpcName in the MaasCluster"))
	case o.Placement != nil:
		return wait(PaceScarce, says(o.Placement.Reason, o.Placement.Message))
	case !o.Claim.Present:
		return do(ActionStoreClaim, PaceNow, says(infrav1.ClaimingReason, "asking MAAS for a server"))
	case o.Server.Held == maas.Unknown:
		return unclear(o)
	case pending(o.AllocateUntil, o.Now):
		return wait(PacePoll, says(infrav1.AllocateOutcomeUnknownReason,
			"the answer to an allocation was lost: MAAS is searched for the server until it can no longer appear"))
	case o.OwnerGoing:
		return wait(PaceNever, says(infrav1.DeletingReason, "the Machine is being deleted: no server is taken for it any more"))
	case o.Identity.BreakerOpen:
		return wait(PaceRare, says(infrav1.CircuitBreakerOpenReason, "too many servers of the identity broke lately: it takes no new claims until an operator has looked"))
	}
	return do(ActionAllocate, PaceNow, says(infrav1.ClaimingReason, "asking MAAS for a server"))
}

// giveUp reports whether no more servers are tried. Nothing is waited for then: somebody has to replace the machine.
func giveUp(o Observation) (Step, bool) {
	says := func(reason, message string) Saying { return saysNo(infrav1.ServerClaimedCondition, reason, message) }
	switch {
	case pending(o.AllocateUntil, o.Now):
		return Step{}, false
	case o.DeployFailures >= maxDeployFailures:
		return wait(PaceNever, says(infrav1.DeployFailedReason, fmt.Sprintf("deployment failed on %d servers: replace the machine", o.DeployFailures)),
			saysNo(infrav1.DeployedCondition, infrav1.DeployFailedReason, fmt.Sprintf("deployment failed on %d servers", o.DeployFailures))), true
	case o.Refusals >= maxRefusals:
		return wait(PaceNever, says(infrav1.AttachmentRefusedReason, fmt.Sprintf(
			"%d servers were refused or lost, no more are tried: see status.avoidedServers, then replace the machine", o.Refusals))), true
	}
	return Step{}, false
}

// install deploys a server that is held and marked, once its ports are proven attached.
func install(o Observation) Step {
	m := o.Server.Machine
	if reason := o.deployFailure(); reason != "" {
		return avoid(reason)
	}
	switch m.Status {
	case maas.StatusAllocated:
		return prepare(o)
	case maas.StatusDeploying:
		return wait(PacePoll, saysNo(infrav1.DeployedCondition, infrav1.DeployingReason, fmt.Sprintf("MAAS deploys server %s", o.SystemID)))
	case maas.StatusDeployed:
		return finish(o)
	case maas.StatusBroken:
		return avoid(infrav1.ServerBrokenReason)
	case maas.StatusReleasing, maas.StatusDiskErasing, maas.StatusFailedReleasing, maas.StatusFailedDiskErasing:
		// Somebody else released it, or we did and lost the status.
		return avoid(infrav1.ServerLostReason)
	}
	return wait(PaceScarce, saysNo(infrav1.DeployedCondition, infrav1.ServerStateUnexpectedReason,
		fmt.Sprintf("MAAS says that server %s is %s; nothing is done until an operator ends that", o.SystemID, m.Status)))
}

// prepare attaches the ports and then deploys.
func prepare(o Observation) Step {
	if o.Ports {
		if step, ready := attach(o); !ready {
			return step
		}
	}
	no := func(reason, message string) Saying { return saysNo(infrav1.DeployedCondition, reason, message) }
	switch {
	case !o.BootstrapData:
		return wait(PaceNever, no(infrav1.WaitingForBootstrapDataReason, "the bootstrap provider has not written its data yet"))
	case o.Order.open(o.Now) && o.Order.SystemID == o.SystemID:
		return wait(PacePoll, no(infrav1.ReleaseOutcomeUnknownReason, "the answer to a release was lost: the server is not deployed before that can no longer take effect"))
	case pending(o.DeployUntil, o.Now):
		// A refusal takes the time of the deployment back: this one may still come, also after a release that follows a second one.
		return wait(PacePoll, no(infrav1.DeployOutcomeUnknownReason,
			"the answer to a deployment was lost: it is not sent again before the first can no longer take effect"))
	case o.Server.Machine.Locked:
		return wait(PaceScarce, no(infrav1.ServerLockedReason, fmt.Sprintf("server %s is locked in MAAS: unlock it", o.SystemID)))
	}
	return do(ActionDeploy, PacePoll, no(infrav1.DeployingReason, fmt.Sprintf("MAAS deploys server %s", o.SystemID)))
}

// attach asks for the attachment and reports whether it is proven.
func attach(o Observation) (Step, bool) {
	a := o.Attachment
	no := func(reason, message string) Saying { return saysNo(infrav1.DPUAttachedCondition, reason, message) }
	switch {
	case a.Exists == maas.Unknown:
		return wait(PacePoll, fabricUnknown(a)), false
	case a.Exists == maas.No:
		return do(ActionAttach, PacePoll, no(infrav1.AttachingReason, "asking the fabric to attach the ports")), false
	case a.Deleting || a.Asked != infrav1.AttachmentStateAttached:
		return avoid(infrav1.AttachmentRefusedReason), false
	case a.Refused != nil:
		return avoid(a.Refused.Reason), false
	case a.ready() && o.portIsolationRefused():
		return wait(PaceScarce, saysNo(infrav1.IsolatedCondition, infrav1.PortIsolationNotAssertedReason,
			"nobody vouches for the fabric's provisioning network and the identity does not accept that: set portIsolation in one of them")), false
	case a.ready():
		return Step{}, true
	}
	message := "waiting for the fabric to prove the ports attached"
	if a.Waiting != "" {
		message += ": " + a.Waiting
	}
	return wait(PacePoll, no(infrav1.AttachingReason, message)), false
}

func fabricUnknown(a AttachmentView) Saying {
	problem := Problem{Reason: infrav1.FabricUnreachableReason, Message: "the fabric's objects cannot be read"}
	if a.Problem != nil {
		problem = *a.Problem
	}
	return saysUnknown(infrav1.DPUAttachedCondition, problem.Reason, problem.Message)
}

// finish promises the machine to Cluster API: only with proof.
func finish(o Observation) Step {
	if !o.Ports {
		return do(ActionProvision, PaceSteady)
	}
	switch {
	case o.Attachment.Exists == maas.Unknown:
		return wait(PacePoll, fabricUnknown(o.Attachment))
	case o.Attachment.Exists == maas.No:
		// A move leaves attachments behind and loses the status; the fabric wing proves the ports anew.
		return do(ActionAttach, PacePoll)
	case !o.Attachment.ready() || o.portIsolationRefused():
		return wait(PacePoll)
	}
	return do(ActionProvision, PaceSteady)
}
