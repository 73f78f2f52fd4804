// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/answer"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
)

// LeaseMaxAge is how long ago a kubelet may have renewed its lease for its Node to count as alive.
const LeaseMaxAge = 60 * time.Second

// Answer to a question about the fabric. The zero value is Unknown, which permits nothing.
type Answer = answer.Answer

// The answers.
const (
	Unknown = answer.Unknown
	No      = answer.No
	Yes     = answer.Yes
)

// Finding is an answer with the reason of a condition and a sentence for people.
type Finding struct {
	Answer  Answer
	Reason  string
	Message string
}

// Carrier is an object that carries labels for the Node of one DPU.
type Carrier struct {
	// Kind is DPU or DPUDevice.
	Kind string
	// Labels are those asked for the Node; Annotations are the object's own.
	Labels, Annotations map[string]string
}

// Evidence is what was read of one DPU in one pass.
type Evidence struct {
	// Server is the DPUNode that lists the card, Device the card.
	Server *provisioningv1alpha1.DPUNode
	Device *provisioningv1alpha1.DPUDevice
	// DPU is nil while DPF has not made one for the card.
	DPU *provisioningv1alpha1.DPU
	// Carriers are the objects that may carry labels, the preferred one first.
	Carriers []Carrier
	// ClusterError is why the DPU cluster could not be read. Then Node, Lease and Interfaces say nothing.
	ClusterError error
	// Node and Lease of the DPU in its cluster; nil if there is none.
	Node  *corev1.Node
	Lease *coordinationv1.Lease
	// Interfaces are all ServiceInterfaces of the Node, of any namespace. They were read before Node and Lease.
	Interfaces []svcv1alpha1.ServiceInterface
	// Around is what else of DPF decides about the DPU's ports. It is read where ports are plugged or proven plugged, not where
	// they are unplugged.
	Around Surroundings
	// OVN is what OVN's southbound database said; nil where it is not asked. It is shared, and not to be changed.
	OVN *OVN
}

// name of the DPU for messages.
func (e Evidence) name() string {
	switch {
	case e.DPU != nil:
		return "DPU " + e.DPU.Name
	case e.Device != nil:
		return "DPUDevice " + e.Device.Name
	default:
		return "DPU"
	}
}

// Carrier is the object that carries the labels now, or the preferred one if none does.
func (e Evidence) Carrier() Carrier {
	for _, carrier := range e.Carriers {
		if _, held := carrier.Annotations[HolderAnnotation]; held {
			if holder, _, err := HolderOf(carrier.Annotations); err != nil || holder.Holds() {
				return carrier
			}
		}
	}
	for _, carrier := range e.Carriers {
		for key := range carrier.Labels {
			if IsOurKey(key) {
				return carrier
			}
		}
	}
	if len(e.Carriers) == 0 {
		return Carrier{}
	}
	return e.Carriers[0]
}

// For is the same evidence, with the carrier first whose record is the claim's: a claim never writes on another's carrier, even
// where both places of a DPU carry records.
func (e Evidence) For(claim Holder) Evidence {
	i := slices.IndexFunc(e.Carriers, func(c Carrier) bool {
		holder, found, err := HolderOf(c.Annotations)
		return err == nil && found && holder.Holds() && holder.SameClaim(claim)
	})
	if i > 0 {
		own := e.Carriers[i]
		e.Carriers = append([]Carrier{own}, slices.Delete(slices.Clone(e.Carriers), i, i+1)...)
	}
	return e
}

// Holder is the record on the carrier.
func (e Evidence) Holder() (Holder, bool, error) { return HolderOf(e.Carrier().Annotations) }

// keys are the labels of ours that any carrier or the Node has.
func (e Evidence) keys() map[string]string {
	keys := map[string]string{}
	collect := func(labels map[string]string) {
		for key, value := range labels {
			if IsOurKey(key) {
				keys[key] = value
			}
		}
	}
	for _, carrier := range e.Carriers {
		collect(carrier.Labels)
	}
	if e.Node != nil {
		collect(e.Node.Labels)
	}
	return keys
}

// Mark is the VPC the Node is marked with; empty if none, or if it could not be read.
func (e Evidence) Mark() string {
	if e.Node == nil || e.ClusterError != nil {
		return ""
	}
	return e.Node.Labels[vpcv1alpha1.NodeVPCLabel]
}

// tenantInterfaces are the ServiceInterfaces that put a port of the host on a virtual network.
func (e Evidence) tenantInterfaces() []*svcv1alpha1.ServiceInterface {
	var found []*svcv1alpha1.ServiceInterface
	for i := range e.Interfaces {
		if virtualNetwork(&e.Interfaces[i].Spec) != "" {
			found = append(found, &e.Interfaces[i])
		}
	}
	return found
}

// virtualNetwork of an interface, whichever block says so; a block that the type does not name counts too, because what a
// controller makes of it is unknown.
func virtualNetwork(spec *svcv1alpha1.InterfaceSpec) string {
	var name *string
	switch {
	case spec.PF != nil && spec.PF.VirtualNetwork != nil:
		name = spec.PF.VirtualNetwork
	case spec.VF != nil && spec.VF.VirtualNetwork != nil:
		name = spec.VF.VirtualNetwork
	case spec.Service != nil && spec.Service.VirtualNetwork != nil:
		name = spec.Service.VirtualNetwork
	}
	if name == nil {
		return ""
	}
	return *name
}

// Alive says whether the Node is Ready and its kubelet has renewed its lease lately: only then does what the DPU's agents
// report, or cease to report, mean anything.
func (e Evidence) Alive(now time.Time) Finding {
	switch {
	case e.ClusterError != nil:
		return Finding{Unknown, reasonFabricUnreachable, "the DPU cluster of " + e.name() + " cannot be read: " + e.ClusterError.Error()}
	case e.DPU == nil:
		return Finding{No, reasonDPUNotReady, "there is no DPU for " + e.name()}
	case e.Node == nil:
		return Finding{No, reasonDPUNotReady, "there is no Node " + e.DPU.Name + " in the DPU cluster"}
	case !e.Node.DeletionTimestamp.IsZero():
		return Finding{No, reasonDPUNotReady, "Node " + e.Node.Name + " is being deleted"}
	}
	ready := nodeCondition(e.Node, corev1.NodeReady)
	switch {
	case ready == nil || ready.Status != corev1.ConditionTrue:
		return Finding{No, reasonDPUNotReady, "Node " + e.Node.Name + " is not Ready"}
	case e.Lease == nil || e.Lease.Spec.RenewTime == nil:
		return Finding{No, reasonDPUNotReady, "Node " + e.Node.Name + " has no lease in kube-node-lease"}
	}
	if age := now.Sub(e.Lease.Spec.RenewTime.Time); age >= LeaseMaxAge || age <= -LeaseMaxAge {
		return Finding{No, reasonDPUNotReady, "the lease of Node " + e.Node.Name + " was not renewed for a minute, or its clock is wrong"}
	}
	return Finding{Answer: Yes}
}

// Stretch is the Node's present stretch of being Ready. It equals none while the Node is not alive.
func (e Evidence) Stretch(now time.Time) Continuity {
	if e.Alive(now).Answer != Yes {
		return Continuity{}
	}
	return Continuity{
		NodeUID:    string(e.Node.UID),
		BootID:     e.Node.Status.NodeInfo.BootID,
		ReadySince: nodeCondition(e.Node, corev1.NodeReady).LastTransitionTime,
	}
}

func nodeCondition(node *corev1.Node, kind corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range node.Status.Conditions {
		if node.Status.Conditions[i].Type == kind {
			return &node.Status.Conditions[i]
		}
	}
	return nil
}

// NormalizeMAC writes a MAC address in lower case with colons, as DPF and MAAS may not.
func NormalizeMAC(mac string) string { return strings.ReplaceAll(strings.ToLower(mac), "-", ":") }
