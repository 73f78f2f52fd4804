// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package capacity_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"

	. "github.com/onsi/gomega"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

// TestAutoscalerReads reads a template as cluster-autoscaler's Cluster API provider does: with the role that is shipped, as the
// plural of the kind in the API group's preferred version, every value a string that is a quantity.
func TestAutoscalerReads(t *testing.T) {
	n := newTenant(t, "scaler", maassim.Machine{SystemID: "sca001"})
	template := n.own(n.template("workers", nil))
	n.says(template, infrav1.ReadyReason, capacity("16", "64Gi", "960G"), "")
	const user = "system:serviceaccount:scaler:cluster-autoscaler"
	n.create(&rbacv1.RoleBinding{
		ObjectMeta: n.meta("autoscaler"), RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "maas-dpu-autoscaler"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: user}},
	})
	config := rest.CopyConfig(world.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"system:authenticated"}}
	kinds, err := discovery.NewDiscoveryClientForConfig(config)
	n.Expect(err).NotTo(HaveOccurred())
	groups, err := kinds.ServerGroups()
	n.Expect(err).NotTo(HaveOccurred())
	i := slices.IndexFunc(groups.Groups, func(g metav1.APIGroup) bool { return g.Name == infrav1.GroupVersion.Group })
	n.Expect(i).To(BeNumerically(">=", 0))
	c, err := dynamic.NewForConfig(config)
	n.Expect(err).NotTo(HaveOccurred())
	templates := c.Resource(schema.GroupVersionResource{
		Group: infrav1.GroupVersion.Group, Version: groups.Groups[i].PreferredVersion.Version, Resource: "maasmachinetemplates",
	}).Namespace(n.name)

	var read *unstructured.Unstructured
	n.Eventually(func() error { // The API server learns of a new binding a little later.
		read, err = templates.Get(t.Context(), "workers", metav1.GetOptions{})
		return err
	}).WithTimeout(patience).WithPolling(poll).Should(Succeed())
	values, found, err := unstructured.NestedStringMap(read.Object, "status", "capacity")
	n.Expect(err).NotTo(HaveOccurred())
	n.Expect(found).To(BeTrue())
	for name, want := range map[string]string{"cpu": "16", "memory": "64Gi", "ephemeral-storage": "960G"} {
		value, err := resource.ParseQuantity(values[name])
		n.Expect(err).NotTo(HaveOccurred(), name)
		n.Expect(value.Cmp(resource.MustParse(want))).To(BeZero(), "%s is %s", name, values[name])
	}
	info, _, err := unstructured.NestedStringMap(read.Object, "status", "nodeInfo")
	n.Expect(err).NotTo(HaveOccurred())
	n.Expect(info).To(Equal(map[string]string{"architecture": "amd64", "operatingSystem": "linux"}))

	watch, err := templates.Watch(t.Context(), metav1.ListOptions{})
	n.Expect(err).NotTo(HaveOccurred())
	watch.Stop()
	_, err = templates.List(t.Context(), metav1.ListOptions{})
	n.Expect(err).NotTo(HaveOccurred())
	n.Expect(apierrors.IsForbidden(templates.Delete(t.Context(), "workers", metav1.DeleteOptions{}))).To(BeTrue())
}

// TestMatchesAsMAASDoes asks MAAS for the servers that meet constraints drawn at random, and compares them with those that are
// matched here.
func TestMatchesAsMAASDoes(t *testing.T) {
	n := newTenant(t, "draw")
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(from ...string) string { return from[random.IntN(len(from))] }
	some := func(from ...string) []string {
		return slices.DeleteFunc(from, func(string) bool { return random.IntN(3) > 0 })
	}
	for _, zone := range []string{"draw-1", "draw-2"} {
		world.region.AddZone(zone)
	}
	for _, tag := range []string{"draw-a", "draw-b", "draw-c"} {
		world.region.AddTag(tag)
	}
	for i := range 60 {
		n.rack(maassim.Machine{
			SystemID: "drw" + string(rune('a'+i/10)) + string(rune('0'+i%10)), Zone: pick("default", "draw-1", "draw-2"),
			Tags: some("draw-a", "draw-b", "draw-c"), Architecture: pick("amd64", "arm64"),
			CPUCount: 8 << random.IntN(3), MemoryMiB: 32768 << random.IntN(3), StorageMB: float64(int(480000) << random.IntN(3)),
		})
	}
	all, err := n.account.MachinesMatching(t.Context(), maas.Constraints{Pool: n.name})
	n.Expect(err).NotTo(HaveOccurred())
	n.Expect(all).To(HaveLen(60))
	matched := 0
	for range 150 {
		constraints := maas.Constraints{
			Zone: pick("", "", "draw-1"), Zones: some("default", "draw-1", "draw-2"), Pools: []string{n.name},
			Tags: some("draw-a", "draw-b", "draw-c"), NotTags: some("draw-a", "draw-b", "draw-c"), Architecture: pick("", "", "amd64", "arm64", "arm64/generic"),
			MinCPU: 8 * random.IntN(4), MinMemoryMiB: 32768 * random.IntN(3), MinDiskGB: 480 * random.IntN(4),
		}
		if constraints.Zone != "" && len(constraints.Zones) > 0 && !slices.Contains(constraints.Zones, constraints.Zone) {
			constraints.Zones = nil // Is refused before MAAS is asked.
		}
		want := n.ask(t.Context(), constraints)
		got := []string{}
		for i := range all {
			if constraints.Match(&all[i]) {
				got = append(got, all[i].SystemID)
			}
		}
		n.Expect(got).To(ConsistOf(want), "%+v", constraints)
		matched += len(want)
	}
	n.Expect(matched).To(BeNumerically(">", 300), "the constraints drawn match too little to say anything")
}

// ask returns the system IDs that MAAS lists.
func (n *tenant) ask(ctx context.Context, constraints maas.Constraints) []any {
	n.Helper()
	found, err := n.account.MachinesMatching(ctx, constraints)
	n.Expect(err).NotTo(HaveOccurred())
	ids := []any{}
	for i := range found {
		ids = append(ids, found[i].SystemID)
	}
	return ids
}
