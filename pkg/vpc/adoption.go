// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"fmt"
	"maps"
	"slices"
	"strings"

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
			"the fabric has no DPUVPC of that name that is granted to this TenantVPC: the operator grants one by its annotation %s=%s",
			GrantAnnotation, owner)
	}
	selector := vpc.Spec.NodeSelector
	if selector == nil || len(selector.MatchExpressions) > 0 || len(selector.MatchLabels) == 0 {
		return AdoptionUnsuitable, "the DPUVPC does not choose its Nodes by matchLabels alone: adopt one that does, because the selector can never be changed"
	}
	for _, key := range slices.Sorted(maps.Keys(selector.MatchLabels)) {
		if !slices.ContainsFunc(keyPrefixes, func(prefix string) bool { return strings.HasPrefix(key, prefix) }) {
			return AdoptionUnsuitable, fmt.Sprintf("the DPUVPC chooses its Nodes by label %s, which no prefix in the fabric's adoptionKeyPrefixes permits", key)
		}
	}
	return AdoptionGranted, ""
}
