// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuserver

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// judgement is what is said of one server.
type judgement struct {
	binding []infrav1.BoundDPU
	holder  *infrav1.DPUServerHolder
	// rebound is the last Rebind that the binding followed.
	rebound       *infrav1.Rebound
	healthy, free vpc.Finding
	// posture are the results of the posture checks.
	posture []infrav1.PostureResult
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
		pinned, j.rebound = s.object.Status.DPUs, s.object.Status.Rebound
	}
	var posture vpc.Finding
	j.posture, posture = judgePosture(s, now)
	if s.resolved.Answer != vpc.Yes {
		j.binding, j.healthy, j.free, j.ready = pinned, s.resolved, s.resolved, s.resolved
		if s.resolved.Answer == vpc.Unknown && j.holder == nil && s.object != nil {
			j.holder = s.object.Status.Holder // Who held it last is not taken back by what cannot be read.
		}
		return j
	}
	rebind := s.object != nil && s.object.Spec.Override != nil
	bound, changes := bind(pinned, s.cards)
	if j.binding = bound; rebind {
		j.binding, j.rebound = found(s.cards), rebound(s.object, now)
	}
	j.healthy, j.free = checkHealthy(s, now), checkFree(s)
	if record, others := holderRecord(s, installation); record != nil {
		j.holder = &infrav1.DPUServerHolder{Namespace: record.Namespace, Name: record.Attachment, TokenHash: record.TokenHash}
		if record.Installation != installation {
			j.holder.Installation = bounded(record.Installation, 253)
		}
		j.free = heldBy(s, record, others, installation)
	} else if j.free.Answer == vpc.Yes && s.holder != nil {
		j.free = vpc.Finding{Answer: vpc.No, Reason: infrav1.InUseReason, Message: fmt.Sprintf("DPUAttachment %s/%s holds the server", s.holder.Namespace, s.holder.Name)}
	}
	switch {
	case rebind:
		j.ready = vpc.Finding{Answer: vpc.No, Reason: infrav1.OverriddenReason, Message: "the binding follows what is found as long as spec.override says Rebind, and the server is not handed out meanwhile: remove the override once the DPUs are the right ones"}
	case len(changes) > 0:
		j.ready = vpc.Finding{Answer: vpc.No, Reason: infrav1.BindingChangedReason, Message: "the server's DPUs are not those it was first seen with (" + several(changes) + "): find out why, then set spec.override to Rebind"}
	default:
		j.ready = worst(j.healthy, j.free, posture)
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

// holderRecord is the first record that holds a DPU of the server; one of another installation comes first, because only a
// look into that one tells more.
func holderRecord(s *server, installation string) (record *vpc.Holder, others []vpc.Holder) {
	var all []vpc.Holder
	for i := range s.cards {
		for _, carrier := range s.cards[i].evidence.Carriers {
			holder, found, err := vpc.HolderOf(carrier.Annotations)
			if err != nil || !found || !holder.Holds() || holder.Namespace == "" || holder.Attachment == "" || holder.TokenHash == "" {
				continue
			}
			if !slices.ContainsFunc(all, holder.SameClaim) {
				all = append(all, holder)
			}
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	slices.SortStableFunc(all, func(a, b vpc.Holder) int {
		return cmp.Compare(rank(a.Installation == installation), rank(b.Installation == installation))
	})
	return &all[0], all[1:]
}

func rank(last bool) int {
	if last {
		return 1
	}
	return 0
}

func heldBy(s *server, record *vpc.Holder, others []vpc.Holder, installation string) vpc.Finding {
	name := record.Namespace + "/" + record.Attachment
	message := "DPUAttachment " + name + " holds the server"
	switch {
	case record.Installation != installation:
		message = "DPUAttachment " + name + " of installation " + record.Installation + " holds the server"
	case !slices.Contains(s.attachments, name):
		message = "DPUAttachment " + name + " is gone without being proven detached: check the DPU's ports, then remove its labels and its annotation " + vpc.HolderAnnotation
	}
	for _, other := range others {
		message += fmt.Sprintf("; so does %s/%s of installation %s: only one of them can be right", other.Namespace, other.Attachment, other.Installation)
	}
	return vpc.Finding{Answer: vpc.No, Reason: infrav1.InUseReason, Message: message}
}

// found are the bindings of the cards as they are.
func found(cards []card) []infrav1.BoundDPU {
	bound := make([]infrav1.BoundDPU, 0, len(cards))
	for i := range cards {
		bound = append(bound, describe(&cards[i]))
	}
	return bound
}

// bind compares the cards found with those pinned, and pins them at the first sight. References that DPF makes anew when it
// reinstalls a DPU follow; the card itself, its serial number, its server and its PF0 do not: changes says what differs.
func bind(pinned []infrav1.BoundDPU, cards []card) (bound []infrav1.BoundDPU, changes []string) {
	seen := found(cards)
	if len(pinned) == 0 {
		return seen, nil
	}
	bound = slices.Clone(pinned)
	for i := range bound {
		n := slices.IndexFunc(seen, func(b infrav1.BoundDPU) bool { return b.DPUDevice == bound[i].DPUDevice })
		if n < 0 {
			changes = append(changes, "DPUDevice "+bound[i].DPUDevice+" is gone")
			continue
		}
		if change := differs(bound[i], seen[n]); change != "" {
			changes = append(changes, change)
			continue
		}
		bound[i].DPU, bound[i].DPUCluster, bound[i].VPCMark = seen[n].DPU, seen[n].DPUCluster, seen[n].VPCMark
		if len(seen[n].Ports) > 0 && !slices.ContainsFunc(bound[i].Ports, func(p infrav1.DPUServerPort) bool { return p.MAC != "" }) {
			bound[i].Ports = seen[n].Ports
		}
	}
	for i := range seen {
		if !slices.ContainsFunc(pinned, func(b infrav1.BoundDPU) bool { return b.DPUDevice == seen[i].DPUDevice }) {
			changes = append(changes, "DPUDevice "+seen[i].DPUDevice+" is new")
		}
	}
	return bound, changes
}

// differs says what of a card is not as it was pinned; empty if nothing.
func differs(pinned, seen infrav1.BoundDPU) string {
	switch {
	case seen.SerialNumber != pinned.SerialNumber:
		return fmt.Sprintf("DPUDevice %s has serial number %s instead of %s", seen.DPUDevice, seen.SerialNumber, pinned.SerialNumber)
	case seen.DPUNode != pinned.DPUNode:
		return fmt.Sprintf("DPUDevice %s is listed by DPUNode %s instead of %s", seen.DPUDevice, seen.DPUNode, pinned.DPUNode)
	case otherMAC(pinned.Ports, seen.Ports):
		return fmt.Sprintf("DPUDevice %s has another PF0 MAC address", seen.DPUDevice)
	}
	return ""
}

// rebound remembers an override, with the cards that were pinned when it was first seen.
func rebound(object *infrav1.DPUServer, now time.Time) *infrav1.Rebound {
	override := object.Spec.Override
	if known := object.Status.Rebound; known != nil && known.By == override.By && known.Reason == override.Reason && overridden(object) {
		return known
	}
	next := &infrav1.Rebound{By: override.By, Reason: override.Reason, Since: metav1.NewTime(now.Truncate(time.Second))}
	for _, dpu := range object.Status.DPUs {
		next.Before = append(next.Before, dpu.DPUDevice)
	}
	return next
}

// overridden reports whether the pass before followed an override already.
func overridden(object *infrav1.DPUServer) bool {
	return conditions.GetReason(object, infrav1.ReadyCondition) == infrav1.OverriddenReason
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
