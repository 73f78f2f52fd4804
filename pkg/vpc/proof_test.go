// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
)

// si is the tenant's interface of attached evidence.
func si(e *Evidence) *svcv1alpha1.ServiceInterface { return &e.Interfaces[1] }

// aliveCases each take away one thing without which a Node does not count as alive.
var aliveCases = []struct {
	name   string
	broke  func(*Evidence)
	answer Answer
}{
	{"the DPU cluster does not answer", func(e *Evidence) { e.ClusterError = errors.New("timeout") }, Unknown},
	{"Node not Ready", func(e *Evidence) { e.Node.Status.Conditions[0].Status = corev1.ConditionFalse }, No},
	{"Node Ready unknown", func(e *Evidence) { e.Node.Status.Conditions[0].Status = corev1.ConditionUnknown }, No},
	{"Node without Ready", func(e *Evidence) { e.Node.Status.Conditions = nil }, No},
	{"Node being deleted", func(e *Evidence) { e.Node.DeletionTimestamp = ptr.To(metav1.NewTime(now)) }, No},
	{"no lease", func(e *Evidence) { e.Lease = nil }, No},
	{"lease without time", func(e *Evidence) { e.Lease.Spec.RenewTime = nil }, No},
	{"lease a minute old", func(e *Evidence) { e.Lease.Spec.RenewTime = ptr.To(metav1.NewMicroTime(now.Add(-LeaseMaxAge))) }, No},
	{"lease from the future", func(e *Evidence) { e.Lease.Spec.RenewTime = ptr.To(metav1.NewMicroTime(now.Add(LeaseMaxAge))) }, No},
}

func TestAlive(t *testing.T) {
	if got := idle().Alive(now); got.Answer != Yes {
		t.Fatalf("a healthy Node is not alive: %+v", got)
	}
	for _, tc := range aliveCases {
		t.Run(tc.name, func(t *testing.T) {
			e := idle()
			tc.broke(&e)
			if got := e.Alive(now); got.Answer != tc.answer || got.Message == "" {
				t.Errorf("got %+v, want %s with a message", got, tc.answer)
			}
			if first, second := e.Stretch(now), e.Stretch(now); first.Equal(second) {
				t.Error("a Node that is not alive has a stretch")
			}
		})
	}
}

func TestProveAttached(t *testing.T) {
	if got := ProveAttached(wanted(), attached(t), now); got.Answer != Yes {
		t.Fatalf("complete evidence proves nothing: %+v", got)
	}
	for _, tc := range aliveCases {
		t.Run(tc.name, func(t *testing.T) {
			e := attached(t)
			tc.broke(&e)
			if got := ProveAttached(wanted(), e, now); got.Answer != Unknown || got.Reason == "" {
				t.Errorf("got %+v, want unknown", got)
			}
		})
	}
	cases := []struct {
		name   string
		broke  func(*Evidence)
		reason string
	}{
		{"no DPU", func(e *Evidence) { e.DPU = nil }, ""},
		{"DPU deleting", func(e *Evidence) { e.DPU.DeletionTimestamp = ptr.To(metav1.NewTime(now)) }, ""},
		{"DPU in Error", func(e *Evidence) { e.DPU.Status.Phase = provisioningv1alpha1.DPUPhaseError }, ""},
		{"DPU phase Deleting", func(e *Evidence) { e.DPU.Status.Phase = provisioningv1alpha1.DPUPhaseDeleting }, ""},
		{"DPU reinstalling", func(e *Evidence) { e.DPU.Status.Phase = provisioningv1alpha1.DPUPhaseOSInstalling }, ""},
		{"DPU without phase", func(e *Evidence) { e.DPU.Status.Phase = "" }, ""},
		{"Node gone", func(e *Evidence) { e.Node, e.Lease = nil, nil }, ""},
		{"Node not marked", func(e *Evidence) { *e = marked(*e, "") }, ""},
		{"Node marked otherwise", func(e *Evidence) { *e = marked(*e, "dpf-operator-system_other") }, infrav1.ForeignVPCReason},
		{"no ServiceInterface", func(e *Evidence) { e.Interfaces = e.Interfaces[:1] }, ""},
		{"two ServiceInterfaces for one PF", func(e *Evidence) { e.Interfaces = append(e.Interfaces, serviceInterface()) }, ""},
		{"another PF is on a network", func(e *Evidence) {
			extra := serviceInterface()
			extra.Spec.PF.ID = 1
			e.Interfaces = append(e.Interfaces, extra)
		}, infrav1.ForeignVPCReason},
		{"a VF is on a network", func(e *Evidence) {
			extra := serviceInterface()
			extra.Spec.InterfaceType, extra.Spec.PF, extra.Spec.VF = svcv1alpha1.InterfaceTypeVF, nil, &svcv1alpha1.VF{VirtualNetwork: ptr.To("x")}
			e.Interfaces = append(e.Interfaces, extra)
		}, infrav1.ForeignVPCReason},
		{"of another set", func(e *Evidence) { si(e).Labels[svcv1alpha1.SetNameLabel] = "other" }, infrav1.ForeignVPCReason},
		{"of a set in another namespace", func(e *Evidence) { si(e).Labels[svcv1alpha1.SetNamespaceLabel] = "other" }, infrav1.ForeignVPCReason},
		{"in another namespace", func(e *Evidence) { si(e).Namespace = "other" }, infrav1.ForeignVPCReason},
		{"on another network", func(e *Evidence) { si(e).Spec.PF.VirtualNetwork = ptr.To("other") }, infrav1.ForeignVPCReason},
		{"for another Node", func(e *Evidence) { si(e).Spec.Node = ptr.To("dpu-2") }, ""},
		{"for no Node", func(e *Evidence) { si(e).Spec.Node = nil }, ""},
		{"being deleted", func(e *Evidence) { si(e).DeletionTimestamp = ptr.To(metav1.NewTime(now)) }, ""},
		{"not Ready", func(e *Evidence) { si(e).Status.Conditions[0].Status = metav1.ConditionFalse }, ""},
		{"Ready unknown", func(e *Evidence) { si(e).Status.Conditions[0].Status = metav1.ConditionUnknown }, ""},
		{"no Ready", func(e *Evidence) { si(e).Status.Conditions = si(e).Status.Conditions[1:] }, ""},
		{"not reconciled", func(e *Evidence) { si(e).Status.Conditions[1].Status = metav1.ConditionFalse }, ""},
		{"no reconciled", func(e *Evidence) { si(e).Status.Conditions = si(e).Status.Conditions[:1] }, ""},
		{"condition of an old generation", func(e *Evidence) { si(e).Status.Conditions[0].ObservedGeneration = 2 }, ""},
		{"status of an old generation", func(e *Evidence) { si(e).Status.ObservedGeneration = 2 }, ""},
		{"no generation observed", func(e *Evidence) {
			si(e).Status.ObservedGeneration = 0
			si(e).Status.Conditions[0].ObservedGeneration = 0
		}, ""},
		{"disconnected", func(e *Evidence) { si(e).Annotations[vpcv1alpha1.PortConnectedAnnotation] = "false" }, ""},
		{"not yet connected", func(e *Evidence) { delete(si(e).Annotations, vpcv1alpha1.PortConnectedAnnotation) }, ""},
		{"other MAC", func(e *Evidence) { si(e).Annotations[vpcv1alpha1.PortMACAnnotation] = "aa:bb:cc:00:00:02" }, ""},
		{"no MAC", func(e *Evidence) { delete(si(e).Annotations, vpcv1alpha1.PortMACAnnotation) }, ""},
		{"any MAC", func(e *Evidence) { si(e).Annotations[vpcv1alpha1.PortMACAnnotation] = "unknown" }, ""},
		{"any MAC asked for", func(e *Evidence) { si(e).Annotations[vpcv1alpha1.PortUnknownMACAnnotation] = "true" }, ""},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			e := attached(t)
			tc.broke(&e)
			reason := tc.reason
			if reason == "" {
				reason = infrav1.EvidenceMissingReason
			}
			if got := ProveAttached(wanted(), e, now); got.Answer != No || got.Reason != reason || got.Message == "" {
				t.Errorf("got %+v, want no with reason %s", got, reason)
			}
		})
	}
}

func TestProveAttachedWhileTheDPUBlinks(t *testing.T) {
	for _, phase := range blinkingPhases {
		e := attached(t)
		e.DPU.Status.Phase = phase
		if got := ProveAttached(wanted(), e, now); got.Answer != Yes {
			t.Errorf("phase %q: %+v", phase, got)
		}
	}
}

func TestProveAttachedNeedsThePorts(t *testing.T) {
	want := wanted()
	want.Ports[0].MAC = ""
	if got := ProveAttached(want, attached(t), now); got.Answer != No {
		t.Errorf("PF 0 without a known MAC address is proven: %+v", got)
	}
	want.Ports = nil
	if got := ProveAttached(want, attached(t), now); got.Answer != No {
		t.Errorf("no port is proven: %+v", got)
	}
	want = wanted()
	want.Ports = append(want.Ports, WantedPort{PF: 1, Network: network, Interface: InterfaceName(network, 1)})
	if got := ProveAttached(want, attached(t), now); got.Answer != No {
		t.Errorf("one port of two is proven: %+v", got)
	}
}

func TestProveUnplugged(t *testing.T) {
	gone := func() Evidence {
		return marked(held(t, idle(), unplugged, map[string]string{VPCKey: vpcName}), ourMark)
	}
	if got, broken := ProveUnplugged(stretch, gone(), now); got.Answer != Yes || broken {
		t.Fatalf("complete evidence proves nothing: %+v", got)
	}
	for _, tc := range aliveCases {
		t.Run(tc.name, func(t *testing.T) {
			e := gone()
			tc.broke(&e)
			if got, broken := ProveUnplugged(stretch, e, now); got.Answer != Unknown || broken {
				t.Errorf("got %+v broken %t, want unknown and not broken", got, broken)
			}
		})
	}
	for _, tc := range []struct {
		name     string
		recorded Continuity
		broke    func(*Evidence)
		answer   Answer
		broken   bool
	}{
		{"the port is still there", stretch, func(e *Evidence) { e.Interfaces = []svcv1alpha1.ServiceInterface{serviceInterface()} }, No, false},
		{"the port is being deleted", stretch, func(e *Evidence) {
			found := serviceInterface()
			found.DeletionTimestamp = ptr.To(metav1.NewTime(now))
			e.Interfaces = []svcv1alpha1.ServiceInterface{found}
		}, No, false},
		{"the Node has the port's label", stretch, func(e *Evidence) { e.Node.Labels[PortKey(0)] = network }, No, false},
		{"the Node was recreated", stretch, func(e *Evidence) { e.Node.UID = types.UID("other") }, Unknown, true},
		{"the DPU booted", stretch, func(e *Evidence) { e.Node.Status.NodeInfo.BootID = "boot-2" }, Unknown, true},
		{"the Node was not Ready in between", stretch, func(e *Evidence) {
			e.Node.Status.Conditions[0].LastTransitionTime = metav1.NewTime(now.Add(-time.Second))
		}, Unknown, true},
		{"nothing was recorded", Continuity{}, func(*Evidence) {}, Unknown, true},
		{"no boot ID was recorded", Continuity{NodeUID: "node-uid", ReadySince: readySince}, func(e *Evidence) { e.Node.Status.NodeInfo.BootID = "" }, Unknown, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := gone()
			tc.broke(&e)
			if got, broken := ProveUnplugged(tc.recorded, e, now); got.Answer != tc.answer || broken != tc.broken {
				t.Errorf("got %+v broken %t, want %s %t", got, broken, tc.answer, tc.broken)
			}
		})
	}
}

func TestProveLeft(t *testing.T) {
	left := func() Evidence { return held(t, idle(), tombstone, nil) }
	if got := ProveLeft(left(), now); got.Answer != Yes {
		t.Fatalf("complete evidence proves nothing: %+v", got)
	}
	for _, tc := range aliveCases {
		t.Run(tc.name, func(t *testing.T) {
			e := left()
			tc.broke(&e)
			if got := ProveLeft(e, now); got.Answer != Unknown {
				t.Errorf("got %+v, want unknown", got)
			}
		})
	}
	for _, tc := range []struct {
		name  string
		broke func(*Evidence)
	}{
		{"marked", func(e *Evidence) { *e = marked(*e, ourMark) }},
		{"marked otherwise", func(e *Evidence) { *e = marked(*e, "x_y") }},
		{"a port is on a network", func(e *Evidence) { e.Interfaces = []svcv1alpha1.ServiceInterface{serviceInterface()} }},
		{"labelled", func(e *Evidence) { e.Carriers[0].Labels = map[string]string{VPCKey: vpcName} }},
		{"the Node is labelled", func(e *Evidence) { e.Node.Labels[VPCKey] = vpcName }},
		{"DPU not at rest", func(e *Evidence) { e.DPU.Status.Phase = provisioningv1alpha1.DPUPhaseNodeEffectRemoval }},
		{"DPU deleting", func(e *Evidence) { e.DPU.DeletionTimestamp = ptr.To(metav1.NewTime(now)) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := left()
			tc.broke(&e)
			if got := ProveLeft(e, now); got.Answer != No {
				t.Errorf("got %+v, want no", got)
			}
		})
	}
}
