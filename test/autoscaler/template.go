// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package autoscaler

import (
	"context"
	"maps"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const (
	capacityPrefix = "capacity.cluster-autoscaler.kubernetes.io/"
	// defaultMaxPods is assumed where nobody says how many Pods a Node takes.
	defaultMaxPods = 110
)

// Capacity is what a new machine of the group is taken to offer: the status of its template, and over it the annotations of the group.
func (g *Group) Capacity(ctx context.Context) (corev1.ResourceList, error) {
	annotated, err := annotatedCapacity(g.annotations)
	if err != nil {
		return nil, err
	}
	template, err := g.provider.infrastructure(ctx, g.Namespace, g.machine.Spec.InfrastructureRef)
	if err != nil {
		// One is always there: the number of Pods.
		if len(annotated) > 1 {
			return annotated, nil
		}
		return nil, err
	}
	capacity := publishedCapacity(template)
	maps.Copy(capacity, annotated)
	return capacity, nil
}

// annotatedCapacity reads the annotations. One that is malformed makes the whole capacity unknown.
func annotatedCapacity(annotations map[string]string) (corev1.ResourceList, error) {
	capacity := corev1.ResourceList{corev1.ResourcePods: *resource.NewQuantity(defaultMaxPods, resource.DecimalSI)}
	for key, name := range map[string]corev1.ResourceName{
		"cpu": corev1.ResourceCPU, "memory": corev1.ResourceMemory, "ephemeral-disk": corev1.ResourceEphemeralStorage,
	} {
		value := annotations[capacityPrefix+key]
		if value == "" {
			continue
		}
		quantity, err := resource.ParseQuantity(value)
		if err != nil {
			return nil, err
		}
		if !quantity.IsZero() {
			capacity[name] = quantity
		}
	}
	if value := annotations[capacityPrefix+"maxPods"]; value != "" {
		pods, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return nil, err
		}
		capacity[corev1.ResourcePods] = *resource.NewQuantity(pods, resource.DecimalSI)
	}
	return capacity, nil
}

// publishedCapacity is the template's status.capacity. It counts only if all its values are strings, and of these the ones that can be
// read.
func publishedCapacity(template *unstructured.Unstructured) corev1.ResourceList {
	capacity := corev1.ResourceList{}
	published, found, err := unstructured.NestedStringMap(template.Object, "status", "capacity")
	if !found || err != nil {
		return capacity
	}
	for name, value := range published {
		if quantity, err := resource.ParseQuantity(value); err == nil {
			capacity[corev1.ResourceName(name)] = quantity
		}
	}
	return capacity
}

func (g *Group) scalesFromZero(ctx context.Context) bool {
	capacity, err := g.Capacity(ctx)
	if err != nil {
		return false
	}
	_, cpu := capacity[corev1.ResourceCPU]
	_, memory := capacity[corev1.ResourceMemory]
	return cpu && memory
}

// TemplateNode is the Node the autoscaler imagines for a group at zero.
func (g *Group) TemplateNode(ctx context.Context) (*corev1.Node, error) {
	capacity, err := g.Capacity(ctx)
	if err != nil {
		return nil, err
	}
	node := &corev1.Node{}
	node.Name = g.Name + "-asg"
	node.Status.Capacity, node.Status.Allocatable = capacity, capacity
	// unsure: CAPI_SCALE_ZERO_DEFAULT_ARCH chooses another default than amd64, and the labels of a Node that exists come last.
	node.Labels = map[string]string{corev1.LabelArchStable: "amd64", corev1.LabelOSStable: "linux", corev1.LabelHostname: node.Name}
	if template, err := g.provider.infrastructure(ctx, g.Namespace, g.machine.Spec.InfrastructureRef); err == nil {
		info, _, err := unstructured.NestedStringMap(template.Object, "status", "nodeInfo")
		if err == nil {
			node.Status.NodeInfo.Architecture, node.Status.NodeInfo.OperatingSystem = info["architecture"], info["operatingSystem"]
		}
		// Also where nothing is published: then the labels are empty, not the defaults.
		node.Labels[corev1.LabelArchStable], node.Labels[corev1.LabelOSStable] = node.Status.NodeInfo.Architecture, node.Status.NodeInfo.OperatingSystem
	}
	maps.Copy(node.Labels, managedLabels(g.machine.Labels))
	maps.Copy(node.Labels, pairsOf(g.annotations[capacityPrefix+"labels"]))
	for _, taint := range g.machine.Spec.Taints {
		node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{Key: taint.Key, Value: taint.Value, Effect: taint.Effect})
	}
	// unsure: of two with the same key and effect only the annotated one stays.
	node.Spec.Taints = append(node.Spec.Taints, taintsOf(g.annotations[capacityPrefix+"taints"])...)
	return node, nil
}

// managedLabels are those that Cluster API hands on from a Machine to its Node.
func managedLabels(all map[string]string) map[string]string {
	managed := map[string]string{}
	for key, value := range all {
		domain, _, _ := strings.Cut(key, "/")
		if domain == "node-role.kubernetes.io" || domain == "node-restriction.kubernetes.io" || domain == "node.cluster.x-k8s.io" ||
			strings.HasSuffix(domain, ".node-restriction.kubernetes.io") || strings.HasSuffix(domain, ".node.cluster.x-k8s.io") {
			managed[key] = value
		}
	}
	return managed
}

func pairsOf(text string) map[string]string {
	pairs := map[string]string{}
	for pair := range strings.SplitSeq(text, ",") {
		if key, value, found := strings.Cut(pair, "="); found {
			pairs[key] = value
		}
	}
	return pairs
}

// taintsOf reads key=value:effect,... and leaves out what it cannot read.
func taintsOf(text string) []corev1.Taint {
	var taints []corev1.Taint
	for entry := range strings.SplitSeq(text, ",") {
		pair, effect, found := strings.Cut(entry, ":")
		if !found {
			continue
		}
		key, value, _ := strings.Cut(pair, "=")
		taints = append(taints, corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffect(effect)})
	}
	return taints
}

// pluralOf is how the autoscaler names the resource of a template's kind.
func pluralOf(kind string) string { return strings.ToLower(kind) + "s" }
