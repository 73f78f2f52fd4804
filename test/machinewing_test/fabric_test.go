// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/checker"
)

const (
	// fabricSpace is DPF's own namespace.
	fabricSpace = "dpf"
	proofAge    = time.Hour
)

// macOf is the MAC of a server's port, made of its system ID's letter and number.
func macOf(systemID string) string {
	return fmt.Sprintf("02:00:00:%02x:%s0:%s", systemID[0], systemID[3:4], systemID[4:6])
}

func dpuOf(systemID string) string { return "dpu-" + systemID }

// fabric is a fabric wing and its data plane: it plugs, proves and unplugs whatever is asked for, unless it is told otherwise.
type fabric struct {
	world *world
	poke  chan struct{}

	mu    sync.Mutex
	plugs []checker.Plug
	// plugged is the claim under which a server's port is on a VPC.
	plugged map[string]string
	// refuse lets it refuse servers, by reason; unproven keeps it from proving detachment; asleep lets it do nothing.
	refuse           map[string]string
	unproven, asleep bool
}

// newFabric runs a fabric until the test ends.
func newFabric(w *world) *fabric {
	w.Helper()
	f := &fabric{world: w, poke: make(chan struct{}, 1), refuse: map[string]string{}, plugged: map[string]string{}}
	var running sync.WaitGroup
	running.Go(func() { f.run(w.Context()) })
	w.Cleanup(running.Wait)
	return f
}

// wakeFabric lets the fabric hear of attachments.
func (a *apiServer) wakeFabric(w *world) {
	w.Helper()
	wake := func(any) { w.fabric.wake() }
	_, err := a.listen(w.Context(), a.kindOf(&infrav1.DPUAttachment{}), toolscache.ResourceEventHandlerFuncs{
		AddFunc: wake, DeleteFunc: wake, UpdateFunc: func(_, object any) { wake(object) },
	})
	w.Expect(err).NotTo(HaveOccurred())
}

func (f *fabric) wake() {
	select {
	case f.poke <- struct{}{}:
	default:
	}
}

// tell changes what the fabric does.
func (f *fabric) tell(change func(*fabric)) {
	f.mu.Lock()
	change(f)
	f.mu.Unlock()
	f.wake()
}

func (f *fabric) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.poke:
		}
		list := &infrav1.DPUAttachmentList{}
		err := f.world.objects.List(ctx, list)
		for i := range list.Items {
			if err == nil {
				err = f.prove(ctx, &list.Items[i])
			}
		}
		switch {
		case apierrors.IsConflict(err), apierrors.IsNotFound(err):
			f.wake() // Somebody was faster.
		case err != nil && ctx.Err() == nil:
			f.world.Errorf("fabric: %v", err)
		}
	}
}

func (f *fabric) prove(ctx context.Context, a *infrav1.DPUAttachment) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.asleep:
		return nil
	case a.DeletionTimestamp != nil:
		if a.Spec.State == infrav1.AttachmentStateDetached && a.Status.State == infrav1.AttachmentStateDetached && a.Status.ObservedGeneration == a.Generation {
			controllerutil.RemoveFinalizer(a, infrav1.DPUAttachmentFinalizer)
			return f.world.objects.Update(ctx, a)
		}
	case controllerutil.AddFinalizer(a, infrav1.DPUAttachmentFinalizer):
		return f.world.objects.Update(ctx, a) // It is heard of again.
	}
	before := a.DeepCopy()
	f.judge(a)
	if before.Status.ObservedGeneration == a.Status.ObservedGeneration && before.Status.State == a.Status.State &&
		conditions.GetReason(before, infrav1.AttachedCondition) == conditions.GetReason(a, infrav1.AttachedCondition) {
		return nil
	}
	return f.world.objects.Status().Update(ctx, a)
}

// judge does to the data plane what is asked, and writes what became of it.
func (f *fabric) judge(a *infrav1.DPUAttachment) {
	id := a.Spec.Server.SystemID
	reason, refused := f.refuse[id]
	attached := metav1.Condition{Type: infrav1.AttachedCondition, Status: metav1.ConditionTrue, Reason: infrav1.AttachedReason}
	state := a.Spec.State
	switch {
	case a.Spec.State == infrav1.AttachmentStateAttached && !f.world.claimed(id, a.Spec.Server.Token):
		state = ""
		attached.Status, attached.Reason = metav1.ConditionUnknown, infrav1.ClaimNotConfirmedReason
	case a.Spec.State == infrav1.AttachmentStateAttached && refused:
		state = ""
		conditions.Set(a, metav1.Condition{Type: infrav1.DPUResolvedCondition, Status: metav1.ConditionFalse, Reason: reason})
		attached.Status, attached.Reason = metav1.ConditionFalse, reason
	case a.Spec.State == infrav1.AttachmentStateDetached && f.unproven:
		state = ""
		attached.Status, attached.Reason = metav1.ConditionUnknown, infrav1.DetachUnprovenReason
	case a.Spec.State == infrav1.AttachmentStateDetached:
		f.unplug(id, a.Spec.Server.Token)
		attached.Status, attached.Reason = metav1.ConditionFalse, infrav1.DetachedReason
	default:
		f.plug(id, a.Spec.Server.Token, vpcOf(a.Namespace))
	}
	now := metav1.Now()
	a.Status.State, a.Status.TokenHash, a.Status.ObservedGeneration = state, maas.TokenHash(a.Spec.Server.Token), a.Generation
	a.Status.ProvenAt, a.Status.ValidUntil = &now, ptr.To(metav1.NewTime(now.Add(proofAge)))
	a.Status.Ports = []infrav1.AttachmentPortStatus{{Name: a.Spec.Ports[0].Name, DPU: dpuOf(id), MAC: macOf(id), State: state}}
	conditions.Set(a, attached)
}

// claimed says whether MAAS holds a server under a token.
func (w *world) claimed(id, token string) bool {
	for _, s := range w.sites {
		for _, m := range s.region.Machines() {
			if m.SystemID == id {
				return m.Claim == token && m.Owner != ""
			}
		}
	}
	return false
}

// plug and unplug belong to a claim: an old one's end is no news for the next.
func (f *fabric) plug(id, token, vpc string) {
	if f.plugged[id] != token {
		f.plugged[id] = token
		f.plugs = append(f.plugs, checker.Plug{MAC: macOf(id), VPC: vpc, Network: "nodes", From: time.Now()})
	}
}

func (f *fabric) unplug(id, token string) {
	if f.plugged[id] != token {
		return
	}
	delete(f.plugged, id)
	for i := range f.plugs {
		if f.plugs[i].MAC == macOf(id) && f.plugs[i].To.IsZero() {
			f.plugs[i].To = time.Now()
		}
	}
}

// Plugs implements checker.Fabric.
func (f *fabric) Plugs() []checker.Plug {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.plugs)
}

// LabelChanges implements checker.Fabric: nobody but the fabric changes DPUs here.
func (f *fabric) LabelChanges() []checker.LabelChange { return nil }

// Reachable implements checker.Fabric: VPCs are apart.
func (f *fabric) Reachable(string, string) bool { return false }

// attachments are the DPUAttachments there are.
func (w *world) attachments() []infrav1.DPUAttachment {
	w.Helper()
	list := &infrav1.DPUAttachmentList{}
	w.Expect(w.objects.List(w.Context(), list)).To(Succeed())
	return list.Items
}

// vpcOf is the VPC of a tenant in DPF's form.
func vpcOf(namespace string) string { return fabricSpace + "_vpc-" + namespace }

// tenantVPC is a tenant's VPC, ready to take ports.
func (w *world) tenantVPC(namespace string) *infrav1.TenantVPC {
	vpc := &infrav1.TenantVPC{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "vpc"},
		Spec:       infrav1.TenantVPCSpec{FabricName: "fabric", Subnets: []infrav1.VPCSubnet{{Name: "nodes", CIDR: "10.64.0.0/24"}}},
	}
	vpc.Status.VPCName = "vpc-" + namespace
	vpc.Status.Subnets = []infrav1.VPCSubnetStatus{{Name: "nodes", CIDR: "10.64.0.0/24", ExternallyRouted: ptr.To(true)}}
	conditions.Set(vpc, metav1.Condition{Type: infrav1.ReadyCondition, Status: metav1.ConditionTrue, Reason: infrav1.ReadyReason})
	return vpc
}

// dpuServer is what the fabric knows of a server: it is eligible.
func dpuServer(source, systemID string) client.Object {
	return &infrav1.DPUServer{
		ObjectMeta: metav1.ObjectMeta{Name: infrav1.DPUServerName(source, systemID)},
		Spec:       infrav1.DPUServerSpec{FabricName: "fabric", Source: source, SystemID: systemID},
		Status: infrav1.DPUServerStatus{Eligibility: infrav1.Eligible, ObservedAt: ptr.To(metav1.Now()), DPUs: []infrav1.BoundDPU{
			{DPUDevice: dpuOf(systemID), Ports: []infrav1.DPUServerPort{{PF: ptr.To[int32](0)}}},
		}},
	}
}
