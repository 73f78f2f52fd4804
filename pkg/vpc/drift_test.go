// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
)

// otherInterface is a DPUServiceInterface of somebody else.
func otherInterface(selector *metav1.LabelSelector, spec svcv1alpha1.InterfaceSpec) svcv1alpha1.DPUServiceInterface {
	found := svcv1alpha1.DPUServiceInterface{ObjectMeta: metav1.ObjectMeta{Namespace: "secret-tenant", Name: "theirs"}}
	found.Spec.Template.Spec.NodeSelector = selector
	found.Spec.Template.Spec.Template.Spec = spec
	return found
}

func otherVPCSelecting(selector *metav1.LabelSelector) vpcv1alpha1.DPUVPC {
	return vpcv1alpha1.DPUVPC{
		ObjectMeta: metav1.ObjectMeta{Namespace: "secret-tenant", Name: "theirs"}, Spec: vpcv1alpha1.DPUVPCSpec{NodeSelector: selector},
	}
}

var onNetwork = svcv1alpha1.InterfaceSpec{InterfaceType: svcv1alpha1.InterfaceTypePF, PF: &svcv1alpha1.PF{ID: 1, VirtualNetwork: ptr.To("theirs")}}

func relabel(t *testing.T, e *Evidence, labels map[string]string) {
	t.Helper()
	e.Carriers = held(t, *e, plugged, labels).Carriers
}

// TestFindDrift changes one thing at a time under a running tenant.
func TestFindDrift(t *testing.T) {
	sees := map[DriftKind]bool{}
	hostname := &metav1.LabelSelector{MatchLabels: map[string]string{VPCKey: vpcName}}
	for _, tc := range []struct {
		name    string
		change  func(*Evidence)
		kind    DriftKind
		answer  Answer
		exposed bool
		says    string
	}{
		{"port label changed", func(e *Evidence) { relabel(t, e, map[string]string{VPCKey: vpcName, PortKey(0): "other"}) }, DriftRelabelled, No, true, "was changed by somebody else"},
		{"one port more", func(e *Evidence) {
			relabel(t, e, map[string]string{VPCKey: vpcName, PortKey(0): network, PortKey(1): network})
		}, DriftRelabelled, No, true, "was put there by somebody else"},
		{"port label gone", func(e *Evidence) { relabel(t, e, map[string]string{VPCKey: vpcName}) }, DriftUnlabelled, No, false, PortKey(0)},
		{"VPC label gone", func(e *Evidence) { relabel(t, e, map[string]string{PortKey(0): network}) }, DriftUnlabelled, No, false, VPCKey},
		{"record gone", func(e *Evidence) { e.Carriers[0].Annotations = nil }, DriftRecordGone, Unknown, false, "record"},
		{"record of another", func(e *Evidence) { e.Carriers = held(t, *e, other, portKeys).Carriers }, DriftRecordOther, Unknown, false, "somebody else holds it"},
		{"record unreadable", func(e *Evidence) { e.Carriers[0].Annotations = map[string]string{HolderAnnotation: "{"} }, DriftRecordOther, Unknown, false, "unreadable"},
		{"reinstalling", func(e *Evidence) { e.DPU.Status.Phase = provisioningv1alpha1.DPUPhaseOSInstalling }, DriftDPU, No, false, "OS Installing"},
		{"cluster away", func(e *Evidence) { e.ClusterError = errors.New("no route") }, DriftUnreadable, Unknown, false, "no route"},
		{"surroundings away", func(e *Evidence) { e.Around.Err = errors.New("no route") }, DriftUnreadable, Unknown, false, "no route"},
		{"Node gone", func(e *Evidence) { e.Node = nil }, DriftNodeGone, No, false, "no Node"},
		{"Node relabelled", func(e *Evidence) { delete(e.Node.Labels, PortKey(0)) }, DriftNodeRelabelled, No, false, "does not carry the label"},
		{"other mark", func(e *Evidence) { e.Node.Labels[vpcv1alpha1.NodeVPCLabel] = "x_y" }, DriftOtherMark, No, true, "another VPC"},
		{"port on another network", func(e *Evidence) { e.Interfaces[1].Spec.PF.VirtualNetwork = ptr.To("other") }, DriftOtherPort, No, true, "another network"},
		{"port nobody asked for", func(e *Evidence) {
			e.Interfaces = append(e.Interfaces, svcv1alpha1.ServiceInterface{Spec: onNetwork})
		}, DriftOtherPort, No, true, "nobody asked for"},
		{"Node silent", func(e *Evidence) { e.Node.Status.Conditions[0].Status = corev1.ConditionUnknown }, DriftNodeSilent, Unknown, false, "not Ready"},
		{"mark gone", func(e *Evidence) { delete(e.Node.Labels, vpcv1alpha1.NodeVPCLabel) }, DriftUnmarked, No, false, "not marked"},
		{"port unplugged", func(e *Evidence) { e.Interfaces = e.Interfaces[:1] }, DriftPort, No, false, "no ServiceInterface"},
		{"any MAC", func(e *Evidence) { e.Interfaces[1].Annotations[vpcv1alpha1.PortUnknownMACAnnotation] = "true" }, DriftPort, No, false, "any MAC"},
		{"second VPC", func(e *Evidence) { e.Around.VPCs = []vpcv1alpha1.DPUVPC{otherVPCSelecting(hostname)} }, DriftOtherVPC, Unknown, false, "another VPC of the fabric"},
		{"second VPC that takes all", func(e *Evidence) { e.Around.VPCs = []vpcv1alpha1.DPUVPC{otherVPCSelecting(&metav1.LabelSelector{})} }, DriftOtherVPC, Unknown, false, "another VPC of the fabric"},
		{"interface of another", func(e *Evidence) {
			e.Around.Interfaces = []svcv1alpha1.DPUServiceInterface{otherInterface(nil, onNetwork)}
		}, DriftOtherInterface, Unknown, false, "somebody else"},
		{"chain on the tenant's port", func(e *Evidence) {
			e.Around.Interfaces = []svcv1alpha1.DPUServiceInterface{otherInterface(hostname, svcv1alpha1.InterfaceSpec{
				InterfaceType: svcv1alpha1.InterfaceTypePF, PF: &svcv1alpha1.PF{ID: 0},
			})}
		}, DriftOtherInterface, Unknown, false, "somebody else"},
		{"OVS problem", func(e *Evidence) { e.Node.Status.Conditions[1].Status = corev1.ConditionFalse }, DriftUnhealthy, Unknown, false, "OVSHealthy"},
		{"OVN away", func(e *Evidence) { e.OVN = &OVN{Err: errors.New("no route")} }, DriftOVNUnreadable, Unknown, false, "southbound database"},
		{"port of another VPC claimed", func(e *Evidence) {
			e.OVN = southbound()
			e.OVN.Bindings[2].Chassis = "dpu-1"
		}, DriftOtherBinding, No, true, "claims a port nobody asked for"},
		{"port not claimed", func(e *Evidence) {
			e.OVN = southbound()
			e.OVN.Bindings[1].Chassis = ""
		}, DriftUnbound, No, false, "claimed by no chassis"},
		{"just booted", func(e *Evidence) {
			e.Node.Status.NodeInfo.BootID = "boot-2"
			e.Node.Status.Conditions[0].LastTransitionTime = metav1.NewTime(now.Add(-time.Second))
		}, DriftSettling, Unknown, false, "booted"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := attached(t)
			e.Node = e.Node.DeepCopy()
			want := wanted()
			want.Before = stretch
			if drifts := FindDrift(want, e, now); len(drifts) > 0 {
				t.Fatalf("before anything changed: %+v", drifts)
			}
			tc.change(&e)
			drifts := FindDrift(want, e, now)
			sees[tc.kind] = true
			sum := Worst(drifts)
			if len(drifts) == 0 || sum.Finding.Answer != tc.answer || sum.Exposed != tc.exposed || !strings.Contains(sum.Finding.Message, tc.says) {
				t.Fatalf("got %+v", drifts)
			}
			if !slices.ContainsFunc(drifts, func(d Drift) bool { return d.Kind == tc.kind }) {
				t.Errorf("got %+v, want %s", drifts, tc.kind)
			}
			if strings.Contains(sum.Finding.Message, "secret-tenant") || strings.Contains(sum.Finding.Message, "theirs") {
				t.Errorf("the message names somebody else's object: %s", sum.Finding.Message)
			}
		})
	}
	for _, row := range driftTable {
		if !sees[row.kind] {
			t.Errorf("no case plays %s", row.kind)
		}
	}
}

func TestNoDrift(t *testing.T) {
	for name, change := range map[string]func(*Evidence){
		"a VPC without a selector takes nobody": func(e *Evidence) { e.Around.VPCs = []vpcv1alpha1.DPUVPC{otherVPCSelecting(nil)} },
		"our own VPC": func(e *Evidence) {
			e.Around.VPCs = []vpcv1alpha1.DPUVPC{otherVPCSelecting(&metav1.LabelSelector{})}
			e.Around.VPCs[0].Namespace, e.Around.VPCs[0].Name = dpf, vpcName
		},
		"our own interface": func(e *Evidence) {
			e.Around.Interfaces = []svcv1alpha1.DPUServiceInterface{otherInterface(&metav1.LabelSelector{}, onNetwork)}
			e.Around.Interfaces[0].Namespace, e.Around.Interfaces[0].Name = dpf, InterfaceName(network, 0)
		},
		"an uplink of the DPU": func(e *Evidence) {
			e.Around.Interfaces = []svcv1alpha1.DPUServiceInterface{otherInterface(nil, svcv1alpha1.InterfaceSpec{InterfaceType: svcv1alpha1.InterfaceTypePhysical})}
		},
		"an interface of another DPU cluster": func(e *Evidence) {
			e.Around.Interfaces = []svcv1alpha1.DPUServiceInterface{otherInterface(nil, onNetwork)}
			e.Around.Interfaces[0].Spec.DPUClusterSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"site": "b"}}
			e.Around.Clusters = []provisioningv1alpha1.DPUCluster{{ObjectMeta: metav1.ObjectMeta{Namespace: dpf, Name: "c", Labels: map[string]string{"site": "a"}}}}
		},
		"a hold that waits": func(e *Evidence) {
			e.Around.Maintenances = []provisioningv1alpha1.DPUNodeMaintenance{maintenance("true")}
			e.DPU.Status.Phase = provisioningv1alpha1.DPUPhaseNodeEffect
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := attached(t)
			change(&e)
			if drifts := FindDrift(wanted(), e, now); len(drifts) > 0 {
				t.Errorf("got %+v", drifts)
			}
		})
	}
}

func TestOwnTenantsVPCIsNamed(t *testing.T) {
	e := attached(t)
	e.Around.VPCs = []vpcv1alpha1.DPUVPC{otherVPCSelecting(&metav1.LabelSelector{})}
	e.Around.VPCs[0].Annotations = map[string]string{OwnerAnnotation: Owner{Installation: "i", Namespace: "red", Name: "second"}.String()}
	if got := Worst(FindDrift(wanted(), e, now)).Finding.Message; !strings.Contains(got, "TenantVPC second") {
		t.Errorf("got %s", got)
	}
}

func maintenance(held string) provisioningv1alpha1.DPUNodeMaintenance {
	return provisioningv1alpha1.DPUNodeMaintenance{
		ObjectMeta: metav1.ObjectMeta{Name: "server-1-hold", Annotations: map[string]string{provisioningv1alpha1.HoldAnnotation: held}},
		Spec:       provisioningv1alpha1.DPUNodeMaintenanceSpec{DPUNodeName: "server-1"},
	}
}

func TestNotice(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Evidence)
		says   string
	}{
		{"nothing", func(*Evidence) {}, ""},
		{"held", func(e *Evidence) {
			e.Around.Maintenances = []provisioningv1alpha1.DPUNodeMaintenance{maintenance("true")}
		}, "DPF wants to reinstall DPU dpu-1"},
		{"released", func(e *Evidence) {
			e.Around.Maintenances = []provisioningv1alpha1.DPUNodeMaintenance{maintenance("false")}
		}, "was released"},
		{"of another server", func(e *Evidence) {
			e.Around.Maintenances = []provisioningv1alpha1.DPUNodeMaintenance{maintenance("true")}
			e.Around.Maintenances[0].Spec.DPUNodeName = "server-2"
		}, ""},
		{"no hold", func(e *Evidence) { e.DPU.Spec.NodeEffect.Hold = nil }, "nothing keeps DPF from reinstalling"},
	} {
		e := attached(t)
		tc.change(&e)
		if got := Notice(wanted(), e); !strings.Contains(got, tc.says) || (tc.says == "") != (got == "") {
			t.Errorf("%s: got %q", tc.name, got)
		}
	}
}

func TestPlanRepair(t *testing.T) {
	none := map[string]string{}
	for _, tc := range []struct {
		name   string
		change func(*Evidence)
		want   *Change
	}{
		{"port label", func(e *Evidence) { relabel(t, e, map[string]string{VPCKey: vpcName}) }, &Change{Set: map[string]string{PortKey(0): network}, Holder: plugged}},
		{"both labels", func(e *Evidence) { relabel(t, e, none) }, &Change{Set: portKeys, Holder: plugged}},
		{"record", func(e *Evidence) { e.Carriers[0].Annotations = nil }, &Change{Holder: plugged}},
		{"record and label", func(e *Evidence) {
			relabel(t, e, map[string]string{VPCKey: vpcName})
			e.Carriers[0].Annotations = nil
		}, nil},
		{"record, and the port is unplugged", func(e *Evidence) { e.Carriers[0].Annotations, e.Interfaces = nil, nil }, nil},
		{"record of another", func(e *Evidence) { e.Carriers = held(t, *e, other, none).Carriers }, nil},
		{"a label has another value", func(e *Evidence) { relabel(t, e, map[string]string{PortKey(0): "other"}) }, nil},
		{"Node silent", func(e *Evidence) {
			relabel(t, e, none)
			e.Node.Status.Conditions[0].Status = corev1.ConditionUnknown
		}, nil},
		{"second VPC", func(e *Evidence) {
			relabel(t, e, none)
			e.Around.VPCs = []vpcv1alpha1.DPUVPC{otherVPCSelecting(&metav1.LabelSelector{})}
		}, nil},
		{"port on another network", func(e *Evidence) {
			relabel(t, e, none)
			e.Interfaces[1].Spec.PF.VirtualNetwork = ptr.To("other")
		}, nil},
		{"DPF wants to reinstall it", func(e *Evidence) {
			relabel(t, e, none)
			e.Around.Maintenances = []provisioningv1alpha1.DPUNodeMaintenance{maintenance("true")}
		}, nil},
		{"on its way off", func(e *Evidence) { e.Carriers = held(t, *e, unplugged, none).Carriers }, nil},
		{"DPU gone", func(e *Evidence) { e.DPU = nil }, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := attached(t)
			e.Carriers[0].Annotations = maps.Clone(e.Carriers[0].Annotations)
			tc.change(&e)
			got := PlanRepair(wanted(), e, now)
			switch {
			case tc.want == nil && got.Step != StepWait:
				t.Errorf("planned %+v", got)
			case tc.want != nil && (got.Step != StepRepair || !reflect.DeepEqual(got.Change, *tc.want)):
				t.Errorf("planned %+v", got)
			}
		})
	}
}

// TestOthersKeepOff looks at what stands in the way before anything is written.
func TestOthersKeepOff(t *testing.T) {
	for name, change := range map[string]func(*Evidence){
		"second VPC": func(e *Evidence) { e.Around.VPCs = []vpcv1alpha1.DPUVPC{otherVPCSelecting(&metav1.LabelSelector{})} },
		"a VPC of our label": func(e *Evidence) {
			e.Around.VPCs = []vpcv1alpha1.DPUVPC{otherVPCSelecting(&metav1.LabelSelector{MatchLabels: map[string]string{VPCKey: vpcName}})}
		},
		"interface of another": func(e *Evidence) {
			e.Around.Interfaces = []svcv1alpha1.DPUServiceInterface{otherInterface(nil, onNetwork)}
		},
		"DPF waits": func(e *Evidence) {
			e.Around.Maintenances = []provisioningv1alpha1.DPUNodeMaintenance{maintenance("true")}
		},
		"not known": func(e *Evidence) { e.Around.Err = errors.New("no answer") },
	} {
		t.Run(name, func(t *testing.T) {
			for step, e := range map[Step]Evidence{StepJoin: idle(), StepPlug: marked(joined(t), ourMark), StepDone: attached(t)} {
				if got := PlanAttach(wanted(), e, now); got.Step != step {
					t.Fatalf("before anything changed: %+v", got)
				}
				change(&e)
				if got := PlanAttach(wanted(), e, now); got.Step != StepWait {
					t.Errorf("%s: planned %+v", step, got)
				}
			}
		})
	}
	e := idle()
	e.DPU.Spec.NodeEffect.Hold = ptr.To(false)
	if got := PlanAttach(wanted(), e, now); got.Step != StepWait || !strings.Contains(got.Finding.Message, "nodeEffect.hold") {
		t.Errorf("a DPU that DPF is not held off: %+v", got)
	}
}
