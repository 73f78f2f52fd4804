// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuserver

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/cluster-api/util/patch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// fabricConditions are those of a DPUFabric that this controller writes, alone.
var fabricConditions = []string{infrav1.InventoryReadCondition, infrav1.AccountedCondition}

// orphanGrace is for how many poll intervals a DPU must look like an orphan before it is told: DPF takes its time over labels, also
// of other installations.
const orphanGrace = 24

// reportFabric says on the DPUFabric whether its servers could be read, and which DPUs are attached with nobody who asked for it.
func (r *Reconciler) reportFabric(ctx context.Context, o *observation) error {
	before := o.fabric.DeepCopy()
	// The pass read a cached object, which is not to be changed.
	next := o.fabric.DeepCopy()
	helper, err := patch.NewHelper(next, r.Client)
	if err != nil {
		return fmt.Errorf("prepare to report on DPUFabric %s: %w", next.Name, err)
	}
	var doubts map[string]doubt
	if o.inventory.Answer == vpc.Yes {
		found := verify(o, r.Installation, r.doubtsOf(next.Name), next.Status.Orphans, orphanGrace*r.PollInterval)
		doubts = found.doubts
		describeOrphans(next, found)
	} else {
		doubts = r.doubtsOf(next.Name)
		was := conditions.Get(next, infrav1.AccountedCondition)
		if was == nil || was.Status != metav1.ConditionFalse {
			// Orphans that are listed stay so; that there are none is known no more.
			setOnFabric(next, infrav1.AccountedCondition, metav1.ConditionUnknown, o.inventory.Reason, o.inventory.Message)
		}
	}
	describeInventory(next, o)
	if err := helper.Patch(ctx, next, patch.WithOwnedConditions{Conditions: fabricConditions}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("report on DPUFabric %s: %w", next.Name, err)
	}
	r.keepDoubts(next.Name, doubts)
	r.tellFabric(before, next)
	return nil
}

func setOnFabric(fabric *infrav1.DPUFabric, kind string, status metav1.ConditionStatus, reason, message string) {
	conditions.Set(fabric, metav1.Condition{
		Type: kind, Status: status, Reason: cmp.Or(reason, infrav1.NotStartedReason), Message: message, ObservedGeneration: fabric.Generation,
	})
}

// describeInventory says whether DPF's inventory could be read, and which labels in it stand for no server.
func describeInventory(fabric *infrav1.DPUFabric, o *observation) {
	if o.inventory.Answer != vpc.Yes {
		setOnFabric(fabric, infrav1.InventoryReadCondition, metav1.ConditionUnknown, o.inventory.Reason,
			"the servers cannot be read in DPF, so that none is handed out: "+o.inventory.Message)
		return
	}
	message := ""
	if len(o.ignored) > 0 {
		message = fmt.Sprintf("label %s of DPUNodes stands for no server of a claim source where it says: %s", fabric.Spec.ServerLabelKey, several(o.ignored))
	}
	setOnFabric(fabric, infrav1.InventoryReadCondition, metav1.ConditionTrue, infrav1.ReadyReason, message)
}

func describeOrphans(fabric *infrav1.DPUFabric, found verdict) {
	was := conditions.Get(fabric, infrav1.AccountedCondition)
	fabric.Status.Orphans = found.orphans[:min(len(found.orphans), infrav1.MaxOrphanPorts)]
	names := make([]string, 0, len(found.orphans))
	for _, orphan := range found.orphans {
		names = append(names, orphan.DPUDevice+" "+orphan.Reason)
	}
	switch {
	case len(names) > 0:
		setOnFabric(fabric, infrav1.AccountedCondition, metav1.ConditionFalse, infrav1.OrphansFoundReason, fmt.Sprintf(
			"the ports of %d DPUs are attached with nobody who asked for it (%s): see status.orphans, nothing is done about them", len(names), several(names)))
	case len(found.unread) > 0:
		setOnFabric(fabric, infrav1.AccountedCondition, metav1.ConditionUnknown, infrav1.DPUClusterUnreachableReason,
			"the DPU cluster of some DPUs cannot be read: "+several(found.unread))
	case len(found.doubts) > 0 && (was == nil || was.Status != metav1.ConditionTrue):
		setOnFabric(fabric, infrav1.AccountedCondition, metav1.ConditionUnknown, infrav1.AuditPendingReason, "some DPUs are to be looked at once more")
	default:
		setOnFabric(fabric, infrav1.AccountedCondition, metav1.ConditionTrue, infrav1.AccountedReason, "")
	}
}

// several joins names for a sentence; beyond ten only their number is told.
func several(names []string) string {
	const most = 10
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// tellFabric records events of what became different by a status that is stored: that the inventory can be read or not any more,
// and each new orphan.
func (r *Reconciler) tellFabric(before, after *infrav1.DPUFabric) {
	was, is := conditions.Get(before, infrav1.InventoryReadCondition), conditions.Get(after, infrav1.InventoryReadCondition)
	switch {
	case is.Status != metav1.ConditionTrue && (was == nil || was.Status != is.Status || was.Reason != is.Reason):
		r.Recorder.Eventf(after, nil, corev1.EventTypeWarning, is.Reason, "ReadInventory", "%s", is.Message)
	case is.Status == metav1.ConditionTrue && was != nil && was.Status != is.Status:
		r.Recorder.Eventf(after, nil, corev1.EventTypeNormal, is.Reason, "ReadInventory", "the servers can be read in DPF again")
	}
	for _, orphan := range after.Status.Orphans {
		if slices.ContainsFunc(before.Status.Orphans, func(p infrav1.OrphanPort) bool {
			return p.DPUDevice == orphan.DPUDevice && p.Reason == orphan.Reason && p.Attachment == orphan.Attachment
		}) {
			continue
		}
		r.Recorder.Eventf(after, nil, corev1.EventTypeWarning, infrav1.OrphansFoundReason, "Audit", orphanNotes[orphan.Reason]+"; nothing is done about it",
			orphan.DPUDevice, orphan.Reason, cmp.Or(orphan.Attachment, "unknown"), cmp.Or(orphan.VPCMark, "none"))
	}
}

// orphanNotes are the sentences about orphans; they take the DPUDevice, the reason, the attachment and the VPC.
var orphanNotes = map[string]string{
	infrav1.OrphanPortNoAttachment:     "DPUDevice %s, %s: its record names DPUAttachment %s, which does not exist (VPC: %s)",
	infrav1.OrphanPortAnotherClaim:     "DPUDevice %s, %s: its record names DPUAttachment %s, which is of another claim (VPC: %s)",
	infrav1.OrphanPortDetachedYetHeld:  "DPUDevice %s, %s: its record still holds it for DPUAttachment %s, which was proven detached (VPC: %s)",
	infrav1.OrphanPortUnreadableRecord: "DPUDevice %s, %s: its record cannot be read (DPUAttachment: %s, VPC: %s)",
	infrav1.OrphanPortNoRecord:         "DPUDevice %s, %s: it carries labels of ours and no record of who put them there (DPUAttachment: %s, VPC: %s)",
	infrav1.OrphanPortOnNetwork:        "DPUDevice %s, %s: a port of it is on a network that nobody asked for (DPUAttachment: %s, VPC: %s)",
}

func (r *Reconciler) doubtsOf(fabric string) map[string]doubt {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.doubts[fabric]
}

func (r *Reconciler) keepDoubts(fabric string, doubts map[string]doubt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.doubts[fabric] = doubts
}
