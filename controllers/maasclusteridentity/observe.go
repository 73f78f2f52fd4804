// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasclusteridentity

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
)

// Problem is why the account cannot be used, for conditions.
type Problem struct{ Reason, Message string }

// Observation is all that a decision may depend on.
type Observation struct {
	// Now is when the pass began.
	Now      time.Time
	Deleting bool
	// Machines and Clusters are how many need the identity.
	Machines, Clusters int
	// Unusable says why the account cannot be used; nil if it can.
	Unusable *Problem
	// Account is the MAAS user name; empty if MAAS did not say.
	Account string
	// Zones that may be used; nil if MAAS did not say.
	Zones []string
	// Unknown are zones the identity allows and MAAS does not have.
	Unknown []string

	// Audited says that MAAS listed the account's servers, Servers how many they are.
	Audited bool
	Servers int
	// Held are the servers that are held, Freed those that somebody gave back who is not their machine.
	Held  []infrav1.HeldServer
	Freed map[string]bool
	// Suspects are the servers under which deployments failed.
	Suspects []infrav1.SuspectServer
	// Orphans are the servers about which MAAS and the machines do not agree; nothing is known of them unless Audited.
	Orphans []infrav1.OrphanServer
	// Doubtful says that something disagrees that is not reported yet, Due when it will be looked at; zero: at the recheck.
	Doubtful bool
	Due      time.Time
	// Unanswered says that MAAS did not answer a question about single servers.
	Unanswered bool
}

func (r *Reconciler) observe(ctx context.Context, object *infrav1.MaasClusterIdentity) (Observation, error) {
	o := Observation{Now: r.Clock.Now(), Deleting: !object.DeletionTimestamp.IsZero()}
	// None of the objects is changed.
	machines := &infrav1.MaasMachineList{}
	if err := r.Client.List(ctx, machines, client.UnsafeDisableDeepCopy); err != nil {
		return o, fmt.Errorf("list MaasMachines: %w", err)
	}
	for i := range machines.Items {
		if claim := machines.Items[i].Spec.Claim; claim != nil && claim.IdentityName == object.Name {
			o.Machines++
		}
	}
	clusters := &infrav1.MaasClusterList{}
	if err := r.Client.List(ctx, clusters, client.UnsafeDisableDeepCopy); err != nil {
		return o, fmt.Errorf("list MaasClusters: %w", err)
	}
	for i := range clusters.Items {
		if clusters.Items[i].Spec.IdentityRef.Name == object.Name {
			o.Clusters++
		}
	}
	identities := &infrav1.MaasClusterIdentityList{}
	if err := r.Client.List(ctx, identities, client.UnsafeDisableDeepCopy); err != nil {
		return o, fmt.Errorf("list MaasClusterIdentities: %w", err)
	}
	identity, err := r.Scope.Get(ctx, object.Name)
	if err != nil {
		unusable, ok := scope.AsUnusable(err)
		if !ok {
			return o, err
		}
		o.Unusable = &Problem{unusable.Reason, unusable.Error()}
	} else {
		o.Account = identity.Account
		r.observeZones(ctx, object, identity, &o)
	}
	account := o.Account
	if account == "" {
		account = object.Status.Account
	}
	f := newFleet(machines.Items, object.Name, sharing(identities.Items, object, account))
	if o.Unusable == nil {
		r.audit(ctx, object, identity, f, &o)
	} else {
		o.Held, o.Freed = heldServers(object.Status.Held, f, &view{account: account}, metav1.NewTime(o.Now))
	}
	o.Suspects = suspectServers(object.Status.Suspects, f, o.Freed)
	return o, nil
}

// observeZones asks for the zones, which also shows that the account can still be used: after the recheck, when the credentials
// were renewed, and when people changed the object. Machines that come and go do not make MAAS be asked.
func (r *Reconciler) observeZones(ctx context.Context, object *infrav1.MaasClusterIdentity, identity *scope.Identity, o *Observation) {
	kept := r.account(object.Name)
	now := tried{at: o.Now, maas: identity.MAAS, generation: object.Generation, annotations: object.Annotations}
	if last := kept.tried; now.maas == last.maas && now.generation == last.generation && maps.Equal(now.annotations, last.annotations) &&
		now.at.Sub(last.at) < recheck {
		now = last
	} else {
		zones, err := identity.MAAS.Zones(ctx)
		if err != nil {
			unusable := scope.UnusableMAAS(object.Name, err)
			o.Unusable = &Problem{unusable.Reason, unusable.Error()}
			kept.tried = tried{}
			return
		}
		slices.Sort(zones)
		now.zones, now.annotations = zones, maps.Clone(object.Annotations)
	}
	kept.tried = now
	o.Zones = slices.Clone(now.zones)
	if allowed := object.Spec.AllowedZones; len(allowed) > 0 {
		o.Zones = slices.DeleteFunc(o.Zones, func(zone string) bool { return !slices.Contains(allowed, zone) })
		o.Unknown = slices.DeleteFunc(slices.Clone(allowed), func(zone string) bool { return slices.Contains(now.zones, zone) })
	}
}
