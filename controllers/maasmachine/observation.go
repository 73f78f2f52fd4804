// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"time"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// Observation is all that a decision may depend on. It is made anew in every pass from what MAAS, the fabric's objects and the
// API server say; of the status only what cannot be read elsewhere is used.
type Observation struct {
	// Now is when the pass began.
	Now time.Time

	Deleting bool
	// Abandon says that an operator gave the server up.
	Abandon bool
	// Provisioned was promised to Cluster API and is not taken back.
	Provisioned bool
	// Intact says that the status is what we wrote; a moved or restored object has lost it.
	Intact bool

	// Owned by a Machine, in a cluster whose infrastructure is provisioned, with bootstrap data.
	Owned, ClusterReady, BootstrapData bool
	// OwnerGoing says that the Machine is being deleted: this object follows once hooks and the drain are through.
	OwnerGoing bool

	// Claim says whether the object has a claim, and whether the claim was made for it.
	Claim ClaimView

	// Identity says whether MAAS can be asked, and whether a new claim is permitted.
	Identity IdentityView

	// Ports says that ports are asked for.
	Ports bool
	// Placement is what stands in the way of a new claim; nil if nothing does.
	Placement *Problem

	// SystemID of the server in the status or provider ID; empty if there is none.
	SystemID string
	// Avoided says that this very server is to be given back.
	Avoided string
	// DeployFailures and Refusals count the servers avoided so far.
	DeployFailures, Refusals int

	// AllocateUntil is until when a lost allocation can still appear; zero if none was lost.
	AllocateUntil time.Time
	// DeployUntil is until when a lost deployment can still appear; zero if none was sent.
	DeployUntil time.Time
	// DeployDeadline is when a deployment has taken too long; zero if none was sent.
	DeployDeadline time.Time
	// Order is a power-off or release that was sent, and not answered as far as is known.
	Order OrderView
	// NotBefore is until when MAAS asked not to be told anything more about the server; zero if it did not.
	NotBefore time.Time
	// PowerOffUntil is until when a power-off that was sent may take effect; zero if none was sent.
	PowerOffUntil time.Time
	// ReleaseDeadline is when a release has taken too long; zero if none was accepted, or if it may take any time.
	ReleaseDeadline time.Time
	// ReleaseRecorded says that MAAS accepted a release of this server under this claim.
	ReleaseRecorded bool
	// ReleaseRetry says that a release that failed is due to be tried again: nobody knows of it, or it is long ago.
	ReleaseRetry bool

	Server     ServerView
	Suspicion  SuspicionView
	Attachment AttachmentView
}

// Problem is why something cannot be done, for conditions.
type Problem struct{ Reason, Message string }

// ClaimView is the claim of the object.
type ClaimView struct {
	Present bool
	// Fits says that the token was made for this namespace and name; a copy is inert.
	Fits bool
}

// OrderView is an order to MAAS whose effect may still appear.
type OrderView struct {
	Operation infrav1.MachineOrderOperation
	// SystemID of the server it was about.
	SystemID string
	// Until when it can appear; zero if there is no such order.
	Until time.Time
}

func (v OrderView) open(now time.Time) bool { return pending(v.Until, now) }

// SuspicionView is what the identity's status says of the server.
type SuspicionView struct {
	// Recorded says that this machine is listed under it as one whose deployment failed.
	Recorded bool
	// Machines is how many machines are listed so.
	Machines int
	// Held says that the server is listed as held.
	Held bool
}

// IdentityView is what is known of the identity.
type IdentityView struct {
	// Unusable says why MAAS cannot be asked; nil if it can.
	Unusable *Problem
	// RetryAfter is how long MAAS asked us to wait.
	RetryAfter time.Duration
	// Allowed says whether the namespace may make new claims.
	Allowed maas.Answer
	// IsolationRequired says that machines without ports are refused.
	IsolationRequired bool
	// PortIsolationRequired says that a provisioning network nobody vouches for is refused.
	PortIsolationRequired bool
	// BreakerOpen says that no new claims are made.
	BreakerOpen bool
}

// ServerView is what MAAS says of the server.
type ServerView struct {
	// Held says whether a server is held under the claim.
	Held maas.Answer
	// Why in words; Problem is set if Held is Unknown because MAAS could not be asked.
	Why     string
	Problem *Problem
	// RetryAfter is how long MAAS asked us to wait.
	RetryAfter time.Duration
	// Machine as read; only its SystemID counts unless Held is Yes.
	Machine maas.Machine
	// Unannotated says that only the token marks the server as ours.
	Unannotated bool
	// Surplus are further servers under the token that may be released.
	Surplus []string
	// Collision names the MaasMachine that holds a server of the same system ID of another MAAS.
	Collision string
}

// AttachmentView is what the fabric wing says of the server's ports.
type AttachmentView struct {
	// Exists says whether there is an attachment.
	Exists maas.Answer
	// Problem is set if Exists is Unknown.
	Problem *Problem
	// Name of the attachment that is meant.
	Name string
	// Asked is spec.state.
	Asked    infrav1.AttachmentState
	Deleting bool
	// Proven is status.state if it is proven for this token and generation.
	Proven infrav1.AttachmentState
	// Valid says that a proof of Attached has not gone stale.
	Valid bool
	// ValidUntil is when it does.
	ValidUntil time.Time
	// Broken says that attachment was contradicted by evidence, and how.
	Broken *Problem
	// Doubt is what the fabric wing says of a proof that it cannot renew.
	Doubt string
	// Unproven says that detachment could not be proven in time, or never will be.
	Unproven bool
	// Forced says that an operator no longer waits for that proof; the server stays ineligible.
	Forced bool
	// Refused says why the fabric will not attach this server, long enough to be believed.
	Refused *Problem
	// Waiting is what the fabric wing says it waits for.
	Waiting string
	// PortIsolation is what the fabric says of its provisioning network.
	PortIsolation infrav1.PortIsolation
	// PowerOff says that the fabric asks for the server to be powered off.
	PowerOff bool
}

// ready reports that attachment is proven now.
func (a AttachmentView) ready() bool {
	return a.Exists == maas.Yes && !a.Deleting && a.Asked == infrav1.AttachmentStateAttached &&
		a.Proven == infrav1.AttachmentStateAttached && a.Valid && a.Broken == nil
}

// underWay reports that the fabric is at work on what was asked for.
func (a AttachmentView) underWay() bool {
	switch {
	case a.Exists != maas.Yes || a.Deleting || a.Unproven || a.Refused != nil || a.Broken != nil:
		return false
	case a.Asked == infrav1.AttachmentStateDetached:
		return a.Proven != infrav1.AttachmentStateDetached
	}
	return a.Proven != infrav1.AttachmentStateAttached
}

// portIsolationRefused reports that the provisioning network is not vouched for and the identity does not accept that.
func (o Observation) portIsolationRefused() bool {
	return o.Ports && o.Identity.PortIsolationRequired && o.Attachment.PortIsolation != infrav1.PortIsolationAsserted
}

// deployedUnderClaim reports that a tenant's system may be on the disks: a deployment was sent, or MAAS has an operating
// system for the server, which it forgets when a release starts.
func (o Observation) deployedUnderClaim() bool {
	m := o.Server.Machine
	return o.Provisioned || !o.DeployDeadline.IsZero() || m.Status != maas.StatusAllocated || m.OSystem != "" ||
		m.Annotations[maas.AnnotationDeployed] != ""
}

// deployFailure returns why the deployment failed that is seen on the server; empty if none has.
func (o Observation) deployFailure() string {
	switch o.Server.Machine.Status {
	case maas.StatusFailedDeployment:
		if !o.Provisioned {
			return infrav1.DeployFailedReason
		}
	case maas.StatusDeploying:
		if !o.Provisioned && !o.DeployDeadline.IsZero() && o.Now.After(o.DeployDeadline) {
			return infrav1.DeployTimedOutReason
		}
	}
	return ""
}

// failedHere reports that this machine's deployment failed on the server.
func (o Observation) failedHere() bool {
	return o.Avoided == infrav1.DeployFailedReason || o.Avoided == infrav1.DeployTimedOutReason
}

// switchable reports that the server is to be switched off and may be told so now. A release that may still appear would take
// the server back on, and must not be forgotten for another order.
func (o Observation) switchable() bool {
	return o.powerKnown() && o.Server.Machine.PowerState != maas.PowerOff && !pending(o.PowerOffUntil, o.Now) &&
		!(o.Order.open(o.Now) && o.Order.Operation == infrav1.MachineOrderRelease)
}

// givenBack reports that the server went back to MAAS as it should have.
func (o Observation) givenBack() bool {
	m := o.Server.Machine
	wanted := !o.Deleting && o.Avoided == ""
	return o.Server.Held == maas.No && (o.ReleaseRecorded || !wanted && m.SystemID != "" && m.Status.Free() && m.Owner == "")
}

// powerKnown reports that MAAS can switch the server and see whether it is on.
func (o Observation) powerKnown() bool {
	return o.Server.Machine.PowerType != "" && o.Server.Machine.PowerType != "manual" && !o.Server.Machine.IsDPU
}

func pending(until, now time.Time) bool { return !until.IsZero() && now.Before(until) }
