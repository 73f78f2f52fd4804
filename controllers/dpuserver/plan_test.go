// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuserver

import (
	"errors"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

var now = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

func goodCard() card {
	member := dpfzt.Member{
		Node: &provisioningv1alpha1.DPUNode{ObjectMeta: metav1.ObjectMeta{Name: "n1"}},
		Device: &provisioningv1alpha1.DPUDevice{
			ObjectMeta: metav1.ObjectMeta{Name: "d1"}, Spec: provisioningv1alpha1.DPUDeviceSpec{SerialNumber: "MT1", NumberOfPFs: 2},
			Status: provisioningv1alpha1.DPUDeviceStatus{PF0MAC: "AA-BB-CC-00-00-01"},
		},
		DPU: &provisioningv1alpha1.DPU{
			ObjectMeta: metav1.ObjectMeta{Name: "u1"},
			Spec: provisioningv1alpha1.DPUSpec{
				NodeEffect: provisioningv1alpha1.NodeEffect{Hold: ptr.To(true)}, Cluster: provisioningv1alpha1.DPUClusterMembership{Name: "c"},
			},
			Status: provisioningv1alpha1.DPUStatus{Phase: provisioningv1alpha1.DPUPhaseReady},
		},
	}
	return card{member: member, evidence: vpc.Evidence{
		Server: member.Node, Device: member.Device, DPU: member.DPU, Carriers: []vpc.Carrier{{Kind: "DPU"}},
		Node: &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: "u1", Labels: map[string]string{}, Annotations: map[string]string{
				vpcv1alpha1.NodeVTEPAnnotation: "x", vpcv1alpha1.NodeChassisIDAnnotation: "x", vpcv1alpha1.NodeGatewayAnnotation: "x",
			}},
			Status: corev1.NodeStatus{
				NodeInfo: corev1.NodeSystemInfo{BootID: "b"}, Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			},
		},
		Lease: &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{RenewTime: ptr.To(metav1.NewMicroTime(now))}},
	}}
}

func (c *card) recorded(t *testing.T, holder vpc.Holder) {
	t.Helper()
	value, err := holder.Encode()
	if err != nil {
		t.Fatal(err)
	}
	c.evidence.Carriers = []vpc.Carrier{{Kind: "DPU", Annotations: map[string]string{vpc.HolderAnnotation: value}}}
}

func pinned(change func(*infrav1.DPUServer)) *infrav1.DPUServer {
	object := &infrav1.DPUServer{}
	c := goodCard()
	object.Status.DPUs = []infrav1.BoundDPU{describe(&c)}
	change(object)
	return object
}

func TestJudge(t *testing.T) {
	holder := vpc.Holder{Installation: "i", Namespace: "red", Attachment: "a", TokenHash: "h"}
	past := holder
	past.Detached = true
	silent := func(s *server) { s.cards[0].evidence.Node.Status.Conditions[0].Status = corev1.ConditionUnknown }
	for _, tc := range []struct {
		name   string
		change func(*server)
		ready  vpc.Answer
		reason string
	}{
		{"healthy and free", func(*server) {}, vpc.Yes, ""},
		{"as pinned", func(s *server) { s.object = pinned(func(*infrav1.DPUServer) {}) }, vpc.Yes, ""},
		{"not mapped any more", func(s *server) {
			s.resolved, s.cards = vpc.Finding{Answer: vpc.No, Reason: infrav1.ServerNotMappedReason}, nil
		}, vpc.No, infrav1.ServerNotMappedReason},
		{"DPF does not answer", func(s *server) { s.resolved, s.cards = unreachable(errors.New("x")), nil }, vpc.Unknown, infrav1.FabricUnreachableReason},
		{"the DPU cluster does not answer", func(s *server) { s.cards[0].evidence.ClusterError = errors.New("x") }, vpc.Unknown, infrav1.FabricUnreachableReason},
		{"one card of two not known", func(s *server) {
			second := goodCard()
			second.evidence.ClusterError = errors.New("x")
			s.cards = append(s.cards, second)
		}, vpc.Unknown, infrav1.FabricUnreachableReason},
		{"installing", func(s *server) { s.cards[0].evidence.DPU.Status.Phase = provisioningv1alpha1.DPUPhaseOSInstalling }, vpc.No, infrav1.DPUNotReadyReason},
		{"silent", silent, vpc.No, infrav1.DPUNotReadyReason},
		{"silent while being installed, host off", func(s *server) {
			silent(s)
			s.hostOff = true
			s.cards[0].member.DPU.Status.Phase = provisioningv1alpha1.DPUPhaseOSInstalling
		}, vpc.No, infrav1.DPUNotReadyReason},
		{"silent, host off", func(s *server) { silent(s); s.hostOff = true }, vpc.No, infrav1.DPUUnpoweredWithHostReason},
		{"marked", func(s *server) { s.cards[0].evidence.Node.Labels[vpcv1alpha1.NodeVPCLabel] = "x_y" }, vpc.No, infrav1.ForeignVPCReason},
		{"recorded", func(s *server) {
			s.cards[0].recorded(t, holder)
			s.attachments = []string{"red/a"}
		}, vpc.No, infrav1.InUseReason},
		{"recorded for an attachment that is gone", func(s *server) { s.cards[0].recorded(t, holder) }, vpc.No, infrav1.InUseReason},
		{"recorded by another installation", func(s *server) {
			other := holder
			other.Installation = "j"
			s.cards[0].recorded(t, other)
		}, vpc.No, infrav1.InUseReason},
		{"only remembered", func(s *server) { s.cards[0].recorded(t, past) }, vpc.Yes, ""},
		{"an unreadable record", func(s *server) {
			s.cards[0].evidence.Carriers[0].Annotations = map[string]string{vpc.HolderAnnotation: "{"}
		}, vpc.No, infrav1.ServerHeldByOtherReason},
		{"asked for", func(s *server) { s.holder = &infrav1.DPUServerHolder{Namespace: "red", Name: "a", TokenHash: "h"} }, vpc.No, infrav1.InUseReason},
		{"other serial number", func(s *server) {
			s.object = pinned(func(o *infrav1.DPUServer) { o.Status.DPUs[0].SerialNumber = "MT9" })
		}, vpc.No, infrav1.BindingChangedReason},
		{"other MAC address", func(s *server) {
			s.object = pinned(func(o *infrav1.DPUServer) { o.Status.DPUs[0].Ports[0].MAC = "aa:bb:cc:00:00:09" })
		}, vpc.No, infrav1.BindingChangedReason},
		{"other DPUNode", func(s *server) {
			s.object = pinned(func(o *infrav1.DPUServer) { o.Status.DPUs[0].DPUNode = "n9" })
		}, vpc.No, infrav1.BindingChangedReason},
		{"one card more", func(s *server) {
			s.object = pinned(func(*infrav1.DPUServer) {})
			second := goodCard()
			second.member.Device = second.member.Device.DeepCopy()
			second.member.Device.Name = "d2"
			s.cards = append(s.cards, second)
		}, vpc.No, infrav1.BindingChangedReason},
		{"rebound", func(s *server) {
			s.object = pinned(func(o *infrav1.DPUServer) {
				o.Status.DPUs[0].SerialNumber = "MT9"
				o.Spec.Override = &infrav1.DPUServerOverride{Override: infrav1.Override{Action: infrav1.OverrideRebind}}
			})
		}, vpc.No, infrav1.OverriddenReason},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &server{source: "s", systemID: "abc", resolved: vpc.Finding{Answer: vpc.Yes}, cards: []card{goodCard()}}
			tc.change(s)
			j := judge(s, "i", now)
			if j.ready.Answer != tc.ready || j.ready.Reason != tc.reason {
				t.Errorf("got %+v, want %s %s", j.ready, tc.ready, tc.reason)
			}
			object := &infrav1.DPUServer{}
			describeServer(object, j)
			want := map[vpc.Answer]infrav1.Eligibility{vpc.Yes: infrav1.Eligible, vpc.No: infrav1.Ineligible, vpc.Unknown: infrav1.EligibilityUnknown}[tc.ready]
			if object.Status.Eligibility != want {
				t.Errorf("eligibility %s", object.Status.Eligibility)
			}
		})
	}
}

func TestBindingIsPinned(t *testing.T) {
	s := &server{resolved: vpc.Finding{Answer: vpc.Yes}, cards: []card{goodCard()}}
	first := judge(s, "i", now).binding
	if len(first) != 1 || first[0].SerialNumber != "MT1" || first[0].DPU != "u1" || first[0].DPUNode != "n1" || first[0].DPUCluster != "c" ||
		len(first[0].Ports) != 2 || first[0].Ports[0].MAC != "aa:bb:cc:00:00:01" {
		t.Fatalf("pinned %+v", first)
	}
	s.object = pinned(func(o *infrav1.DPUServer) { o.Status.DPUs[0].SerialNumber = "MT9" })
	if got := judge(s, "i", now).binding; got[0].SerialNumber != "MT9" {
		t.Errorf("bound again in silence: %+v", got)
	}
	s.object.Spec.Override = &infrav1.DPUServerOverride{Override: infrav1.Override{Action: infrav1.OverrideRebind}}
	if got := judge(s, "i", now).binding; got[0].SerialNumber != "MT1" {
		t.Errorf("not bound again: %+v", got)
	}
	s.object = pinned(func(o *infrav1.DPUServer) { o.Status.DPUs[0].DPU = "u0" })
	if got := judge(s, "i", now); got.binding[0].DPU != "u1" || got.ready.Answer != vpc.Yes {
		t.Errorf("a DPU that DPF made anew: %+v", got)
	}
	s.resolved = unreachable(errors.New("x"))
	if got := judge(s, "i", now).binding; len(got) != 1 {
		t.Error("the binding is forgotten while DPF is away")
	}
}

func TestHolds(t *testing.T) {
	const token = "v1.00112233445566778899aabbccddeeff.00112233445566778899aabbccddeeff"
	for _, tc := range []struct {
		name   string
		change func(*infrav1.DPUAttachment)
		want   bool
	}{
		{"only asked for", func(*infrav1.DPUAttachment) {}, false},
		{"not authorised", func(a *infrav1.DPUAttachment) {
			a.Status.Conditions = []metav1.Condition{{Type: infrav1.AuthorizedCondition, Status: metav1.ConditionFalse}}
		}, false},
		{"authorised", func(a *infrav1.DPUAttachment) {
			a.Status.Conditions = []metav1.Condition{{Type: infrav1.AuthorizedCondition, Status: metav1.ConditionTrue}}
		}, true},
		{"written", func(a *infrav1.DPUAttachment) {
			a.Annotations = map[string]string{infrav1.DPUAttachmentMemoryAnnotation: "{}"}
		}, true},
		{"written and proven detached", func(a *infrav1.DPUAttachment) {
			a.Annotations = map[string]string{infrav1.DPUAttachmentMemoryAnnotation: "{}"}
			a.Status.State, a.Status.TokenHash = infrav1.AttachmentStateDetached, maas.TokenHash(token)
		}, false},
		{"proven detached for another token", func(a *infrav1.DPUAttachment) {
			a.Annotations = map[string]string{infrav1.DPUAttachmentMemoryAnnotation: "{}"}
			a.Status.State, a.Status.TokenHash = infrav1.AttachmentStateDetached, "other"
		}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := &infrav1.DPUAttachment{Spec: infrav1.DPUAttachmentSpec{Server: infrav1.AttachmentServer{Token: token}}}
			tc.change(a)
			if got := holds(a); got != tc.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func TestParseLabel(t *testing.T) {
	one := &infrav1.DPUFabric{Spec: infrav1.DPUFabricSpec{ClaimSources: []infrav1.ClaimSource{{Name: "a"}}}}
	two := &infrav1.DPUFabric{Spec: infrav1.DPUFabricSpec{ClaimSources: []infrav1.ClaimSource{{Name: "a"}, {Name: "b"}}}}
	for _, tc := range []struct {
		fabric     *infrav1.DPUFabric
		value      string
		source, id string
		ok         bool
	}{
		{one, "abc", "a", "abc", true}, {one, "a.abc", "a", "abc", true}, {one, "b.abc", "", "", false},
		{two, "abc", "", "", false}, {two, "b.abc", "b", "abc", true}, {two, "b.", "", "", false},
	} {
		source, id, ok := parseLabel(tc.fabric, tc.value)
		if ok != tc.ok || (ok && (source != tc.source || id != tc.id)) {
			t.Errorf("%s: %s %s %t", tc.value, source, id, ok)
		}
	}
}

func TestRefresh(t *testing.T) {
	o := &observation{now: now, fabric: &infrav1.DPUFabric{}}
	before := &infrav1.DPUServer{Status: infrav1.DPUServerStatus{Eligibility: infrav1.Eligible, ObservedAt: ptr.To(metav1.NewTime(now.Add(-99 * time.Second)))}}
	if next := before.DeepCopy(); refresh(before, next, o) {
		t.Error("written though nothing changed")
	}
	o.now = now.Add(time.Second)
	if next := before.DeepCopy(); !refresh(before, next, o) || !next.Status.ObservedAt.Time.Equal(o.now) {
		t.Error("not written though it gets old")
	}
	next := before.DeepCopy()
	next.Status.Eligibility = infrav1.EligibilityUnknown
	if !refresh(before, next, o) || !next.Status.ObservedAt.Equal(before.Status.ObservedAt) {
		t.Error("what could not be read is said to be observed")
	}
}
