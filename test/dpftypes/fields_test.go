// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpftypes

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
)

// TestFieldsAreUpstreams holds every field of the CRDs the simulator installs by itself against upstream's: it must be there,
// and of the same type. Only those of a later release may lack.
func TestFieldsAreUpstreams(t *testing.T) {
	dir := os.Getenv("DPF_CRD_DIR")
	if dir == "" {
		t.Skip("DPF_CRD_DIR names no directory with upstream's CRDs")
	}
	for _, plural := range slices.Sorted(maps.Keys(objects())) {
		t.Run(plural, func(t *testing.T) {
			ours, upstream := readCRD(t, filepath.Join("..", "dpfsim", "crds"), plural), readCRD(t, dir, plural)
			have, want := fieldsOf(ours), fieldsOf(upstream)
			for path, kind := range have {
				theirs, there := want[path]
				switch {
				case !there && !later(ours.Spec.Names.Kind, path):
					t.Errorf("%s is not in upstream's CRD", path)
				case there && theirs != kind:
					t.Errorf("%s is a %s here and a %s upstream", path, kind, theirs)
				}
			}
			if len(have) < 4 {
				t.Errorf("found only %d fields: %v", len(have), have)
			}
			if ours.Spec.Scope != upstream.Spec.Scope || ours.Spec.Names.Plural != upstream.Spec.Names.Plural {
				t.Errorf("%s %s here, %s %s upstream", ours.Spec.Scope, ours.Spec.Names.Plural, upstream.Spec.Scope, upstream.Spec.Names.Plural)
			}
		})
	}
}

func later(kind, path string) bool {
	return slices.ContainsFunc(laterFields[kind], func(field string) bool { return path == field || strings.HasPrefix(path, field+".") })
}

// fieldsOf are the types of a CRD's fields by path.
func fieldsOf(crd *apiextensions.CustomResourceDefinition) map[string]string {
	out := map[string]string{}
	schema := crd.Spec.Validation
	if schema == nil {
		schema = crd.Spec.Versions[0].Schema
	}
	for _, part := range []string{"spec", "status"} {
		if p, ok := schema.OpenAPIV3Schema.Properties[part]; ok {
			walk(part, &p, out)
		}
	}
	return out
}

func walk(path string, schema *apiextensions.JSONSchemaProps, out map[string]string) {
	kind := schema.Type
	if schema.XIntOrString {
		kind = "int-or-string"
	}
	out[path] = kind
	for name, p := range schema.Properties {
		walk(path+"."+name, &p, out)
	}
	if schema.Items != nil && schema.Items.Schema != nil {
		walk(path+"[]", schema.Items.Schema, out)
	}
	if schema.AdditionalProperties != nil && schema.AdditionalProperties.Schema != nil {
		walk(fmt.Sprintf("%s{}", path), schema.AdditionalProperties.Schema, out)
	}
}
