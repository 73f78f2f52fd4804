// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// AttachmentName is the name of the DPUAttachment of a claim on a server: a retry on another server never meets an old status.
func AttachmentName(token, systemID string) string {
	sum := sha256.Sum256([]byte(token + "/" + systemID))
	return "claim-" + hex.EncodeToString(sum[:10])
}

func (p *pass) attachmentKey(systemID string) client.ObjectKey {
	return client.ObjectKey{Namespace: p.fabric.Namespace(p.machine.Namespace), Name: AttachmentName(p.token(), systemID)}
}

// connectFabric finds the way to the fabric's objects.
func (p *pass) connectFabric(ctx context.Context) *Problem {
	if p.fabric != nil {
		return nil
	}
	access, err := p.r.Scope.FabricAccess(ctx, p.account)
	if err != nil {
		return fabricProblem(err)
	}
	p.fabric = access
	return nil
}

// fabricError is a Problem with the fabric's objects as an error.
type fabricError struct{ Problem }

// Error implements error.
func (e *fabricError) Error() string { return e.Message }

func fabricProblem(err error) *Problem {
	if unusable, ok := scope.AsUnusable(err); ok {
		return &Problem{Reason: unusable.Reason, Message: unusable.Error()}
	}
	return &Problem{Reason: infrav1.FabricUnreachableReason, Message: fmt.Sprintf("the fabric's objects cannot be read (%s)", cmp.Or(string(apierrors.ReasonForError(err)), "no answer"))}
}

// observeAttachment reads the attachment of the server, or, where no server is known any more, one that was left behind.
func (p *pass) observeAttachment(ctx context.Context, o *Observation) {
	if !o.Ports {
		o.Attachment = AttachmentView{Exists: maas.No}
		return
	}
	if problem := p.connectFabric(ctx); problem != nil {
		o.Attachment = AttachmentView{Exists: maas.Unknown, Problem: problem}
		return
	}
	attachment, err := p.findAttachment(ctx, o)
	switch {
	case err != nil:
		p.log.Error(err, "Cannot read the DPUAttachment")
		o.Attachment = AttachmentView{Exists: maas.Unknown, Problem: fabricProblem(err)}
	case attachment == nil:
		o.Attachment = AttachmentView{Exists: maas.No}
	default:
		p.attachment = attachment
		o.Attachment = p.viewAttachment(attachment, o)
	}
}

// findAttachment returns nil only if the API server itself, not a cache, says that there is none.
func (p *pass) findAttachment(ctx context.Context, o *Observation) (*infrav1.DPUAttachment, error) {
	if o.SystemID == "" {
		return p.leftBehind(ctx, o)
	}
	key := p.attachmentKey(o.SystemID)
	attachment := &infrav1.DPUAttachment{}
	err := p.fabric.Client.Get(ctx, key, attachment)
	if apierrors.IsNotFound(err) {
		err = p.fabric.Live.Get(ctx, key, attachment)
	}
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return attachment, err
}

func (p *pass) leftBehind(ctx context.Context, o *Observation) (*infrav1.DPUAttachment, error) {
	if !o.Deleting {
		return nil, nil
	}
	list := &infrav1.DPUAttachmentList{}
	err := p.fabric.Live.List(ctx, list, client.InNamespace(p.fabric.Namespace(p.machine.Namespace)))
	if err != nil {
		return nil, err
	}
	for i := range list.Items {
		if list.Items[i].Spec.Server.Token == p.token() {
			return &list.Items[i], nil
		}
	}
	return nil, nil
}

func (p *pass) viewAttachment(attachment *infrav1.DPUAttachment, o *Observation) AttachmentView {
	status := &attachment.Status
	view := AttachmentView{
		Exists: maas.Yes, Name: attachment.Name, Asked: attachment.Spec.State,
		Deleting:      !attachment.DeletionTimestamp.IsZero(),
		PortIsolation: status.PortIsolation,
		PowerOff:      status.RequestedAction == infrav1.RequestedActionPowerOff,
	}
	if status.ObservedGeneration == attachment.Generation && status.TokenHash == maas.TokenHash(p.token()) {
		view.Proven = status.State
	}
	if status.ValidUntil != nil {
		view.ValidUntil = status.ValidUntil.Time
		view.Valid = o.Now.Before(view.ValidUntil)
	}
	if attached := conditions.Get(attachment, infrav1.AttachedCondition); attached != nil {
		view.Forced = attached.Status == metav1.ConditionFalse && attached.Reason == infrav1.OverriddenReason
		view.Unproven = view.Forced || attached.Status != metav1.ConditionTrue && attached.Reason == infrav1.DetachUnprovenReason
		contradicted := attached.Status == metav1.ConditionFalse && (o.Provisioned || attached.Reason == infrav1.EvidenceMissingReason)
		if contradicted && view.Asked == infrav1.AttachmentStateAttached {
			view.Broken = &Problem{Reason: attached.Reason, Message: attached.Message}
		}
		if attached.Status == metav1.ConditionUnknown && attached.Reason == infrav1.EvidenceMissingReason {
			view.Doubt = attached.Message
		}
	}
	if ready := conditions.Get(attachment, infrav1.ReadyCondition); ready != nil && ready.Status != metav1.ConditionTrue {
		view.Waiting = ready.Reason
	}
	view.Refused = p.refusal(attachment, o)
	return view
}

// refusal returns why the fabric will not attach this server, if it has said so for long enough. Reasons that are nothing
// against the server, such as a namespace that is not allowed, are no refusal.
func (p *pass) refusal(attachment *infrav1.DPUAttachment, o *Observation) *Problem {
	if attachment.Status.State == infrav1.AttachmentStateAttached {
		return nil
	}
	for _, condition := range []string{infrav1.DPUResolvedCondition, infrav1.PostureVerifiedCondition} {
		said := conditions.Get(attachment, condition)
		if said == nil || said.Status == metav1.ConditionTrue || o.Now.Sub(said.LastTransitionTime.Time) < p.grace(said.Status) {
			continue
		}
		if refusals[said.Reason] {
			return &Problem{Reason: said.Reason, Message: said.Message}
		}
	}
	return nil
}

// grace is longer where the fabric does not know: what it waits for may come, but not for ever.
func (p *pass) grace(status metav1.ConditionStatus) time.Duration {
	if status == metav1.ConditionFalse {
		return p.r.RefusalGrace
	}
	return unknownGraces * p.r.RefusalGrace
}

// refusals are the reasons of DPUResolved and PostureVerified that speak against the server.
var refusals = map[string]bool{
	infrav1.ServerNotMappedReason: true, infrav1.AmbiguousDPUReason: true, infrav1.BindingChangedReason: true,
	infrav1.UnaccountedPortReason: true, infrav1.ServerHeldByOtherReason: true, infrav1.DPUNotReadyReason: true,
	infrav1.DPUUnpoweredWithHostReason: true, infrav1.ForeignVPCReason: true,
	infrav1.PostureFailedReason: true, infrav1.PostureUnknownReason: true,
}
