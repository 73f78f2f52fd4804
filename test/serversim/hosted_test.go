// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package serversim_test

import (
	"context"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/hosted"
)

// testHosted brings up a cluster of one worker whose control plane runs elsewhere, and takes it down.
func testHosted(ctx context.Context, t *testing.T, l *lab.Lab, p *provider, eventually func(Gomega, func(Gomega))) {
	t.Helper()
	t.Run("a control plane that is hosted elsewhere", func(t *testing.T) {
		g := NewWithT(t)
		planes, err := hosted.New(hosted.Options{
			Management: l.Management(), Supervisor: l.Supervisor(), Bin: l.Bin(), Dir: l.Dir(), Kubelets: p.rack, Log: testr.New(t),
		})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(planes.Install(ctx)).To(Succeed())
		hosting, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- planes.Run(hosting) }()
		defer func() {
			stop()
			g.Expect(<-ended).To(Succeed())
		}()
		before := len(kubelets(l))

		started := time.Now()
		g.Expect(l.ApplyFiles(ctx, l.Management(), "testdata/hosted.yaml")).To(Succeed())
		infrastructure := &unstructured.Unstructured{}
		infrastructure.SetGroupVersionKind(fakeKind("FakeCluster"))
		key := client.ObjectKey{Namespace: "default", Name: "blue"}
		g.Expect(p.client.Get(ctx, key, infrastructure)).To(Succeed())
		g.Expect(p.provisioned(ctx, infrastructure)).To(Succeed())
		cluster := &clusterv1.Cluster{}
		eventually(g, func(g Gomega) { expectAvailable(ctx, g, p, key, cluster, 1) })
		t.Logf("Available after %s", time.Since(started).Round(100*time.Millisecond))
		g.Expect(cluster.Spec.ControlPlaneEndpoint.Port).NotTo(BeZero())
		nodes, err := workloadClients(ctx, g, p.client, "blue").CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(nodes.Items).To(ConsistOf(HaveField("Spec.ProviderID", HavePrefix("maas:///srv"))), "workers only")

		g.Expect(p.client.Delete(ctx, cluster)).To(Succeed())
		plane := &unstructured.Unstructured{}
		plane.SetGroupVersionKind(hosted.Kind)
		eventually(g, func(g Gomega) {
			for _, object := range []client.Object{cluster, plane} {
				g.Expect(apierrors.IsNotFound(p.client.Get(ctx, key, object))).To(BeTrue())
			}
			secrets := &corev1.SecretList{}
			g.Expect(p.client.List(ctx, secrets, client.MatchingLabels{clusterv1.ClusterNameLabel: "blue"})).To(Succeed())
			g.Expect(secrets.Items).To(BeEmpty())
		})
		g.Expect(processes(l, "hosted-")).To(BeEmpty())
		g.Expect(kubelets(l)).To(HaveLen(before))
	})
}
