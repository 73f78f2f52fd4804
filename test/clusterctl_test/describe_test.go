// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package clusterctl_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab"
)

const describedTenant = "tenant-red"

// described is a cluster without a control plane and with four workers, which Cluster API's own controllers bring as far as they
// can; the test says of MaasCluster and MaasMachines what the machine wing would.
const described = `
apiVersion: v1
kind: Namespace
metadata: {name: tenant-red}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1beta1
kind: MaasCluster
metadata: {name: red, namespace: tenant-red}
spec:
  identityRef: {name: rack-a}
  vpcName: red
  controlPlaneEndpoint: {host: 192.0.2.10, port: 6443}
---
apiVersion: cluster.x-k8s.io/v1beta2
kind: Cluster
metadata: {name: red, namespace: tenant-red}
spec:
  infrastructureRef: {apiGroup: infrastructure.cluster.x-k8s.io, kind: MaasCluster, name: red}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1beta1
kind: MaasMachineTemplate
metadata: {name: red-workers, namespace: tenant-red}
spec:
  template:
    spec:
      image: ubuntu/noble
      ports: [{name: tenant, subnet: nodes}]
---
apiVersion: cluster.x-k8s.io/v1beta2
kind: MachineDeployment
metadata: {name: red-workers, namespace: tenant-red}
spec:
  clusterName: red
  replicas: 4
  selector: {matchLabels: {pool: red-workers}}
  template:
    metadata: {labels: {pool: red-workers}}
    spec:
      clusterName: red
      version: v1.36.3
      bootstrap: {dataSecretName: red-bootstrap}
      infrastructureRef: {apiGroup: infrastructure.cluster.x-k8s.io, kind: MaasMachineTemplate, name: red-workers}
`

// TestDescribe: clusterctl describe shows for each machine that is not ready which promise is not kept and why, by our reason, and
// all promises on request. Machines whose core Ready is alike are one line.
func TestDescribe(t *testing.T) {
	g := NewWithT(t)
	l, err := lab.Start(t.Context(), lab.Options{Dir: t.TempDir(), Repo: repo, Bin: bin, WithCAPI: true})
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { g.Expect(l.Stop(context.WithoutCancel(t.Context()))).To(Succeed()) })
	scheme := runtime.NewScheme()
	g.Expect(infrav1.AddToScheme(scheme)).To(Succeed())
	c := &cluster{kubeconfig: l.ManagementKubeconfig(), config: l.Management()}
	c.Client, err = client.New(c.config, client.Options{Scheme: scheme})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(l.ApplyKustomization(t.Context(), c.config, "config/crd")).To(Succeed())
	for _, o := range parse(t, described) {
		g.Eventually(func() error { return c.Create(t.Context(), o.DeepCopy()) }).WithTimeout(patience).Should(Succeed(), describe(o))
	}
	machines := &infrav1.MaasMachineList{}
	g.Eventually(func() int {
		g.Expect(c.List(t.Context(), machines, client.InNamespace(describedTenant))).To(Succeed())
		return len(machines.Items)
	}).WithTimeout(patience).Should(Equal(4))

	tenant := &infrav1.MaasCluster{ObjectMeta: metav1.ObjectMeta{Namespace: describedTenant, Name: "red"}}
	g.Expect(c.Get(t.Context(), client.ObjectKeyFromObject(tenant), tenant)).To(Succeed())
	before := tenant.DeepCopy()
	tenant.Status.Initialization.Provisioned = ptr.To(true)
	tenant.Status.Conditions = said(metav1.ConditionTrue, infrav1.ReadyReason, "", infrav1.ReadyCondition, infrav1.IdentityReadyCondition, infrav1.VPCReadyCondition)
	g.Expect(c.Status().Patch(t.Context(), tenant, client.MergeFrom(before))).To(Succeed())
	for i := range machines.Items {
		machine := &machines.Items[i]
		before := machine.DeepCopy()
		reason, message := infrav1.NoServerAvailableReason, "no server is free"
		if i == 3 {
			reason, message = infrav1.AttachingReason, "waiting for the fabric to prove the ports attached"
		}
		machine.Status.Conditions = slices.Concat(
			said(metav1.ConditionUnknown, reason, message, infrav1.ReadyCondition, infrav1.ServerClaimedCondition, infrav1.DPUAttachedCondition),
			said(metav1.ConditionUnknown, infrav1.NotStartedReason, "", infrav1.IsolatedCondition, infrav1.DeployedCondition, infrav1.ReleasedCondition))
		g.Expect(c.Status().Patch(t.Context(), machine, client.MergeFrom(before))).To(Succeed())
	}

	attaching := machines.Items[3].Name
	g.Eventually(func() string {
		return c.clusterctl(t, "describe", "cluster", "red", "-n", describedTenant, "--grouping=false")
	}).WithTimeout(patience).
		Should(SatisfyAll(
			MatchRegexp(`MaasCluster tenant-red/red +.*True +Ready`),
			MatchRegexp(`MaasMachine tenant-red/`+attaching+` +.*Unknown +Attaching +\S+ +waiting for the fabric to prove`),
			MatchRegexp(`MaasMachine tenant-red/\S+ +.*Unknown +NoServerAvailable +\S+ +no server is free`),
			ContainSubstring("InfrastructureReady: no server is free"),
		))
	shown := c.clusterctl(t, "describe", "cluster", "red", "-n", describedTenant)
	t.Log("\n" + shown)
	g.Expect(shown).To(MatchRegexp(`4 Machines\.\.\.`))
	shown = c.clusterctl(t, "describe", "cluster", "red", "-n", describedTenant, "--grouping=false", "--show-conditions", "MaasCluster,MaasMachine/"+attaching)
	t.Log("\n" + shown)
	for _, condition := range []string{
		infrav1.IdentityReadyCondition, infrav1.VPCReadyCondition, infrav1.ServerClaimedCondition, infrav1.DPUAttachedCondition, infrav1.IsolatedCondition,
		infrav1.DeployedCondition, infrav1.ReleasedCondition,
	} {
		g.Expect(regexp.MustCompile(fmt.Sprintf(`─%s +`, condition)).FindAllString(shown, -1)).To(HaveLen(1), "%s in %s", condition, strings.TrimSpace(shown))
	}
}

func said(status metav1.ConditionStatus, reason, message string, types ...string) []metav1.Condition {
	var conditions []metav1.Condition
	for _, condition := range types {
		conditions = append(conditions, metav1.Condition{Type: condition, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.Now()})
	}
	return conditions
}
