// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricwing_test

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
)

// ovnStub answers as OVN's databases would behind the simulated DPF: every port that DPF connected is bound to the chassis of its
// Node, and controllers program at once what was raised unless they hang.
type ovnStub struct {
	barrier bool

	mu       sync.Mutex
	value    int64
	raises   int
	away     bool
	unbound  map[string]bool
	hung     map[string]int64
	bindings []vpc.Binding
}

func (o *ovnStub) serve(fabric *scope.Fabric) {
	fabric.Object = fabric.Object.DeepCopy()
	fabric.Object.Spec.Backend.OVNVPC.OVN = &infrav1.OVNEndpoints{Southbound: "tcp:192.0.2.1:6642", Northbound: "tcp:192.0.2.1:6641", Barrier: &o.barrier}
	fabric.OVN = o
}

func (o *ovnStub) Reading(ctx context.Context, _ time.Time) vpc.OVN {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.away {
		return vpc.OVN{Err: errAway}
	}
	reading := vpc.OVN{Started: time.Now()}
	interfaces, nodes := &svcv1alpha1.ServiceInterfaceList{}, &corev1.NodeList{}
	if err := world.DPU.List(ctx, interfaces); err != nil {
		return vpc.OVN{Err: err}
	}
	if err := world.DPU.List(ctx, nodes); err != nil {
		return vpc.OVN{Err: err}
	}
	marks := map[string]string{}
	for i := range nodes.Items {
		name := nodes.Items[i].Name
		marks[name] = nodes.Items[i].Labels[vpcv1alpha1.NodeVPCLabel]
		config := o.value
		if at, hangs := o.hung[name]; hangs {
			config = at
		}
		reading.Chassis = append(reading.Chassis, vpc.Chassis{Name: name, Config: config})
	}
	for i := range interfaces.Items {
		found := &interfaces.Items[i]
		node := ptr.Deref(found.Spec.Node, "")
		if found.Spec.PF == nil || found.Spec.PF.VirtualNetwork == nil || found.Annotations[vpcv1alpha1.PortConnectedAnnotation] != "true" || o.unbound[node] {
			continue
		}
		reading.Bindings = append(reading.Bindings, vpc.Binding{
			LogicalPort: vpc.LogicalPort(found), Switch: marks[node] + "_" + *found.Spec.PF.VirtualNetwork + "Switch", Chassis: node, Up: true,
			MACs: []string{found.Annotations[vpcv1alpha1.PortMACAnnotation]}, Addresses: []netip.Addr{netip.MustParseAddr("10.64.0.7")},
		})
	}
	reading.Bindings = append(reading.Bindings, o.bindings...)
	return reading
}

func (o *ovnStub) Raise(context.Context) (int64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.away {
		return 0, errAway
	}
	o.raises++
	o.value++
	return o.value, nil
}

// change changes something while nobody asks.
func (o *ovnStub) change(how func(*ovnStub)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	how(o)
}

func (o *ovnStub) raised() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.raises
}

// hang has a controller program nothing more until it is let go.
func (o *ovnStub) hang(d dpfsim.DPU) (resume func()) {
	o.change(func(o *ovnStub) { o.hung[d.Name] = o.value })
	return func() { o.change(func(o *ovnStub) { delete(o.hung, d.Name) }) }
}

func newOVNWing(t *testing.T, barrier bool) *wing {
	t.Helper()
	w := &wing{
		WithT: NewWithT(t), t: t, maas: &maasStub{tokens: map[string]string{}, off: map[string]bool{}}, clock: &shiftedClock{}, hooks: &hooks{},
		ovn: &ovnStub{barrier: barrier, value: 7, unbound: map[string]bool{}, hung: map[string]int64{}},
	}
	w.patient()
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *wing) attached(a *infrav1.DPUAttachment) func() string {
	return w.reason(a, infrav1.AttachedCondition)
}

// waits is what the attachment says it waits for.
func (w *wing) waits(a *infrav1.DPUAttachment) func() string {
	return func() string { return w.message(a, infrav1.AttachedCondition) }
}

func TestAttachBound(t *testing.T) {
	w := newOVNWing(t, false)
	d := w.newServer(nil)
	w.newTenant("red", "bound")
	w.ovn.change(func(o *ovnStub) { o.unbound[d.Name] = true })
	a := w.attach("red", "bound", "bound", "m", d.SystemID, w.claim("red", "m", d.SystemID))
	w.Eventually(w.waits(a)).Should(ContainSubstring("has no Port_Binding"))
	w.Expect(w.attached(a)()).To(Equal("False/" + infrav1.AttachingPortReason))
	w.ovn.change(func(o *ovnStub) { delete(o.unbound, d.Name) })
	w.Eventually(w.proven(a)).Should(Equal(attachedState))
	w.Expect(a.Status.Ports[0].Evidence).To(Equal(infrav1.EvidenceBound))
	w.Expect(a.Status.Ports[0].Address).To(Equal("10.64.0.7"))

	// A row that stays is no detachment, whatever DPF says.
	stays := w.ovn.Reading(t.Context(), time.Now()).Bindings
	stays = slices.DeleteFunc(stays, func(b vpc.Binding) bool { return b.Chassis != d.Name })
	w.Expect(stays).To(HaveLen(1))
	stays[0].Chassis, stays[0].MACs = "", nil
	w.detach(a)
	w.ovn.change(func(o *ovnStub) { o.bindings, o.unbound[d.Name] = stays, true })
	w.Eventually(w.waits(a)).Should(ContainSubstring("Port_Binding " + stays[0].LogicalPort))
	w.ovn.change(func(o *ovnStub) { o.away = true })
	w.Eventually(w.attached(a)).Should(Equal("Unknown/" + infrav1.FabricUnreachableReason))
	w.Expect(plugged(d)).To(BeFalse())
	w.Expect(w.proven(a)()).NotTo(Equal(detachedState))
	w.ovn.change(func(o *ovnStub) { o.away, o.bindings = false, nil })
	w.Eventually(w.proven(a)).Should(Equal(detachedState))
	w.Expect(a.Status.Ports[0].Evidence).To(Equal(infrav1.EvidenceBound))
	w.Expect(a.Status.Ports[0].Address).To(BeEmpty())
	w.Expect(w.ovn.raised()).To(BeZero(), "Bound evidence writes nothing to OVN")
}

func TestAttachBarrier(t *testing.T) {
	w := newOVNWing(t, true)
	first, second := w.newServer(nil), w.newServer(nil)
	w.newTenant("red", "barrier")
	a := w.attach("red", "barrier", "barrier", "m", first.SystemID, w.claim("red", "m", first.SystemID))
	w.Eventually(w.proven(a)).Should(Equal(attachedState))
	w.Expect(a.Status.Ports[0].Evidence).To(Equal(infrav1.EvidenceBarrier))
	w.Expect(w.ovn.raised()).To(Equal(2))

	// The second waits for the first, which is its peer.
	resume := w.ovn.hang(first)
	b := w.attach("red", "second", "barrier", "m2", second.SystemID, w.claim("red", "m2", second.SystemID))
	w.Eventually(w.attached(b)).Should(Equal("False/" + infrav1.WaitingForBarrierReason))
	w.Eventually(w.waits(b)).Should(ContainSubstring("for chassis " + first.Name + " to program"))
	w.Consistently(w.proven(b)).ShouldNot(Equal(attachedState))
	resume()
	w.Eventually(w.proven(b)).Should(Equal(attachedState))
	w.Expect(w.ovn.raised()).To(Equal(4))

	// A renewal raises nothing, and keeps the grade.
	before := b.Status.ProvenAt.Time
	w.Eventually(func() time.Time {
		w.touch(b)
		w.proven(b)()
		return b.Status.ProvenAt.Time
	}).Should(BeTemporally(">", before))
	w.Expect(b.Status.Ports[0].Evidence).To(Equal(infrav1.EvidenceBarrier))
	w.Expect(w.ovn.raised()).To(Equal(4))

	// What was lost has to pass again.
	w.ovn.change(func(o *ovnStub) { o.unbound[second.Name] = true })
	w.touch(b)
	w.Eventually(w.attached(b)).Should(Equal("False/" + infrav1.EvidenceMissingReason))
	resume = w.ovn.hang(second)
	w.ovn.change(func(o *ovnStub) { delete(o.unbound, second.Name) })
	w.Eventually(w.waits(b)).Should(ContainSubstring("for chassis " + second.Name + " to program"))
	w.Expect(w.attached(b)()).To(Equal("Unknown/" + infrav1.EvidenceMissingReason))
	resume()
	w.Eventually(w.proven(b)).Should(Equal(attachedState))
	w.Expect(b.Status.Ports[0].Evidence).To(Equal(infrav1.EvidenceBarrier))

	// A vanished row is no proof while the DPU's own controller hangs. A restart begins again, and goes on.
	resume = w.ovn.hang(second)
	w.detach(b)
	w.Eventually(w.attached(b)).Should(Equal("False/" + infrav1.WaitingForBarrierReason))
	w.Eventually(w.waits(b)).Should(ContainSubstring("for chassis " + second.Name + " to program"))
	w.Expect(plugged(second)).To(BeFalse())
	raised := w.ovn.raised()
	w.stop()
	w.start()
	w.Eventually(w.ovn.raised).Should(BeNumerically(">", raised))
	w.Consistently(w.proven(b)).ShouldNot(Equal(detachedState))
	resume()
	w.Eventually(w.proven(b)).Should(Equal(detachedState))
	w.Expect(b.Status.Ports[0].Evidence).To(Equal(infrav1.EvidenceBarrier))

	w.detach(a)
	w.Eventually(w.proven(a)).Should(Equal(detachedState))
	w.Expect(writes(first)).To(Equal(dpfsim.WriteCount{Attach: 2, Detach: 2}))
	w.Expect(writes(second)).To(Equal(dpfsim.WriteCount{Attach: 2, Detach: 2}))
}
