// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package tenantvpc

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

func TestPlanReportsDrift(t *testing.T) {
	for name, spoil := range map[string]func(*world){
		"VPC takes every Node": func(w *world) { w.vpc.Spec.NodeSelector = &metav1.LabelSelector{} },
		"network is another":   func(w *world) { w.networks[0].Spec.ExternallyRouted = true },
		"interface on another function and network": func(w *world) {
			w.interfaces[0].Spec.Template.Spec.Template.Spec.PF = &svcv1alpha1.PF{ID: 7, VirtualNetwork: ptr.To("theirs")}
		},
		"interface lets any MAC address pass": func(w *world) {
			w.interfaces[0].Spec.Template.Spec.Template.ObjectMeta.Annotations = map[string]string{vpcv1alpha1.PortUnknownMACAnnotation: "true"}
		},
		"VPC is being deleted":       func(w *world) { w.vpc.DeletionTimestamp = now() },
		"network is being deleted":   func(w *world) { w.networks[0].DeletionTimestamp = now() },
		"interface in another mode":  func(w *world) { w.interfaces[0].Spec.Template.ObjectMeta.Annotations = nil },
		"interface in some clusters": func(w *world) { w.interfaces[0].Spec.DPUClusterSelector = &metav1.LabelSelector{} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, subnet("a", "10.64.0.0/24"))
			w.attachments = []infrav1.DPUAttachment{attachment("x", "a", 0)}
			w.run()
			w.steps = nil
			w.ports = []port{{name: "si-1", node: "dpu-7", network: w.networks[0].Name, set: w.interfaces[0].Name}}
			spoil(w)
			d := plan(w.observation)
			if d.step != nil {
				t.Errorf("something in use is changed: %+v", d.step)
			}
			if len(d.problems) == 0 || d.problems[0].reason != infrav1.DriftedReason {
				t.Errorf("problems %+v, want Drifted", d.problems)
			}
		})
	}
}

// TestPlanRepairs changes and deletes what is ours: it is made as it was, in an order that DPF lets through.
func TestPlanRepairs(t *testing.T) {
	asked := []infrav1.DPUAttachment{attachment("x", "a", 0)}
	for _, c := range []struct {
		name  string
		spoil func(*world)
		// used leaves a port on the subnet; attachments are those that are left.
		used        bool
		attachments []infrav1.DPUAttachment
		steps       string
	}{
		{"interface takes every DPU", func(w *world) { w.interfaces[0].Spec.Template.Spec.NodeSelector = nil }, true, asked, "restore Interface"},
		{"interface plugs another function", func(w *world) { w.interfaces[0].Spec.Template.Spec.Template.Spec.PF.ID = 7 }, true, asked, "restore Interface"},
		{"interface deleted", func(w *world) { w.interfaces = nil }, true, asked, "+Interface"},
		{"interface in another mode, unused", func(w *world) { w.interfaces[0].Spec.Template.ObjectMeta.Annotations = nil }, false, asked, "-Interface +Interface"},
		{"network deleted", func(w *world) { w.networks = nil }, true, asked, "+VirtualNetwork"},
		{"VPC deleted", func(w *world) { w.vpc = nil }, true, asked, "+VPC"},
		{"network being deleted, asked for and not plugged", func(w *world) { w.networks[0].DeletionTimestamp = now() }, false, asked, "-Interface +VirtualNetwork +Interface"},
		{"VPC being deleted, asked for and not plugged", func(w *world) { w.vpc.DeletionTimestamp = now() }, false, asked, "-Interface -VirtualNetwork +VPC +VirtualNetwork +Interface"},
		{"network being deleted, unused", func(w *world) { w.networks[0].DeletionTimestamp = now() }, false, nil, "-Interface +VirtualNetwork"},
		{"network is another, unused", func(w *world) { w.networks[0].Spec.ExternallyRouted = true }, false, nil, "-Interface -VirtualNetwork +VirtualNetwork"},
		{"VPC being deleted, unused", func(w *world) { w.vpc.DeletionTimestamp = now() }, false, nil, "-Interface -VirtualNetwork +VPC +VirtualNetwork"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, subnet("a", "10.64.0.0/24"))
			w.attachments = asked
			w.run()
			w.attachments, w.steps = c.attachments, nil
			if c.used {
				w.ports = []port{{name: "si-1", node: "dpu-7", network: w.networks[0].Name, set: w.interfaces[0].Name}}
			}
			c.spoil(w)
			d := w.run()
			if got := kinds(w.steps); got != c.steps {
				t.Errorf("steps %q, want %q", got, c.steps)
			}
			if !d.settled() {
				t.Errorf("not settled: %+v", d)
			}
			if len(w.interfaces) == 1 && !vpc.SameInterface(&w.interfaces[0], vpc.DesiredInterface(w.place, w.tenant, "a", 0)) {
				t.Errorf("the interface is not as it was made: %+v", w.interfaces[0].Spec)
			}
		})
	}
}
