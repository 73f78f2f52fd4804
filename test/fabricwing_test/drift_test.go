// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricwing_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
)

// ending is how a drift ends.
type ending string

const (
	// repaired: the wing puts back what was taken away.
	repaired ending = "repaired"
	// remade: DPF, or the TenantVPC's controller, makes it again.
	remade ending = "remade"
	// lifted: it is over when its cause is.
	lifted ending = "lifted"
	// stays: nobody repairs it; the machine is replaced.
	stays ending = "stays"
	// detaches: the way off is gone.
	detaches ending = "detaches"
)

// tenancy is a running tenant, alone in its VPC.
type tenancy struct {
	*wing
	d          dpfsim.DPU
	name       string
	token      string
	attachment *infrav1.DPUAttachment
	history    *history
	facts      *facts
}

// driftRow is one row of the table of drift.
type driftRow struct {
	// name and happens are what the book says.
	name, happens string
	change        func(*tenancy) (undo func())
	// sees is a condition, says are parts of its message.
	sees string
	says []string
	// powerOff: the wing asks for it at once where the fabric says PowerOff.
	powerOff bool
	ending   ending
	// writes are the wing's and the test's on the DPU before the way off, besides the two of the way on.
	writes dpfsim.WriteCount
	// again, for what may be over before anybody sees it, says that it is.
	again func(*tenancy) bool
	// seed changes the card before it is put in.
	seed func(*dpfsim.DPU)
}

const driftSees = "Attached=False/" + infrav1.EvidenceMissingReason
const doubtSees = "Attached=Unknown/" + infrav1.EvidenceMissingReason

func pointer(key string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(key) }

// carrierPatch is what an administrator of DPF does to the object that carries the labels.
func (y *tenancy) carrierPatch(operations ...string) {
	y.t.Helper()
	patch := client.RawPatch(types.JSONPatchType, []byte("["+strings.Join(operations, ",")+"]"))
	y.Expect(world.DPFAdmin.Patch(y.t.Context(), y.carrier(y.d), patch)).To(Succeed())
}

func removeLabel(key string) string {
	return fmt.Sprintf(`{"op":"remove","path":"/spec/cluster/nodeLabels/%s"}`, pointer(key))
}

func setLabel(key, value string) string {
	return fmt.Sprintf(`{"op":"add","path":"/spec/cluster/nodeLabels/%s","value":%q}`, pointer(key), value)
}

func labels(operations ...string) func(*tenancy) func() {
	return func(y *tenancy) func() { y.carrierPatch(operations...); return nil }
}

func fault(kind dpfsim.FaultKind, value string) func(*tenancy) func() {
	return func(y *tenancy) func() {
		return world.DPF.Inject(dpfsim.Fault{Kind: kind, Target: y.d.Name, Value: value})
	}
}

func (y *tenancy) vpcName() string { return vpc.VPCName(installation, "red", y.name) }
func (y *tenancy) networkName() string {
	return vpc.NetworkName(installation, "red", y.name, "workers")
}

func (y *tenancy) dsi() *svcv1alpha1.DPUServiceInterface {
	y.t.Helper()
	found := &svcv1alpha1.DPUServiceInterface{}
	y.Expect(world.DPFAdmin.Get(y.t.Context(), client.ObjectKey{Namespace: dpfNamespace, Name: vpc.InterfaceName(y.networkName(), 0)}, found)).To(Succeed())
	return found
}

// port is the ServiceInterface of the tenant's port.
func (y *tenancy) port() *svcv1alpha1.ServiceInterface {
	y.t.Helper()
	list := &svcv1alpha1.ServiceInterfaceList{}
	y.Expect(world.DPU.List(y.t.Context(), list, client.InNamespace(dpfNamespace))).To(Succeed())
	for i := range list.Items {
		if ptr.Deref(list.Items[i].Spec.Node, "") == y.d.Name {
			return &list.Items[i]
		}
	}
	y.t.Fatal("the port has no ServiceInterface")
	return nil
}

// annotatePort has the agent look at the port again.
func (y *tenancy) annotatePort(key string, value any) {
	y.t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, key, jsonOf(value))
	y.Expect(client.IgnoreNotFound(world.DPU.Patch(y.t.Context(), y.port(), client.RawPatch(types.MergePatchType, []byte(patch))))).To(Succeed())
}

func jsonOf(value any) string {
	if value == nil {
		return "null"
	}
	return fmt.Sprintf("%q", value)
}

func (y *tenancy) remove(object client.Object) func() {
	y.t.Helper()
	y.Expect(world.DPFAdmin.Delete(y.t.Context(), object)).To(Succeed())
	return nil
}

var driftRows = []driftRow{
	{
		name: "The port's label is taken off the DPU", change: labels(removeLabel(vpc.PortKey(0))),
		sees: driftSees, says: []string{vpc.PortKey(0), "was taken away"}, ending: repaired, writes: dpfsim.WriteCount{Attach: 1, Detach: 1},
		happens: "Put back, in one write, once MAAS confirms the claim; three times within an hour at most.",
	},
	{
		name: "The VPC's label is taken off the DPU", change: labels(removeLabel(vpc.VPCKey)),
		sees: driftSees, says: []string{vpc.VPCKey, "was taken away"}, ending: repaired, writes: dpfsim.WriteCount{Attach: 1, Detach: 1},
		happens: "As above.",
	},
	{
		name: "The port's label has another value", change: labels(setLabel(vpc.PortKey(0), "elsewhere")),
		sees: driftSees, says: []string{vpc.PortKey(0), "was changed by somebody else"}, powerOff: true, ending: stays, writes: dpfsim.WriteCount{Other: 1},
		happens: "Not repaired: what somebody wrote is not ours to change. The operator puts it back, or the machine is replaced.",
	},
	{
		name: "The VPC's label has another value", change: labels(setLabel(vpc.VPCKey, "elsewhere")),
		sees: driftSees, says: []string{vpc.VPCKey, "was changed by somebody else"}, powerOff: true, ending: stays, writes: dpfsim.WriteCount{Other: 1},
		happens: "As above.",
	},
	{
		name: "A label of one more port is put on the DPU", change: labels(setLabel(vpc.PortKey(1), "elsewhere")),
		sees: driftSees, says: []string{vpc.PortKey(1), "was put there by somebody else"}, powerOff: true, ending: stays, writes: dpfsim.WriteCount{Attach: 1},
		happens: "As above.",
	},
	{
		name: "A label is taken off the Node itself", change: fault(dpfsim.Relabel, vpc.PortKey(0)+"-"),
		sees: driftSees, says: []string{"does not carry the label " + vpc.PortKey(0)}, ending: stays,
		happens: "Not repaired: the label is still asked for on the DPU, and DPF does not look at the Node. The machine is replaced.",
	},
	{
		name: "The record of who holds the DPU is taken away",
		change: func(y *tenancy) func() {
			y.carrierPatch(`{"op":"remove","path":"/metadata/annotations/` + pointer(vpc.HolderAnnotation) + `"}`)
			return nil
		},
		sees: doubtSees, says: []string{"the record of who holds", "was taken away"}, ending: repaired, writes: dpfsim.WriteCount{Other: 2},
		happens: "Put back, once MAAS confirms the claim, if all labels are still there and the ports prove to be ours.",
	},
	{
		name: "The record says that somebody else holds the DPU",
		change: func(y *tenancy) func() {
			other, err := vpc.Holder{Installation: "another", Namespace: "x", Attachment: "y", TokenHash: "z"}.Encode()
			y.Expect(err).NotTo(HaveOccurred())
			mine := y.carrier(y.d).GetAnnotations()[vpc.HolderAnnotation]
			write := func(value string) {
				y.carrierPatch(fmt.Sprintf(`{"op":"replace","path":"/metadata/annotations/%s","value":%q}`, pointer(vpc.HolderAnnotation), value))
			}
			write(other)
			return func() { write(mine) }
		},
		sees: doubtSees, says: []string{"somebody else holds it"}, ending: lifted, writes: dpfsim.WriteCount{Other: 2},
		happens: "Not repaired: two installations that share a DPF settle it between them.",
	},
	{
		name: "The Node is marked with another VPC, which selects it too",
		change: func(y *tenancy) func() {
			undo := fault(dpfsim.VPCClaim, "rival/other")(y)
			fault(dpfsim.Relabel, vpcv1alpha1.NodeVPCLabel+"=rival_other")(y)
			return func() {
				undo()
				fault(dpfsim.Relabel, vpcv1alpha1.NodeVPCLabel+"="+vpc.Mark(dpfNamespace, y.vpcName()))(y)
			}
		},
		sees: driftSees, says: []string{"is marked with another VPC"}, powerOff: true, ending: lifted,
		happens: "Not touched: the operator takes the other VPC's selector back. A mark alone DPF puts right by itself, within seconds.",
	},
	{
		name: "The DPUServiceInterface selects other Nodes",
		change: func(y *tenancy) func() {
			dsi := y.dsi()
			patch := `[{"op":"replace","path":"/spec/template/spec/nodeSelector","value":{"matchLabels":{"some":"thing"}}}]`
			y.Expect(world.DPFAdmin.Patch(y.t.Context(), dsi, client.RawPatch(types.JSONPatchType, []byte(patch)))).To(Succeed())
			return nil
		},
		again: func(y *tenancy) bool {
			return y.dsi().Spec.Template.Spec.NodeSelector.MatchLabels[vpc.VPCKey] == y.vpcName()
		},
		ending:  remade,
		happens: "The TenantVPC's controller sets it right, before DPF has taken the port off or after.",
	},
	{
		name: "The DPUServiceInterface is deleted", change: func(y *tenancy) func() { return y.remove(y.dsi()) },
		sees: driftSees, says: []string{"PF 0"}, ending: remade,
		happens: "The TenantVPC's controller makes it again when DPF has taken the port off.",
	},
	{
		name: "The DPUVirtualNetwork is deleted",
		change: func(y *tenancy) func() {
			return y.remove(&vpcv1alpha1.DPUVirtualNetwork{ObjectMeta: metav1.ObjectMeta{Namespace: dpfNamespace, Name: y.networkName()}})
		},
		sees: doubtSees, says: []string{"is being deleted"}, ending: stays,
		happens: "DPF keeps it as long as an interface hangs on it, and nobody can take a deletion back. Its machines are replaced; then it is made again.",
	},
	{
		name: "The DPUVPC is deleted",
		change: func(y *tenancy) func() {
			return y.remove(&vpcv1alpha1.DPUVPC{ObjectMeta: metav1.ObjectMeta{Namespace: dpfNamespace, Name: y.vpcName()}})
		},
		sees: doubtSees, says: []string{"is being deleted"}, ending: stays,
		happens: "As above.",
	},
	{
		name: "The DPUVirtualNetwork is not Ready",
		change: func(y *tenancy) func() {
			return world.DPF.Inject(dpfsim.Fault{Kind: dpfsim.NetworkNotReady, Target: dpfNamespace + "/" + y.networkName()})
		},
		sees: doubtSees, says: []string{"is not Ready on the fabric"}, ending: lifted,
		happens: "Waited for: ports stay as they were.",
	},
	{
		name: "The DPU reboots", change: fault(dpfsim.DPUReboot, ""),
		sees: doubtSees, says: []string{"Node"}, ending: lifted,
		happens: "Waited for. What agents said before the boot counts no more: the proof is renewed when the Node has been Ready for 30 s.",
	},
	{
		name: "The DPU is installed anew", change: fault(dpfsim.Reprovision, ""),
		sees: driftSees, says: []string{"is in phase"}, ending: lifted,
		happens: "The tenant is cut off meanwhile. DPF puts the labels on the new Node, and the proof is renewed 30 s after it is Ready.",
	},
	{
		name: "The Node is made anew", change: fault(dpfsim.NodeDeleted, ""),
		sees: driftSees, says: []string{"there is no Node"}, ending: lifted,
		happens: "As above, without the 30 s if the DPU did not boot.",
	},
	{
		name: "The Node is silent", change: fault(dpfsim.NodeNotReady, ""),
		sees: doubtSees, says: []string{"not Ready"}, ending: lifted,
		happens: "The last proof stands until `proofMaxAgeSeconds`.",
	},
	{
		name: "The DPU is in phase Error", change: fault(dpfsim.DPUPhase, "Error"),
		sees: driftSees, says: []string{`is in phase "Error"`}, ending: lifted,
		happens: "Waited for; the operator looks at the DPU.",
	},
	{
		name: "The Node reports a problem of OVS", change: fault(dpfsim.OVSProblem, ""),
		sees: doubtSees, says: []string{"OVSHealthy"}, ending: lifted,
		happens: "Waited for. The last proof stands until `proofMaxAgeSeconds`.",
	},
	{
		name: "A second DPUVPC selects the Node", change: fault(dpfsim.VPCClaim, "rival/vpc"),
		sees: doubtSees, says: []string{"another VPC of the fabric selects Node"}, ending: lifted,
		happens: "Whose it is, is not told to the tenant. DPF keeps the Node where it is, and changes nothing in either VPC: the operator takes one selector back.",
	},
	{
		name: "An interface of somebody else selects the Node",
		change: func(y *tenancy) func() {
			theirs := &svcv1alpha1.DPUServiceInterface{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "theirs-" + y.d.Name}}
			theirs.Spec.Template.Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/hostname": y.d.Name}}
			theirs.Spec.Template.Spec.Template.Spec = svcv1alpha1.InterfaceSpec{
				InterfaceType: svcv1alpha1.InterfaceTypePF, PF: &svcv1alpha1.PF{ID: 0, VirtualNetwork: ptr.To("theirs")},
			}
			y.Expect(world.DPFAdmin.Create(y.t.Context(), theirs)).To(Succeed())
			return func() { y.Expect(world.DPFAdmin.Delete(y.t.Context(), theirs)).To(Succeed()) }
		},
		sees: doubtSees, says: []string{"an interface of somebody else selects Node"}, ending: lifted,
		happens: "As above.",
	},
	{
		name: "Another port of the DPU comes on a network", seed: func(d *dpfsim.DPU) { d.NumberOfPFs = 2 },
		change: func(y *tenancy) func() {
			theirs := &svcv1alpha1.DPUServiceInterface{ObjectMeta: metav1.ObjectMeta{Namespace: dpfNamespace, Name: "theirs-" + y.d.Name}}
			theirs.Spec.Template.Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/hostname": y.d.Name}}
			theirs.Spec.Template.Spec.Template.Spec = svcv1alpha1.InterfaceSpec{
				InterfaceType: svcv1alpha1.InterfaceTypePF, PF: &svcv1alpha1.PF{ID: 1, VirtualNetwork: ptr.To(y.networkName())},
			}
			y.Expect(world.DPFAdmin.Create(y.t.Context(), theirs)).To(Succeed())
			return func() { y.Expect(world.DPFAdmin.Delete(y.t.Context(), theirs)).To(Succeed()) }
		},
		sees: driftSees, says: []string{"PF 1", "nobody asked for"}, powerOff: true, ending: lifted,
		happens: "Not touched: the operator removes the interface.",
	},
	{
		name: "The port has another MAC address",
		change: func(y *tenancy) func() {
			heal := world.DPF.Inject(dpfsim.Fault{Kind: dpfsim.WrongMAC, Target: y.d.Name, Value: "02:00:00:00:00:99"})
			y.annotatePort("test/look", "1")
			return func() { heal(); y.annotatePort("test/look", "2") }
		},
		sees: driftSees, says: []string{"has the MAC address 02:00:00:00:00:99"}, ending: lifted,
		happens: "Waited for: the agent on the DPU sets it.",
	},
	{
		name: "The port may carry any MAC address",
		change: func(y *tenancy) func() {
			y.annotatePort(vpcv1alpha1.PortUnknownMACAnnotation, "true")
			return func() { y.annotatePort(vpcv1alpha1.PortUnknownMACAnnotation, nil) }
		},
		sees: driftSees, says: []string{"may carry any MAC address"}, ending: lifted,
		happens: "Not touched: the operator takes the annotation away.",
	},
	{
		name: "DPF wants to reinstall the DPU",
		change: func(y *tenancy) func() {
			withdraw := fault(dpfsim.ReinstallWanted, "")(y)
			return func() {
				withdraw()
				asked := &provisioningv1alpha1.DPUNodeMaintenance{ObjectMeta: metav1.ObjectMeta{Namespace: dpfNamespace, Name: y.d.Node + "-hold"}}
				y.Expect(client.IgnoreNotFound(world.DPFAdmin.Delete(y.t.Context(), asked))).To(Succeed())
			}
		},
		sees: "DPUResolved=True/" + infrav1.MaintenancePendingReason, says: []string{"DPF wants to reinstall", "DPUNodeMaintenance"}, ending: lifted,
		happens: "The proof holds. DPF waits at the DPUNodeMaintenance named; nobody but the operator releases it.",
	},
	{
		name: "Nothing keeps DPF from reinstalling the DPU",
		change: func(y *tenancy) func() {
			hold := func(held bool) {
				patch := `{"spec":{"nodeEffect":{"hold":true,"noEffect":null}}}`
				if !held {
					patch = `{"spec":{"nodeEffect":{"hold":null,"noEffect":true}}}`
				}
				y.Expect(world.DPFAdmin.Patch(y.t.Context(), y.dpu(y.d), client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
			}
			hold(false)
			return func() { hold(true) }
		},
		sees: "DPUResolved=True/" + infrav1.MaintenancePendingReason, says: []string{"nothing keeps DPF from reinstalling"}, ending: lifted, writes: dpfsim.WriteCount{Other: 2},
		happens: "The proof holds. A DPU without `nodeEffect.hold` gets no new attachments.",
	},
	{
		name: "MAAS gives the server to somebody else",
		change: func(y *tenancy) func() {
			y.machine(y.facts, "blue", "drift-thief", y.d.SystemID)
			y.touch(y.attachment)
			return nil
		},
		sees: "Authorized=False/" + infrav1.ClaimNotConfirmedReason, ending: detaches, writes: dpfsim.WriteCount{Detach: 2},
		happens: "Detached. MAAS is not touched, and the server stays ineligible until the detachment is proven.",
	},
}

// played is a row on a tenant of its own.
type played struct {
	driftRow
	*tenancy
	began   time.Time
	undo    func()
	seen    said
	noticed time.Duration
	// settled is how long after its end, or after it was seen, the proof was good again.
	settled time.Duration
	counted dpfsim.WriteCount
}

// begin changes something.
func (p *played) begin() {
	p.Eventually(p.proven(p.attachment)).Should(Equal(attachedState), p.last())
	p.Eventually(p.attached()).Should(BeTrue(), p.last())
	p.Expect(writes(p.d)).To(Equal(dpfsim.WriteCount{Attach: 2}), "the way on")
	p.began = time.Now()
	p.undo = p.change(p.tenancy)
}

// notice waits until it is said.
func (p *played) notice() {
	if p.again != nil {
		p.Eventually(func() bool { return p.again(p.tenancy) }).Should(BeTrue())
		p.noticed = time.Since(p.began)
		return
	}
	p.Eventually(func() bool {
		var found bool
		p.seen, found = p.history.find(p.began, p.sees, p.states, p.says...)
		return found
	}).Should(BeTrue(), func() string { return fmt.Sprintf("never saw %s %q: %s", p.sees, p.says, p.last()()) })
	p.noticed = p.seen.at.Sub(p.began)
	for _, c := range p.seen.conditions {
		for _, secret := range []string{"rival", "theirs"} {
			p.Expect(c.Message).NotTo(ContainSubstring(secret), "the tenant is told somebody else's name")
		}
	}
}

// finish has the drift end as its row says.
func (p *played) finish() {
	back := time.Now()
	switch p.ending {
	case repaired, remade, lifted:
		if p.ending == lifted {
			p.undo()
		}
		p.Eventually(p.attached()).Should(BeTrue(), p.last())
		p.settled = time.Since(back)
	case stays:
		p.Expect(p.attached()()).To(BeFalse())
	case detaches:
		p.Eventually(p.proven(p.attachment)).Should(Equal(detachedState), p.last())
	}
	want := p.writes
	want.Attach += 2
	p.counted = writes(p.d)
	p.Expect(p.counted).To(Equal(want), "writes on the DPU")
	p.detach(p.attachment)
}

// states says what the proof must be in a version: one that is contradicted is taken back, one of which something was seen counts
// no more; and where somebody else may reach the tenant, the server is to be powered off.
func (p *played) states(v said) bool {
	if wanted := map[bool]infrav1.RequestedAction{true: infrav1.RequestedActionPowerOff}[p.powerOff]; v.action != wanted {
		return false
	}
	if p.ending == detaches {
		return true
	}
	switch v.conditions[infrav1.AttachedCondition].Status {
	case metav1.ConditionFalse:
		return v.state != attachedState
	default:
		return v.state == attachedState
	}
}

// newTenancy attaches a new server for a new machine to a new VPC.
func (w *wing) newTenancy(f *facts, name string, seed func(*dpfsim.DPU)) *tenancy {
	w.t.Helper()
	y := w.askTenancy(f, name, seed)
	w.Eventually(w.proven(y.attachment)).Should(Equal(attachedState), y.last())
	return y
}

// askTenancy asks for it.
func (w *wing) askTenancy(f *facts, name string, seed func(*dpfsim.DPU)) *tenancy {
	w.t.Helper()
	y := &tenancy{wing: w, name: name, facts: f, d: w.newServer(seed)}
	f.add(y.d)
	w.newTenant("red", name)
	y.token = w.machine(f, "red", name, y.d.SystemID)
	y.attachment = w.attach("red", name, name, name, y.d.SystemID, y.token)
	y.history = follow(w.t, y.attachment)
	return y
}

func (y *tenancy) attached() func() bool {
	return func() bool {
		ready := y.reason(y.attachment, infrav1.AttachedCondition)() == "True/"+infrav1.AttachedReason
		return ready && y.attachment.Status.State == attachedState && y.reason(y.attachment, infrav1.DPUResolvedCondition)() == "True/"+infrav1.ResolvedReason
	}
}

// last is what the attachment says now, for a failure's message.
func (y *tenancy) last() func() string {
	return func() string {
		a := &infrav1.DPUAttachment{}
		if err := world.Hub.Get(y.t.Context(), client.ObjectKeyFromObject(y.attachment), a); err != nil {
			return err.Error()
		}
		text := fmt.Sprintf("state %q, DPU %s, writes %+v", a.Status.State, y.d.Name, writes(y.d))
		for _, c := range a.Status.Conditions {
			text += fmt.Sprintf("\n%s=%s/%s %s", c.Type, c.Status, c.Reason, c.Message)
		}
		return text
	}
}

// TestDriftTable changes one thing after another under running tenants, all at the same time.
func TestDriftTable(t *testing.T) {
	w := newWing(t)
	f := w.watched()
	// Nothing but a watch notices in time, and what exposes a tenant is reacted to.
	w.changeFabric(`{"spec":{"proofMaxAgeSeconds":300,"onIsolationLost":"PowerOff"}}`, `{"spec":{"proofMaxAgeSeconds":30,"onIsolationLost":"Report"}}`)
	var all []*played
	for first := 0; first < len(driftRows); first += driftsAtOnce {
		rows := driftRows[first:min(first+driftsAtOnce, len(driftRows))]
		t.Run(fmt.Sprintf("from %02d", first), func(t *testing.T) {
			all = append(all, playDrifts(w.on(t), f, first, rows)...)
		})
	}
	for _, p := range all {
		t.Logf("%-55s noticed after %5d ms, good again after %6d ms, writes %+v, %s", p.driftRow.name, p.noticed.Milliseconds(), p.settled.Milliseconds(), p.counted, p.ending)
	}
}

// driftsAtOnce is how many rows are played side by side.
const driftsAtOnce = 10

func playDrifts(w *wing, f *facts, first int, rows []driftRow) []*played {
	var all []*played
	for n, row := range rows {
		all = append(all, &played{driftRow: row, tenancy: w.askTenancy(f, fmt.Sprintf("drift-%02d", first+n), row.seed)})
	}
	each := func(step string, play func(*played)) {
		for _, p := range all {
			w.t.Run(step+"/"+p.driftRow.name, func(t *testing.T) {
				p.wing = w.on(t)
				play(p)
			})
			p.wing = w
		}
	}
	each("change", (*played).begin)
	each("notice", (*played).notice)
	each("end", (*played).finish)
	each("detach", func(p *played) {
		p.Eventually(p.proven(p.attachment)).Should(Equal(detachedState), p.last())
		p.Expect(plugged(p.d)).To(BeFalse())
	})
	return all
}

// TestRepairsEnd: whoever takes a label away again and again means it.
func TestRepairsEnd(t *testing.T) {
	w := newWing(t)
	y := w.newTenancy(w.watched(), "again", nil)
	for range 3 {
		start := time.Now()
		y.carrierPatch(removeLabel(vpc.PortKey(0)))
		w.Eventually(func() bool { _, found := y.history.find(start, driftSees, nil, "it is being put back"); return found }).Should(BeTrue(), y.last())
		w.Eventually(y.attached()).Should(BeTrue(), y.last())
	}
	start := time.Now()
	y.carrierPatch(removeLabel(vpc.PortKey(0)))
	w.Eventually(func() bool { _, found := y.history.find(start, driftSees, nil, "not put back any more"); return found }).Should(BeTrue(), y.last())
	w.Consistently(func() dpfsim.WriteCount { return writes(y.d) }).Should(Equal(dpfsim.WriteCount{Attach: 5, Detach: 4}))
	w.detach(y.attachment)
	w.Eventually(w.proven(y.attachment)).Should(Equal(detachedState), y.last())
}

// TestRepairSurvivesACrash ends the wing right after it has put a label back.
func TestRepairSurvivesACrash(t *testing.T) {
	w := newWing(t)
	y := w.newTenancy(w.watched(), "crashed", nil)
	crash := make(chan struct{}, 8)
	w.stop()
	w.hooks.afterWrite = func() error { crash <- struct{}{}; return errMAASDown }
	w.start()
	y.carrierPatch(removeLabel(vpc.PortKey(0)))
	w.Eventually(crash).Should(Receive())
	w.stop()
	w.start()
	w.Eventually(y.attached()).Should(BeTrue(), y.last())
	w.Expect(writes(y.d)).To(Equal(dpfsim.WriteCount{Attach: 3, Detach: 1}))
	w.hooks.afterWrite = nil
	w.detach(y.attachment)
	w.Eventually(w.proven(y.attachment)).Should(Equal(detachedState), y.last())
}

// nodeReady reports whether the DPU's Node is Ready.
func (y *tenancy) nodeReady() func() bool {
	return func() bool {
		node := &corev1.Node{}
		y.Expect(world.DPU.Get(y.t.Context(), client.ObjectKey{Name: y.d.Name}, node)).To(Succeed())
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady {
				return c.Status == corev1.ConditionTrue
			}
		}
		return false
	}
}
