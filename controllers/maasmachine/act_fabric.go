// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/labels/format"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// attach asks the fabric wing for the ports. The attachment has no owner: nothing but proof takes it away.
func (p *pass) attach(ctx context.Context, step Step) (Step, error) {
	if p.maasCluster == nil {
		return wait(PaceScarce, saysNo(infrav1.DPUAttachedCondition, infrav1.MaasClusterNotFoundReason, "the Cluster's MaasCluster, which names the TenantVPC, does not exist")), nil
	}
	key := p.attachmentKey(p.o.SystemID)
	if p.machine.Status.AttachmentName != key.Name || p.machine.Status.SystemID == "" {
		if err := p.persistStatus(ctx, func(s *infrav1.MaasMachineStatus) {
			s.AttachmentName, s.SystemID = key.Name, p.o.SystemID
		}); err != nil {
			return step, err
		}
	}
	attachment := &infrav1.DPUAttachment{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, Labels: map[string]string{
			infrav1.DPUAttachmentMachineLabel: format.MustFormatValue(p.machine.Name),
		}},
		Spec: infrav1.DPUAttachmentSpec{
			State: infrav1.AttachmentStateAttached,
			Server: infrav1.AttachmentServer{
				Source: p.machine.Spec.Claim.Source, SystemID: p.o.SystemID, Token: p.token(),
			},
			MachineName: p.machine.Name,
			VPCName:     p.maasCluster.Spec.VPCName,
			Ports:       p.machine.Spec.Ports,
		},
	}
	if filter, ok := p.machine.Labels[clusterv1.WatchLabel]; ok {
		attachment.Labels[clusterv1.WatchLabel] = filter
	}
	if err := p.fabric.Client.Create(ctx, attachment); err != nil && !apierrors.IsAlreadyExists(err) {
		return p.fabricRefused(step, infrav1.DPUAttachedCondition, fmt.Errorf("create DPUAttachment %s: %w", key, err)), nil
	}
	p.log.Info("Asked the fabric to attach", "DPUAttachment", key, "systemID", p.o.SystemID)
	return step, nil
}

// fabricRefused says that the fabric's API server did not take a change; it is asked again.
func (p *pass) fabricRefused(step Step, condition string, err error) Step {
	p.log.Error(err, "The fabric's API server refused", "step", step.Action)
	problem := fabricProblem(err)
	return wait(PacePoll, saysUnknown(condition, problem.Reason, problem.Message))
}

func (p *pass) detach(ctx context.Context, step Step) (Step, error) {
	base := p.attachment.DeepCopy()
	p.attachment.Spec.State = infrav1.AttachmentStateDetached
	key := client.ObjectKeyFromObject(p.attachment)
	if err := p.fabric.Client.Patch(ctx, p.attachment, client.MergeFrom(base)); err != nil && !apierrors.IsNotFound(err) {
		return p.fabricRefused(step, infrav1.ReleasedCondition, fmt.Errorf("detach DPUAttachment %s: %w", key, err)), nil
	}
	p.log.Info("Asked the fabric to detach", "DPUAttachment", key, "systemID", p.o.SystemID)
	p.event(corev1.EventTypeNormal, infrav1.DetachingReason, "Detach", "Asked the fabric to detach server %s", p.o.SystemID)
	return step, nil
}

func (p *pass) deleteAttachment(ctx context.Context, step Step) (Step, error) {
	err := p.fabric.Client.Delete(ctx, p.attachment, client.Preconditions{UID: &p.attachment.UID})
	if client.IgnoreNotFound(err) != nil {
		return p.fabricRefused(step, infrav1.ReleasedCondition, fmt.Errorf("delete DPUAttachment %s: %w", p.attachment.Name, err)), nil
	}
	return step, nil
}
