// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// TestADoubtIsSaid passes on what the fabric wing saw of a proof that counts no more.
func TestADoubtIsSaid(t *testing.T) {
	o := Observation{Ports: true, Attachment: AttachmentView{
		Exists: maas.Yes, Asked: infrav1.AttachmentStateAttached, Proven: infrav1.AttachmentStateAttached, Doubt: "another VPC of the fabric selects Node dpu-1 too",
	}}
	for kind, got := range map[string]Saying{infrav1.IsolatedCondition: sayIsolated(o), infrav1.DPUAttachedCondition: sayAttached(o)} {
		if got.Status != metav1.ConditionUnknown || got.Reason != infrav1.ProofStaleReason || !strings.Contains(got.Message, "another VPC") {
			t.Errorf("%s says %+v", kind, got)
		}
	}
}
