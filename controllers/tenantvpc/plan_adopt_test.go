// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package tenantvpc

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

func TestPlanNeverChangesAdopted(t *testing.T) {
	w := newWorld(t)
	w.tenant.Spec.Adopt = &infrav1.VPCAdoption{Name: "theirs"}
	absent := w.run()
	w.vpc = &vpcv1alpha1.DPUVPC{ObjectMeta: metav1.ObjectMeta{Name: "theirs"}}
	w.networks = []vpcv1alpha1.DPUVirtualNetwork{{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: vpcv1alpha1.DPUVirtualNetworkSpec{VPCName: "theirs"}}}
	ungranted := w.run()
	if len(absent.problems) != 1 || absent.problems[0].reason != infrav1.AdoptionNotGrantedReason || absent.problems[0] != ungranted.problems[0] {
		t.Errorf("absent %+v and not granted %+v read differently", absent.problems, ungranted.problems)
	}
	w.vpc.Annotations = map[string]string{vpc.GrantAnnotation: "lab/red/main"}
	w.run()
	w.delete()
	if d := w.run(); !d.done || len(w.steps) > 0 || w.vpc == nil || len(w.networks) != 1 {
		t.Errorf("done %v after %v", d.done, w.steps)
	}
}

// adopted is a world whose TenantVPC adopts a granted VPC with the networks n-1 and n-2.
func adopted(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.place.AdoptionKeyPrefixes = []string{"site.example/vpc"}
	w.tenant.Spec.Adopt = &infrav1.VPCAdoption{Name: "theirs"}
	w.vpc = &vpcv1alpha1.DPUVPC{
		ObjectMeta: metav1.ObjectMeta{Name: "theirs", Annotations: map[string]string{vpc.GrantAnnotation: "lab/red/main"}},
		Spec:       vpcv1alpha1.DPUVPCSpec{NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"site.example/vpc": "x"}}},
	}
	for _, name := range []string{"n-1", "n-2"} {
		w.networks = append(w.networks, vpcv1alpha1.DPUVirtualNetwork{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: vpcv1alpha1.DPUVirtualNetworkSpec{VPCName: "theirs", BridgedNetwork: &vpcv1alpha1.BridgedNetwork{IPAM: &vpcv1alpha1.IPAM{
				IPv4: &vpcv1alpha1.IPv4{DHCP: true, Subnet: "10.9.0.0/29", ExcludeIPs: []vpcv1alpha1.ExcludeIP{{IP: "10.9.0.2"}}},
			}}},
		})
	}
	return w
}

func TestPlanAdopts(t *testing.T) {
	w := adopted(t)
	w.attachments = []infrav1.DPUAttachment{attachment("x", "n-1", 0), attachment("y", "nowhere", 0)}
	d := w.run()
	if got := kinds(w.steps); got != "+Interface" || !d.settled() {
		t.Fatalf("steps %q, decision %+v", got, d)
	}
	selector := w.interfaces[0].Spec.Template.Spec.NodeSelector.MatchLabels
	if selector[vpc.VPCKey] != "theirs" || selector[vpc.PortKey(0)] != "n-1" {
		t.Errorf("the interface selects %v", selector)
	}
	w.ports = []port{{name: "si-1", node: "dpu-7", network: "n-1", set: w.interfaces[0].Name}, {name: "si-2", node: "dpu-8", network: "n-1", set: "others"}}
	w.interfaces = append(w.interfaces, svcv1alpha1.DPUServiceInterface{ObjectMeta: metav1.ObjectMeta{Name: "others"}})
	all := subnets(w.observation)
	if len(all) != 2 || all[0].Name != "n-1" || *all[0].Capacity != 4 || *all[0].Used != 2 || *all[0].Claimed != 3 {
		t.Errorf("subnets %+v", all)
	}

	// The grant is withdrawn: nothing new, nothing taken away, nothing told.
	w.steps, w.attachments = nil, append(w.attachments, attachment("z", "n-2", 0))
	w.vpc.Annotations = nil
	if d := w.run(); len(w.steps) > 0 || len(d.problems) != 1 || d.problems[0].reason != infrav1.AdoptionNotGrantedReason {
		t.Errorf("steps %v, problems %+v", w.steps, d.problems)
	}
	if all := subnets(w.observation); len(all) > 0 {
		t.Errorf("a VPC that is not granted is told of: %+v", all)
	}

	// Its operator deletes a network: our interface goes as soon as our port does; others' ports are not waited for.
	w.vpc.Annotations = map[string]string{vpc.GrantAnnotation: "lab/red/main"}
	w.networks[0].DeletionTimestamp = now()
	if d := plan(w.observation); d.step != nil && d.step.verb == remove || !d.inUse {
		t.Errorf("a used interface is taken away: %+v", d)
	}
	w.attachments, w.ports = nil, w.ports[1:]
	d = plan(w.observation)
	if d.step == nil || d.step.verb != remove || !strings.HasSuffix(d.step.object.GetName(), "-pf0") {
		t.Errorf("the interface stays: %+v", d)
	}
	w.delete()
	if d := w.run(); !d.done || w.vpc == nil || w.vpc.DeletionTimestamp != nil {
		t.Errorf("decision %+v after %v", d, w.steps)
	}
}
