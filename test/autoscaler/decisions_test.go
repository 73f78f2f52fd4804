// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package autoscaler

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
)

func TestParseDiscovery(t *testing.T) {
	g := NewWithT(t)
	found, err := ParseDiscovery("clusterapi:namespace=red,clusterName=blue,color=green")
	g.Expect(err).NotTo(HaveOccurred())
	for _, c := range []struct {
		namespace, cluster string
		labels             map[string]string
		admitted           bool
	}{
		{"red", "blue", map[string]string{"color": "green", "more": ""}, true},
		{"red", "blue", nil, false},
		{"red", "other", map[string]string{"color": "green"}, false},
		{"other", "blue", map[string]string{"color": "green"}, false},
	} {
		g.Expect(found.admits(c.namespace, c.cluster, c.labels)).To(Equal(c.admitted), "%+v", c)
	}
	all, err := ParseDiscovery("clusterapi:")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(all.admits("any", "cluster", nil)).To(BeTrue())
	for _, malformed := range []string{"", "asg:namespace=red", "clusterapi:namespace", "clusterapi:namespace=a=b"} {
		_, err := ParseDiscovery(malformed)
		g.Expect(err).To(HaveOccurred(), malformed)
	}
}

func TestBounds(t *testing.T) {
	for _, c := range []struct {
		lower, upper string
		min, max     int
		malformed    bool
	}{
		{"0", "3", 0, 3, false},
		{"", "", 0, 0, false},
		{"", "3", 0, 3, false},
		{"2", "2", 2, 2, false},
		{"3", "2", 0, 0, true},
		{"-1", "2", 0, 0, true},
		{"0", "many", 0, 0, true},
	} {
		annotations := map[string]string{}
		if c.lower != "" {
			annotations[clusterv1.AutoscalerMinSizeAnnotation] = c.lower
		}
		if c.upper != "" {
			annotations[clusterv1.AutoscalerMaxSizeAnnotation] = c.upper
		}
		lower, upper, err := bounds(annotations)
		if (err != nil) != c.malformed || err == nil && (lower != c.min || upper != c.max) {
			t.Errorf("%q to %q: %d to %d, %v", c.lower, c.upper, lower, upper, err)
		}
	}
}

func TestInstances(t *testing.T) {
	g := NewWithT(t)
	machine := &clusterv1.Machine{ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "a-1"}}
	g.Expect(instanceOf(machine)).To(Equal(Instance{"pending-machine-red_a-1", Creating}))
	machine.Spec.ProviderID = "maas:///abc123"
	g.Expect(instanceOf(machine)).To(Equal(Instance{"pending-machine-red_a-1", Creating}), "a Machine without a Node, whatever its provider ID")
	machine.Status.NodeRef.Name = "server-1"
	g.Expect(instanceOf(machine)).To(Equal(Instance{"maas:///abc123", Running}))
	machine.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	g.Expect(instanceOf(machine)).To(Equal(Instance{"deleting-machine-red_a-1", Deleting}))
	g.Expect(machineKey("deleting-machine-red_a-1")).To(Equal("red/a-1"))
	g.Expect(lastSegment("maas:///rack-a/abc123")).To(Equal("abc123"))
}

func TestBackoff(t *testing.T) {
	g := NewWithT(t)
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	b := backoff{initial: 5 * time.Minute, longest: 15 * time.Minute, forgottenAfter: time.Hour, groups: map[string]backedOff{}}
	for _, c := range []struct {
		after, waits time.Duration
	}{
		{0, 5 * time.Minute},
		{time.Minute, 5 * time.Minute}, // still waiting: the same failure once more
		{10 * time.Minute, 10 * time.Minute},
		{25 * time.Minute, 15 * time.Minute},
		{70 * time.Minute, 15 * time.Minute},
	} {
		at := now.Add(c.after)
		b.forget(at)
		g.Expect(b.fail("a", at)).To(Equal(at.Add(c.waits)), "after %s", c.after)
		g.Expect(b.waits("a", at.Add(c.waits-time.Second))).To(BeTrue())
		g.Expect(b.waits("a", at.Add(c.waits))).To(BeFalse())
	}
	g.Expect(b.waits("b", now)).To(BeFalse())
	later := now.Add(3 * time.Hour)
	b.forget(later)
	g.Expect(b.fail("a", later)).To(Equal(later.Add(5 * time.Minute)))
}

func TestAnnotatedCapacity(t *testing.T) {
	g := NewWithT(t)
	capacity, err := annotatedCapacity(map[string]string{capacityPrefix + "cpu": "16", capacityPrefix + "memory": "64Gi", capacityPrefix + "maxPods": "50"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(capacity).To(HaveLen(3))
	g.Expect(capacity.Memory().String()).To(Equal("64Gi"))
	g.Expect(capacity.Pods().Value()).To(BeEquivalentTo(50))
	capacity, err = annotatedCapacity(nil)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(capacity).To(HaveLen(1))
	g.Expect(capacity.Pods().Value()).To(BeEquivalentTo(110))
	_, err = annotatedCapacity(map[string]string{capacityPrefix + "cpu": "lots"})
	g.Expect(err).To(HaveOccurred())
}

func TestEstimate(t *testing.T) {
	g := NewWithT(t)
	pods := []Pod{}
	for range 3 {
		pods = append(pods, Pod{CPU: resource.MustParse("40"), Memory: resource.MustParse("128Gi")})
	}
	node := func(cpu, memory string) *corev1.Node {
		n := &corev1.Node{}
		n.Status.Allocatable = corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory), corev1.ResourcePods: resource.MustParse("110"),
		}
		return n
	}
	large, exact := estimate(nil, node("96", "512Gi"), pods, 5), estimate(nil, node("40", "128Gi"), pods, 5)
	g.Expect([]int{large.count, large.helps}).To(Equal([]int{2, 3}))
	g.Expect([]int{exact.count, exact.helps}).To(Equal([]int{3, 3}))
	g.Expect(exact.waste).To(BeNumerically("<", large.waste))
	bounded := estimate(nil, node("40", "128Gi"), pods, 1)
	g.Expect([]int{bounded.count, bounded.helps}).To(Equal([]int{1, 1}))
	g.Expect(estimate(nil, node("16", "512Gi"), pods, 5).helps).To(BeZero())
}

func TestTemplateLabelsAndTaints(t *testing.T) {
	g := NewWithT(t)
	g.Expect(managedLabels(map[string]string{
		"node-role.kubernetes.io/worker": "", "gpu.node.cluster.x-k8s.io/kind": "a", "pool": "workers", "node.cluster.x-k8s.io/x": "y",
	})).To(HaveLen(3))
	g.Expect(pairsOf("a=1,b=2,c")).To(Equal(map[string]string{"a": "1", "b": "2"}))
	g.Expect(taintsOf("a=1:NoSchedule,b,c:NoExecute")).To(Equal([]corev1.Taint{{Key: "a", Value: "1", Effect: "NoSchedule"}, {Key: "c", Effect: "NoExecute"}}))
	g.Expect(pluralOf("MaasMachineTemplate")).To(Equal("maasmachinetemplates"))
}
