// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

func refused(reason, format string, args ...any) vpc.Finding {
	return vpc.Finding{Answer: vpc.No, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// observeAdmission finds out whether the attachment may be made, apart from the claim in MAAS.
func (r *Reconciler) observeAdmission(ctx context.Context, o *observation) error {
	tenant := &infrav1.TenantVPC{}
	switch err := r.Client.Get(ctx, client.ObjectKey{Namespace: o.attachment.Namespace, Name: o.attachment.Spec.VPCName}, tenant); {
	case err == nil:
		o.tenant = tenant
	case !apierrors.IsNotFound(err):
		return fmt.Errorf("read TenantVPC %s/%s: %w", o.attachment.Namespace, o.attachment.Spec.VPCName, err)
	}
	if o.askedToDetach() {
		o.admission = yes // Nobody needs leave to go.
		return nil
	}
	allowed, err := scope.NamespaceAllowed(ctx, r.Client, o.fabric.Object.Spec.AllowedNamespaces, o.attachment.Namespace)
	if err != nil {
		return fmt.Errorf("DPUFabric %s: %w", o.fabric.Object.Name, err)
	}
	r.observeStanding(ctx, o)
	consent, known := o.consent()
	o.admission = o.admit(allowed && known)
	if o.admission.Answer == vpc.Yes && consent == infrav1.ClaimConsentMaasMachine && !o.wasAttached() {
		o.admission, err = r.observeConsent(ctx, o.attachment)
	}
	return err
}

// consent is what the claim source asks of the namespace; known is false if it does not name it.
func (o *observation) consent() (kind infrav1.ClaimConsent, known bool) {
	for _, s := range o.fabric.Object.Spec.ClaimSources {
		if s.Name != o.attachment.Spec.Server.Source {
			continue
		}
		for _, namespace := range s.Namespaces {
			if namespace.Name != o.attachment.Namespace {
				continue
			}
			if namespace.Consent == "" {
				return infrav1.ClaimConsentMaasMachine, true
			}
			return namespace.Consent, true
		}
	}
	return "", false
}

func (o *observation) admit(namespaceAllowed bool) vpc.Finding {
	spec, fabric := o.attachment.Spec, o.fabric.Object.Name
	switch {
	case !namespaceAllowed:
		return refused(infrav1.NamespaceNotAllowedReason,
			"DPUFabric %s does not let namespace %s attach servers of source %s: the operator adds it to allowedNamespaces and to the source's namespaces", fabric, o.attachment.Namespace, spec.Server.Source)
	case !maas.Token(spec.Server.Token).Fits(o.attachment.Namespace, spec.MachineName):
		return refused(infrav1.TokenMismatchReason, "the token was not made for MaasMachine %s/%s", o.attachment.Namespace, spec.MachineName)
	case o.tenant == nil:
		return refused(infrav1.VPCNotFoundReason, "there is no TenantVPC %s in namespace %s", spec.VPCName, o.attachment.Namespace)
	case o.tenant.Spec.FabricName != fabric:
		return refused(infrav1.VPCNotReadyReason, "TenantVPC %s is on DPUFabric %s, the server on %s", spec.VPCName, o.tenant.Spec.FabricName, fabric)
	case !o.tenant.DeletionTimestamp.IsZero():
		return refused(infrav1.VPCNotReadyReason, "TenantVPC %s is being deleted", spec.VPCName)
	}
	for _, port := range spec.Ports {
		if !slices.ContainsFunc(o.tenant.Spec.Subnets, func(s infrav1.VPCSubnet) bool { return s.Name == port.Subnet }) && o.tenant.Spec.Adopt == nil {
			return refused(infrav1.SubnetNotFoundReason, "TenantVPC %s has no subnet %s", spec.VPCName, port.Subnet)
		}
	}
	return yes
}

// observeConsent asks the API server itself for the MaasMachine behind the claim, and for the Machine that owns it and refers
// back to it. The machine wing, which writes attachments, can create neither.
func (r *Reconciler) observeConsent(ctx context.Context, attachment *infrav1.DPUAttachment) (vpc.Finding, error) {
	machine := &infrav1.MaasMachine{}
	key := client.ObjectKey{Namespace: attachment.Namespace, Name: attachment.Spec.MachineName}
	none := refused(infrav1.MachineNotConsentingReason, "no MaasMachine %s/%s, owned by a Machine that refers back to it, stands behind the claim", key.Namespace, key.Name)
	switch err := r.APIReader.Get(ctx, key, machine); {
	case apierrors.IsNotFound(err):
		return none, nil
	case err != nil:
		return vpc.Finding{}, fmt.Errorf("read MaasMachine %s: %w", key, err)
	}
	if machine.Spec.Claim == nil || machine.Spec.Claim.Token != attachment.Spec.Server.Token {
		return none, nil
	}
	owner := metav1.GetControllerOf(machine)
	if owner == nil || owner.Kind != "Machine" || !isGroup(owner.APIVersion, clusterv1.GroupVersion.Group) {
		return none, nil
	}
	capi := &clusterv1.Machine{}
	key.Name = owner.Name
	switch err := r.APIReader.Get(ctx, key, capi); {
	case apierrors.IsNotFound(err):
		return none, nil
	case err != nil:
		return vpc.Finding{}, fmt.Errorf("read Machine %s: %w", key, err)
	}
	ref := capi.Spec.InfrastructureRef
	if capi.UID != owner.UID || ref.Kind != "MaasMachine" || ref.APIGroup != infrav1.GroupVersion.Group || ref.Name != machine.Name {
		return none, nil
	}
	return yes, nil
}

func isGroup(apiVersion, group string) bool {
	return len(apiVersion) > len(group) && apiVersion[:len(group)] == group && apiVersion[len(group)] == '/'
}
