// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
)

// WantedPort is a physical function that is to be on a network.
type WantedPort struct {
	PF int32
	// Network is the DPUVirtualNetwork, Interface the DPUServiceInterface that plugs it.
	Network, Interface string
	// MAC is what the port must have; empty where it is not known beforehand.
	MAC string
}

// Want is what is asked of one DPU.
type Want struct {
	// Namespace is DPF's namespace; VPCName is the DPUVPC there.
	Namespace, VPCName string
	// VPCLabels take the Node into the VPC: VPCKey, and the selector of an adopted VPC besides.
	VPCLabels map[string]string
	Ports     []WantedPort
	// Claim is who asks; only its identity counts.
	Claim Holder
	// Before is the Node's stretch before anything was written for the claim; it equals none if that is not known.
	Before Continuity
	// LogicalPorts are the names OVN knew the ports by before they were unplugged, as far as that was seen.
	LogicalPorts []string
}

// portLabels are the labels that plug the ports.
func (w Want) portLabels() map[string]string {
	labels := map[string]string{}
	for _, port := range w.Ports {
		labels[PortKey(port.PF)] = port.Network
	}
	return labels
}

// blinkingPhases are those a Ready DPU passes through after a change of labels; the ports stay as they are meanwhile.
var blinkingPhases = []provisioningv1alpha1.DPUPhase{
	provisioningv1alpha1.DPUPhaseReady, provisioningv1alpha1.DPUPhaseDPUClusterConfig,
	provisioningv1alpha1.DPUPhaseNodeEffectRemoval, provisioningv1alpha1.DPUPhaseServiceReadiness,
	provisioningv1alpha1.DPUPhaseCheckHostReboot,
	// Here a DPU waits for somebody to release the hold; until then it runs as it did.
	provisioningv1alpha1.DPUPhaseNodeEffect,
}

// ProveAttached says whether all ports wanted of a DPU, and no others, are on their networks: exactly one ServiceInterface for
// each, programmed at its generation, connected, with the MAC address expected, on a Node that lives and is marked with that
// VPC. Unknown means that the DPU does not speak now; what it said last may still hold.
func ProveAttached(want Want, e Evidence, now time.Time) Finding {
	if finding := checkStands(want, e); finding.Answer != Yes {
		return finding
	}
	for _, prove := range []func(Want, Evidence, time.Time) Finding{proveAlive, proveMark, proveOnlyOurs, provePorts} {
		if finding := prove(want, e, now); finding.Answer != Yes {
			return finding
		}
	}
	return Finding{Answer: Yes}
}

// proveAlive says Unknown of a Node that is silent, and No of one that is gone.
func proveAlive(_ Want, e Evidence, now time.Time) Finding {
	alive := e.Alive(now)
	switch {
	case alive.Answer == Yes:
		return alive
	case e.ClusterError == nil && e.Node == nil:
		return Finding{No, reasonEvidenceMissing, alive.Message}
	default:
		return Finding{Unknown, alive.Reason, alive.Message}
	}
}

func proveMark(want Want, e Evidence, _ time.Time) Finding {
	switch mark := e.Mark(); mark {
	case Mark(want.Namespace, want.VPCName):
		return Finding{Answer: Yes}
	case "":
		return missing("Node %s is not marked with the VPC", e.Node.Name)
	default:
		return Finding{No, reasonForeignVPC, "Node " + e.Node.Name + " is marked with another VPC"}
	}
}

// proveOnlyOurs says whether every port that is on a network is one that was asked for, on the network that was asked for.
func proveOnlyOurs(want Want, e Evidence, _ time.Time) Finding {
	for _, found := range e.tenantInterfaces() {
		if found.Spec.InterfaceType != svcv1alpha1.InterfaceTypePF || found.Spec.PF == nil {
			return Finding{No, reasonForeignVPC, "something else than a physical function of " + e.name() + " is on a network nobody asked for"}
		}
		pf := found.Spec.PF.ID
		i := slices.IndexFunc(want.Ports, func(p WantedPort) bool { return p.PF == pf })
		if i < 0 {
			return Finding{No, reasonForeignVPC, fmt.Sprintf("PF %d of %s is on a network nobody asked for", pf, e.name())}
		}
		if !madeFor(want, want.Ports[i], found) {
			return Finding{No, reasonForeignVPC, fmt.Sprintf("PF %d of %s is on another network than the one asked for", pf, e.name())}
		}
	}
	return Finding{Answer: Yes}
}

// madeFor reports whether a ServiceInterface comes from the DPUServiceInterface of the port, and leads to the port's network.
func madeFor(want Want, port WantedPort, found *svcv1alpha1.ServiceInterface) bool {
	return found.Labels[svcv1alpha1.SetNameLabel] == port.Interface && found.Labels[svcv1alpha1.SetNamespaceLabel] == want.Namespace &&
		found.Namespace == want.Namespace && virtualNetwork(&found.Spec) == port.Network
}

func provePorts(want Want, e Evidence, _ time.Time) Finding {
	byPort := map[int32]*svcv1alpha1.ServiceInterface{}
	for _, found := range e.tenantInterfaces() {
		if found.Spec.PF == nil {
			continue
		}
		if byPort[found.Spec.PF.ID] != nil {
			return missing("PF %d of %s has more than one ServiceInterface", found.Spec.PF.ID, e.name())
		}
		byPort[found.Spec.PF.ID] = found
	}
	for _, port := range want.Ports {
		if finding := provePort(port, byPort[port.PF], e); finding.Answer != Yes {
			return finding
		}
	}
	return Finding{Answer: Yes}
}

// checkStands says whether the DPU is there and not on its way out.
func checkStands(want Want, e Evidence) Finding {
	switch {
	case e.DPU == nil:
		return missing("there is no DPU for %s", e.name())
	case !e.DPU.DeletionTimestamp.IsZero():
		return missing("%s is being deleted", e.name())
	case !slices.Contains(blinkingPhases, e.DPU.Status.Phase):
		return missing("%s is in phase %q", e.name(), e.DPU.Status.Phase)
	case len(want.Ports) == 0:
		return missing("no port is asked for on %s", e.name())
	}
	return Finding{Answer: Yes}
}

func provePort(port WantedPort, found *svcv1alpha1.ServiceInterface, e Evidence) Finding {
	name := fmt.Sprintf("PF %d of %s", port.PF, e.name())
	if found == nil {
		return missing("%s has no ServiceInterface", name)
	}
	if found.Spec.Node == nil || *found.Spec.Node != e.DPU.Name {
		return missing("the ServiceInterface of %s is for another Node", name)
	}
	if !found.DeletionTimestamp.IsZero() {
		return missing("the ServiceInterface of %s is being deleted", name)
	}
	for _, kind := range []string{svcv1alpha1.ReadyCondition, svcv1alpha1.ServiceInterfaceReconciledCondition} {
		if !currentlyTrue(found, kind) {
			return missing("the ServiceInterface of %s is not %s at its generation", name, kind)
		}
	}
	if found.Annotations[vpcv1alpha1.PortConnectedAnnotation] != "true" {
		return missing("%s is not connected", name)
	}
	return proveMAC(name, port, found)
}

func proveMAC(name string, port WantedPort, found *svcv1alpha1.ServiceInterface) Finding {
	mac := NormalizeMAC(found.Annotations[vpcv1alpha1.PortMACAnnotation])
	switch {
	case found.Annotations[vpcv1alpha1.PortUnknownMACAnnotation] == "true", mac == "unknown":
		return missing("%s may carry any MAC address", name)
	case mac == "":
		return missing("%s has no MAC address yet", name)
	case port.MAC != "" && mac != NormalizeMAC(port.MAC):
		return missing("%s has the MAC address %s instead of %s", name, mac, NormalizeMAC(port.MAC))
	case port.MAC == "" && port.PF == 0:
		return missing("the MAC address of %s is not known", name)
	}
	return Finding{Answer: Yes}
}

// currentlyTrue reports whether a condition is True for the object's present generation.
func currentlyTrue(found *svcv1alpha1.ServiceInterface, kind string) bool {
	condition := meta.FindStatusCondition(found.Status.Conditions, kind)
	if condition == nil || condition.Status != metav1.ConditionTrue {
		return false
	}
	observed := []int64{condition.ObservedGeneration, found.Status.ObservedGeneration}
	return slices.Contains(observed, found.Generation) &&
		!slices.ContainsFunc(observed, func(g int64) bool { return g != 0 && g != found.Generation })
}

// ProveUnplugged says whether no port of a DPU is on a network any more, and that this came about while the Node lived: in the
// stretch that unplugged records. No means that a port is still there; Unknown that the Node does not speak now. Broken is set
// if the stretch is over, so that waiting is of no use: what vanished meanwhile proves nothing.
func ProveUnplugged(unplugged Continuity, e Evidence, now time.Time) (finding Finding, broken bool) {
	if e.ClusterError != nil {
		return Finding{Unknown, reasonFabricUnreachable, e.Alive(now).Message}, false
	}
	if ports := e.tenantInterfaces(); len(ports) > 0 {
		return Finding{No, "", fmt.Sprintf("%d port(s) of %s are not unplugged yet", len(ports), e.name())}, false
	}
	if alive := e.Alive(now); alive.Answer != Yes {
		return Finding{Unknown, alive.Reason, alive.Message}, false
	}
	if !unplugged.Equal(e.Stretch(now)) {
		return Finding{Unknown, reasonEvidenceMissing, "the Node of " + e.name() + " was not Ready all the time while its ports were unplugged, which proves nothing"}, true
	}
	for key := range e.Node.Labels {
		if _, port := PortOf(key); port {
			return Finding{No, "", "Node " + e.Node.Name + " still carries the label " + key}, false
		}
	}
	return Finding{Answer: Yes}, false
}

// ProveLeft says whether a DPU whose ports were proven unplugged is out of its VPC and at rest.
func ProveLeft(e Evidence, now time.Time) Finding {
	if alive := e.Alive(now); alive.Answer != Yes {
		return Finding{Unknown, alive.Reason, alive.Message}
	}
	switch {
	case len(e.tenantInterfaces()) > 0:
		return Finding{No, "", "a port of " + e.name() + " is on a virtual network"}
	case len(e.keys()) > 0:
		return Finding{No, "", e.name() + " still carries labels of a VPC"}
	case e.Mark() != "":
		return Finding{No, "", "Node " + e.Node.Name + " is still marked with a VPC"}
	case !e.DPU.DeletionTimestamp.IsZero(), e.DPU.Status.Phase != provisioningv1alpha1.DPUPhaseReady:
		return Finding{No, "", fmt.Sprintf("%s is in phase %q", e.name(), e.DPU.Status.Phase)}
	}
	return Finding{Answer: Yes}
}

func missing(format string, args ...any) Finding {
	return Finding{No, reasonEvidenceMissing, fmt.Sprintf(format, args...)}
}
