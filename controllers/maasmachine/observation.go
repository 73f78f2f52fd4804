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
	// ReleaseUntil is until when a release whose answer was lost can still appear; zero if none was lost.
	ReleaseUntil time.Time
	// PowerOffUntil is until when a power-off that was sent may take effect; zero if none was sent.
	PowerOffUntil time.Time
	// ReleaseRecorded says that MAAS accepted a release of this server under this claim.
	ReleaseRecorded bool
	// ReleaseRetry says that a release that failed is due to be tried again: nobody knows of it, or it is long ago.
	ReleaseRetry bool

	Server     ServerView
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

// IdentityView is what is known of the identity.
type IdentityView struct {
	// Unusable says why MAAS cannot be asked; nil if it can.
	Unusable *Problem
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

// powerKnown reports that MAAS can switch the server and see whether it is on.
func (o Observation) powerKnown() bool {
	return o.Server.Machine.PowerType != "" && o.Server.Machine.PowerType != "manual" && !o.Server.Machine.IsDPU
}

func pending(until, now time.Time) bool { return !until.IsZero() && now.Before(until) }
