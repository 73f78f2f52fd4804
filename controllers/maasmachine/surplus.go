// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"cmp"
	"context"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// This file is about several servers under one token, which a lost answer to an allocation can leave.

// ours are those of the machines of our token that belong to the account and carry no other claim.
func (p *pass) ours(found []maas.Machine) []maas.Machine {
	return slices.DeleteFunc(slices.Clone(found), func(m maas.Machine) bool {
		ownership := m.ClaimedBy(p.identity.Account, p.token())
		return !ownership.Yes() && !ownership.Unannotated
	})
}

// keep picks the one of several servers under one token to go on with: the furthest along, else the lowest system ID. One that
// is held for what happened on it is the last.
func keep(ours []maas.Machine) maas.Machine {
	along := func(m maas.Machine) int {
		switch {
		case m.Annotations[maas.AnnotationHold] != "":
			return -1
		case m.Status == maas.StatusDeployed:
			return 3
		case m.Status == maas.StatusDeploying:
			return 2
		case m.Status != maas.StatusAllocated || len(m.Annotations) > 0:
			return 1
		}
		return 0
	}
	return slices.MinFunc(ours, func(a, b maas.Machine) int {
		return cmp.Or(cmp.Compare(along(b), along(a)), cmp.Compare(a.SystemID, b.SystemID))
	})
}

// surplus are the servers besides the kept one that are neither attached, deploying, deployed nor held.
func (p *pass) surplus(ctx context.Context, ours []maas.Machine, kept string) []string {
	var ids []string
	for i := range ours {
		m := &ours[i]
		if m.SystemID == kept || m.Status != maas.StatusAllocated || m.OSystem != "" || m.Locked || m.Annotations[maas.AnnotationHold] != "" {
			continue
		}
		if p.attachmentExists(ctx, m.SystemID) == maas.No {
			ids = append(ids, m.SystemID)
		}
	}
	slices.Sort(ids)
	return ids
}

func (p *pass) attachmentExists(ctx context.Context, systemID string) maas.Answer {
	if len(p.machine.Spec.Ports) == 0 {
		return maas.No
	}
	if p.fabric == nil {
		return maas.Unknown
	}
	err := p.fabric.Live.Get(ctx, p.attachmentKey(systemID), &infrav1.DPUAttachment{})
	switch {
	case apierrors.IsNotFound(err):
		return maas.No
	case err != nil:
		return maas.Unknown
	}
	return maas.Yes
}
