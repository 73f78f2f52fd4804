// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
)

// GrantAnnotation is put on a DPUVPC by the operator of DPF, never by the provider, and lets one TenantVPC adopt it; its value
// is Owner.String of that TenantVPC.
const GrantAnnotation = keyPrefix + "adoption-granted-to"

// Adoption is the answer to whether a TenantVPC may use an existing DPUVPC.
type Adoption string

// The answers.
const (
	// AdoptionNotGranted is the answer for a DPUVPC that does not exist as for one that is not granted: which of them is no
	// tenant's business.
	AdoptionNotGranted Adoption = "NotGranted"
	// AdoptionUnsuitable is granted, but its Nodes cannot be chosen by labels that the provider may set.
	AdoptionUnsuitable Adoption = "Unsuitable"
	// AdoptionGranted may be used, and is never changed or deleted.
	AdoptionGranted Adoption = "Granted"
)

// DecideAdoption says whether the owner may use a DPUVPC, which is nil when there is none, and why not. keyPrefixes are the
// label key prefixes that the fabric permits in its selector. A DPUVPC with the mark of any TenantVPC is never adopted.
func DecideAdoption(owner Owner, vpc *vpcv1alpha1.DPUVPC, keyPrefixes []string) (Adoption, string) {
	if vpc == nil || vpc.Annotations[GrantAnnotation] != owner.String() || owner.OwnershipOf(vpc.Annotations) != Nobodys {
		return AdoptionNotGranted, fmt.Sprintf(
			"the fabric has no DPUVPC of that name that is granted to this TenantVPC: the operator grants one by its annotation %s=%s; "+
				"nothing new is attached until then, and what is attached stays",
			GrantAnnotation, owner)
	}
	selector := vpc.Spec.NodeSelector
	if selector == nil || len(selector.MatchExpressions) > 0 || len(selector.MatchLabels) == 0 {
		return AdoptionUnsuitable, "the DPUVPC does not choose its Nodes by matchLabels alone: adopt one that does, because the selector can never be changed"
	}
	for _, key := range slices.Sorted(maps.Keys(selector.MatchLabels)) {
		if strings.HasPrefix(key, keyPrefix) {
			return AdoptionUnsuitable, fmt.Sprintf("the DPUVPC chooses its Nodes by label %s, whose prefix is the provider's own: adopt one that uses a prefix of the site", key)
		}
		if !slices.ContainsFunc(keyPrefixes, func(prefix string) bool { return strings.HasPrefix(key, prefix) }) {
			return AdoptionUnsuitable, fmt.Sprintf("the DPUVPC chooses its Nodes by label %s, which no prefix in the fabric's adoptionKeyPrefixes permits", key)
		}
	}
	return AdoptionGranted, ""
}

// VPCLabels are the labels that take a DPU into the VPC of a TenantVPC: the provider's own, by which its interfaces find the DPU,
// and for an adopted VPC those of its selector. A record of what a claim joined with counts before what the VPC says now: the VPC
// may be another one meanwhile, or not granted any more.
func VPCLabels(place Place, tenant *infrav1.TenantVPC, adopted *vpcv1alpha1.DPUVPC, record Holder) map[string]string {
	labels := map[string]string{}
	switch joined := record.JoinedLabels(); {
	case len(joined) > 0:
		maps.Copy(labels, joined)
	case tenant.Spec.Adopt != nil && adopted != nil:
		if answer, _ := DecideAdoption(place.OwnerOf(tenant), adopted, place.AdoptionKeyPrefixes); answer == AdoptionGranted {
			maps.Copy(labels, adopted.Spec.NodeSelector.MatchLabels)
		}
	}
	labels[VPCKey] = place.VPCName(tenant)
	return labels
}

// joining is the record of a claim that joins a VPC with those labels.
func (h Holder) joining(vpcLabels map[string]string) Holder {
	next := h.Claim()
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(vpcLabels)) {
		if !IsOurKey(key) {
			pairs = append(pairs, key+"="+vpcLabels[key])
		}
	}
	next.Joined = strings.Join(pairs, ",")
	return next
}

// JoinedLabels are the labels besides ours that the record says were written.
func (h Holder) JoinedLabels() map[string]string {
	labels := map[string]string{}
	for pair := range strings.SplitSeq(h.Joined, ",") {
		if key, value, ok := strings.Cut(pair, "="); ok && !IsOurKey(key) {
			labels[key] = value
		}
	}
	return labels
}

// checkJoinable says whether the labels of an adopted VPC may be written: one that is there already was put there by somebody else,
// who would lose it when the ports are detached.
func checkJoinable(want Want, e Evidence) Finding {
	taken := func(labels map[string]string) string {
		for _, key := range slices.Sorted(maps.Keys(want.VPCLabels)) {
			if _, there := labels[key]; there && !IsOurKey(key) {
				return key
			}
		}
		return ""
	}
	for _, carrier := range e.Carriers {
		if key := taken(carrier.Labels); key != "" {
			return Finding{No, reasonForeignVPC, fmt.Sprintf("%s has the label %s already, which takes it into the adopted VPC, from somebody else", e.name(), key)}
		}
	}
	if e.Node != nil {
		if key := taken(e.Node.Labels); key != "" {
			return Finding{No, reasonForeignVPC, fmt.Sprintf("Node %s has the label %s already, which takes it into the adopted VPC, from somebody else", e.Node.Name, key)}
		}
	}
	return Finding{Answer: Yes}
}
