// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
)

// Surroundings are the objects of DPF, whoever made them, that decide besides a DPU's own labels what becomes of its ports.
// The zero value is a fabric where nobody else has any.
type Surroundings struct {
	// Err is why they could not be read. Then the rest says nothing.
	Err error
	// VPCs and Interfaces are those of all namespaces.
	VPCs       []vpcv1alpha1.DPUVPC
	Interfaces []svcv1alpha1.DPUServiceInterface
	// Clusters are the DPU clusters, whose labels the interfaces select by.
	Clusters []provisioningv1alpha1.DPUCluster
	// Maintenances are DPF's requests to disturb a server.
	Maintenances []provisioningv1alpha1.DPUNodeMaintenance
}

// CheckAround says whether nobody else reaches for a DPU: no other VPC and no interface of somebody else selects its Node with
// the labels wanted, and DPF does not wait to disturb it.
func CheckAround(want Want, e Evidence) Finding {
	for _, check := range []func(Want, Evidence) Finding{checkAroundRead, checkOtherVPC, checkOtherInterface, checkMaintenance} {
		if finding := check(want, e); finding.Answer != Yes {
			return finding
		}
	}
	return Finding{Answer: Yes}
}

func checkAroundRead(_ Want, e Evidence) Finding {
	if e.Around.Err != nil {
		return Finding{Unknown, reasonFabricUnreachable, "who else selects " + e.name() + " cannot be read: " + e.Around.Err.Error()}
	}
	return Finding{Answer: Yes}
}

// checkOtherVPC looks for a second VPC that selects the Node. Whose it is, is nobody's business but the operator's, who finds it
// by the Node's labels.
func checkOtherVPC(want Want, e Evidence) Finding {
	node := nodeLabels(want, e)
	if node == nil {
		return Finding{Answer: Yes}
	}
	for i := range e.Around.VPCs {
		found := &e.Around.VPCs[i]
		if found.Namespace == want.Namespace && found.Name == want.VPCName {
			continue
		}
		// The opposite defaults of DPF: a VPC without a selector takes no Node, an interface without one takes all.
		if found.Spec.NodeSelector != nil && selectsNode(found.Spec.NodeSelector, node) {
			return Finding{No, reasonForeignVPC, otherVPC(want, found) + " selects Node " + e.Node.Name + " too"}
		}
	}
	return Finding{Answer: Yes}
}

// otherVPC names a VPC to its own tenant only.
func otherVPC(want Want, found *vpcv1alpha1.DPUVPC) string {
	prefix := Owner{Installation: want.Claim.Installation, Namespace: want.Claim.Namespace}.String()
	if name, own := strings.CutPrefix(found.Annotations[OwnerAnnotation], prefix); own && name != "" {
		return "TenantVPC " + name
	}
	return "another VPC of the fabric"
}

// checkOtherInterface looks for an interface that would put a port of the host on a network nobody asked for, or that takes one
// of the ports wanted.
func checkOtherInterface(want Want, e Evidence) Finding {
	node := nodeLabels(want, e)
	if node == nil {
		return Finding{Answer: Yes}
	}
	for i := range e.Around.Interfaces {
		found := &e.Around.Interfaces[i]
		ours := found.Namespace == want.Namespace && slices.ContainsFunc(want.Ports, func(p WantedPort) bool { return p.Interface == found.Name })
		if ours || !takesHostPort(want, &found.Spec.Template.Spec.Template.Spec) || !e.inClusterOf(found.Spec.DPUClusterSelector) {
			continue
		}
		if selector := found.Spec.Template.Spec.NodeSelector; selector == nil || selectsNode(selector, node) {
			return Finding{No, reasonForeignVPC, "an interface of somebody else selects Node " + e.Node.Name + " too"}
		}
	}
	return Finding{Answer: Yes}
}

// takesHostPort reports whether an interface concerns the tenant: it puts something on a virtual network, or it takes a physical
// function that is wanted.
func takesHostPort(want Want, spec *svcv1alpha1.InterfaceSpec) bool {
	if virtualNetwork(spec) != "" {
		return true
	}
	return spec.InterfaceType == svcv1alpha1.InterfaceTypePF && spec.PF != nil &&
		slices.ContainsFunc(want.Ports, func(p WantedPort) bool { return p.PF == spec.PF.ID })
}

// checkMaintenance says whether DPF wants to disturb the DPU: to reinstall it, or to reboot its server.
func checkMaintenance(_ Want, e Evidence) Finding {
	if e.DPU == nil || e.DPU.Spec.DPUNodeName == "" {
		return Finding{Answer: Yes}
	}
	for i := range e.Around.Maintenances {
		found := &e.Around.Maintenances[i]
		if found.Spec.DPUNodeName != e.DPU.Spec.DPUNodeName ||
			meta.IsStatusConditionTrue(found.Status.Conditions, provisioningv1alpha1.NodeEffectRemovedCondition) {
			continue
		}
		if held, asks := found.Annotations[provisioningv1alpha1.HoldAnnotation]; asks && held != "false" {
			return Finding{No, reasonDPUNotReady, fmt.Sprintf(
				"DPF wants to reinstall %s and waits at DPUNodeMaintenance %s: release it only when no machine is on the server", e.name(), found.Name)}
		}
		return Finding{No, reasonDPUNotReady, fmt.Sprintf("DPF is at work on the server of %s: DPUNodeMaintenance %s was released", e.name(), found.Name)}
	}
	return Finding{Answer: Yes}
}

// checkHeldOff says whether anything keeps DPF from reinstalling a DPU under a tenant.
func checkHeldOff(e Evidence) Finding {
	effect := e.DPU.Spec.NodeEffect
	switch {
	case ptr.Deref(effect.ApplyOnLabelChange, false):
		return Finding{No, reasonDPUNotReady, e.name() + " has nodeEffect.applyOnLabelChange true: every attachment would wait for its node effect; set it to false in its DPUSet"}
	case !ptr.Deref(effect.Hold, false):
		return Finding{No, reasonDPUNotReady, e.name() + " has no nodeEffect.hold: nothing keeps DPF from reinstalling it under a tenant; set hold to true in its DPUSet"}
	}
	return Finding{Answer: Yes}
}

// nodeLabels are those of the Node as it will be, or is, with everything wanted; nil if there is no Node to select.
func nodeLabels(want Want, e Evidence) labels.Set {
	if e.Node == nil || e.ClusterError != nil {
		return nil
	}
	all := labels.Set{}
	maps.Copy(all, e.Node.Labels)
	maps.Copy(all, want.VPCLabels)
	maps.Copy(all, want.portLabels())
	return all
}

// selectsNode counts a selector that cannot be read as one that selects.
func selectsNode(selector *metav1.LabelSelector, node labels.Set) bool {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	return err != nil || parsed.Matches(node)
}

// inClusterOf reports whether a selector of DPU clusters takes the DPU's; a cluster that is not known counts as taken.
func (e Evidence) inClusterOf(selector *metav1.LabelSelector) bool {
	if selector == nil || e.DPU == nil {
		return true
	}
	for i := range e.Around.Clusters {
		if c := &e.Around.Clusters[i]; c.Name == e.DPU.Spec.Cluster.Name && (e.DPU.Spec.Cluster.Namespace == "" || c.Namespace == e.DPU.Spec.Cluster.Namespace) {
			return selectsNode(selector, labels.Set(c.Labels))
		}
	}
	return true
}
