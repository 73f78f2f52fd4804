// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package autoscaler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
)

// Group is one node group.
type Group struct {
	Namespace, Name string

	provider            *Provider
	kind, resource      string
	clusterName         string
	labels, annotations map[string]string
	paused              bool
	min, max            int
	// replicas are as the cache has them, and as this Group has set them since.
	replicas *int32
	selector labels.Selector
	machine  clusterv1.MachineTemplateSpec
}

// ErrMinSize says that a group is as small as it may be.
var ErrMinSize = errors.New("min size reached, nodes will not be deleted")

// bounds are the sizes between which a group is scaled. A missing annotation counts as 0, so that without them there is no group.
func bounds(annotations map[string]string) (lower, upper int, err error) {
	read := func(key string) int {
		value, found := annotations[key]
		if !found || err != nil {
			return 0
		}
		var number int
		if number, err = strconv.Atoi(value); err != nil || number < 0 {
			err = fmt.Errorf("the annotation %s is %q, which is no size", key, value)
		}
		return number
	}
	lower, upper = read(clusterv1.AutoscalerMinSizeAnnotation), read(clusterv1.AutoscalerMaxSizeAnnotation)
	if err == nil && upper < lower {
		err = fmt.Errorf("the annotation %s is below %s", clusterv1.AutoscalerMaxSizeAnnotation, clusterv1.AutoscalerMinSizeAnnotation)
	}
	return lower, upper, err
}

// ID is unique among the groups.
func (g *Group) ID() string { return path.Join(g.kind, g.Namespace, g.Name) }

// MinSize and MaxSize are the bounds.
func (g *Group) MinSize() int { return g.min }

// MaxSize is the upper bound.
func (g *Group) MaxSize() int { return g.max }

// TargetSize is what the cache has in spec.replicas.
func (g *Group) TargetSize() (int, error) {
	if g.replicas == nil {
		return 0, fmt.Errorf("%s has no replicas", g.ID())
	}
	return int(*g.replicas), nil
}

// Replicas are those of the scale subresource now.
func (g *Group) Replicas(ctx context.Context) (int, error) {
	resource := clusterv1.GroupVersion.WithResource(g.resource).GroupResource()
	found, err := g.provider.scales.Scales(g.Namespace).Get(ctx, resource, g.Name, metav1.GetOptions{})
	if err != nil {
		return 0, err
	}
	return int(found.Spec.Replicas), nil
}

// setSize patches the scale subresource.
//
// unsure: since which release it is a patch. Before, it was an update of what had been read, so that both rights are needed.
func (g *Group) setSize(ctx context.Context, size int) error {
	switch {
	case size > g.max:
		return fmt.Errorf("size increase too large - desired:%d max:%d", size, g.max)
	case size < g.min:
		return fmt.Errorf("size decrease too large - desired:%d min:%d", size, g.min)
	}
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"replicas": size}})
	if err != nil {
		return err
	}
	resource := clusterv1.GroupVersion.WithResource(g.resource)
	if _, err := g.provider.scales.Scales(g.Namespace).Patch(ctx, resource, g.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return err
	}
	replicas := int32(size)
	g.replicas = &replicas
	return nil
}

// IncreaseSize asks for more machines.
func (g *Group) IncreaseSize(ctx context.Context, delta int) error {
	if delta <= 0 {
		return errors.New("size increase must be positive")
	}
	size, err := g.Replicas(ctx)
	if err != nil {
		return err
	}
	return g.setSize(ctx, size+delta)
}

// DecreaseTargetSize takes back what was asked for and has not become Nodes; which Machines go is up to Cluster API.
func (g *Group) DecreaseTargetSize(ctx context.Context, delta int) error {
	if delta >= 0 {
		return errors.New("size decrease must be negative")
	}
	size, err := g.Replicas(ctx)
	if err != nil {
		return err
	}
	instances, err := g.Instances()
	if err != nil {
		return err
	}
	nodes := 0
	for _, instance := range instances {
		if !isMadeUp(instance.ID) {
			nodes++
		}
	}
	if size+delta < nodes {
		return fmt.Errorf("node group %s: attempt to delete existing nodes currentReplicas:%d delta:%d existingNodes: %d", g.Name, size, delta, nodes)
	}
	return g.setSize(ctx, size+delta)
}

// DeleteNodes deletes the machines behind provider IDs, or behind Instances that have none yet: each gets Cluster API's annotation, then
// the size goes down by one. One that is being deleted already is left alone.
func (g *Group) DeleteNodes(ctx context.Context, ids ...string) error {
	size, err := g.Replicas(ctx)
	if err != nil {
		return err
	}
	if size <= g.min {
		return ErrMinSize
	}
	for _, id := range ids {
		group, err := g.provider.GroupOf(ctx, id)
		switch {
		case err != nil:
			return err
		case group == nil:
			return fmt.Errorf("no node group found for node %q", id)
		case group.ID() != g.ID():
			return fmt.Errorf("node %q doesn't belong to node group %q", id, g.ID())
		}
	}
	if size-len(ids) < g.min {
		return fmt.Errorf("unable to delete %d machines in %q, machine replicas are %d, minSize is %d", len(ids), g.ID(), size, g.min)
	}
	for _, id := range ids {
		machine, err := g.provider.machineByID(id)
		switch {
		case err != nil:
			return err
		case machine == nil:
			return fmt.Errorf("unknown machine for node %q", id)
		case !machine.DeletionTimestamp.IsZero():
			continue
		}
		if err := g.mark(ctx, machine, true); err != nil {
			return err
		}
		if err := g.setSize(ctx, size-1); err != nil {
			return errors.Join(err, g.mark(ctx, machine, false))
		}
		size--
	}
	return nil
}

// mark sets or takes away the annotation that makes Cluster API delete this machine first. It gets and updates the whole object.
func (g *Group) mark(ctx context.Context, machine *clusterv1.Machine, wanted bool) error {
	machines := g.provider.dynamic.Resource(clusterv1.GroupVersion.WithResource("machines")).Namespace(machine.Namespace)
	object, err := machines.Get(ctx, machine.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	annotations := object.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	if wanted {
		annotations[clusterv1.DeleteMachineAnnotation] = time.Now().String()
	} else {
		delete(annotations, clusterv1.DeleteMachineAnnotation)
	}
	object.SetAnnotations(annotations)
	_, err = machines.Update(ctx, object, metav1.UpdateOptions{})
	return err
}

// Instances are the group's machines: those its selector matches.
func (g *Group) Instances() ([]Instance, error) {
	objects, err := g.provider.caches["machines"].Lister().ByNamespace(g.Namespace).List(g.selector)
	if err != nil {
		return nil, err
	}
	var instances []Instance
	for _, object := range objects {
		machine, err := machineOf(object)
		if err != nil {
			return nil, err
		}
		if machine.Spec.ClusterName == g.clusterName {
			instances = append(instances, instanceOf(machine))
		}
	}
	return instances, nil
}

// optionPrefix begins the annotations that override flags for one group.
const optionPrefix = "cluster.x-k8s.io/autoscaling-options-"

// duration is an option of the group; a value that cannot be read is as good as none, which only a log line tells.
func (g *Group) duration(option string, otherwise time.Duration) time.Duration {
	if value, err := time.ParseDuration(g.annotations[optionPrefix+option]); err == nil {
		return value
	}
	return otherwise
}
