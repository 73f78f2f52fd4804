// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package webhooks holds the admission checks that CEL cannot make: those that look at other objects or at the request itself.
//
// A reference to what does not exist yet is accepted with a warning, because objects may be applied in any order; what exists
// and is forbidden is refused with a sentence that says what to write instead. The controllers make the same checks at every
// reconcile: an admission check is a courtesy to people, never the guard.
package webhooks

import (
	"fmt"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// Options of a wing's webhooks.
type Options struct {
	// Reader reads the objects that are referred to. Default: the manager's uncached reader, so that what was applied a moment
	// ago counts and no informer is started for admission alone.
	Reader client.Reader
}

func (o Options) references(mgr ctrl.Manager) references {
	if o.Reader != nil {
		return references{reader: o.Reader}
	}
	return references{reader: mgr.GetAPIReader()}
}

// SetupMachineWing registers the webhooks of the kinds that the machine wing serves: MaasCluster, MaasMachine, their templates
// and MaasClusterIdentity.
func SetupMachineWing(mgr ctrl.Manager, options Options) error {
	refs := options.references(mgr)
	return firstError(
		register(mgr, &infrav1.MaasCluster{}, maasClusterValidator(refs)),
		register(mgr, &infrav1.MaasClusterTemplate{}, maasClusterTemplateValidator()),
		register(mgr, &infrav1.MaasMachine{}, maasMachineValidator(refs)),
		register(mgr, &infrav1.MaasMachineTemplate{}, maasMachineTemplateValidator(refs)),
		register(mgr, &infrav1.MaasClusterIdentity{}, maasClusterIdentityValidator(refs)),
	)
}

// SetupFabricWing registers the webhooks of the kinds that the fabric wing serves: TenantVPC, DPUAttachment, DPUFabric and
// DPUServer.
func SetupFabricWing(mgr ctrl.Manager, options Options) error {
	refs := options.references(mgr)
	return firstError(
		register(mgr, &infrav1.TenantVPC{}, tenantVPCValidator(refs)),
		register(mgr, &infrav1.DPUAttachment{}, dpuAttachmentValidator(refs)),
		register(mgr, &infrav1.DPUFabric{}, dpuFabricValidator(refs)),
		register(mgr, &infrav1.DPUServer{}, dpuServerValidator(refs)),
	)
}

func register[T client.Object](mgr ctrl.Manager, object T, v *validator[T]) error {
	if err := ctrl.NewWebhookManagedBy(mgr, object).WithValidator(v).Complete(); err != nil {
		return fmt.Errorf("register the webhook of %s: %w", v.kind, err)
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
