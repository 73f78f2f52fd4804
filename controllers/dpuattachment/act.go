// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// act makes the decided write and says when to look again. A write whose outcome is not known is not repeated: the next pass
// reads what became of it. The error is the management cluster's.
func (r *Reconciler) act(ctx context.Context, o *observation, d *decision) (ctrl.Result, error) {
	if d.raise != nil {
		r.raise(ctx, o, d)
	}
	if d.write == nil {
		return ctrl.Result{RequeueAfter: r.next(o, d)}, nil
	}
	w := d.write
	log := ctrl.LoggerFrom(ctx).WithValues("step", w.step, "dpuDevice", w.card.device)
	err := dpfzt.Write(ctx, o.fabric.DPF, w.card.member, w.card.evidence.Carrier(), w.change)
	var changed *dpfzt.ChangedError
	if !errors.As(err, &changed) {
		r.confirmations.end(o.attachment.UID) // Verify, write, verify again.
	}
	switch {
	case changed != nil:
		log.Info("The DPU changed since it was read, nothing was written", "error", err.Error())
		if w.step == vpc.StepRepair {
			// A repair that was not made does not count.
			if err := r.storeMemory(ctx, o.attachment, o.memory); err != nil {
				return ctrl.Result{}, err
			}
		}
		return ctrl.Result{RequeueAfter: r.PollInterval}, nil
	case err != nil:
		finding := unreachable(err)
		d.attached = sayUnknown(finding.Reason, finding.Message)
		d.keep = d.proven == "" && o.attachment.Status.State != ""
		return ctrl.Result{RequeueAfter: r.PollInterval}, nil
	}
	log.Info("Wrote the labels of a DPU")
	return ctrl.Result{RequeueAfter: r.interval(o, paceTransition)}, nil
}

// raise raises a barrier. One whose outcome is not known is raised again, which does no harm.
func (r *Reconciler) raise(ctx context.Context, o *observation, d *decision) {
	value, err := o.fabric.OVN.Raise(ctx)
	if err == nil {
		d.progress.barrier, err = d.raise.Raised(value, r.Clock.Now())
	}
	if err == nil {
		return
	}
	ctrl.LoggerFrom(ctx).Error(err, "Cannot raise a barrier in OVN")
	if d.proven != "" || d.attached.reason == infrav1.DetachUnprovenReason {
		return
	}
	d.attached = sayUnknown(infrav1.FabricUnreachableReason, "the barrier cannot be raised in OVN's northbound database: "+err.Error()+
		"; the operator looks whether it runs, and at spec.backend.ovnVPC.ovn of the DPUFabric")
	d.keep = o.attachment.Status.State != ""
}

// keepProgress remembers how far OVN's proof is, for as long as there is an attachment to prove.
func (r *Reconciler) keepProgress(attachment *infrav1.DPUAttachment, d decision) {
	if d.finalize {
		d.progress = progress{}
	}
	r.progresses.keep(attachment.UID, d.progress)
}

// next is when the next pass follows.
func (r *Reconciler) next(o *observation, d *decision) time.Duration {
	if d.pace == paceOVN {
		return ovnPause(r.Clock.Now().Sub(d.progress.since), r.PollInterval)
	}
	return r.interval(o, d.pace)
}

// interval is when the next pass follows if nothing wakes the attachment before. What no watch shows is polled: MAAS, and
// fabrics whose watches are broken.
func (r *Reconciler) interval(o *observation, p pace) time.Duration {
	switch p {
	case paceDone:
		return 0
	case paceRefused:
		return refusedIntervals * r.PollInterval
	case paceSteady:
		longest := steadyInterval
		if !r.watched(o) {
			longest = unwatchedInterval
		}
		return min(o.proofMaxAge()/proofsPerMaxAge, longest)
	default:
		if r.watched(o) && o.waitsForFabric() {
			return watchedIntervals * r.PollInterval
		}
		return r.PollInterval
	}
}

// watched reports whether changes of everything the proof is made of are watched.
func (r *Reconciler) watched(o *observation) bool {
	return o.fabric != nil && r.Watches.Covers(o.fabric.Object.Name, o.dpuClusters()...)
}

// waitsForFabric reports whether it is not MAAS, or the management cluster, whose answer is missing.
func (o *observation) waitsForFabric() bool {
	return o.admission.Answer == vpc.Yes && (!o.claim.asked || o.claim.finding.Answer == vpc.Yes) && o.resolved.Answer != vpc.Unknown
}

// announce tells of what changed.
func (r *Reconciler) announce(o *observation, d decision) {
	before := o.stateBefore
	switch {
	case d.keep || d.proven == before:
		return
	case d.proven == infrav1.AttachmentStateAttached:
		r.Recorder.Eventf(o.attachment, nil, corev1.EventTypeNormal, infrav1.AttachedReason, "Prove", "all ports are proven attached to TenantVPC %s", o.attachment.Spec.VPCName)
	case d.proven == infrav1.AttachmentStateDetached:
		r.Recorder.Eventf(o.attachment, nil, corev1.EventTypeNormal, infrav1.DetachedReason, "Prove", "all ports are proven detached")
	case before == infrav1.AttachmentStateAttached && d.attached.status == metav1.ConditionFalse && !o.askedToDetach():
		r.Recorder.Eventf(o.attachment, nil, corev1.EventTypeWarning, d.attached.reason, "Prove", "%s", d.attached.message)
	}
}
