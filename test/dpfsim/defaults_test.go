// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"
	testingclock "k8s.io/utils/clock/testing"
)

// Absent and empty selectors mean opposite things to a VPC and to a set of interfaces.
func TestSelectorDefaults(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"a": "b"}}}
	vpc := func(selector any) *unstructured.UnstructuredList {
		spec := map[string]any{"isolationClassName": "ovn"}
		if selector != nil {
			spec["nodeSelector"] = selector
		}
		return &unstructured.UnstructuredList{Items: []unstructured.Unstructured{{Object: map[string]any{
			"metadata": map[string]any{"namespace": "ns", "name": "v"}, "spec": spec,
		}}}}
	}
	for _, test := range []struct {
		name                string
		selector            any
		wantInVPC, wantInto bool
	}{
		{"absent", nil, false, true},
		{"empty", map[string]any{}, true, true},
		{"matching", map[string]any{"matchLabels": map[string]any{"a": "b"}}, true, true},
		{"other", map[string]any{"matchLabels": map[string]any{"a": "c"}}, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := NewWithT(t)
			claims, err := claimants(vpc(test.selector), node)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(len(claims) == 1).To(Equal(test.wantInVPC), "VPC")
			set := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{}}}
			if test.selector != nil {
				set.Object["spec"].(map[string]any)["nodeSelector"] = test.selector
			}
			spec, err := readSpec[setSpec](set)
			g.Expect(err).NotTo(HaveOccurred())
			into, err := selects(spec.NodeSelector, node.Labels, true)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(into).To(Equal(test.wantInto), "set")
		})
	}
}

func TestInterfaceWithEmptySelectorTakesEveryNode(t *testing.T) {
	ten := v26_4.newTenant(t, "empty-selector", 1, nil)
	ten.makeVPC(false)
	ten.makeNetwork("n", "10.20.0.0/24")
	ten.makeDSI("greedy", "n", map[string]any{})
	nodes := &corev1.NodeList{}
	ten.g.Expect(ten.Fabric.dpuCluster.List(t.Context(), nodes)).To(Succeed())
	ten.g.Eventually(func() int { return len(ten.interfaces()) }).Should(BeNumerically(">=", len(nodes.Items)))
	ten.remove(kindDSI, "greedy")
	ten.g.Eventually(ten.gone(kindDSI, "greedy")).Should(BeTrue())
}

func TestConditionsBeginUnknown(t *testing.T) {
	r := newReport(clock.RealClock{}, &unstructured.Unstructured{Object: map[string]any{}})
	r.ensure(conditionPreReqs)
	c := meta.FindStatusCondition(conditionsOf(r.object, "conditions"), conditionPreReqs)
	if c == nil || c.Status != metav1.ConditionUnknown || c.Reason != reasonPending {
		t.Fatalf("got %+v", c)
	}
}

// DPF edits what the user wrote: a label in the template, which makes another generation. Whoever takes it out has it put back.
func TestDPFEditsTheInterface(t *testing.T) {
	t.Parallel()
	ten := v26_4.newTenant(t, "edited", 0, nil)
	g := ten.g
	ten.makeVPC(false)
	ten.makeNetwork("n", "10.21.0.0/24")
	ten.makeDSI("n-pf0", "n", ten.portSelector("n"))
	stamped := func() string {
		value, _, _ := unstructured.NestedString(ten.get(kindDSI, "n-pf0").Object, "spec", "template", "metadata", "labels", labelProvisioner)
		return value
	}
	g.Eventually(stamped).Should(Equal(provisionerOVN))
	g.Eventually(ten.true(kindDSI, "n-pf0", "Ready")).Should(BeTrue())
	dsi := ten.get(kindDSI, "n-pf0")
	g.Expect(dsi.GetGeneration()).To(Equal(int64(2)))
	observed, _, _ := unstructured.NestedInt64(dsi.Object, "status", "observedGeneration")
	g.Expect(observed).To(Equal(int64(2)))
	ten.change(kindDSI, "n-pf0", func(dsi *unstructured.Unstructured) {
		unstructured.RemoveNestedField(dsi.Object, "spec", "template", "metadata")
	})
	g.Eventually(stamped).Should(Equal(provisionerOVN))
	g.Expect(ten.get(kindDSI, "n-pf0").GetGeneration()).To(Equal(int64(4)))
	var adjusted []string
	g.Eventually(func() []string {
		adjusted = nil
		for _, e := range ten.Journal() {
			if e.Object == "DPUServiceInterface "+ten.namespace+"/n-pf0" && strings.Contains(e.Change, "spec") && e.Kind == EffectAdjusted {
				adjusted = append(adjusted, e.Writer)
			}
		}
		return adjusted
	}).Should(Equal([]string{controllersOwner, controllersOwner}))
}

// What an interface waits for is looked at again when it is created, not when it goes.
func TestPrerequisitesCountWhenTheyAreCreated(t *testing.T) {
	t.Parallel()
	ten := v26_4.newTenant(t, "prereqs", 0, nil)
	g := ten.g
	ten.makeVPC(false)
	ten.makeNetwork("n", "10.22.0.0/24")
	ten.makeDSI("n-pf0", "n", ten.portSelector("n"))
	g.Eventually(ten.true(kindDSI, "n-pf0", "Ready")).Should(BeTrue())
	g.Eventually(func(g Gomega) {
		settled := ten.get(kindDSI, "n-pf0").GetResourceVersion()
		g.Consistently(func() string { return ten.get(kindDSI, "n-pf0").GetResourceVersion() }, "1s").Should(Equal(settled))
	}).Should(Succeed(), "DPF has looked at it for the last time")
	ten.remove(kindVPC, "v")
	g.Eventually(func() error {
		return dropFinalizer(t.Context(), ten.Fabric.management, ten.get(kindVPC, "v"), finalizerVPC)
	}).Should(Succeed())
	g.Eventually(ten.gone(kindVPC, "v")).Should(BeTrue())
	g.Consistently(ten.true(kindDSI, "n-pf0", conditionPreReqs)).Should(BeTrue(), "Ready, and what it stands on is gone")
	// Whatever else has it looked at tells.
	g.Expect(annotate(t.Context(), ten.Fabric.management, ten.get(kindDSI, "n-pf0"), map[string]string{"touched": "yes"})).To(Succeed())
	g.Eventually(ten.reason(kindDSI, "n-pf0", conditionPreReqs)).Should(Equal(reasonPending))
	ten.makeVPC(false)
	g.Eventually(ten.true(kindDSI, "n-pf0", "Ready")).Should(BeTrue())
}

func TestSetNeverCountsReadyInterfaces(t *testing.T) {
	t.Parallel()
	ten := attached(t, "counted", 1, nil)
	set := newObject(kindSIS)
	missing, err := find(t.Context(), ten.Fabric.dpuCluster, set, ten.namespace, "n-pf0")
	ten.g.Expect(err).NotTo(HaveOccurred())
	ten.g.Expect(missing).To(BeEmpty())
	applied, _, _ := unstructured.NestedInt64(set.Object, "status", "numberApplied")
	ten.g.Expect(applied).To(Equal(int64(1)))
	_, filled, _ := unstructured.NestedFieldNoCopy(set.Object, "status", "numberReady")
	ten.g.Expect(filled).To(BeFalse())
}

func TestUnknownMACLetsAnyAddressIn(t *testing.T) {
	t.Parallel()
	ten := v26_4.newTenant(t, "any-mac", 1, nil)
	g, d := ten.g, ten.dpus[0]
	ten.makeVPC(false)
	ten.makeNetwork("n", "10.23.0.0/24")
	ten.make(kindDSI, "n-pf0", map[string]any{"template": map[string]any{"spec": map[string]any{
		"nodeSelector": map[string]any{"matchLabels": ten.portSelector("n")},
		"template": map[string]any{
			"metadata": map[string]any{"annotations": map[string]any{annotationUnknown: "true"}},
			"spec":     map[string]any{"interfaceType": "pf", "pf": map[string]any{"pfID": int64(0), "virtualNetwork": "n"}},
		},
	}}})
	ten.attach(d, "n")
	si := ten.onlyInterface()
	g.Expect(si.GetAnnotations()).To(HaveKeyWithValue(annotationMAC, "unknown"))
	g.Expect(ten.ports()[0].MAC).To(Equal("unknown"))
}

// Two interfaces may want one port, which nobody refuses; the last one has it, and both say they do.
func TestTwoInterfacesForOnePort(t *testing.T) {
	t.Parallel()
	ten := attached(t, "contested", 1, nil)
	g, d := ten.g, ten.dpus[0]
	ten.makeNetwork("m", "10.24.0.0/24")
	ten.makeDSI("m-pf0", "m", map[string]any{"kubernetes.io/hostname": d.Name})
	g.Eventually(func() string { return ten.ports()[0].VirtualNetwork }).Should(Equal("m"))
	g.Eventually(func() (ready int) {
		for _, si := range ten.interfaces() {
			if conditionTrue(&si, "Ready") && si.GetAnnotations()[annotationConnected] == "true" {
				ready++
			}
		}
		return ready
	}).Should(Equal(2))
	g.Expect(ten.ports()).To(HaveLen(1))
}

// A port function the card does not have.
func TestMissingFunctionIsAnError(t *testing.T) {
	t.Parallel()
	ten := v26_4.newTenant(t, "no-function", 1, nil)
	ten.makeVPC(false)
	ten.makeNetwork("n", "10.25.0.0/24")
	ten.make(kindDSI, "n-pf1", map[string]any{"template": map[string]any{"spec": map[string]any{
		"nodeSelector": map[string]any{"matchLabels": map[string]any{"kubernetes.io/hostname": ten.dpus[0].Name}},
		"template": map[string]any{"spec": map[string]any{
			"interfaceType": "pf", "pf": map[string]any{"pfID": int64(1), "virtualNetwork": "n"},
		}},
	}}})
	ten.g.Eventually(func() string {
		for _, si := range ten.interfaces() {
			for _, c := range conditionsOf(&si, "conditions") {
				if c.Type == conditionInterfaceReconciled {
					return string(c.Status) + "/" + c.Reason
				}
			}
		}
		return ""
	}).Should(Equal("False/" + reasonError))
	ten.g.Expect(ten.true(kindDSI, "n-pf1", "Ready")()).To(BeTrue(), "which the interface above does not say")
}

// The mark "<namespace>_<vpc>" is a label's value.
func TestNamesOfAVPCMustFitALabel(t *testing.T) {
	t.Parallel()
	ten := v26_4.newTenant(t, "long-names", 1, nil)
	name := strings.Repeat("v", 63-len(ten.namespace))
	ten.make(kindVPC, name, map[string]any{
		"tenant": ten.namespace, "isolationClassName": IsolationClassName, "interNetworkAccess": false,
		"nodeSelector": map[string]any{"matchLabels": map[string]any{ten.vpcKey(): "in"}},
	})
	ten.label(kindDPU, ten.dpus[0].Name, map[string]any{ten.vpcKey(): "in"})
	ten.g.Eventually(ten.reason(kindVPC, name, conditionNodesReconciled)).Should(Equal(reasonError))
}

func TestTimingIsScaledAndShaken(t *testing.T) {
	g := NewWithT(t)
	scaled := DPFTiming().Scaled(0.01)
	g.Expect(scaled.DSIPoll).To(Equal(300 * time.Millisecond))
	g.Expect(scaled.RelatedRetry).To(Equal(100 * time.Millisecond))
	for _, timing := range []Timing{LabTiming(), DPFTiming()} {
		for i, field := range timing.fields() {
			g.Expect(*field).To(BeNumerically(">", 0), "field %d", i)
		}
	}
	delays := func(seed uint64) (out []time.Duration) {
		p := newPace(Options{Clock: testingclock.NewFakeClock(time.Now()), Jitter: 3, Seed: seed})
		for _, key := range []string{"a", "b", "c"} {
			out = append(out, p.wait(key, time.Second))
		}
		return out
	}
	g.Expect(delays(1)).To(Equal(delays(1)))
	g.Expect(delays(1)).NotTo(Equal(delays(2)))
	for _, d := range delays(7) {
		g.Expect(d).To(And(BeNumerically(">=", time.Second), BeNumerically("<=", 4*time.Second)))
	}
}

// What DPF's schema refuses, on whichever CRDs are installed.
func TestSchemaRefusals(t *testing.T) {
	t.Parallel()
	ten := v26_4.newTenant(t, "refused", 1, nil)
	long := func(n int) string { return strings.Repeat("n", n) }
	for _, test := range []struct {
		name   string
		object *unstructured.Unstructured
	}{
		{"DPUServiceInterface's name", ten.unmade(kindDSI, long(64), map[string]any{"template": map[string]any{"spec": map[string]any{
			"template": map[string]any{"spec": map[string]any{"interfaceType": "pf", "pf": map[string]any{"pfID": int64(0)}}},
		}}})},
		{"DPUNode's name", ten.unmade(kindDPUNode, long(49), map[string]any{})},
		{"VPC without tenant", ten.unmade(kindVPC, "v", map[string]any{"isolationClassName": "ovn", "interNetworkAccess": false})},
		{"network of another type", ten.unmade(kindVirtualNetwork, "n", map[string]any{"vpcName": "v", "type": "Routed", "externallyRouted": true})},
		{"credentials for no duration", ten.unmade(kindCredentialRequest, "c", map[string]any{
			"serviceAccount": map[string]any{"name": "a", "namespace": "b"}, "type": "kubeconfig", "duration": "a while",
			"secret": map[string]any{"name": "a", "namespace": "b"},
		})},
	} {
		err := ten.Fabric.management.Create(t.Context(), test.object)
		ten.g.Expect(apierrors.IsInvalid(err)).To(BeTrue(), "%s: %v", test.name, err)
	}
}

func TestCredentialsLiveTenMinutesAtLeast(t *testing.T) {
	t.Parallel()
	ten := v26_4.newTenant(t, "short-lived", 0, nil)
	ten.make(kindCredentialRequest, "reader", map[string]any{
		"serviceAccount": map[string]any{"name": "short-lived", "namespace": ten.namespace}, "type": "kubeconfig", "duration": "9m",
		"secret": map[string]any{"name": "reader", "namespace": ten.namespace},
	})
	ten.g.Eventually(ten.reason(kindCredentialRequest, "reader", conditionAccount)).Should(Equal(reasonError))
}

func (ten *tenant) unmade(kind schema.GroupVersionKind, name string, spec map[string]any) *unstructured.Unstructured {
	object := newObject(kind)
	object.SetNamespace(ten.namespace)
	object.SetName(name)
	object.Object["spec"] = spec
	return object
}
