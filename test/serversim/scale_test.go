// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package serversim_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
	controlplanev1 "sigs.k8s.io/cluster-api/api/controlplane/kubeadm/v1beta2"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab"
)

const nextVersion = "v1.36.4"

// testControlPlane takes the KubeadmControlPlane of one replica through what users do to one.
func testControlPlane(ctx context.Context, t *testing.T, l *lab.Lab, p *provider, eventually func(Gomega, func(Gomega))) {
	t.Helper()
	workload := workloadClients(ctx, NewWithT(t), p.client, "red")
	timed := func(name string, test func(*testing.T, Gomega)) {
		t.Run(name, func(t *testing.T) {
			started := time.Now()
			test(t, NewWithT(t))
			t.Logf("after %s", time.Since(started).Round(100*time.Millisecond))
		})
	}
	timed("it grows to three", func(_ *testing.T, g Gomega) {
		changeControlPlane(ctx, g, p, func(k *controlplanev1.KubeadmControlPlane) { k.Spec.Replicas = ptr.To(int32(3)) })
		eventually(g, func(g Gomega) { expectControlPlane(ctx, g, p, 3, "v1.36.3") })
		g.Expect(workloadProcesses(l)).To(HaveLen(6), "an etcd member and an API server each")
	})
	timed("the API outlives a server", func(_ *testing.T, g Gomega) {
		victim := controlPlaneServers(ctx, g, workload)[0]
		p.rack.PowerChanged(victim, false)
		g.Eventually(readiness(ctx, workload, nodeOf(victim)), goneWithin, poll).Should(Equal(corev1.ConditionUnknown))
		g.Expect(processes(l, "."+victim)).To(BeEmpty())
		g.Eventually(func() error {
			_, err := workload.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "written-"}}, metav1.CreateOptions{})
			return err
		}, goneWithin, poll).Should(Succeed(), "two of three members are a quorum")
		p.rack.PowerChanged(victim, true)
		g.Eventually(readiness(ctx, workload, nodeOf(victim)), goneWithin, poll).Should(Equal(corev1.ConditionTrue))
		eventually(g, func(g Gomega) { expectControlPlane(ctx, g, p, 3, "v1.36.3") })
	})
	timed("it rolls out", func(_ *testing.T, g Gomega) {
		before := controlPlaneNodes(ctx, g, workload)
		changeControlPlane(ctx, g, p, func(k *controlplanev1.KubeadmControlPlane) { k.Spec.Version = nextVersion })
		eventually(g, func(g Gomega) { expectControlPlane(ctx, g, p, 3, nextVersion) })
		for _, node := range controlPlaneNodes(ctx, g, workload) {
			g.Expect(before).NotTo(ContainElement(HaveField("UID", node.UID)), "a rollout replaces every server")
			g.Expect(node.Status.NodeInfo.KubeletVersion).To(Equal(nextVersion))
		}
		g.Eventually(func() []string { return workloadProcesses(l) }, goneWithin, poll).Should(HaveLen(6), "servers given back run nothing")
	})
	timed("it shrinks to one", func(_ *testing.T, g Gomega) {
		changeControlPlane(ctx, g, p, func(k *controlplanev1.KubeadmControlPlane) { k.Spec.Replicas = ptr.To(int32(1)) })
		eventually(g, func(g Gomega) { expectControlPlane(ctx, g, p, 1, nextVersion) })
		g.Eventually(func() []string { return workloadProcesses(l) }, goneWithin, poll).Should(HaveLen(2))
		g.Expect(controlPlaneNodes(ctx, g, workload)).To(HaveLen(1))
	})
}

func changeControlPlane(ctx context.Context, g Gomega, p *provider, change func(*controlplanev1.KubeadmControlPlane)) {
	kcp := &controlplanev1.KubeadmControlPlane{}
	g.Expect(p.client.Get(ctx, client.ObjectKey{Namespace: "default", Name: "red"}, kcp)).To(Succeed())
	before := kcp.DeepCopy()
	change(kcp)
	g.Expect(p.client.Patch(ctx, kcp, client.MergeFrom(before))).To(Succeed())
}

// expectControlPlane expects the control plane to be what Cluster API calls healthy, at exactly that size and version.
func expectControlPlane(ctx context.Context, g Gomega, p *provider, replicas int32, version string) {
	kcp := &controlplanev1.KubeadmControlPlane{}
	g.Expect(p.client.Get(ctx, client.ObjectKey{Namespace: "default", Name: "red"}, kcp)).To(Succeed())
	g.Expect(kcp.Status.ObservedGeneration).To(Equal(kcp.Generation))
	for _, count := range []*int32{kcp.Status.Replicas, kcp.Status.ReadyReplicas, kcp.Status.AvailableReplicas, kcp.Status.UpToDateReplicas} {
		g.Expect(count).To(HaveValue(Equal(replicas)), fmt.Sprintf("%+v", kcp.Status))
	}
	g.Expect(kcp.Status.Versions).To(ConsistOf(clusterv1.StatusVersion{Version: version, Replicas: replicas}))
	for _, kind := range []string{
		controlplanev1.KubeadmControlPlaneAvailableCondition, controlplanev1.KubeadmControlPlaneEtcdClusterHealthyCondition,
		controlplanev1.KubeadmControlPlaneControlPlaneComponentsHealthyCondition,
	} {
		condition := conditions.Get(kcp, kind)
		g.Expect(condition).NotTo(BeNil(), kind)
		g.Expect(condition.Status).To(Equal(metav1.ConditionTrue), kind+": "+condition.Message)
	}
}

func controlPlaneNodes(ctx context.Context, g Gomega, workload *kubernetes.Clientset) []corev1.Node {
	nodes, err := workload.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: "node-role.kubernetes.io/control-plane"})
	g.Expect(err).NotTo(HaveOccurred())
	return nodes.Items
}

// controlPlaneServers are the system IDs, in order.
func controlPlaneServers(ctx context.Context, g Gomega, workload *kubernetes.Clientset) []string {
	var ids []string
	for _, node := range controlPlaneNodes(ctx, g, workload) {
		ids = append(ids, strings.TrimPrefix(node.Spec.ProviderID, "maas:///"))
	}
	slices.Sort(ids)
	return ids
}

func nodeOf(systemID string) string { return strings.Replace(systemID, "srv", "node-", 1) }
