// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package autoscaler_test

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/autoscaler"
)

// poolStill has a server that no test takes, poolEmpty has none.
const (
	poolStill = "still"
	poolEmpty = "empty"
)

// TestDiscovery finds groups at zero by what their templates say that servers offer, or by annotations, and does not find what is none.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	bounds := func(more ...string) map[string]string {
		annotations := map[string]string{minSize: "0", maxSize: "2"}
		for i := 0; i < len(more); i += 2 {
			annotations[more[i]] = more[i+1]
		}
		return annotations
	}
	published := newGroup(t, "discovery", poolTide, bounds())
	annotated := newGroup(t, "discovery", poolStill, bounds(cpu, "16", memory, "64Gi"))
	paused := newGroup(t, "discovery", poolPlenty, bounds(cpu, "16", memory, "64Gi", clusterv1.PausedAnnotation, "true"))
	newGroup(t, "discovery", poolSlow, nil)
	empty := newGroup(t, "discovery", poolEmpty, bounds())
	broken := newGroup(t, "broken", poolTide, bounds(cpu, "16", memory, "64Gi"))

	empty.waitNoCapacity()
	d := newDriver(t, "discovery", autoscaler.Options{}, published, annotated)
	d.imagines(published, map[corev1.ResourceName]string{corev1.ResourceCPU: "64", corev1.ResourceMemory: "512Gi", corev1.ResourcePods: "110"})
	// Annotations say more than the template does.
	d.imagines(annotated, map[corev1.ResourceName]string{corev1.ResourceCPU: "16", corev1.ResourceMemory: "64Gi", corev1.ResourcePods: "110"})
	paused.change(func(deployment *clusterv1.MachineDeployment) {
		delete(deployment.Annotations, clusterv1.PausedAnnotation)
	})
	d.sees(published, annotated, paused)

	// One bound that is no number hides all groups that are looked at, and no others.
	broken.annotate(map[string]string{maxSize: "many"})
	other, err := autoscaler.Open(suite, management, workload, discovery("broken"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	eventually(t, "the malformed bound is complained of", func(context.Context) string {
		if _, err := other.Groups(suite); err == nil {
			return "not yet"
		}
		return ""
	})
	d.sees(published, annotated, paused)
}

// imagines holds what the autoscaler takes a Node of the group to be.
func (d *driver) imagines(g *group, offers map[corev1.ResourceName]string) {
	d.Helper()
	// A group with annotations is there before its template says for which architecture.
	eventually(d.T, "the Node imagined for "+g.name+" is as it should be", func(ctx context.Context) string {
		node, err := d.group(g.name).TemplateNode(ctx)
		if err != nil {
			return err.Error()
		}
		for name, want := range offers {
			if got := node.Status.Allocatable[name]; got.Cmp(resource.MustParse(want)) != 0 {
				return fmt.Sprintf("it has %s %s, want %s", name, got.String(), want)
			}
		}
		if arch, os := node.Labels[corev1.LabelArchStable], node.Labels[corev1.LabelOSStable]; arch != "amd64" || os != "linux" {
			return fmt.Sprintf("it is for %q on %q", os, arch)
		}
		return ""
	})
}

// waitNoCapacity waits until the template says that no server matches.
func (g *group) waitNoCapacity() {
	g.Helper()
	template := g.template("")
	eventually(g.T, "the template says that no server matches", func(ctx context.Context) string {
		if err := world.Operator.Get(ctx, client.ObjectKeyFromObject(template), template); err != nil {
			return err.Error()
		}
		if ready := conditions.Get(template, infrav1.ReadyCondition); ready == nil || ready.Reason != infrav1.NoServerMatchesReason || len(template.Status.Capacity) > 0 {
			return fmt.Sprintf("it has %v and says %+v", template.Status.Capacity, ready)
		}
		return ""
	})
}
