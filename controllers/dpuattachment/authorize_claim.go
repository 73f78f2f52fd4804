// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// observeClaim asks MAAS, through the fabric's own key, whether the server is held under the token. It is asked once a pass, so
// that an answer is always to a question that was sent after what the passes before it wrote.
func (r *Reconciler) observeClaim(ctx context.Context, o *observation) {
	if o.claim.asked || o.fabric == nil {
		return
	}
	o.claim.asked = true
	server := o.attachment.Spec.Server
	if machine := r.confirmations.of(o.attachment.UID, server.Token, r.Clock.Now()); machine != nil {
		o.claim.finding, o.claim.machine = yes, machine
		return
	}
	verifier, err := o.fabric.Verifier(ctx, server.Source)
	if err != nil {
		o.claim.finding = claimUnknown(err)
		return
	}
	asked := r.Clock.Now()
	ask := verifier.Confirm
	if o.refusedBefore() {
		ask = verifier.Recheck
	}
	held, err := ask(ctx, server.Token, server.SystemID)
	switch {
	case err != nil:
		ctrl.LoggerFrom(ctx).Error(err, "MAAS did not say whether the server is held under the claim", "systemID", server.SystemID)
		o.claim.finding = claimUnknown(scope.ClaimSourceError(server.Source, err))
	case held.Yes():
		o.claim.finding, o.claim.machine = yes, &held.Machine
		r.confirmations.keep(o.attachment.UID, server.Token, asked, &held.Machine)
	case held.No():
		o.claim.finding = refused(infrav1.ClaimNotConfirmedReason, "MAAS does not hold server %s under this claim: %s", server.SystemID, held.Reason)
	default:
		o.claim.finding = vpc.Finding{Answer: vpc.Unknown, Reason: infrav1.ClaimNotConfirmedReason, Message: held.Reason}
	}
}

// observeStanding keeps verifying what was confirmed before. As long as what is read for everybody agrees with the claim, or
// nothing was read, MAAS is not asked; what does not agree is asked about at once, because only that decides.
func (r *Reconciler) observeStanding(ctx context.Context, o *observation) {
	if o.claim.asked || o.askedToDetach() || !o.wasAttached() && !o.memory.touched() && !o.authorizedBefore() {
		return
	}
	server := o.attachment.Spec.Server
	verifier, err := o.fabric.Verifier(ctx, server.Source)
	if err != nil {
		if o.wasAttached() {
			o.claim.followed, o.claim.standing = true, claimUnknown(err)
		}
		return
	}
	if !verifier.Follows(server.SystemID) {
		return // It is asked where the decision hangs on it.
	}
	verifier.Watch(server.SystemID, client.ObjectKeyFromObject(o.attachment))
	standing, err := verifier.Standing(server.Token, server.SystemID)
	switch {
	case standing == scope.StandingDoubtful && !o.provenDetached():
		r.confirmations.end(o.attachment.UID)
		r.observeClaim(ctx, o)
	case !o.wasAttached():
		// What is still under way is confirmed around each write.
	case standing == scope.StandingHeld:
		o.claim.followed, o.claim.standing = true, yes
	case err != nil:
		o.claim.followed, o.claim.standing = true, claimUnknown(scope.ClaimSourceError(server.Source, err))
	default:
		o.claim.followed = true
	}
}

func claimUnknown(err error) vpc.Finding {
	finding := vpc.Finding{Answer: vpc.Unknown, Reason: infrav1.MaasUnreachableReason, Message: err.Error()}
	if unusable, ok := scope.AsUnusable(err); ok {
		finding.Reason = unusable.Reason
	}
	return finding
}

// refusedBefore reports whether MAAS said in an earlier pass that the server is not held under this token.
func (o *observation) refusedBefore() bool {
	condition := conditionOf(o.attachment, infrav1.AuthorizedCondition)
	return condition != nil && condition.Status == metav1.ConditionFalse && condition.Reason == infrav1.ClaimNotConfirmedReason && o.sameClaim()
}

// losesClaim reports whether it is news that the claim was lost under what is attached, or half way on.
func (o *observation) losesClaim() bool {
	return o.lost() && !o.refusedBefore() && (o.stateBefore == infrav1.AttachmentStateAttached || o.memory.touched())
}
