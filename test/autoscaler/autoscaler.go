// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package autoscaler

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/clock"
)

// Options are the autoscaler's flags that matter here; zero fields have its defaults.
type Options struct {
	// MaxNodeProvisionTime is how long a machine may take to become a Node; default 15 minutes, overridden per group.
	MaxNodeProvisionTime time.Duration
	// MaxNodeStartupTime is how long a Node may take to become Ready; default 15 minutes, overridden per group.
	MaxNodeStartupTime time.Duration
	// ScaleDownUnneededTime is how long a Node must have had no Pod, ScaleDownDelayAfterAdd how long there must have been no scale-up;
	// default 10 minutes each, the first overridden per group.
	ScaleDownUnneededTime, ScaleDownDelayAfterAdd time.Duration
	// KeepsTimedOutSize is what releases before 1.36 do: a scale-up that took too long is not taken back, only its machines that are
	// no Nodes are deleted one by one.
	//
	// unsure: which release took the change, that was merged in 2026, in.
	KeepsTimedOutSize bool
}

// Kind is what the autoscaler did.
type Kind string

// What the autoscaler does.
const (
	// ScaledUp is a group that got more machines.
	ScaledUp Kind = "ScaledUp"
	// TimedOut is a scale-up that took too long: the group is left alone until then.
	TimedOut Kind = "TimedOut"
	// TakenBack is the size of a scale-up that took too long.
	TakenBack Kind = "TakenBack"
	// DeletedUnregistered are machines that took too long to become Nodes.
	DeletedUnregistered Kind = "DeletedUnregistered"
	// SizeFixed is a size that did not become true for too long.
	SizeFixed Kind = "SizeFixed"
	// ScaledDown is a Node that nothing needed.
	ScaledDown Kind = "ScaledDown"
)

// Action is one thing done.
type Action struct {
	Kind  Kind
	Group string
	// Count is how many machines it concerns, Machines which, where they were chosen.
	Count    int
	Machines []string
	// Until is the end of a wait.
	Until time.Time
	// Err is why it did not work.
	Err error
}

// String says it in a line.
func (a Action) String() string {
	text := fmt.Sprintf("%s %s %d %v", a.Kind, a.Group, a.Count, a.Machines)
	if a.Err != nil {
		text += ": " + a.Err.Error()
	}
	return text
}

// Autoscaler decides, as the core of cluster-autoscaler does, on the clock it is given.
type Autoscaler struct {
	provider *Provider
	clock    clock.PassiveClock
	options  Options
	registry registry

	lastScaleUp time.Time
	unneeded    map[string]time.Time // since when, by Node
}

// New makes an autoscaler that has seen nothing yet.
func New(provider *Provider, clock clock.PassiveClock, options Options) *Autoscaler {
	for _, field := range []*time.Duration{&options.MaxNodeProvisionTime, &options.MaxNodeStartupTime} {
		if *field == 0 {
			*field = 15 * time.Minute
		}
	}
	for _, field := range []*time.Duration{&options.ScaleDownUnneededTime, &options.ScaleDownDelayAfterAdd} {
		if *field == 0 {
			*field = 10 * time.Minute
		}
	}
	return &Autoscaler{
		provider: provider, clock: clock, options: options, unneeded: map[string]time.Time{},
		registry: registry{
			requests: map[string]request{},
			backoff: backoff{
				initial: 5 * time.Minute, longest: 30 * time.Minute, forgottenAfter: 3 * time.Hour, groups: map[string]backedOff{},
			},
		},
	}
}

// RunOnce is one turn, of which there is one every ten seconds: it looks, gives up what took too long, and scales for the Pods there
// are, wherever they run.
func (a *Autoscaler) RunOnce(ctx context.Context, pods []Pod) ([]Action, error) {
	v, err := a.look(ctx)
	if err != nil {
		return nil, err
	}
	a.count(v)
	actions := a.settle(ctx, v)
	a.compare(v)
	actions = append(actions, a.deleteUnregistered(ctx, v)...)
	fixed, err := a.fixSizes(ctx, v)
	if actions = append(actions, fixed...); err != nil || len(fixed) > 0 {
		return actions, err
	}
	// unsure: a Pod runs where it was scheduled; here all are placed anew each time, those that fit on Nodes first.
	placed, err := a.place(ctx, v, pods)
	if err != nil {
		return actions, err
	}
	if len(placed.homeless) > 0 {
		return append(actions, a.scaleUp(ctx, v, placed.homeless)...), nil
	}
	return append(actions, a.scaleDown(ctx, v, placed.used)...), nil
}

// deleteUnregistered deletes machines that took too long to become Nodes, as many as the lower bound leaves.
func (a *Autoscaler) deleteUnregistered(ctx context.Context, v *view) []Action {
	var actions []Action
	for _, id := range v.order {
		group := v.groups[id]
		var old []string
		for _, instance := range v.missing[id] {
			if a.registry.unregistered[instance].Add(a.provisionTime(group)).Before(v.now) {
				old = append(old, instance)
			}
		}
		size, err := group.TargetSize()
		if len(old) == 0 || err != nil || size <= group.MinSize() {
			continue
		}
		old = old[:min(len(old), size-group.MinSize())]
		actions = append(actions, Action{Kind: DeletedUnregistered, Group: group.Name, Count: len(old), Machines: old, Err: group.DeleteNodes(ctx, old...)})
	}
	return actions
}

// fixSizes lowers sizes that did not become true for too long.
func (a *Autoscaler) fixSizes(ctx context.Context, v *view) ([]Action, error) {
	var actions []Action
	for _, id := range v.order {
		group, wrong := v.groups[id], a.registry.mismatches[id]
		delta := wrong.nodes - wrong.target
		if delta >= 0 || !wrong.since.Add(a.provisionTime(group)).Before(v.now) {
			continue
		}
		if err := group.DecreaseTargetSize(ctx, delta); err != nil {
			// The turn ends here, for all groups.
			return actions, fmt.Errorf("failed to decrease %s: %w", id, err)
		}
		actions = append(actions, Action{Kind: SizeFixed, Group: group.Name, Count: -delta})
	}
	return actions, nil
}

// scaleUp gives the Pods that fit nowhere to the group that wastes least.
func (a *Autoscaler) scaleUp(ctx context.Context, v *view, homeless []Pod) []Action {
	best := a.expand(ctx, v, homeless)
	if best == nil {
		return nil
	}
	action := Action{Kind: ScaledUp, Group: best.group.Name, Count: best.count, Err: best.group.IncreaseSize(ctx, best.count)}
	id := best.group.ID()
	if action.Err != nil {
		action.Until = a.registry.backoff.fail(id, v.now)
		return []Action{action}
	}
	asked := a.registry.requests[id]
	asked.increase += best.count
	asked.asked, asked.expectedBy = v.now, v.now.Add(a.provisionTime(best.group))
	a.registry.requests[id] = asked
	a.lastScaleUp = v.now
	return []Action{action}
}

// scaleDown removes Nodes on which nothing has run for long enough.
func (a *Autoscaler) scaleDown(ctx context.Context, v *view, used map[string]bool) []Action {
	unneeded := map[string]time.Time{}
	var actions []Action
	for _, node := range v.nodes {
		group := v.groups[v.groupOf[node.Name]]
		if group == nil || used[node.Name] || !isReady(node) {
			continue
		}
		since, found := a.unneeded[node.Name]
		if !found {
			since = v.now
		}
		unneeded[node.Name] = since
		enough := group.duration("scaledownunneededtime", a.options.ScaleDownUnneededTime)
		size, err := group.TargetSize()
		if err != nil || size <= group.MinSize() || v.now.Sub(since) < enough || v.now.Sub(a.lastScaleUp) < a.options.ScaleDownDelayAfterAdd {
			continue
		}
		actions = append(actions, Action{Kind: ScaledDown, Group: group.Name, Count: 1, Machines: []string{node.Name}, Err: a.Remove(ctx, node)})
	}
	a.unneeded = unneeded
	return actions
}

// toBeDeleted is the taint by which the autoscaler keeps Pods from a Node it is about to delete.
const toBeDeleted = "ToBeDeletedByClusterAutoscaler"

// Remove is what the autoscaler does to a Node it does not need: taint and cordon it, evict its Pods, of which there are none here, and
// have its machine deleted. The taint goes again if that is refused.
func (a *Autoscaler) Remove(ctx context.Context, node *corev1.Node) error {
	if err := a.taint(ctx, node.Name, true); err != nil {
		return err
	}
	group, err := a.provider.GroupOf(ctx, node.Spec.ProviderID)
	switch {
	case err != nil:
	case group == nil:
		err = fmt.Errorf("node %s has no group", node.Name)
	default:
		err = group.DeleteNodes(ctx, node.Spec.ProviderID)
	}
	if err != nil {
		return errors.Join(err, a.taint(ctx, node.Name, false))
	}
	return nil
}

func (a *Autoscaler) taint(ctx context.Context, name string, wanted bool) error {
	nodes := a.provider.workload.CoreV1().Nodes()
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		node, err := nodes.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		taints := make([]corev1.Taint, 0, len(node.Spec.Taints)+1)
		for _, taint := range node.Spec.Taints {
			if taint.Key != toBeDeleted {
				taints = append(taints, taint)
			}
		}
		if wanted {
			taints = append(taints, corev1.Taint{Key: toBeDeleted, Value: fmt.Sprint(a.clock.Now().Unix()), Effect: corev1.TaintEffectNoSchedule})
		}
		node.Spec.Taints, node.Spec.Unschedulable = taints, wanted
		_, err = nodes.Update(ctx, node, metav1.UpdateOptions{})
		return err
	})
}
