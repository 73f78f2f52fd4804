// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package autoscaler

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// request is a scale-up that has not ended yet.
type request struct {
	increase          int
	asked, expectedBy time.Time
}

// mismatch is a group with more or fewer Nodes than its size says, for whatever reason.
type mismatch struct {
	nodes, target int
	since         time.Time
}

// readiness counts a group's machines.
type readiness struct {
	// registered are all Nodes, of which ready and unready are up; the others are starting.
	registered, ready, unready int
	// unregistered are machines without a Node; longUnregistered are those that took too long.
	unregistered, longUnregistered int
}

// upcoming are machines that are counted on.
func (r readiness) upcoming(target int) int { return target - r.ready - r.unready - r.longUnregistered }

// registry is what the autoscaler remembers from one turn to the next.
type registry struct {
	requests     map[string]request
	unregistered map[string]time.Time // since when, by Instance ID
	mismatches   map[string]mismatch
	counts       map[string]readiness
	backoff      backoff
}

// view is what one turn sees.
type view struct {
	now    time.Time
	groups map[string]*Group
	order  []string
	nodes  []*corev1.Node
	// groupOf is the group of each Node that has one, by the Node's name.
	groupOf map[string]string
	// missing are the Instances that should be Nodes and are not, by group.
	missing map[string][]string
}

func (a *Autoscaler) look(ctx context.Context) (*view, error) {
	groups, err := a.provider.Groups(ctx)
	if err != nil {
		return nil, err
	}
	v := &view{
		now: a.clock.Now(), groups: map[string]*Group{}, nodes: a.provider.Nodes(),
		groupOf: map[string]string{}, missing: map[string][]string{},
	}
	known := map[string]bool{}
	for _, node := range v.nodes {
		known[node.Spec.ProviderID] = true
		group, err := a.provider.GroupOf(ctx, node.Spec.ProviderID)
		if err != nil {
			return nil, err
		}
		if group != nil {
			v.groupOf[node.Name] = group.ID()
		}
	}
	for _, group := range groups {
		v.groups[group.ID()] = group
		v.order = append(v.order, group.ID())
		instances, err := group.Instances()
		if err != nil {
			return nil, err
		}
		for _, instance := range instances {
			// The whole provider ID must be the Node's, byte for byte.
			if !known[instance.ID] && instance.State != Deleting {
				v.missing[group.ID()] = append(v.missing[group.ID()], instance.ID)
			}
		}
	}
	return v, nil
}

// count updates what is remembered of Nodes and of machines that are none.
func (a *Autoscaler) count(v *view) {
	unregistered, counts := map[string]time.Time{}, map[string]readiness{}
	for _, node := range v.nodes {
		id, found := v.groupOf[node.Name]
		if !found {
			continue
		}
		c := counts[id]
		c.registered++
		switch started := node.CreationTimestamp.Add(v.groups[id].duration("maxnodestartuptime", a.options.MaxNodeStartupTime)); {
		case isReady(node):
			c.ready++
		case !started.After(v.now):
			c.unready++
		}
		counts[id] = c
	}
	for id, instances := range v.missing {
		c := counts[id]
		for _, instance := range instances {
			since, found := a.registry.unregistered[instance]
			if !found {
				since = v.now
			}
			unregistered[instance] = since
			if since.Add(a.provisionTime(v.groups[id])).Before(v.now) {
				c.longUnregistered++
			} else {
				c.unregistered++
			}
		}
		counts[id] = c
	}
	a.registry.unregistered, a.registry.counts = unregistered, counts
}

// settle ends the scale-ups that are done or took too long.
func (a *Autoscaler) settle(ctx context.Context, v *view) []Action {
	var actions []Action
	a.registry.backoff.forget(v.now)
	for id, request := range a.registry.requests {
		group := v.groups[id]
		if group == nil {
			delete(a.registry.requests, id)
			continue
		}
		target, err := group.TargetSize()
		if err == nil && a.registry.counts[id].upcoming(target) <= 0 {
			delete(a.registry.requests, id)
			continue
		}
		if !request.expectedBy.Before(v.now) {
			continue
		}
		until := a.registry.backoff.fail(id, v.now)
		actions = append(actions, Action{Kind: TimedOut, Group: group.Name, Count: request.increase, Until: until})
		if !a.options.KeepsTimedOutSize {
			actions = append(actions, Action{Kind: TakenBack, Group: group.Name, Count: request.increase, Err: group.DecreaseTargetSize(ctx, -request.increase)})
		}
		delete(a.registry.requests, id)
	}
	return actions
}

// compare notes the groups whose Nodes are not as many as they should be.
func (a *Autoscaler) compare(v *view) {
	mismatches := map[string]mismatch{}
	for id, group := range v.groups {
		count, found := a.registry.counts[id]
		target, err := group.TargetSize()
		if !found || err != nil {
			continue
		}
		if count.registered <= target && count.registered >= target-count.unregistered-count.longUnregistered {
			continue
		}
		now := mismatch{nodes: count.registered, target: target, since: v.now}
		if known, found := a.registry.mismatches[id]; found && known.nodes == now.nodes && known.target == now.target {
			now.since = known.since
		}
		mismatches[id] = now
	}
	a.registry.mismatches = mismatches
}

func (a *Autoscaler) provisionTime(group *Group) time.Duration {
	return group.duration("maxnodeprovisiontime", a.options.MaxNodeProvisionTime)
}

func isReady(node *corev1.Node) bool {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}
