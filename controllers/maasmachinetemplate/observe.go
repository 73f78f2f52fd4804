// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachinetemplate

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// Problem is why something cannot be used, for conditions.
type Problem struct{ Reason, Message string }

// Observation is all that a decision may depend on.
type Observation struct {
	// Owned by a Cluster.
	Owned bool
	// Obstacle says why no machine could be made from the template; nil if nothing is known to stand in the way.
	Obstacle *Problem
	// Doubt says what could not be read; nil if all was.
	Doubt *Problem

	Spec        *infrav1.MachineConstraints
	Constraints maas.Constraints
	// Servers are those the account has or could be given.
	Servers []maas.Machine
	// Held are the system IDs of servers that are kept from being given out.
	Held map[string]bool
	// DPUServers are the fabric's servers by system ID; nil if this wing may not read them.
	DPUServers map[string]*infrav1.DPUServer
	// Names are those MAAS accepts; nil if each name in the constraints was seen on a server.
	Names *scope.Names
}

func (r *Reconciler) observe(ctx context.Context, template *infrav1.MaasMachineTemplate, cluster *clusterv1.Cluster) (Observation, error) {
	o := Observation{Owned: cluster != nil, Spec: &template.Spec.Template.Spec.MachineConstraints}
	if cluster == nil {
		return o, nil
	}
	maasCluster, identity, err := r.owners(ctx, cluster, &o)
	if err != nil || o.Obstacle != nil {
		return o, err
	}
	if o.Obstacle, err = r.obstacle(ctx, o.Spec, maasCluster, identity); err != nil || o.Obstacle != nil {
		return o, err
	}
	o.Constraints = scope.Placement{Spec: o.Spec, Cluster: maasCluster, Identity: identity}.Constraints()
	o.Held = make(map[string]bool, len(identity.Status.Held))
	for _, server := range identity.Status.Held {
		o.Held[server.SystemID] = true
	}
	if err := r.observeServers(ctx, identity, r.maxAge(template), &o); err != nil || o.Obstacle != nil || o.Doubt != nil {
		return o, err
	}
	r.observeFabric(ctx, identity, &o)
	return o, nil
}

// maxAge is how old the list of servers may be: a little less than until the template comes back.
func (r *Reconciler) maxAge(template *infrav1.MaasMachineTemplate) time.Duration {
	interval := r.AuditInterval
	if conditions.GetReason(template, infrav1.ReadyCondition) == infrav1.NoServerMatchesReason {
		interval = r.soon()
	}
	return interval * 9 / 10
}

// owners reads the MaasCluster and the identity.
func (r *Reconciler) owners(ctx context.Context, cluster *clusterv1.Cluster, o *Observation) (*infrav1.MaasCluster, *infrav1.MaasClusterIdentity, error) {
	maasCluster, identity := &infrav1.MaasCluster{}, &infrav1.MaasClusterIdentity{}
	ref := cluster.Spec.InfrastructureRef
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: cluster.Namespace, Name: ref.Name}, maasCluster)
	switch {
	case !ref.IsDefined() || ref.Kind != "MaasCluster" || apierrors.IsNotFound(err):
		o.Obstacle = &Problem{infrav1.MaasClusterNotFoundReason, "the Cluster's MaasCluster does not exist"}
		return nil, nil, nil
	case err != nil:
		return nil, nil, fmt.Errorf("read MaasCluster %s: %w", ref.Name, err)
	}
	name := maasCluster.Spec.IdentityRef.Name
	err = r.Client.Get(ctx, client.ObjectKey{Name: name}, identity)
	switch {
	case apierrors.IsNotFound(err):
		o.Obstacle = &Problem{infrav1.IdentityNotFoundReason, fmt.Sprintf("MaasClusterIdentity %s does not exist: create it or name another in a new cluster", name)}
	case err != nil:
		return nil, nil, fmt.Errorf("read MaasClusterIdentity %s: %w", name, err)
	}
	return maasCluster, identity, nil
}

// obstacle says what keeps every machine of the template from a server, whatever servers there are.
func (r *Reconciler) obstacle(
	ctx context.Context, spec *infrav1.MachineConstraints, cluster *infrav1.MaasCluster, identity *infrav1.MaasClusterIdentity,
) (*Problem, error) {
	allowed, err := scope.NamespaceAllowed(ctx, r.Client, identity.Spec.AllowedNamespaces, cluster.Namespace)
	if err != nil {
		return nil, fmt.Errorf("tell whether MaasClusterIdentity %s admits the namespace: %w", identity.Name, err)
	}
	if !allowed {
		return &Problem{infrav1.NamespaceNotAllowedReason, fmt.Sprintf(
			"MaasClusterIdentity %s does not admit this namespace: ask the operator to list it in allowedNamespaces", identity.Name)}, nil
	}
	if len(spec.Ports) == 0 && identity.Spec.Isolation != infrav1.IsolationOptional {
		return &Problem{infrav1.IsolationRequiredReason, "the identity requires isolation: name ports in a new template"}, nil
	}
	if why := (scope.Placement{Spec: spec, Cluster: cluster, Identity: identity}).NeverMatches(); why != "" {
		return &Problem{infrav1.ConstraintsNeverMatchReason, why}, nil
	}
	return nil, nil
}

// observeServers lists the servers the account has or could be given, and where needed the names MAAS knows.
func (r *Reconciler) observeServers(ctx context.Context, object *infrav1.MaasClusterIdentity, maxAge time.Duration, o *Observation) error {
	identity, err := r.Scope.Get(ctx, object.Name)
	if err != nil {
		unusable, ok := scope.AsUnusable(err)
		if !ok {
			return fmt.Errorf("use MaasClusterIdentity %s: %w", object.Name, err)
		}
		o.Doubt = &Problem{unusable.Reason, unusable.Error()}
		return nil
	}
	if o.Servers, err = identity.Stock.Servers(ctx, object.Spec.AllowedZones, object.Spec.AllowedPools, maxAge); err != nil {
		o.unanswered(object.Name, err)
		return nil
	}
	if !namesSeen(&o.Constraints, o.Servers) {
		names, err := identity.Stock.Names(ctx, maxAge)
		if err != nil {
			o.unanswered(object.Name, err)
			return nil
		}
		o.Names = &names
	}
	return nil
}

// unanswered notes that MAAS did not answer, or refused to.
func (o *Observation) unanswered(identity string, err error) {
	var invalid *maas.InvalidRequestError
	if errors.As(err, &invalid) {
		o.Obstacle = &Problem{infrav1.ConstraintsNeverMatchReason, fmt.Sprintf(
			"MAAS does not know a zone or pool that MaasClusterIdentity %s allows: ask the operator to correct allowedZones or allowedPools", identity)}
		return
	}
	unusable := scope.UnusableMAAS(identity, err)
	o.Doubt = &Problem{unusable.Reason, unusable.Error()}
}

// observeFabric reads which servers have which DPUs. Where the template has no ports it does without.
func (r *Reconciler) observeFabric(ctx context.Context, identity *infrav1.MaasClusterIdentity, o *Observation) {
	access, err := r.Scope.FabricAccess(ctx, identity)
	var servers []infrav1.DPUServer
	if err == nil {
		servers, err = access.Servers(ctx, identity.Spec.Source)
	}
	if err != nil {
		if len(o.Spec.Ports) == 0 {
			return
		}
		o.Doubt = &Problem{infrav1.FabricUnreachableReason, fmt.Sprintf("the fabric's DPUServers cannot be read (%s)", apierrors.ReasonForError(err))}
		if unusable, ok := scope.AsUnusable(err); ok {
			o.Doubt = &Problem{unusable.Reason, unusable.Error()}
		}
		return
	}
	if servers == nil {
		return
	}
	o.DPUServers = make(map[string]*infrav1.DPUServer, len(servers))
	for i := range servers {
		o.DPUServers[servers[i].Spec.SystemID] = &servers[i]
	}
}
