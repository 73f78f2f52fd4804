// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// Action is the one thing a pass does.
type Action string

// The actions. Those of the first group change nothing outside the status.
const (
	ActionWait       Action = "Wait"
	ActionInitialize Action = "Initialize"

	ActionStoreClaim       Action = "StoreClaim"
	ActionAllocate         Action = "Allocate"
	ActionRecordServer     Action = "RecordServer"
	ActionReleaseSurplus   Action = "ReleaseSurplus"
	ActionAnnotate         Action = "Annotate"
	ActionAttach           Action = "Attach"
	ActionDeploy           Action = "Deploy"
	ActionProvision        Action = "Provision"
	ActionAvoid            Action = "Avoid"
	ActionForget           Action = "Forget"
	ActionDetach           Action = "Detach"
	ActionPowerOff         Action = "PowerOff"
	ActionHold             Action = "Hold"
	ActionRelease          Action = "Release"
	ActionRecordRelease    Action = "RecordRelease"
	ActionDeleteAttachment Action = "DeleteAttachment"
	ActionDropFinalizer    Action = "DropFinalizer"
)

// Pace is when to look again, unless something wakes us before.
type Pace string

// The paces; see Reconciler.after for their lengths.
const (
	// PaceNow goes on at once: the step left something to do.
	PaceNow Pace = "Now"
	// PacePoll looks again after the poll interval: something is under way.
	PacePoll Pace = "Poll"
	// PaceTurn waits for a free server, and notices one within the poll interval.
	PaceTurn Pace = "Turn"
	// PaceScarce waits for somebody else to give something back.
	PaceScarce Pace = "Scarce"
	// PaceSteady looks whether all is still well.
	PaceSteady Pace = "Steady"
	// PaceRare waits for people to change something.
	PaceRare Pace = "Rare"
	// PaceNever waits for an event.
	PaceNever Pace = "Never"
)

// Step is a decision: what to do, what to say, and when to look again.
type Step struct {
	Action Action
	Pace   Pace
	// Say are conditions that differ from what the observation says by itself.
	Say []Saying
	// SystemID is the server meant, where it is not the observed one.
	SystemID string
	// Erase says that a release erases.
	Erase bool
	// Reason is why, for ActionAvoid, ActionHold, and letting go of a server that stays allocated.
	Reason string
	// After is the shortest pause before the next look, whatever the pace: MAAS asked for it.
	After time.Duration
}

// Saying is one condition.
type Saying struct {
	Type    string
	Status  metav1.ConditionStatus
	Reason  string
	Message string
}

// decide is the whole policy. It is pure: what it needs is in the observation, what it wants in the step.
func decide(o Observation) Step {
	step := plan(o)
	if ordersMAAS[step.Action] && pending(o.NotBefore, o.Now) {
		return Step{Action: ActionWait, Pace: PacePoll, Say: step.Say, After: o.NotBefore.Sub(o.Now)}
	}
	return step
}

// ordersMAAS are the actions that MAAS may have asked us to put off.
var ordersMAAS = map[Action]bool{
	ActionAllocate: true, ActionReleaseSurplus: true, ActionAnnotate: true, ActionDeploy: true,
	ActionPowerOff: true, ActionHold: true, ActionRelease: true,
}

func plan(o Observation) Step {
	switch {
	case o.Deleting:
		return down(o)
	case o.Claim.Present && !o.Claim.Fits:
		return wait(PaceNever, saysNo(infrav1.ServerClaimedCondition, infrav1.TokenMismatchReason,
			"the claim's token was made for another object: create the machine without spec.claim"))
	case o.Provisioned:
		return steady(o)
	case o.SystemID != "" && o.Avoided != "":
		return retreat(o)
	}
	return up(o)
}

func wait(pace Pace, say ...Saying) Step { return Step{Action: ActionWait, Pace: pace, Say: say} }

func do(action Action, pace Pace, say ...Saying) Step {
	return Step{Action: action, Pace: pace, Say: say}
}

func saysNo(condition, reason, message string) Saying {
	return Saying{Type: condition, Status: metav1.ConditionFalse, Reason: reason, Message: message}
}

func saysUnknown(condition, reason, message string) Saying {
	return Saying{Type: condition, Status: metav1.ConditionUnknown, Reason: reason, Message: message}
}

// unclear says that nobody knows whose the server is; nothing is changed.
func unclear(o Observation) Step {
	if o.Server.Problem != nil {
		return later(o.Server.RetryAfter, wait(PacePoll, saysUnknown(infrav1.ServerClaimedCondition, o.Server.Problem.Reason, o.Server.Problem.Message)))
	}
	return wait(PaceScarce, saysUnknown(infrav1.ServerClaimedCondition, infrav1.OwnershipUnclearReason,
		fmt.Sprintf("server %s is not touched: %s", o.SystemID, o.Server.Why)))
}

// unusable says why MAAS cannot be asked, in a condition of which that makes the truth unknown.
func unusable(o Observation) Step {
	return later(o.Identity.RetryAfter, wait(PaceScarce, saysUnknown(infrav1.ServerClaimedCondition, o.Identity.Unusable.Reason, o.Identity.Unusable.Message)))
}

// later puts off the next look.
func later(after time.Duration, step Step) Step {
	step.After = after
	return step
}

// steady keeps a provisioned machine and touches nothing but what is missing.
func steady(o Observation) Step {
	if o.Identity.Unusable != nil {
		return unusable(o)
	}
	switch o.Server.Held {
	case maas.Unknown:
		return unclear(o)
	case maas.No:
		return wait(PaceSteady, saysNo(infrav1.ServerClaimedCondition, infrav1.ServerLostReason,
			fmt.Sprintf("server %s is no longer held under this claim and is not touched: %s", o.SystemID, o.Server.Why)))
	}
	if o.Server.Unannotated {
		return do(ActionAnnotate, PaceNow)
	}
	if status := o.Server.Machine.Status; status != maas.StatusDeployed {
		return wait(PaceSteady, saysNo(infrav1.DeployedCondition, infrav1.ServerStateUnexpectedReason,
			fmt.Sprintf("server %s was deployed and MAAS says %s now; it is not touched", o.SystemID, status)))
	}
	if !o.Ports {
		return wait(PaceSteady)
	}
	if o.Attachment.Exists == maas.No {
		// A move leaves attachments behind; the fabric wing finds the ports attached and proves it anew.
		return do(ActionAttach, PacePoll)
	}
	if o.Attachment.PowerOff && o.switchable() {
		return do(ActionPowerOff, PacePoll)
	}
	return wait(PaceSteady)
}
