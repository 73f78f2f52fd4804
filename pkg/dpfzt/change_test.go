// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfzt

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

func TestLabelPatch(t *testing.T) {
	holder := vpc.Holder{Installation: "i", Namespace: "red", Attachment: "a", TokenHash: "h"}
	record, err := holder.Encode()
	if err != nil {
		t.Fatal(err)
	}
	labels := func(pairs ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	const path = "/spec/cluster/nodeLabels"
	escape := func(key string) string { return strings.ReplaceAll(key, "/", "~1") }
	vpcPath, portPath := path+"/"+escape(vpc.VPCKey), path+"/"+escape(vpc.PortKey(0))
	holderPath := "/metadata/annotations/" + escape(vpc.HolderAnnotation)
	version := []any{"test", "/metadata/resourceVersion", "7"}
	replaceRecord := [][]any{{"test", holderPath, "old"}, {"replace", holderPath, record}}
	old := labels(vpc.HolderAnnotation, "old")
	for _, tc := range []struct {
		name        string
		target      labelTarget
		annotations map[string]string
		change      vpc.Change
		want        [][]any
	}{
		{
			"the first label of a DPU", labelTarget{parent: "/spec/cluster"}, nil,
			vpc.Change{Set: labels(vpc.VPCKey, "v")},
			[][]any{version, {"add", path, map[string]any{vpc.VPCKey: "v"}}, {"add", "/metadata/annotations", map[string]any{vpc.HolderAnnotation: record}}},
		},
		{
			"the first label of a DPUDevice", labelTarget{parent: "/spec/cluster", parentMissing: true}, labels("x", "y"),
			vpc.Change{Set: labels(vpc.VPCKey, "v")},
			[][]any{version, {"add", "/spec/cluster", map[string]any{"nodeLabels": map[string]any{vpc.VPCKey: "v"}}}, {"add", holderPath, record}},
		},
		{
			"beside others' labels", labelTarget{parent: "/spec/cluster", labels: labels("site/role", "x")}, old,
			vpc.Change{Set: labels(vpc.VPCKey, "v")},
			append([][]any{version, {"add", vpcPath, "v"}}, replaceRecord...),
		},
		{
			"a label that is there already", labelTarget{parent: "/spec/cluster", labels: labels(vpc.VPCKey, "v")}, old,
			vpc.Change{Set: labels(vpc.VPCKey, "v", vpc.PortKey(0), "n")},
			append([][]any{version, {"test", vpcPath, "v"}, {"add", portPath, "n"}}, replaceRecord...),
		},
		{
			"removal", labelTarget{parent: "/spec/cluster", labels: labels(vpc.VPCKey, "v", vpc.PortKey(0), "n")}, old,
			vpc.Change{Remove: labels(vpc.PortKey(0), "n")},
			append([][]any{version, {"test", portPath, "n"}, {"remove", portPath, nil}}, replaceRecord...),
		},
		{
			"removal of what is gone", labelTarget{parent: "/spec/cluster"}, old,
			vpc.Change{Remove: labels(vpc.PortKey(0), "n")},
			append([][]any{version}, replaceRecord...),
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.change.Holder = holder
			data, err := labelPatch("7", tc.target, tc.annotations, tc.change)
			if err != nil {
				t.Fatal(err)
			}
			var operations []map[string]any
			if err := json.Unmarshal(data, &operations); err != nil {
				t.Fatal(err)
			}
			var got [][]any
			for _, o := range operations {
				got = append(got, []any{o["op"], o["path"], o["value"]})
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got  %v\nwant %v", got, tc.want)
			}
		})
	}
	for name, change := range map[string]vpc.Change{
		"overwrites another's label": {Set: labels(vpc.VPCKey, "other")},
		"removes another's label":    {Remove: labels(vpc.VPCKey, "other")},
	} {
		if _, err := labelPatch("7", labelTarget{parent: "/spec/cluster", labels: labels(vpc.VPCKey, "v")}, old, change); !errors.Is(err, errForeignValue) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
