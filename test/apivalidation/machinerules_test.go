// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package apivalidation

import "slices"

var machineRules = slices.Concat(
	constraintRules("maasmachine", "spec."),
	constraintRules("maasmachinetemplate", "spec.template.spec."),
	immutableConstraints(),
	[]ruleCase{
		{name: "claim changed", sample: "maasmachine", before: unchanged, edits: []edit{set("spec.claim.identityName", "other")}, refused: "claim is immutable"},
		{name: "claim removed", sample: "maasmachine", before: unchanged, edits: []edit{unset("spec.claim")}, refused: "claim cannot be removed"},
		{name: "provider ID changed", sample: "maasmachine", before: unchanged, edits: []edit{set("spec.providerID", "maas:///def456")}, refused: "providerID is immutable once set"},
		{name: "provider ID removed", sample: "maasmachine", before: unchanged, edits: []edit{unset("spec.providerID")}, refused: "providerID is immutable once set"},
		{name: "provider ID set later", sample: "maasmachine", before: []edit{unset("spec.providerID")}, edits: []edit{set("spec.providerID", "maas:///abc123")}},
		{name: "provider ID with a zone", sample: "maasmachine", edits: []edit{set("spec.providerID", "maas:///zone-1/abc123")}},
		{name: "provider ID of another provider", sample: "maasmachine", edits: []edit{set("spec.providerID", "aws:///zone-1/abc123")}, refused: "should match"},
		{name: "another kind's override", sample: "maasmachine", edits: []edit{set("spec.override.action", "ForceDetach")}, refused: "action is one of Abandon, AdoptServer"},
		{name: "the other override, which nobody carries out", sample: "maasmachine", edits: []edit{set("spec.override.action", "AdoptServer")}, refused: "AdoptServer is not supported yet"},
		{name: "release changed", sample: "maasmachine", before: unchanged, edits: []edit{set("spec.release.erase", "Full")}},

		{name: "claim", sample: "maasmachinetemplate", edits: []edit{set("spec.template.spec.claim", map[string]any{"token": "x"})}, refused: "a claim belongs to one machine"},
		{name: "provider ID", sample: "maasmachinetemplate", edits: []edit{set("spec.template.spec.providerID", "maas:///abc123")}, refused: "a providerID belongs to one machine"},
		{
			name: "override", sample: "maasmachinetemplate", refused: "an override belongs to one machine",
			edits: []edit{set("spec.template.spec.override", map[string]any{"action": "Abandon", "by": adminUser, "reason": "x"})},
		},
	},
)

// constraintRules are those that machines and their templates share.
func constraintRules(sample, spec string) []ruleCase {
	two := set(spec+"ports", []any{map[string]any{"name": "tenant", "subnet": "a"}, map[string]any{"name": "storage", "subnet": "b"}})
	return []ruleCase{
		{name: "two ports and none primary", sample: sample, edits: []edit{two, unset(spec + "primaryPort")}, refused: "primaryPort must be set when there are several ports"},
		{name: "two ports, one primary", sample: sample, edits: []edit{two}},
		{name: "one port, primary unsaid", sample: sample, edits: []edit{unset(spec + "primaryPort")}},
		{name: "primary port is none of them", sample: sample, edits: []edit{set(spec+"primaryPort", "other")}, refused: "primaryPort must name one of ports"},
		{name: "primary port and no ports", sample: sample, edits: []edit{unset(spec + "ports")}, refused: "primaryPort must name one of ports"},
		{name: "no ports", sample: sample, edits: []edit{unset(spec + "ports"), unset(spec + "primaryPort")}},
		{name: "tag wanted and unwanted", sample: sample, edits: []edit{set(spec+"notTags", []any{"dpu"})}, refused: "a tag cannot be in both tags and notTags"},
		{name: "image without a series", sample: sample, edits: []edit{set(spec+"image", "ubuntu")}, refused: "should match"},
		{name: "image of one's own", sample: sample, edits: []edit{set(spec+"image", "custom/my-image_2.0")}},
	}
}

// immutableConstraints: a machine's constraints cannot be changed, one by one.
func immutableConstraints() []ruleCase {
	var cases []ruleCase
	for sentence, changes := range map[string]map[string]any{
		"image, kernel and deployInMemory are immutable": {"image": "ubuntu/jammy", "kernel": "hwe-24.04", "deployInMemory": true},
		"ports and primaryPort are immutable":            {"ports": []any{map[string]any{"name": "tenant", "subnet": "other"}}},
		"the constraints on the server are immutable": {
			"minCPU": int64(8), "minMemory": int64(1), "minDiskSize": int64(1), "architecture": "arm64", "resourcePool": "other",
			"tags": []any{"other"}, "notTags": []any{"other"},
		},
	} {
		for field, value := range changes {
			cases = append(cases, ruleCase{
				name: field + " changed", sample: "maasmachine", before: unchanged, edits: []edit{set("spec."+field, value)}, refused: sentence,
			})
		}
	}
	return cases
}
