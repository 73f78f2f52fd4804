// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maascluster

import (
	"context"
	"fmt"
	"net/netip"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
)

// Problem is why something cannot be used, for conditions.
type Problem struct{ Reason, Message string }

// Observation is all that a decision may depend on.
type Observation struct {
	Deleting    bool
	Provisioned bool
	// Owned by a Cluster.
	Owned bool
	// Machines are how many MaasMachines the cluster still has.
	Machines int

	// Identity says why the identity cannot be used from here; nil if it can.
	Identity *Problem
	// IsolationRequired says that a TenantVPC must be named.
	IsolationRequired bool
	// Zones are the MAAS zones the identity and the cluster have in common.
	Zones []string

	// Endpoint host, of the MaasCluster or of its Cluster; empty if neither has one.
	Endpoint string
	// EndpointAsserted says that somebody vouches for the way to the endpoint.
	EndpointAsserted bool

	VPCName string
	// VPC says why the TenantVPC cannot be used; nil if it can, or none is named.
	VPC *Problem
	// Pools are the networks of the fabric that tenants take subnets from.
	Pools []netip.Prefix
	// Subnets are the networks of the TenantVPC, and Routed says whether one of them has a way out.
	Subnets []netip.Prefix
	Routed  bool
}

func (r *Reconciler) observe(ctx context.Context, object *infrav1.MaasCluster, cluster *clusterv1.Cluster) (Observation, error) {
	o := Observation{
		Deleting:         !object.DeletionTimestamp.IsZero(),
		Provisioned:      ptr.Deref(object.Status.Initialization.Provisioned, false),
		Owned:            cluster != nil,
		Endpoint:         object.Spec.ControlPlaneEndpoint.Host,
		EndpointAsserted: object.Spec.EndpointReachability == infrav1.EndpointReachabilityAsserted,
		VPCName:          object.Spec.VPCName,
	}
	if o.Deleting {
		machines, err := r.machines(ctx, object, cluster)
		o.Machines = machines
		return o, err
	}
	if cluster != nil && o.Endpoint == "" {
		o.Endpoint = cluster.Spec.ControlPlaneEndpoint.Host
	}
	identity := &infrav1.MaasClusterIdentity{}
	err := r.Client.Get(ctx, client.ObjectKey{Name: object.Spec.IdentityRef.Name}, identity)
	switch {
	case apierrors.IsNotFound(err):
		o.Identity = &Problem{infrav1.IdentityNotFoundReason, fmt.Sprintf("MaasClusterIdentity %s does not exist: create it or name another in a new cluster", object.Spec.IdentityRef.Name)}
		return o, nil
	case err != nil:
		return o, fmt.Errorf("read MaasClusterIdentity %s: %w", object.Spec.IdentityRef.Name, err)
	}
	o.IsolationRequired = identity.Spec.Isolation != infrav1.IsolationOptional
	o.Zones = commonZones(identity.Status.Zones, object.Spec.FailureDomains)
	if o.Identity, err = r.identityProblem(ctx, object, identity); err != nil {
		return o, err
	}
	if o.VPCName != "" {
		r.observeVPC(ctx, object, identity, &o)
	}
	return o, nil
}

// machines counts the MaasMachines of the cluster, also where the Cluster is gone already.
func (r *Reconciler) machines(ctx context.Context, object *infrav1.MaasCluster, cluster *clusterv1.Cluster) (int, error) {
	name := object.Labels[clusterv1.ClusterNameLabel]
	if cluster != nil {
		name = cluster.Name
	}
	if name == "" {
		return 0, nil
	}
	list := &infrav1.MaasMachineList{}
	if err := r.Client.List(ctx, list, client.InNamespace(object.Namespace), client.MatchingLabels{clusterv1.ClusterNameLabel: name}); err != nil {
		return 0, fmt.Errorf("list the MaasMachines of Cluster %s: %w", name, err)
	}
	return len(list.Items), nil
}

func (r *Reconciler) identityProblem(ctx context.Context, object *infrav1.MaasCluster, identity *infrav1.MaasClusterIdentity) (*Problem, error) {
	allowed, err := scope.NamespaceAllowed(ctx, r.Client, identity.Spec.AllowedNamespaces, object.Namespace)
	if err != nil {
		return nil, fmt.Errorf("tell whether MaasClusterIdentity %s admits the namespace: %w", identity.Name, err)
	}
	if !allowed {
		return &Problem{infrav1.NamespaceNotAllowedReason, fmt.Sprintf("MaasClusterIdentity %s does not admit this namespace: ask the operator to list it in allowedNamespaces", identity.Name)}, nil
	}
	if ready := conditions.Get(identity, infrav1.ReadyCondition); ready == nil || ready.Status != "True" {
		message := fmt.Sprintf("MaasClusterIdentity %s is not Ready", identity.Name)
		if ready != nil && ready.Message != "" {
			message += ": " + ready.Message
		}
		return &Problem{infrav1.IdentityNotReadyReason, message}, nil
	}
	return nil, nil
}

func (r *Reconciler) observeVPC(ctx context.Context, object *infrav1.MaasCluster, identity *infrav1.MaasClusterIdentity, o *Observation) {
	access, err := r.Scope.FabricAccess(ctx, identity)
	if err != nil {
		o.VPC = &Problem{infrav1.FabricUnreachableReason, "the cluster of the fabric's objects cannot be reached"}
		if unusable, ok := scope.AsUnusable(err); ok {
			o.VPC = &Problem{unusable.Reason, unusable.Error()}
		}
		return
	}
	vpc := &infrav1.TenantVPC{}
	key := client.ObjectKey{Namespace: access.Namespace(object.Namespace), Name: o.VPCName}
	if err := access.Client.Get(ctx, key, vpc); err != nil {
		o.VPC = &Problem{infrav1.FabricUnreachableReason, fmt.Sprintf("TenantVPC %s cannot be read (%s)", key, apierrors.ReasonForError(err))}
		if apierrors.IsNotFound(err) {
			o.VPC = &Problem{infrav1.VPCNotFoundReason, fmt.Sprintf("TenantVPC %s does not exist: create it", key)}
		}
		return
	}
	for _, pool := range vpc.Status.TenantPools {
		if prefix, err := netip.ParsePrefix(pool); err == nil {
			o.Pools = append(o.Pools, prefix)
		}
	}
	for _, subnet := range vpc.Spec.Subnets {
		o.addSubnet(subnet.CIDR, subnet.ExternallyRouted)
	}
	for _, subnet := range vpc.Status.Subnets {
		o.addSubnet(subnet.CIDR, subnet.ExternallyRouted)
	}
	if ready := conditions.Get(vpc, infrav1.ReadyCondition); ready == nil || ready.Status != "True" || !vpc.DeletionTimestamp.IsZero() {
		message := fmt.Sprintf("TenantVPC %s is not Ready", key)
		if ready != nil && ready.Message != "" {
			message += ": " + ready.Message
		}
		o.VPC = &Problem{infrav1.VPCNotReadyReason, message}
	}
}

func (o *Observation) addSubnet(cidr string, routed *bool) {
	if prefix, err := netip.ParsePrefix(cidr); err == nil {
		o.Subnets = append(o.Subnets, prefix)
		o.Routed = o.Routed || ptr.Deref(routed, false)
	}
}
