// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricwing_test

import (
	"fmt"
	"strings"

	. "github.com/onsi/gomega"
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
