// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfzt

import (
	"context"
	"errors"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
)

const (
	ns  = "dpf-operator-system"
	key = "maas.io/system-id"
)

func node(name, label string, devices ...string) *provisioningv1alpha1.DPUNode {
	n := &provisioningv1alpha1.DPUNode{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	if label != "" {
		n.Labels = map[string]string{key: label}
	}
	for _, device := range devices {
		n.Spec.DPUs = append(n.Spec.DPUs, provisioningv1alpha1.DPURef{Name: device})
	}
	return n
}

func device(name, mac string) *provisioningv1alpha1.DPUDevice {
	return &provisioningv1alpha1.DPUDevice{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{"card": name}},
		Spec:       provisioningv1alpha1.DPUDeviceSpec{SerialNumber: strings.ToUpper(name)},
		Status:     provisioningv1alpha1.DPUDeviceStatus{PF0MAC: mac},
	}
}

func dpu(name, device string, labelled bool) *provisioningv1alpha1.DPU {
	d := &provisioningv1alpha1.DPU{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: provisioningv1alpha1.DPUSpec{DPUDeviceName: device}}
	if labelled {
		d.Labels = map[string]string{provisioningv1alpha1.DPUDeviceNameLabel: device}
	}
	return d
}

func reader(t *testing.T, objects ...client.Object) client.WithWatch {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := provisioningv1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()
}

func TestFindServer(t *testing.T) {
	query := Query{Namespace: ns, LabelKey: key, Values: []string{"abc", "maas-a.abc"}}
	byMAC := query
	byMAC.MACs = []string{"00:00:00:00:00:09", "aa:bb:cc:00:00:01"}
	for _, tc := range []struct {
		name    string
		query   Query
		objects []client.Object
		members string
		reason  string
	}{
		{"by label", query, []client.Object{node("n1", "abc", "D1"), device("d1", ""), dpu("u1", "d1", true)}, "n1/d1/u1", ""},
		{"by full label", query, []client.Object{node("n1", "maas-a.abc", "d1"), device("d1", ""), dpu("u1", "d1", true)}, "n1/d1/u1", ""},
		{"a DPU without DPF's label", query, []client.Object{node("n1", "abc", "d1"), device("d1", ""), dpu("u1", "d1", false), dpu("u2", "d2", false)}, "n1/d1/u1", ""},
		{"two cards", query, []client.Object{node("n1", "abc", "d2", "d1"), device("d1", ""), device("d2", ""), dpu("u1", "d1", true), dpu("u2", "d2", true)}, "n1/d1/u1 n1/d2/u2", ""},
		{"two DPUNodes for one server", query, []client.Object{node("n1", "abc", "d1"), node("n2", "abc", "d2"), device("d1", ""), device("d2", "")}, "n1/d1/ n2/d2/", ""},
		{"not installed", query, []client.Object{node("n1", "abc", "d1"), device("d1", "")}, "n1/d1/", ""},
		{"no label", query, []client.Object{node("n1", "other", "d1"), device("d1", "aa:bb:cc:00:00:01")}, "", infrav1.ServerNotMappedReason},
		{"no card", query, []client.Object{node("n1", "abc")}, "", infrav1.ServerNotMappedReason},
		{"a card that is gone", query, []client.Object{node("n1", "abc", "d1")}, "", infrav1.ServerNotMappedReason},
		{"a card in two servers", query, []client.Object{node("n1", "abc", "d1"), node("n2", "abc", "d1"), device("d1", "")}, "", infrav1.AmbiguousDPUReason},
		{"two DPUs of one card", query, []client.Object{node("n1", "abc", "d1"), device("d1", ""), dpu("u1", "d1", true), dpu("u2", "d1", true)}, "", infrav1.AmbiguousDPUReason},
		{"by MAC", byMAC, []client.Object{node("n1", "", "d1"), node("n2", "", "d2"), device("d1", "AA-BB-CC-00-00-01"), device("d2", "aa:bb:cc:00:00:02")}, "n1/d1/", ""},
		{"the label wins over the MAC", byMAC, []client.Object{node("n1", "", "d1"), node("n2", "abc", "d2"), device("d1", "aa:bb:cc:00:00:01"), device("d2", "")}, "n2/d2/", ""},
		{"no MAC matches", byMAC, []client.Object{node("n1", "", "d1"), device("d1", "aa:bb:cc:00:00:02")}, "", infrav1.ServerNotMappedReason},
		{"one MAC on two cards", byMAC, []client.Object{node("n1", "", "d1"), device("d1", "aa:bb:cc:00:00:01"), device("d2", "aa:bb:cc:00:00:01")}, "", infrav1.AmbiguousDPUReason},
		{"the MAC leads to another server's DPUNode", byMAC, []client.Object{node("n1", "xyz", "d1"), device("d1", "aa:bb:cc:00:00:01")}, "", infrav1.AmbiguousDPUReason},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server, err := FindServer(t.Context(), reader(t, tc.objects...), tc.query)
			var resolve *ResolveError
			switch {
			case tc.reason == "" && err != nil:
				t.Fatal(err)
			case tc.reason != "" && (!errors.As(err, &resolve) || resolve.Reason != tc.reason):
				t.Fatalf("got %v, want reason %s", err, tc.reason)
			}
			var members []string
			for _, m := range server.Members {
				name := ""
				if m.DPU != nil {
					name = m.DPU.Name
				}
				members = append(members, m.Node.Name+"/"+m.Device.Name+"/"+name)
			}
			if got := strings.Join(members, " "); got != tc.members {
				t.Errorf("got %q, want %q", got, tc.members)
			}
			if len(tc.query.MACs) > 0 {
				return
			}
			inventory, err := ReadInventory(t.Context(), reader(t, tc.objects...), ns)
			if err != nil {
				t.Fatal(err)
			}
			same, err := inventory.Server(key, tc.query.Values)
			if (err == nil) != (tc.reason == "") || len(same.Members) != len(server.Members) {
				t.Errorf("the inventory says %v, %v", same, err)
			}
		})
	}
}

func TestFindServerWithoutAnswer(t *testing.T) {
	down := errors.New("no answer")
	c := interceptor.NewClient(reader(t), interceptor.Funcs{
		List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error { return down },
	})
	_, err := FindServer(t.Context(), c, Query{Namespace: ns, LabelKey: key, Values: []string{"abc"}})
	var resolve *ResolveError
	if !errors.Is(err, down) || errors.As(err, &resolve) {
		t.Errorf("no answer reads as one: %v", err)
	}
}

func TestPort(t *testing.T) {
	server := Server{Members: []Member{{Device: device("d1", "")}, {Device: device("d2", "")}}}
	selector := func(card string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{"card": card}}
	}
	if member, err := server.Port(infrav1.MachinePort{Name: "p", DPUSelector: selector("d2")}); err != nil || member.Device.Name != "d2" {
		t.Errorf("got %v, %v", member, err)
	}
	one := Server{Members: server.Members[:1]}
	if member, err := one.Port(infrav1.MachinePort{Name: "p"}); err != nil || member.Device.Name != "d1" {
		t.Errorf("got %v, %v", member, err)
	}
	for name, port := range map[string]infrav1.MachinePort{
		"no selector": {Name: "p"}, "no match": {Name: "p", DPUSelector: selector("d3")},
		"broken selector": {Name: "p", DPUSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "card", Operator: "x"}}}},
	} {
		_, err := server.Port(port)
		var resolve *ResolveError
		if !errors.As(err, &resolve) || resolve.Reason != infrav1.AmbiguousDPUReason {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := server.Port(infrav1.MachinePort{Name: "p"})
	if !strings.Contains(err.Error(), "d1, d2") {
		t.Errorf("the candidates are not named: %v", err)
	}
}

func TestLabelValues(t *testing.T) {
	fabric := &infrav1.DPUFabric{Spec: infrav1.DPUFabricSpec{ClaimSources: []infrav1.ClaimSource{{Name: "a"}}}}
	if got := LabelValues(fabric, "a", "abc"); len(got) != 2 || got[0] != "abc" || got[1] != "a.abc" {
		t.Errorf("one source: %v", got)
	}
	fabric.Spec.ClaimSources = append(fabric.Spec.ClaimSources, infrav1.ClaimSource{Name: "b"})
	if got := LabelValues(fabric, "a", "abc"); len(got) != 1 || got[0] != "a.abc" {
		t.Errorf("two sources: %v", got)
	}
}
