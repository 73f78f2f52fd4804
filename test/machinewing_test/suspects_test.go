// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"slices"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// suspects lists failed deployments and suspect servers in the identity, as its controller does.
func (w *world) suspects() {
	w.Helper()
	m := w.machine()
	identity := &infrav1.MaasClusterIdentity{}
	if m == nil || client.IgnoreNotFound(w.objects.Get(w.Context(), client.ObjectKey{Name: "identity"}, identity)) != nil || identity.Name == "" {
		return
	}
	status, name := &identity.Status, tenant+"/"+m.Name
	before := status.DeepCopy()
	for _, avoided := range m.Status.AvoidedServers {
		failed := avoided.Reason == infrav1.DeployFailedReason || avoided.Reason == infrav1.DeployTimedOutReason
		if !failed || avoided.SystemID != m.Status.SystemID {
			continue
		}
		i := slices.IndexFunc(status.Suspects, func(s infrav1.SuspectServer) bool { return s.SystemID == avoided.SystemID })
		if i < 0 {
			i = len(status.Suspects)
			status.Suspects = append(status.Suspects, infrav1.SuspectServer{SystemID: avoided.SystemID, Since: metav1.Now()})
		}
		if !slices.Contains(status.Suspects[i].Machines, name) {
			status.Suspects[i].Machines = append(status.Suspects[i].Machines, name)
		}
	}
	held := slices.ContainsFunc(status.Held, func(s infrav1.HeldServer) bool { return s.SystemID == m.Status.SystemID })
	if !held && conditions.GetReason(m, infrav1.ReleasedCondition) == infrav1.ServerSuspectReason {
		status.Held = append(status.Held, infrav1.HeldServer{SystemID: m.Status.SystemID, Reason: infrav1.ServerSuspectReason, Since: metav1.Now()})
	}
	if !equality.Semantic.DeepEqual(before, status) {
		w.Expect(w.objects.Status().Update(w.Context(), identity)).To(Succeed())
	}
}
