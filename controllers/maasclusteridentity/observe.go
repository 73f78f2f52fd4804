// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasclusteridentity

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// Problem is why the account cannot be used, for conditions.
type Problem struct{ Reason, Message string }

// Observation is all that a decision may depend on.
type Observation struct {
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
	// Held are the servers that are held.
	Held []infrav1.HeldServer
}

func (r *Reconciler) observe(ctx context.Context, object *infrav1.MaasClusterIdentity) (Observation, error) {
	o := Observation{Deleting: !object.DeletionTimestamp.IsZero()}
	machines := &infrav1.MaasMachineList{}
	if err := r.Client.List(ctx, machines); err != nil {
		return o, fmt.Errorf("list MaasMachines: %w", err)
	}
	ours := slices.DeleteFunc(machines.Items, func(m infrav1.MaasMachine) bool {
		return m.Spec.Claim == nil || m.Spec.Claim.IdentityName != object.Name
	})
	o.Machines = len(ours)
	clusters := &infrav1.MaasClusterList{}
	if err := r.Client.List(ctx, clusters); err != nil {
		return o, fmt.Errorf("list MaasClusters: %w", err)
	}
	for i := range clusters.Items {
		if clusters.Items[i].Spec.IdentityRef.Name == object.Name {
			o.Clusters++
		}
	}
	identity, err := r.Scope.Get(ctx, object.Name)
	if err != nil {
		unusable, ok := scope.AsUnusable(err)
		if !ok {
			return o, err
		}
		o.Unusable = &Problem{unusable.Reason, unusable.Error()}
		o.Held = heldServers(object.Status.Held, ours, nil, r.now())
		return o, nil
	}
	o.Account = identity.Account
	r.observeMAAS(ctx, object, identity, ours, &o)
	return o, nil
}

func (r *Reconciler) now() metav1.Time { return metav1.NewTime(r.Clock.Now()) }

func (r *Reconciler) observeMAAS(ctx context.Context, object *infrav1.MaasClusterIdentity, identity *scope.Identity, ours []infrav1.MaasMachine, o *Observation) {
	zones, err := identity.MAAS.Zones(ctx)
	if err != nil {
		unusable := scope.UnusableMAAS(object.Name, err)
		o.Unusable = &Problem{unusable.Reason, unusable.Error()}
		o.Held = heldServers(object.Status.Held, ours, nil, r.now())
		return
	}
	slices.Sort(zones)
	o.Zones = zones
	if allowed := object.Spec.AllowedZones; len(allowed) > 0 {
		o.Zones = slices.DeleteFunc(slices.Clone(zones), func(zone string) bool { return !slices.Contains(allowed, zone) })
		o.Unknown = slices.DeleteFunc(slices.Clone(allowed), func(zone string) bool { return slices.Contains(zones, zone) })
	}
	maxAge := r.AuditInterval
	if _, fresh := r.left.LoadAndDelete(object.Name); fresh {
		maxAge = 0
	}
	owned, err := identity.Readings.Owned(ctx, identity.Account, maxAge)
	if err != nil {
		// The account works; which servers are held is as it was.
		if maxAge == 0 {
			r.left.Store(object.Name, true)
		}
		owned = nil
	}
	o.Held = heldServers(object.Status.Held, ours, owned, r.now())
}

func held(machine *infrav1.MaasMachine) bool {
	return conditions.GetReason(machine, infrav1.ReleasedCondition) == infrav1.HeldReason
}

// heldServers are those of machines that say so, and those that MAAS' annotations say so of, whose machine may be gone. Without
// an answer of MAAS, those known stay.
func heldServers(known []infrav1.HeldServer, machines []infrav1.MaasMachine, owned map[string]maas.Machine, now metav1.Time) []infrav1.HeldServer {
	found := map[string]infrav1.HeldServer{}
	if owned == nil {
		for _, server := range known {
			found[server.SystemID] = server
		}
	}
	for id := range owned {
		m := owned[id]
		if reason := m.Annotations[maas.AnnotationHold]; reason != "" && m.Annotations[maas.AnnotationToken] != "" && !m.Status.ReleaseUnderWay() {
			found[id] = infrav1.HeldServer{SystemID: id, Reason: reason, Machine: m.Annotations[maas.AnnotationNamespace] + "/" + m.Annotations[maas.AnnotationName]}
		}
	}
	for i := range machines {
		machine := &machines[i]
		if id := machine.Status.SystemID; id != "" {
			delete(found, id) // The machine knows better than a list that may be old.
			if held(machine) {
				found[id] = infrav1.HeldServer{SystemID: id, Reason: infrav1.HeldReason, Machine: client.ObjectKeyFromObject(machine).String()}
			}
		}
	}
	since := map[string]metav1.Time{}
	for _, server := range known {
		since[server.SystemID] = server.Since
	}
	list := make([]infrav1.HeldServer, 0, len(found))
	for id, server := range found {
		server.Since = now
		if before, ok := since[id]; ok {
			server.Since = before
		}
		list = append(list, server)
	}
	slices.SortFunc(list, func(a, b infrav1.HeldServer) int { return cmp.Compare(a.SystemID, b.SystemID) })
	return list
}
