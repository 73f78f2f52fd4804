// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package autoscaler

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
)

// Groups are the node groups there are now, by ID: MachineDeployments, and MachineSets that belong to none, whose annotations bound
// them. One at zero whose capacity nobody knows is none, nor is one that is paused. One malformed bound hides all groups.
func (p *Provider) Groups(ctx context.Context) ([]*Group, error) {
	var groups []*Group
	for _, resource := range []string{"machinesets", "machinedeployments"} {
		objects, err := p.caches[resource].Lister().ByNamespace(p.discovery.Namespace).List(labels.Everything())
		if err != nil {
			return nil, err
		}
		for _, object := range objects {
			group, err := p.groupOf(ctx, resource, object)
			if err != nil {
				return nil, err
			}
			if group != nil && !group.paused {
				groups = append(groups, group)
			}
		}
	}
	slices.SortFunc(groups, func(a, b *Group) int { return cmp.Compare(a.ID(), b.ID()) })
	return groups, nil
}

// groupOf reads a scalable object; nil if it is no group.
func (p *Provider) groupOf(ctx context.Context, resource string, object any) (*Group, error) {
	group, err := p.read(resource, object)
	if err != nil || group == nil || !p.discovery.admits(group.Namespace, group.clusterName, group.labels) {
		return nil, err
	}
	if group.min, group.max, err = bounds(group.annotations); err != nil {
		return nil, fmt.Errorf("%s: %w", group.ID(), err)
	}
	if group.replicas != nil && *group.replicas == 0 && !group.scalesFromZero(ctx) {
		return nil, nil
	}
	if group.max == 0 {
		return nil, nil
	}
	return group, nil
}

// read takes from a MachineSet or MachineDeployment what matters; nil for a MachineSet that a MachineDeployment owns.
func (p *Provider) read(resource string, object any) (*Group, error) {
	group := &Group{provider: p, resource: resource}
	var meta metav1.ObjectMeta
	var selector metav1.LabelSelector
	if resource == "machinesets" {
		set, err := as[clusterv1.MachineSet](object)
		if err != nil {
			return nil, err
		}
		if ownerOf(set.OwnerReferences, "MachineDeployment") != "" {
			return nil, nil
		}
		meta, selector = set.ObjectMeta, set.Spec.Selector
		group.kind, group.clusterName, group.replicas, group.machine = "MachineSet", set.Spec.ClusterName, set.Spec.Replicas, set.Spec.Template
	} else {
		deployment, err := as[clusterv1.MachineDeployment](object)
		if err != nil {
			return nil, err
		}
		meta, selector = deployment.ObjectMeta, deployment.Spec.Selector
		group.kind, group.clusterName, group.replicas, group.machine = "MachineDeployment", deployment.Spec.ClusterName, deployment.Spec.Replicas, deployment.Spec.Template
	}
	group.Namespace, group.Name, group.labels, group.annotations = meta.Namespace, meta.Name, meta.Labels, meta.Annotations
	_, group.paused = meta.Annotations[clusterv1.PausedAnnotation]
	var err error
	group.selector, err = metav1.LabelSelectorAsSelector(&selector)
	return group, err
}

func ownerOf(references []metav1.OwnerReference, kind string) string {
	for _, reference := range references {
		if reference.Kind == kind {
			return reference.Name
		}
	}
	return ""
}

// machineByID finds the Machine of a Node's provider ID, or of one that was made up; nil if there is none. What is found by name must be
// within what is looked at, labels too: Machines, MachineSet and MachineDeployment need the labels of the discovery.
func (p *Provider) machineByID(id string) (*clusterv1.Machine, error) {
	store := p.caches["machines"].Informer().GetIndexer()
	found, err := store.ByIndex(byProviderID, lastSegment(id))
	switch {
	case err != nil:
		return nil, err
	case len(found) > 1:
		return nil, fmt.Errorf("%d Machines have a provider ID that ends in %s", len(found), lastSegment(id))
	case len(found) == 1:
		return machineOf(found[0])
	case !isMadeUp(id):
		// unsure: here the annotations of the Node are asked for its Machine, which can only matter without provider IDs.
		return nil, nil
	}
	object, exists, err := store.GetByKey(machineKey(id))
	if err != nil || !exists {
		return nil, err
	}
	machine, err := machineOf(object)
	if err != nil || !p.discovery.admits(machine.Namespace, machine.Spec.ClusterName, machine.Labels) {
		return nil, err
	}
	return machine, nil
}

// GroupOf is the group of a Node, by its provider ID, or of an Instance; nil if it has none that is looked at.
func (p *Provider) GroupOf(ctx context.Context, id string) (*Group, error) {
	machine, err := p.machineByID(id)
	if err != nil || machine == nil {
		return nil, err
	}
	object, exists, err := p.cached("machinesets", machine.Namespace, ownerOf(machine.OwnerReferences, "MachineSet"))
	if err != nil || !exists {
		return nil, err
	}
	set, err := as[clusterv1.MachineSet](object)
	if err != nil || !p.discovery.admits(set.Namespace, set.Spec.ClusterName, set.Labels) {
		return nil, err
	}
	resource := "machinesets"
	if owner := ownerOf(set.OwnerReferences, "MachineDeployment"); owner != "" {
		resource = "machinedeployments"
		if object, exists, err = p.cached(resource, set.Namespace, owner); err != nil || !exists {
			return nil, err
		}
	}
	group, err := p.groupOf(ctx, resource, object)
	if err != nil || group == nil || group.paused {
		return nil, err
	}
	return group, nil
}

func (p *Provider) cached(resource, namespace, name string) (object any, exists bool, err error) {
	return p.caches[resource].Informer().GetStore().GetByKey(namespace + "/" + name)
}

// Nodes are the workload cluster's.
func (p *Provider) Nodes() []*corev1.Node {
	var nodes []*corev1.Node
	for _, object := range p.nodes.GetStore().List() {
		if node, ok := object.(*corev1.Node); ok {
			nodes = append(nodes, node)
		}
	}
	slices.SortFunc(nodes, func(a, b *corev1.Node) int { return cmp.Compare(a.Name, b.Name) })
	return nodes
}
