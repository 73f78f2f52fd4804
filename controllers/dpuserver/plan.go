// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuserver

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// judgement is what is said of one server.
type judgement struct {
	binding       []infrav1.BoundDPU
	holder        *infrav1.DPUServerHolder
	healthy, free vpc.Finding
	// ready decides eligibility: Yes is eligible, No ineligible, Unknown unknown.
	ready vpc.Finding
}

// holds reports whether an attachment holds its server, or may be about to: it is authorised or has written something, and is
// not proven detached. One that is neither says nothing: anybody could have asked for it.
func holds(attachment *infrav1.DPUAttachment) bool {
	if provenDetached(attachment) {
		return false
	}
	if attachment.Annotations[infrav1.DPUAttachmentMemoryAnnotation] != "" {
		return true
	}
	return slices.ContainsFunc(attachment.Status.Conditions, func(c metav1.Condition) bool {
		return c.Type == infrav1.AuthorizedCondition && c.Status == metav1.ConditionTrue
	})
}

// provenDetached reports whether the attachment was proven detached under its claim.
func provenDetached(attachment *infrav1.DPUAttachment) bool {
	return attachment.Status.State == infrav1.AttachmentStateDetached && attachment.Status.TokenHash == maas.TokenHash(attachment.Spec.Server.Token)
}

// judge says what is to be said of a server. It is a pure function of what was observed.
func judge(s *server, installation string, now time.Time) judgement {
	j := judgement{holder: s.holder}
	var pinned []infrav1.BoundDPU
	if s.object != nil {
		pinned = s.object.Status.DPUs
	}
	if s.resolved.Answer != vpc.Yes {
		j.binding, j.healthy, j.free, j.ready = pinned, s.resolved, s.resolved, s.resolved
		return j
	}
	rebind := s.object != nil && s.object.Spec.Override != nil
	bound, changed := bind(pinned, s.cards, rebind)
	j.binding = bound
	j.healthy, j.free = checkHealthy(s, now), checkFree(s)
	if record := holderRecord(s); record != nil {
		j.holder = &infrav1.DPUServerHolder{Namespace: record.Namespace, Name: record.Attachment, TokenHash: record.TokenHash}
		j.free = heldBy(s, record, installation)
	} else if j.free.Answer == vpc.Yes && s.holder != nil {
		j.free = vpc.Finding{Answer: vpc.No, Reason: infrav1.InUseReason, Message: fmt.Sprintf("DPUAttachment %s/%s holds the server", s.holder.Namespace, s.holder.Name)}
	}
	switch {
	case changed:
		j.ready = vpc.Finding{Answer: vpc.No, Reason: infrav1.BindingChangedReason, Message: "the server's DPUs are not those it was first seen with: find out why, then set spec.override to Rebind"}
	case rebind:
		j.ready = vpc.Finding{Answer: vpc.No, Reason: infrav1.OverriddenReason, Message: "the binding follows what is found as long as spec.override says Rebind; the server is not handed out meanwhile"}
	default:
		j.ready = worst(j.healthy, j.free)
	}
	return j
}

// worst is the first No, else the first Unknown, else Yes.
func worst(findings ...vpc.Finding) vpc.Finding {
	for _, answer := range []vpc.Answer{vpc.No, vpc.Unknown} {
		for _, finding := range findings {
			if finding.Answer == answer {
				return finding
			}
		}
	}
	return vpc.Finding{Answer: vpc.Yes}
}

func checkHealthy(s *server, now time.Time) vpc.Finding {
	findings := make([]vpc.Finding, 0, len(s.cards))
	for i := range s.cards {
		finding := vpc.CheckHealth(s.cards[i].evidence, now)
		installed := s.cards[i].member.DPU != nil && s.cards[i].member.DPU.Status.Phase == provisioningv1alpha1.DPUPhaseReady
		if finding.Answer == vpc.No && installed && s.hostOff && s.cards[i].evidence.Alive(now).Answer == vpc.No {
			finding.Reason = infrav1.DPUUnpoweredWithHostReason
			finding.Message += ", and its host is off: the slot has no standby power, or the DPU is dead"
		}
		findings = append(findings, finding)
	}
	return worst(findings...)
}

func checkFree(s *server) vpc.Finding {
	findings := make([]vpc.Finding, 0, len(s.cards))
	for i := range s.cards {
		findings = append(findings, vpc.CheckFree(s.cards[i].evidence, vpc.Holder{}))
	}
	return worst(findings...)
}

// holderRecord is the first record that holds a DPU of the server.
func holderRecord(s *server) *vpc.Holder {
	for i := range s.cards {
		for _, carrier := range s.cards[i].evidence.Carriers {
			record, found, err := vpc.HolderOf(carrier.Annotations)
			if err == nil && found && record.Holds() && record.Namespace != "" && record.Attachment != "" && record.TokenHash != "" {
				return &record
			}
		}
	}
	return nil
}

func heldBy(s *server, record *vpc.Holder, installation string) vpc.Finding {
	name := record.Namespace + "/" + record.Attachment
	message := "DPUAttachment " + name + " holds the server"
	switch {
	case record.Installation != installation:
		message = "DPUAttachment " + name + " of another installation holds the server"
	case !slices.Contains(s.attachments, name):
		message = "DPUAttachment " + name + " is gone without being proven detached: check the DPU's ports, then remove its labels and its annotation " + vpc.HolderAnnotation
	}
	return vpc.Finding{Answer: vpc.No, Reason: infrav1.InUseReason, Message: message}
}

// bind compares the cards found with those pinned, and pins them at the first sight. References that DPF makes anew when it
// reinstalls a DPU follow; the card itself, its serial number, its server and its PF0 do not.
func bind(pinned []infrav1.BoundDPU, cards []card, rebind bool) (bound []infrav1.BoundDPU, changed bool) {
	found := make([]infrav1.BoundDPU, 0, len(cards))
	for i := range cards {
		found = append(found, describe(&cards[i]))
	}
	if len(pinned) == 0 || rebind {
		return found, false
	}
	changed = len(pinned) != len(found)
	bound = slices.Clone(pinned)
	for i := range bound {
		n := slices.IndexFunc(found, func(b infrav1.BoundDPU) bool { return b.DPUDevice == bound[i].DPUDevice })
		if n < 0 || found[n].SerialNumber != bound[i].SerialNumber || found[n].DPUNode != bound[i].DPUNode || otherMAC(bound[i].Ports, found[n].Ports) {
			changed = true
			continue
		}
		bound[i].DPU, bound[i].DPUCluster, bound[i].VPCMark = found[n].DPU, found[n].DPUCluster, found[n].VPCMark
		if len(found[n].Ports) > 0 && !slices.ContainsFunc(bound[i].Ports, func(p infrav1.DPUServerPort) bool { return p.MAC != "" }) {
			bound[i].Ports = found[n].Ports
		}
	}
	return bound, changed
}

func otherMAC(pinned, found []infrav1.DPUServerPort) bool {
	for _, p := range pinned {
		for _, f := range found {
			if ptr.Deref(p.PF, 0) == ptr.Deref(f.PF, 0) && p.MAC != "" && f.MAC != "" && p.MAC != f.MAC {
				return true
			}
		}
	}
	return false
}

func describe(c *card) infrav1.BoundDPU {
	bound := infrav1.BoundDPU{
		DPUDevice: c.member.Device.Name, SerialNumber: c.member.Device.Spec.SerialNumber, VPCMark: c.evidence.Mark(),
	}
	if c.member.Node != nil {
		bound.DPUNode = c.member.Node.Name
	}
	if c.member.DPU != nil {
		bound.DPU = c.member.DPU.Name
		bound.DPUCluster = c.member.DPU.Spec.Cluster.Name
	}
	functions := min(max(c.member.Device.Spec.NumberOfPFs, 1), 16)
	for pf := range functions {
		port := infrav1.DPUServerPort{PF: ptr.To(pf)}
		if pf == 0 {
			port.MAC = vpc.NormalizeMAC(c.member.Device.Status.PF0MAC)
		}
		bound.Ports = append(bound.Ports, port)
	}
	return bound
}
