// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricwing_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
)

// holders are the kinds of objects that carry a record which holds the card. From v26.8 on DPF copies labels of a DPUDevice to its
// DPU, so that they are on both.
func (w *wing) holders(d dpfsim.DPU) []string {
	w.t.Helper()
	device := &provisioningv1alpha1.DPUDevice{}
	w.Expect(world.DPFAdmin.Get(w.t.Context(), client.ObjectKey{Namespace: dpfNamespace, Name: d.Device}, device)).To(Succeed())
	var found []string
	for _, object := range []client.Object{w.dpu(d), device} {
		holder, recorded, err := vpc.HolderOf(object.GetAnnotations())
		w.Expect(err).NotTo(HaveOccurred())
		if recorded && holder.Holds() {
			found = append(found, strings.TrimPrefix(fmt.Sprintf("%T", object), "*provisioningv1alpha1."))
		}
	}
	return found
}

// labelled reports whether the card's Node is asked to carry a label of ours anywhere.
func (w *wing) labelled(d dpfsim.DPU) bool {
	w.t.Helper()
	device := &provisioningv1alpha1.DPUDevice{}
	w.Expect(world.DPFAdmin.Get(w.t.Context(), client.ObjectKey{Namespace: dpfNamespace, Name: d.Device}, device)).To(Succeed())
	asked := []map[string]string{w.dpu(d).Spec.Cluster.NodeLabels}
	if device.Spec.Cluster != nil {
		asked = append(asked, device.Spec.Cluster.NodeLabels)
	}
	for _, labels := range asked {
		for key := range labels {
			if vpc.IsOurKey(key) {
				return true
			}
		}
	}
	return false
}

// TestUpgradeUnderTenants upgrades DPF, so that labels have another place, under a running tenant, one that is half-way on and
// one half-way off. Their labels stay where they are until they go; who comes later has them in the new place; nobody has both.
func TestUpgradeUnderTenants(t *testing.T) {
	if os.Getenv("DPF_LABEL_PLACE") == string(dpfsim.LabelsOnDPUDevice) {
		t.Skip("DPF is of the later release from the start")
	}
	w := newWing(t)
	w.newTenant("red", "upgrade")
	start := func(name string) (dpfsim.DPU, *infrav1.DPUAttachment) {
		d := w.newServer(nil)
		w.Eventually(w.eligibility(d)).Should(Equal(infrav1.Eligible))
		return d, w.attach("red", name, "upgrade", "m", d.SystemID, w.claim("red", "m", d.SystemID))
	}
	runs, running := start("runs")
	goes, going := start("goes")
	w.Eventually(w.proven(running)).Should(Equal(attachedState))
	w.Eventually(w.proven(going)).Should(Equal(attachedState))
	since := running.Status.Ports[0].Since
	// Agents that do not answer keep one tenant from getting further on than its labels, and one from getting off.
	comes := w.newServer(nil)
	w.Eventually(w.eligibility(comes)).Should(Equal(infrav1.Eligible))
	heal := []func(){
		world.DPF.Inject(dpfsim.Fault{Kind: dpfsim.AgentDown, Target: comes.Name}),
		world.DPF.Inject(dpfsim.Fault{Kind: dpfsim.AgentDown, Target: goes.Name}),
	}
	coming := w.attach("red", "comes", "upgrade", "m", comes.SystemID, w.claim("red", "m", comes.SystemID))
	w.detach(going)
	w.Eventually(func() []string { return w.holders(comes) }).Should(Equal([]string{"DPU"}))
	w.Eventually(func() int { return writes(goes).Detach }).Should(BeNumerically(">=", 1))

	w.Expect(world.DPF.Upgrade(t.Context(), dpfsim.LabelsOnDPUDevice)).To(Succeed())
	t.Cleanup(func() {
		w.Expect(world.DPF.Upgrade(context.WithoutCancel(t.Context()), dpfsim.LabelsOnDPU)).To(Succeed())
	})
	for _, undo := range heal {
		undo()
	}
	w.stop()
	w.start()

	w.Eventually(w.proven(coming)).Should(Equal(attachedState), "what began in the one place ends there")
	w.Eventually(w.proven(going)).Should(Equal(detachedState))
	w.Expect(w.holders(comes)).To(Equal([]string{"DPU"}))
	w.Expect(w.holders(goes)).To(BeEmpty())
	w.Expect(plugged(goes)).To(BeFalse())
	w.touch(running)
	w.Consistently(w.proven(running)).Should(Equal(attachedState))
	w.Expect(running.Status.Ports[0].Since).To(Equal(since), "proven all the time")
	w.Expect(w.holders(runs)).To(Equal([]string{"DPU"}))
	w.Expect(writes(runs)).To(Equal(dpfsim.WriteCount{Attach: 2}))

	late, later := start("late")
	w.Eventually(w.proven(later)).Should(Equal(attachedState))
	w.Expect(w.holders(late)).To(Equal([]string{"DPUDevice"}))
	w.Expect(writes(late)).To(Equal(dpfsim.WriteCount{Attach: 2}))

	w.detach(running)
	w.Eventually(w.proven(running)).Should(Equal(detachedState), "detached where its labels are")
	w.Expect(w.holders(runs)).To(BeEmpty())
	w.Expect(writes(runs)).To(Equal(dpfsim.WriteCount{Attach: 2, Detach: 2}))
	w.Eventually(w.eligibility(runs)).Should(Equal(infrav1.Eligible))
	again := w.attach("red", "again", "upgrade", "m", runs.SystemID, w.claim("red", "m", runs.SystemID))
	w.Eventually(w.proven(again)).Should(Equal(attachedState))
	w.Expect(w.holders(runs)).To(Equal([]string{"DPUDevice"}), "the record of the one before is left on the DPU, and holds nothing")

	for _, a := range []*infrav1.DPUAttachment{coming, later, again} {
		w.detach(a)
		w.Eventually(w.proven(a)).Should(Equal(detachedState))
	}
	for _, d := range []dpfsim.DPU{runs, goes, comes, late} {
		w.Expect(w.holders(d)).To(BeEmpty(), d.Name)
		w.Expect(w.labelled(d)).To(BeFalse(), d.Name)
		w.Expect(plugged(d)).To(BeFalse(), d.Name)
	}
}

// TestBothPlacesHeld has a record of somebody else in the one place while a tenant's is in the other: neither is written over,
// and nobody else gets the server.
func TestBothPlacesHeld(t *testing.T) {
	w := newWing(t)
	d := w.newServer(nil)
	w.Eventually(w.eligibility(d)).Should(Equal(infrav1.Eligible))
	w.newTenant("red", "both")
	a := w.attach("red", "both", "both", "m", d.SystemID, w.claim("red", "m", d.SystemID))
	w.Eventually(w.proven(a)).Should(Equal(attachedState))
	theirs, err := vpc.Holder{Installation: "another", Namespace: "x", Attachment: "y", TokenHash: "h", Plugged: true}.Encode()
	w.Expect(err).NotTo(HaveOccurred())
	var other client.Object = &provisioningv1alpha1.DPUDevice{}
	name := d.Device
	if w.carrier(d).GetName() == d.Device {
		other, name = &provisioningv1alpha1.DPU{}, d.Name
	}
	w.patchDPF(other, name, fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, vpc.HolderAnnotation, theirs))
	w.Eventually(func() string { return w.serverHolder(d).Installation }).Should(Equal("another"))
	w.Expect(w.message(w.server(d), infrav1.FreeCondition)).To(ContainSubstring("only one of them can be right"))

	w.detach(a)
	w.Eventually(w.proven(a)).Should(Equal(detachedState), "its own labels are gone")
	w.Expect(plugged(d)).To(BeFalse())
	w.Expect(world.DPFAdmin.Get(t.Context(), client.ObjectKeyFromObject(other), other)).To(Succeed())
	w.Expect(other.GetAnnotations()[vpc.HolderAnnotation]).To(Equal(theirs), "what is not ours is left alone")
	w.Eventually(w.reason(w.server(d), infrav1.FreeCondition)).Should(Equal("False/" + infrav1.InUseReason))
	next := w.attach("red", "after", "both", "m", d.SystemID, w.claim("red", "m", d.SystemID))
	w.Eventually(w.reason(next, infrav1.DPUResolvedCondition)).Should(Equal("False/" + infrav1.ServerHeldByOtherReason))
	w.patchDPF(other, name, fmt.Sprintf(`{"metadata":{"annotations":{%q:null}}}`, vpc.HolderAnnotation))
	w.detach(next)
	w.Eventually(w.proven(next)).Should(Equal(detachedState))
}

func (w *wing) serverHolder(d dpfsim.DPU) infrav1.DPUServerHolder {
	w.t.Helper()
	if holder := w.serverNow(d).Status.Holder; holder != nil {
		return *holder
	}
	return infrav1.DPUServerHolder{}
}
