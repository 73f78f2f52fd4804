// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package autoscaler

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Pod is what has to run somewhere.
type Pod struct {
	Name        string
	CPU, Memory resource.Quantity
}

// bin is a Node, as far as it is not used up.
type bin struct {
	node              string // empty for one that is imagined
	cpu, memory, pods int64
	allCPU, allMemory int64
	taken             bool
}

func newBin(node *corev1.Node) *bin {
	capacity := node.Status.Allocatable
	b := &bin{node: node.Name, cpu: capacity.Cpu().MilliValue(), memory: capacity.Memory().Value(), pods: capacity.Pods().Value()}
	b.allCPU, b.allMemory = b.cpu, b.memory
	return b
}

func (b *bin) take(pod Pod) bool {
	if b.cpu < pod.CPU.MilliValue() || b.memory < pod.Memory.Value() || b.pods < 1 {
		return false
	}
	b.cpu, b.memory, b.pods, b.taken = b.cpu-pod.CPU.MilliValue(), b.memory-pod.Memory.Value(), b.pods-1, true
	return true
}

// placement is where Pods go.
type placement struct {
	homeless []Pod
	used     map[string]bool // Nodes with a Pod
}

// place puts the Pods on the groups' Nodes, and then on machines that are counted on: those of groups with a scale-up under way.
func (a *Autoscaler) place(ctx context.Context, v *view, pods []Pod) (placement, error) {
	var bins []*bin
	for _, node := range v.nodes {
		if id, found := v.groupOf[node.Name]; found && isReady(node) && !node.Spec.Unschedulable {
			b := newBin(node)
			if b.cpu == 0 {
				imagined, err := v.groups[id].TemplateNode(ctx)
				if err != nil {
					return placement{}, err
				}
				b = newBin(imagined)
				b.node = node.Name
			}
			bins = append(bins, b)
		}
	}
	for _, id := range v.order {
		target, err := v.groups[id].TargetSize()
		_, asked := a.registry.requests[id]
		if err != nil || !asked || a.registry.backoff.waits(id, v.now) {
			continue
		}
		for range a.registry.counts[id].upcoming(target) {
			node, err := v.groups[id].TemplateNode(ctx)
			if err != nil {
				return placement{}, err
			}
			bins = append(bins, newBin(node))
		}
	}
	placed := placement{used: map[string]bool{}}
	for _, pod := range pods {
		if b := fit(bins, pod); b == nil {
			placed.homeless = append(placed.homeless, pod)
		} else if b.node != "" {
			placed.used[b.node] = true
		}
	}
	return placed, nil
}

func fit(bins []*bin, pod Pod) *bin {
	for _, b := range bins {
		if b.take(pod) {
			return b
		}
	}
	return nil
}

// option is a way to scale up.
type option struct {
	group *Group
	count int
	helps int
	waste float64
}

// expand chooses among the groups that may grow and help: the one of which least would lie idle, the expander least-waste.
//
// unsure: which expander a release has by default (random until 2025, least-waste now); ties are broken by chance there, by name here.
func (a *Autoscaler) expand(ctx context.Context, v *view, pods []Pod) *option {
	var best *option
	for _, id := range v.order {
		group := v.groups[id]
		size, err := group.TargetSize()
		if err != nil || size >= group.MaxSize() || a.registry.backoff.waits(id, v.now) {
			continue
		}
		node, err := group.TemplateNode(ctx)
		if err != nil {
			continue
		}
		if o := estimate(group, node, pods, group.MaxSize()-size); o.helps > 0 && (best == nil || o.waste < best.waste) {
			best = &o
		}
	}
	return best
}

// estimate packs the Pods on as many imagined Nodes as it takes and is allowed.
func estimate(group *Group, node *corev1.Node, pods []Pod, most int) option {
	o := option{group: group}
	var bins []*bin
	for _, pod := range pods {
		b := fit(bins, pod)
		if fresh := newBin(node); b == nil && len(bins) < most && fresh.take(pod) {
			bins = append(bins, fresh)
			b = fresh
		}
		if b != nil {
			o.helps++
		}
	}
	o.count = len(bins)
	var freeCPU, freeMemory, allCPU, allMemory float64
	for _, b := range bins {
		freeCPU, freeMemory = freeCPU+float64(b.cpu), freeMemory+float64(b.memory)
		allCPU, allMemory = allCPU+float64(b.allCPU), allMemory+float64(b.allMemory)
	}
	if allCPU > 0 && allMemory > 0 {
		o.waste = freeCPU/allCPU + freeMemory/allMemory
	}
	return o
}
