// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// observePlacement looks for what stands in the way of a new claim, so that no server is taken that could not be used.
func (p *pass) observePlacement(ctx context.Context, o *Observation) {
	if !o.Owned || !o.ClusterReady || !o.BootstrapData {
		return // Something comes first.
	}
	if p.maasCluster == nil {
		o.Placement = &Problem{Reason: infrav1.MaasClusterNotFoundReason, Message: "the Cluster's MaasCluster does not exist"}
		return
	}
	if problem := p.bootstrapProblem(ctx); problem != nil {
		o.Placement = problem
		return
	}
	if problem := p.zoneProblem(); problem != nil {
		o.Placement = problem
		return
	}
	if o.Ports {
		o.Placement = p.vpcProblem(ctx)
	}
}

// bootstrapProblem says why there is no bootstrap data. Those who wait for a server come often, and the Secret does not change.
func (p *pass) bootstrapProblem(ctx context.Context) *Problem {
	name, now := ptr.Deref(p.owner.Spec.Bootstrap.DataSecretName, ""), p.r.Clock.Now()
	if known := p.r.memory.of(p.machine.UID); known.bootstrap == name && pending(known.bootstrapUntil, now) {
		return nil
	}
	_, problem := p.bootstrapData(ctx)
	if problem == nil {
		p.r.memory.update(p.machine.UID, func(m *memo) { m.bootstrap, m.bootstrapUntil = name, now.Add(longWaits*p.r.PollInterval) })
	}
	return problem
}

// bootstrapData reads the bootstrap Secret past any cache: the wing may not list Secrets.
func (p *pass) bootstrapData(ctx context.Context) ([]byte, *Problem) {
	if p.owner == nil || p.owner.Spec.Bootstrap.DataSecretName == nil {
		return nil, &Problem{Reason: infrav1.WaitingForBootstrapDataReason, Message: "the bootstrap provider has not written its data yet"}
	}
	name, namespace := *p.owner.Spec.Bootstrap.DataSecretName, p.machine.Namespace
	secret := &corev1.Secret{}
	err := p.r.APIReader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, secret)
	switch {
	case apierrors.IsForbidden(err):
		return nil, &Problem{Reason: infrav1.BootstrapSecretForbiddenReason, Message: fmt.Sprintf(
			"the machine wing may not read bootstrap Secrets here: kubectl create rolebinding %[1]s --namespace=%[2]s --clusterrole=%[1]s --serviceaccount=%[3]s",
			p.r.BootstrapRole, namespace, p.r.ServiceAccount)}
	case apierrors.IsNotFound(err):
		return nil, &Problem{Reason: infrav1.WaitingForBootstrapDataReason, Message: fmt.Sprintf("bootstrap Secret %s does not exist yet", name)}
	case err != nil:
		return nil, &Problem{Reason: infrav1.WaitingForBootstrapDataReason, Message: fmt.Sprintf("bootstrap Secret %s cannot be read (%s)", name, apierrors.ReasonForError(err))}
	case len(secret.Data["value"]) == 0:
		return nil, &Problem{Reason: infrav1.WaitingForBootstrapDataReason, Message: fmt.Sprintf("bootstrap Secret %s has no key value yet", name)}
	}
	return secret.Data["value"], nil
}

// zoneProblem refuses zones and pools that can never match before MAAS is asked.
func (p *pass) zoneProblem() *Problem {
	if why := p.placement().NeverMatches(); why != "" {
		return &Problem{Reason: infrav1.ConstraintsNeverMatchReason, Message: why}
	}
	return nil
}

// vpcProblem refuses ports that the TenantVPC cannot take.
func (p *pass) vpcProblem(ctx context.Context) *Problem {
	name := p.maasCluster.Spec.VPCName
	if name == "" {
		return &Problem{Reason: infrav1.VPCNotFoundReason, Message: "the machine has ports and the MaasCluster no vpcName: name a TenantVPC in a new cluster"}
	}
	if problem := p.connectFabric(ctx); problem != nil {
		return problem
	}
	vpc := &infrav1.TenantVPC{}
	key := client.ObjectKey{Namespace: p.fabric.Namespace(p.machine.Namespace), Name: name}
	if err := p.fabric.Client.Get(ctx, key, vpc); err != nil {
		if apierrors.IsNotFound(err) {
			return &Problem{Reason: infrav1.VPCNotFoundReason, Message: fmt.Sprintf("TenantVPC %s does not exist: create it", key)}
		}
		return fabricProblem(err)
	}
	if !vpc.DeletionTimestamp.IsZero() || !conditions.IsTrue(vpc, infrav1.ReadyCondition) {
		return &Problem{Reason: infrav1.VPCNotReadyReason, Message: fmt.Sprintf("TenantVPC %s is not Ready: see its conditions", key)}
	}
	routed := false
	for _, port := range p.machine.Spec.Ports {
		i := slices.IndexFunc(vpc.Status.Subnets, func(s infrav1.VPCSubnetStatus) bool { return s.Name == port.Subnet })
		if i < 0 {
			return &Problem{Reason: infrav1.SubnetNotFoundReason, Message: fmt.Sprintf("TenantVPC %s has no subnet %s, which port %s asks for: add it", key, port.Subnet, port.Name)}
		}
		routed = routed || ptr.Deref(vpc.Status.Subnets[i].ExternallyRouted, false)
	}
	// Nobody dials into a VPC, so that the endpoint lies outside; control plane machines answer it on their own.
	if !routed && p.maasCluster.Spec.EndpointReachability != infrav1.EndpointReachabilityAsserted && !util.IsControlPlaneMachine(p.owner) {
		return &Problem{Reason: infrav1.SubnetNotExternallyRoutedReason, Message: fmt.Sprintf(
			"no subnet of the machine is externallyRouted in TenantVPC %s, so that it could not reach the control plane endpoint: use one that is, or set endpointReachability in the MaasCluster", key)}
	}
	return p.roomProblem(ctx, vpc)
}
