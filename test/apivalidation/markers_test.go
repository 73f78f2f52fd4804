// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package apivalidation

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// kinds are the CRDs, and the samples that together set every field of their specs.
var kinds = []struct {
	plural  string
	samples []string
	// absent are fields that exist in order to be refused with a sentence.
	absent []string
}{
	{plural: "maasclusters", samples: []string{"maascluster"}},
	{plural: "maasclustertemplates", samples: []string{"maasclustertemplate"}},
	{plural: "maasmachines", samples: []string{"maasmachine"}},
	{plural: "maasmachinetemplates", samples: []string{"maasmachinetemplate"}, absent: []string{
		"spec.template.spec.claim", "spec.template.spec.providerID", "spec.template.spec.override",
	}},
	{plural: "maasclusteridentities", samples: []string{"maasclusteridentity"}},
	{plural: "maasremediations", samples: []string{"maasremediation"}},
	{plural: "maasremediationtemplates", samples: []string{"maasremediationtemplate"}},
	{plural: "tenantvpcs", samples: []string{"tenantvpc", "tenantvpc-adopted"}},
	{plural: "dpuattachments", samples: []string{"dpuattachment"}},
	{plural: "dpuservers", samples: []string{"dpuserver"}},
	{plural: "dpufabrics", samples: []string{"dpufabric"}},
}

// entangled are values that are legal but refused beside the sample's others; the rules' own tables judge them.
var entangled = []string{
	"maasclusteridentities spec.release.eraseDefault None",
	"maasclusteridentities spec.release.eraseMinimum Full",
	"dpuattachments spec.state Detached",
}

func readCRD(t *testing.T, plural string) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(repo, "config", "crd", "bases", "infrastructure.cluster.x-k8s.io_"+plural+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.Unmarshal(content, crd); err != nil {
		t.Fatal(err)
	}
	return crd
}

// probe is one value that a marker refuses or admits.
type probe struct {
	sample string
	path   string
	change edit
	what   string
	// refused is a part of the API server's sentence, empty where the value is admitted.
	refused string
}

// TestMarkers derives from each CRD what its markers refuse and admit, and asks the API server about the sample with that one
// value changed. A field without a value in the samples fails, so that no marker is passed over.
func TestMarkers(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.plural, func(t *testing.T) {
			crd := readCRD(t, kind.plural)
			samples := map[string]*unstructured.Unstructured{}
			for _, name := range kind.samples {
				samples[name] = base(t, name)
				if err := admin.Create(t.Context(), samples[name].DeepCopy(), client.DryRunAll); err != nil {
					t.Fatalf("the sample itself is refused: %v", err)
				}
			}
			w := &walker{t: t, plural: kind.plural, samples: samples, order: kind.samples, absent: kind.absent}
			w.walk("spec", ptrTo(crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]))
			for _, p := range w.probes {
				t.Run(p.path+" "+p.what, func(t *testing.T) { p.ask(t) })
			}
			if len(w.probes) < 2 {
				t.Errorf("only %d probes: the schema was not walked", len(w.probes))
			}
		})
	}
}

func (p probe) ask(t *testing.T) {
	g := NewWithT(t)
	err := admin.Create(t.Context(), base(t, p.sample, p.change), client.DryRunAll)
	if p.refused == "" {
		g.Expect(err).NotTo(HaveOccurred())
		return
	}
	g.Expect(apierrors.IsInvalid(err)).To(BeTrue(), "%v", err)
	g.Expect(err).To(MatchError(And(ContainSubstring(strings.TrimSuffix(p.path, "[0]")), ContainSubstring(p.refused))))
}

type walker struct {
	t       *testing.T
	plural  string
	samples map[string]*unstructured.Unstructured
	order   []string
	absent  []string
	probes  []probe
}

func (w *walker) walk(path string, schema *apiextensionsv1.JSONSchemaProps) {
	if slices.Contains(w.absent, path) {
		return
	}
	sample, value := w.sampleOf(path)
	if value == nil {
		if constrained(schema) {
			w.t.Errorf("no sample sets %s", path)
		}
		return
	}
	w.scalar(sample, path, schema)
	w.list(sample, path, value, schema)
	for _, required := range schema.Required {
		field := path + "." + required
		w.add(sample, field, unset(field), "absent", "Required value")
	}
	for name := range schema.Properties {
		w.walk(path+"."+name, ptrTo(schema.Properties[name]))
	}
	if schema.Items != nil {
		w.walk(path+"[0]", schema.Items.Schema)
	}
}

// constrained says whether anything below is worth a sample.
func constrained(schema *apiextensionsv1.JSONSchemaProps) bool {
	if len(schema.Required) > 0 || len(schema.Enum) > 0 || schema.Pattern != "" || schema.MaxLength != nil || schema.MinLength != nil ||
		schema.Minimum != nil || schema.Maximum != nil || schema.MaxItems != nil || schema.MinItems != nil {
		return true
	}
	for name := range schema.Properties {
		if constrained(ptrTo(schema.Properties[name])) {
			return true
		}
	}
	return schema.Items != nil && constrained(schema.Items.Schema)
}

func (w *walker) sampleOf(path string) (string, any) {
	for _, name := range w.order {
		if value := lookup(w.samples[name].Object, path); value != nil {
			return name, value
		}
	}
	return "", nil
}

func (w *walker) add(sample, path string, change edit, what, refused string) {
	if refused == "" && slices.Contains(entangled, fmt.Sprintf("%s %s %s", w.plural, path, what)) {
		return
	}
	w.probes = append(w.probes, probe{sample: sample, path: path, change: change, what: what, refused: refused})
}

func (w *walker) scalar(sample, path string, schema *apiextensionsv1.JSONSchemaProps) {
	try := func(what string, value any, refused string) { w.add(sample, path, set(path, value), what, refused) }
	if len(schema.Enum) > 0 {
		try("nonsense", "Nonsense", "Unsupported value")
		for _, legal := range schema.Enum {
			value := strings.Trim(string(legal.Raw), `"`)
			try(value, value, "")
		}
	}
	if schema.Pattern != "" {
		try("out of pattern", "/ ! / ! /", "should match")
	}
	if schema.MaxLength != nil {
		try("too long", strings.Repeat("a", int(*schema.MaxLength)+1), "Too long")
	}
	if schema.MinLength != nil {
		try("too short", strings.Repeat("a", int(*schema.MinLength)-1), "should be at least")
	}
	if schema.Minimum != nil {
		try("too small", int64(*schema.Minimum)-1, "should be greater than or equal to")
		try("smallest", int64(*schema.Minimum), "")
	}
	if schema.Maximum != nil {
		try("too large", int64(*schema.Maximum)+1, "should be less than or equal to")
		try("largest", int64(*schema.Maximum), "")
	}
}

func (w *walker) list(sample, path string, value any, schema *apiextensionsv1.JSONSchemaProps) {
	items, ok := value.([]any)
	if !ok || len(items) == 0 {
		return
	}
	repeated := func(count int) []any {
		list := make([]any, count)
		for i := range list {
			list[i] = runtime.DeepCopyJSONValue(items[0])
		}
		return list
	}
	if schema.XListType != nil && *schema.XListType != "atomic" {
		w.add(sample, path, set(path, repeated(2)), "twice the same", "Duplicate value")
	}
	if schema.MaxItems != nil {
		w.add(sample, path, set(path, repeated(int(*schema.MaxItems)+1)), "too many", "must have at most")
	}
	if schema.MinItems != nil {
		w.add(sample, path, set(path, []any{}), "too few", "should have at least")
	}
}

func ptrTo[T any](value T) *T { return &value }
