// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/posture"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// observation is all that a decision is made from, read in this pass.
type observation struct {
	// now is when the pass began, or, if it was earlier, the first of the readings it uses.
	now time.Time
	// fresh asks for readings since the pass began; shared says that one is from before.
	fresh, shared bool
	// notBefore is when a reading of the fabric must have started to count.
	notBefore time.Time
	// around is what was read of all VPCs of the fabric; nil where nothing hangs on it.
	around *dpfzt.Surroundings
	// states are what was read of the DPU clusters of the server's cards.
	states map[types.NamespacedName]*dpfzt.ClusterState
	// ovn is what OVN said; nil where the fabric does not name its databases.
	ovn *vpc.OVN
	// silent are the DPUs of the VPC that are known not to live, and why; progress is how far OVN's proof was.
	silent     map[string]string
	progress   progress
	attachment *infrav1.DPUAttachment
	memory     memory
	memoryErr  error
	// stateBefore is what the status said was proven.
	stateBefore infrav1.AttachmentState

	// fabric serves the source if fabricFound is Yes.
	fabric      *scope.Fabric
	fabricFound vpc.Finding
	place       vpc.Place

	// admission says whether the attachment may be made: namespace, token, TenantVPC and consent. Losing it stops what is not
	// attached yet, and nothing else.
	admission vpc.Finding
	// claim says whether MAAS holds the server under the token. It is asked only where the decision hangs on it.
	claim claim
	// devices are the server's PCI devices, asked for only where a connected interface needs explaining.
	devices devices
	// tenant is nil if the TenantVPC does not exist.
	tenant *infrav1.TenantVPC
	// network says whether the TenantVPC can take the ports.
	network vpc.Finding
	// ungranted says that the VPC to adopt is not the TenantVPC's to use, as far as it was asked.
	ungranted bool
	// resolved says whether the server's cards were found and are those expected.
	resolved vpc.Finding
	// cards are those found, and those remembered.
	cards []card
	// unpowered says that the server's DPUs went down with their host, as its DPUServer has it.
	unpowered bool
	// bmcs are what the BMCs of the cards answered, if the fabric asks for any posture.
	bmcs []posture.CardReading
	// rival names another attachment that has not let go of the server.
	rival string
}

// claim is what MAAS said of the claim in this pass.
type claim struct {
	asked   bool
	finding vpc.Finding
	// followed says that the claim of a running tenant is known without asking; standing is what is known, with no reason where
	// nothing was read yet. It permits no write: whoever writes asks.
	followed bool
	standing vpc.Finding
	// machine is set if the answer is Yes.
	machine *maas.Machine
}

// card is one DPU of the server.
type card struct {
	device   string
	member   dpfzt.Member
	evidence vpc.Evidence
	// ports of the attachment on it; none for a card that is only to be on no VPC.
	ports []infrav1.MachinePort
	want  vpc.Want
}

// wasAttached reports whether all ports were proven attached before: from then on nothing is written but to detach, or to put back
// what was taken away.
func (o *observation) wasAttached() bool {
	if !o.sameClaim() {
		return false
	}
	switch o.attachment.Status.State {
	case infrav1.AttachmentStateAttached:
		return true
	case infrav1.AttachmentStateDetached:
		return false
	}
	// The proof was taken back, and the time of the last one is left.
	attached := conditionOf(o.attachment, infrav1.AttachedCondition)
	return o.attachment.Status.ProvenAt != nil || attached != nil && attached.Reason == infrav1.EvidenceMissingReason
}

// sameClaim reports whether the status was written for the token of the spec.
func (o *observation) sameClaim() bool {
	return o.attachment.Status.TokenHash == maas.TokenHash(o.attachment.Spec.Server.Token)
}

// provenDetached reports whether detachment was proven before. That is history: nothing that happens to the DPU later, under
// another claim, takes it back.
func (o *observation) provenDetached() bool {
	return o.sameClaim() && o.attachment.Status.State == infrav1.AttachmentStateDetached
}

// askedToDetach reports whether somebody who may has asked for detachment.
func (o *observation) askedToDetach() bool {
	return o.attachment.Spec.State == infrav1.AttachmentStateDetached || !o.attachment.DeletionTimestamp.IsZero() || o.forced()
}

// forced reports an operator's ForceDetach.
func (o *observation) forced() bool {
	return o.attachment.Spec.Override != nil && o.attachment.Spec.Override.Action == infrav1.OverrideForceDetach
}

// lost reports whether MAAS said in this pass that the server is not held under the token.
func (o *observation) lost() bool { return o.claim.asked && o.claim.finding.Answer == vpc.No }

// confirmed reports whether MAAS said in this pass that it is.
func (o *observation) confirmed() bool { return o.claim.asked && o.claim.finding.Answer == vpc.Yes }

// detachBegun reports whether the way off has begun on some card.
func (o *observation) detachBegun() bool {
	for i := range o.cards {
		if holder, found, err := o.cards[i].evidence.Holder(); err == nil && found && holder.SameClaim(o.holder()) && holder.Detaching() {
			return true
		}
	}
	return false
}

// mustDetach reports whether the way off is to be gone: because it was asked for, because it has begun and not ended, or
// because the claim is lost.
func (o *observation) mustDetach() bool {
	switch {
	case o.askedToDetach(), o.detachBegun():
		return true
	case o.memory.DetachingSince != nil && !o.provenDetached():
		return true
	default:
		return o.lost() && !o.provenDetached() && (o.memory.touched() || o.holds())
	}
}

// holds reports whether some card carries this attachment's record.
func (o *observation) holds() bool {
	for i := range o.cards {
		if holder, found, err := o.cards[i].evidence.Holder(); err == nil && found && holder.SameClaim(o.holder()) && holder.Holds() {
			return true
		}
	}
	return false
}

// explained says more of a DPU that does not live, where more is known.
func (o *observation) explained(finding vpc.Finding) vpc.Finding {
	if o.unpowered && finding.Reason == infrav1.DPUNotReadyReason {
		return dark(finding)
	}
	return finding
}

// dark is a finding about a DPU that is off because its server is.
func dark(finding vpc.Finding) vpc.Finding {
	finding.Reason = infrav1.DPUUnpoweredWithHostReason
	finding.Message += "; its server is off, and a DPU in a slot without standby power goes down with it: power the server on"
	return finding
}

func (o *observation) holder() vpc.Holder {
	return vpc.Holder{
		Installation: o.place.Installation, Namespace: o.attachment.Namespace, Attachment: o.attachment.Name,
		TokenHash: maas.TokenHash(o.attachment.Spec.Server.Token),
	}
}

func (o *observation) wantedInterfaces() []vpc.WantedInterface {
	var wanted []vpc.WantedInterface
	for _, port := range o.attachment.Spec.Ports {
		wanted = append(wanted, vpc.WantedInterface{Subnet: port.Subnet, PF: ptr.Deref(port.PF, 0)})
	}
	return wanted
}

// seconds of a fabric's setting, with the default that the API server gives it.
func seconds(value *int32, otherwise time.Duration) time.Duration {
	if value == nil {
		return otherwise
	}
	return time.Duration(*value) * time.Second
}

func (o *observation) proofMaxAge() time.Duration {
	return seconds(o.fabric.Object.Spec.ProofMaxAgeSeconds, 5*time.Minute)
}

func (o *observation) detachTimeout() time.Duration {
	if o.fabric == nil {
		return 10 * time.Minute
	}
	return seconds(o.fabric.Object.Spec.DetachTimeoutSeconds, 10*time.Minute)
}
