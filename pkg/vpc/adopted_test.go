// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"maps"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
)

const siteKey = "site.example/vpc"

// adoptingPlace permits keys of the site.
var adoptingPlace = Place{Installation: "i", Namespace: dpf, IsolationClassName: "ovn", AdoptionKeyPrefixes: []string{"site.example/"}}

func adopter() *infrav1.TenantVPC {
	t := tenant()
	t.Spec.Subnets, t.Spec.Adopt = nil, &infrav1.VPCAdoption{Name: "theirs"}
	return t
}

// theirs is a DPUVPC granted to the adopter.
func theirs() *vpcv1alpha1.DPUVPC {
	return &vpcv1alpha1.DPUVPC{
		ObjectMeta: metav1.ObjectMeta{Name: "theirs", Annotations: map[string]string{GrantAnnotation: adoptingPlace.OwnerOf(adopter()).String()}},
		Spec:       vpcv1alpha1.DPUVPCSpec{NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{siteKey: "x", "site.example/a": ""}}},
	}
}

func TestVPCLabels(t *testing.T) {
	ungranted := theirs()
	ungranted.Annotations = nil
	record := Holder{Joined: "site.example/old=y"}
	for _, c := range []struct {
		name   string
		tenant *infrav1.TenantVPC
		vpc    *vpcv1alpha1.DPUVPC
		record Holder
		want   map[string]string
	}{
		{"made", tenant(), nil, Holder{}, map[string]string{VPCKey: place.VPCName(tenant())}},
		{"adopted", adopter(), theirs(), Holder{}, map[string]string{VPCKey: "theirs", siteKey: "x", "site.example/a": ""}},
		{"not granted", adopter(), ungranted, Holder{}, map[string]string{VPCKey: "theirs"}},
		{"gone", adopter(), nil, Holder{}, map[string]string{VPCKey: "theirs"}},
		{"gone, on record", adopter(), nil, record, map[string]string{VPCKey: "theirs", "site.example/old": "y"}},
		{"another one by now, on record", adopter(), theirs(), record, map[string]string{VPCKey: "theirs", "site.example/old": "y"}},
	} {
		if got := VPCLabels(adoptingPlace, c.tenant, c.vpc, c.record); !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestAdoptedLabelsComeAndGo follows the labels of an adopted VPC through the writes of a life.
func TestAdoptedLabelsComeAndGo(t *testing.T) {
	want := wanted()
	want.VPCLabels = map[string]string{VPCKey: vpcName, siteKey: "x", "site.example/a": ""}
	join := PlanAttach(want, idle(), now)
	if join.Step != StepJoin || !maps.Equal(join.Change.Set, want.VPCLabels) {
		t.Fatalf("join %+v", join)
	}
	record := join.Change.Holder
	if !maps.Equal(record.JoinedLabels(), map[string]string{siteKey: "x", "site.example/a": ""}) {
		t.Errorf("the record has %q", record.Joined)
	}
	if !record.SameClaim(claim) {
		t.Error("the record is of another claim")
	}
	plug := PlanAttach(want, marked(held(t, idle(), record, want.VPCLabels), ourMark), now)
	if plug.Step != StepPlug || plug.Change.Holder.Joined != record.Joined {
		t.Errorf("plug %+v", plug)
	}

	// On the way off nobody knows the VPC any more. What has another value by now is somebody else's.
	proven := plug.Change.Holder
	proven.Unplugged = &stretch
	labels := map[string]string{VPCKey: vpcName, siteKey: "x", "site.example/a": "theirs", "site.example/b": "z"}
	leave, written := PlanDetach(wanted(), marked(held(t, idle(), proven, labels), ourMark), now, DetachOptions{})
	if !written || leave.Step != StepLeave || !maps.Equal(leave.Change.Remove, map[string]string{VPCKey: vpcName, siteKey: "x"}) {
		t.Errorf("leave %+v", leave)
	}
	if leave.Change.Holder.Joined != "" || !leave.Change.Holder.Detached {
		t.Errorf("the record of what has left is %+v", leave.Change.Holder)
	}
}

func TestAdoptedLabelsOfOthers(t *testing.T) {
	want := wanted()
	want.VPCLabels = map[string]string{VPCKey: vpcName, siteKey: "x"}
	carried := idle()
	carried.Carriers = append(carried.Carriers, Carrier{Kind: "DPUDevice", Labels: map[string]string{siteKey: "x"}})
	onNode := idle()
	onNode.Node.Labels[siteKey] = "y"
	for name, e := range map[string]Evidence{"on a carrier": carried, "on the Node": onNode} {
		if got := PlanAttach(want, e, now); got.Step != StepWait || got.Finding.Reason != infrav1.ForeignVPCReason {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestCheckAdoptedObjects(t *testing.T) {
	network := func() *vpcv1alpha1.DPUVirtualNetwork {
		n := &vpcv1alpha1.DPUVirtualNetwork{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: vpcv1alpha1.DPUVirtualNetworkSpec{VPCName: "theirs"}}
		n.Status.Conditions = []metav1.Condition{{Type: vpcv1alpha1.ReadyCondition, Status: metav1.ConditionTrue}}
		return n
	}
	gone := metav1.Now()
	for _, c := range []struct {
		name   string
		change func(*Place, *Objects)
		want   Answer
	}{
		{"granted", func(*Place, *Objects) {}, Yes},
		{"not granted", func(_ *Place, o *Objects) { o.VPC.Annotations = nil }, No},
		{"not there", func(_ *Place, o *Objects) { o.VPC = nil }, No},
		{"prefix withdrawn", func(p *Place, _ *Objects) { p.AdoptionKeyPrefixes = nil }, No},
		{"another TenantVPC's", func(_ *Place, o *Objects) { o.VPC.Annotations[OwnerAnnotation] = "i/blue/net" }, No},
		{"being deleted", func(_ *Place, o *Objects) { o.VPC.DeletionTimestamp = &gone }, No},
		{"mark too long", func(_ *Place, o *Objects) { o.VPC.Name = "a-name-that-is-too-long-for-the-mark-that-dpf-makes-of-it" }, No},
		{"network of another VPC", func(_ *Place, o *Objects) { o.Networks["n"].Spec.VPCName = "other" }, No},
		{"network of a TenantVPC", func(_ *Place, o *Objects) {
			o.Networks["n"].Annotations = map[string]string{OwnerAnnotation: "i/blue/net"}
		}, No},
		{"interface of somebody else", func(_ *Place, o *Objects) {
			for _, i := range o.Interfaces {
				i.Annotations = nil
			}
		}, No},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := adoptingPlace
			dsi := DesiredInterface(p, adopter(), "n", 0)
			objects := Objects{
				VPC: theirs(), Networks: map[string]*vpcv1alpha1.DPUVirtualNetwork{"n": network()},
				Interfaces: map[string]*svcv1alpha1.DPUServiceInterface{dsi.Name: dsi},
			}
			c.change(&p, &objects)
			if got := CheckObjects(p, adopter(), []WantedInterface{{Subnet: "n"}}, objects); got.Answer != c.want {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestNetworkCapacity(t *testing.T) {
	network := func(ipv4 *vpcv1alpha1.IPv4) *vpcv1alpha1.DPUVirtualNetwork {
		return &vpcv1alpha1.DPUVirtualNetwork{Spec: vpcv1alpha1.DPUVirtualNetworkSpec{BridgedNetwork: &vpcv1alpha1.BridgedNetwork{IPAM: &vpcv1alpha1.IPAM{IPv4: ipv4}}}}
	}
	for _, c := range []struct {
		name string
		ipv4 *vpcv1alpha1.IPv4
		want int32
		ok   bool
	}{
		{"all", &vpcv1alpha1.IPv4{DHCP: true, Subnet: "10.9.0.0/29"}, 5, true},
		{"some excluded", &vpcv1alpha1.IPv4{DHCP: true, Subnet: "10.9.0.0/29", ExcludeIPs: []vpcv1alpha1.ExcludeIP{
			{IP: "10.9.0.3"}, {Range: &vpcv1alpha1.IPRange{Start: "10.9.0.5", End: "10.9.0.9"}},
		}}, 2, true},
		{"no leases", &vpcv1alpha1.IPv4{Subnet: "10.9.0.0/29"}, 0, false},
		{"no IPv4", nil, 0, false},
		{"nonsense", &vpcv1alpha1.IPv4{DHCP: true, Subnet: "x"}, 0, false},
		{"IPv6 excluded", &vpcv1alpha1.IPv4{DHCP: true, Subnet: "10.9.0.0/29", ExcludeIPs: []vpcv1alpha1.ExcludeIP{{IP: "fd00::1"}}}, 0, false},
	} {
		if got, ok := NetworkCapacity(network(c.ipv4)); got != c.want || ok != c.ok {
			t.Errorf("%s: %d %v, want %d %v", c.name, got, ok, c.want, c.ok)
		}
	}
}
